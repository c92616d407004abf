package group

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

func multicallGroup(change ...func(*Options)) setting {
	return setting{group: func(o *Options) {
		o.Strategy = "multicall"
		for _, f := range change {
			f(o)
		}
	}}
}

func errorCheck(on bool) func(*Options) { return func(o *Options) { o.RPCErrorCheck = on } }

// sendEnd is what a node answers to a send: a JSON-RPC body, or a status, or
// nothing at all.
type sendEnd struct {
	status int
	body   string
}

var (
	accepted      = sendEnd{200, `{"jsonrpc":"2.0","id":$id,"result":"` + legacyHash + `"}`}
	alreadyKnown  = sendError(-32000, "already known")
	nonceTooLow   = sendError(-32000, "nonce too low: next nonce 10, tx nonce 9")
	noFunds       = sendError(-32000, "insufficient funds for gas * price + value")
	limitedRPC    = sendError(-32005, "rate limit")
	internalError = sendError(-32603, "internal error")
	nobodyKnows   = sendError(-32000, "who knows")
	noHeader      = sendError(-32000, "header not found")
	noMethod      = sendError(-32601, "method not found")
	status429     = sendEnd{429, "slow down"}
	status503     = sendEnd{503, "no"}
	noJSON        = sendEnd{200, "<html>"}
	hangs         = sendEnd{}
)

func sendError(code int, text string) sendEnd {
	return sendEnd{200, fmt.Sprintf(`{"jsonrpc":"2.0","id":$id,"error":{"code":%d,"message":"%s"}}`, code, text)}
}

// rpcError is the error object of a sendEnd.
func (e sendEnd) rpcError() string {
	_, rest, _ := strings.Cut(e.body, `"error":`)
	return strings.TrimSuffix(rest, "}")
}

// ends lets a node answer sends after a time. Look-ups are answered with found.
// It returns how many sends it has answered.
func (n *node) ends(e sendEnd, delay time.Duration, found string) *atomic.Int64 {
	answered := new(atomic.Int64)
	n.does(func(rw http.ResponseWriter, r *http.Request) {
		in, _ := io.ReadAll(r.Body)
		if strings.Contains(string(in), "eth_getTransactionByHash") {
			io.WriteString(rw, replaceID(`{"jsonrpc":"2.0","id":$id,"result":`+found+`}`, in))
			return
		}
		if e == hangs {
			time.Sleep(time.Hour)
			return
		}
		time.Sleep(delay)
		rw.WriteHeader(e.status)
		io.WriteString(rw, replaceID(e.body, in))
		answered.Add(1)
	})
	return answered
}

// multicalling runs a test on the clock of a bubble, which it lets go on until
// the last handler has ended.
func multicalling(t *testing.T, n int, s setting, test func(t *testing.T, w *world)) {
	t.Helper()
	inBubble(t, n, s, func(t *testing.T, w *world) {
		defer time.Sleep(2 * time.Hour)
		test(t, w)
		w.Close(context.Background())
	})
}

// asksOf counts the requests of each node with the method, as "111", in a bubble.
func (w *world) asksOf(method string) string {
	synctest.Wait() // the answer may be there before the last request is
	counts := make([]int, len(w.nodes))
	for _, a := range w.asks() {
		counts[a.node] += strings.Count(a.body, `"method":"`+method+`"`)
	}
	out := ""
	for _, c := range counts {
		out += fmt.Sprint(c)
	}
	return out
}

func wantHash(t *testing.T, c *jsonrpc.Call, by string) {
	t.Helper()
	if c.Err != nil || string(c.Answer.Result) != `"`+legacyHash+`"` || c.Answer.Group != "g" || by != "" && c.Answer.Backend != by {
		t.Fatalf("%+v, %v, want the hash from %s", c.Answer, c.Err, by)
	}
}

func TestMulticallSendsToAllThatMayBeSentTo(t *testing.T) {
	s := multicallGroup(errorCheck(true))
	s.backend = func(i int, o *backend.Options) {
		if i == 5 {
			o.ChainID = 77
		}
	}
	multicalling(t, 7, s, func(t *testing.T, w *world) {
		ask := func(i int, c *jsonrpc.Call) {
			done := make(chan *backend.Attempt, 1)
			w.backends[i].Begin(callsOf(c), backend.Try{Timeout: time.Second}, done)
			(<-done).Settle(true)
		}
		strain(t, w, 1)
		w.nodes[2].is(devchain.FaultStatus)
		for range 3 {
			ask(2, read())
		}
		w.backends[3].Unfit("test", "no peers")
		w.nodes[4].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "100"})
		ask(4, read())
		ask(5, call("eth_chainId", ""))
		for i, want := range []backend.State{backend.Well, backend.Strained, backend.Out, backend.Unfit, backend.Held, backend.Foreign, backend.Well} {
			w.state(i, want)
		}
		w.all(func(n *node) { n.ends(noFunds, 0, "null") })
		w.order()
		wantRPCError(t, w.send(), noFunds.rpcError())
		if got := w.asksOf("eth_sendRawTransaction"); got != "1111001" {
			t.Errorf("sent %s times", got)
		}
		for i := range 7 {
			want := map[bool]float64{true: 0, false: 1}[i == 4 || i == 5]
			if got := w.metric("backend_group_multicall_request_counter", "backend_group", "g", "backend_name", fmt.Sprint("b", i)); got != want {
				t.Errorf("requests of b%d: %v", i, got)
			}
		}
	})
}

func TestMulticallWhenEveryMemberIsHeld(t *testing.T) {
	multicalling(t, 3, multicallGroup(), func(t *testing.T, w *world) {
		w.all(func(n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "100"}) })
		var nobody *Unserviceable
		if c := w.send(); !errors.As(c.Err, &nobody) || nobody.RetryAfter != 100*time.Second {
			t.Fatal(c.Err)
		}
		for i := range w.backends {
			w.state(i, backend.Held)
		}
		w.all(func(n *node) { n.ends(accepted, 0, "null") })
		w.order()
		wantHash(t, w.send(), "")
		if got := w.asksOf("eth_sendRawTransaction"); got != "111" {
			t.Errorf("sent %s times", got)
		}
	})
}

func TestMulticallWithoutAnyMember(t *testing.T) {
	s := multicallGroup()
	s.backend = func(_ int, o *backend.Options) { o.ChainID = 77 }
	multicalling(t, 2, s, func(t *testing.T, w *world) {
		for i := range w.backends {
			done := make(chan *backend.Attempt, 1)
			w.backends[i].Begin(callsOf(call("eth_chainId", "")), backend.Try{Timeout: time.Second}, done)
			(<-done).Settle(false)
			w.state(i, backend.Foreign)
		}
		w.order()
		var nobody *Unserviceable
		if c := w.send(); !errors.As(c.Err, &nobody) {
			t.Fatal(c.Err)
		}
		wantOrder(t, w, "")
		if n := w.metric("group_failures_total"); n != 1 {
			t.Errorf("%v failures", n)
		}
	})
}

func TestMulticallKeepsStrictLimits(t *testing.T) {
	s := multicallGroup()
	s.backend = func(i int, o *backend.Options) { o.MaxRPS, o.MaxRPSStrict = 1, i < 2 }
	multicalling(t, 3, s, func(t *testing.T, w *world) {
		w.all(func(n *node) { n.ends(accepted, 0, "null") })
		wantHash(t, w.send(), "")
		wantHash(t, w.send(), "b2")
		if got := w.asksOf("eth_sendRawTransaction"); got != "112" {
			t.Errorf("sent %s times", got)
		}
		if w.backends[2].TakeTokens(1) {
			t.Error("sends do not count in max_rps")
		}
	})
	s.backend = func(_ int, o *backend.Options) { o.MaxRPS, o.MaxRPSStrict = 1, true }
	multicalling(t, 2, s, func(t *testing.T, w *world) {
		w.all(func(n *node) { n.ends(accepted, 0, "null") })
		wantHash(t, w.send(), "")
		if c := w.send(); !errors.Is(c.Err, ErrOverCapacity) {
			t.Errorf("%+v, %v", c.Answer, c.Err)
		}
	})
}

func TestMulticallFirstSuccessAnswersAndTheOthersRunOn(t *testing.T) {
	for _, check := range []bool{false, true} {
		multicalling(t, 4, multicallGroup(errorCheck(check)), func(t *testing.T, w *world) {
			ended := []*atomic.Int64{
				w.nodes[0].ends(accepted, 3*time.Second, "null"),
				w.nodes[1].ends(status503, 50*time.Millisecond, "null"),
				w.nodes[2].ends(accepted, 100*time.Millisecond, "null"),
				w.nodes[3].ends(nonceTooLow, 4*time.Second, "null"),
			}
			begun := time.Now()
			c := w.send() // whose context ends with it
			wantHash(t, c, "b2")
			if took := time.Since(begun); took != 100*time.Millisecond {
				t.Errorf("answered after %s", took)
			}
			if ended[0].Load()+ended[3].Load() != 0 {
				t.Error("slow members have ended")
			}
			if got := w.asksOf("eth_sendRawTransaction"); got != "1111" {
				t.Errorf("sent %s times", got)
			}
			// Close waits for those that are still under way.
			time.Sleep(time.Second)
			w.Close(context.Background())
			if took := time.Since(begun); took != 4*time.Second || ended[0].Load() != 1 || ended[3].Load() != 1 {
				t.Errorf("closed after %s", took)
			}
			for i, end := range []string{"nil", "status", "nil", "known_transaction"} {
				name := fmt.Sprint("b", i)
				if got := w.metric("backend_group_multicall_completion_counter", "backend_name", name, "error", end); got != 1 {
					t.Errorf("%s ended %v times as %s", name, got, end)
				}
				if got := w.metric("backend_group_multicall_request_counter", "backend_name", name); got != 1 {
					t.Errorf("%s was asked %v times", name, got)
				}
			}
			if all, good, bad := w.metric("group_calls_total"), w.metric("group_successes_total"), w.metric("group_failures_total"); all != 1 || good != 1 || bad != 0 {
				t.Errorf("calls %v, successes %v, failures %v", all, good, bad)
			}
		})
	}
}

func TestMulticallEndsEachAttemptAtItsOwnTimeout(t *testing.T) {
	s := multicallGroup()
	s.backend = func(i int, o *backend.Options) { o.ResponseTimeout = time.Duration(i+1) * time.Second }
	multicalling(t, 3, s, func(t *testing.T, w *world) {
		w.nodes[0].ends(accepted, 0, "null")
		w.nodes[1].ends(hangs, 0, "null")
		w.nodes[2].ends(accepted, 2900*time.Millisecond, "null")
		wantHash(t, w.send(), "b0")
		w.Close(context.Background())
		if took := time.Since(w.begun); took != 2900*time.Millisecond {
			t.Errorf("closed after %s", took)
		}
		if n := w.metric("backend_group_multicall_completion_counter", "backend_name", "b1", "error", "timeout"); n != 1 {
			t.Errorf("%v timeouts", n)
		}
	})
}

func TestMulticallAlreadyKnownIsSuccess(t *testing.T) {
	for name, tx := range hashes {
		if tx.hash == "" {
			continue
		}
		for _, method := range []string{"eth_sendRawTransaction", "eth_sendRawTransactionConditional"} {
			for _, text := range []string{"already known", "ALREADY_EXISTS: already known", "Known transaction", "AlreadyKnown", "transaction already imported"} {
				if name != "legacy" && text != "already known" {
					continue
				}
				multicalling(t, 3, multicallGroup(errorCheck(true)), func(t *testing.T, w *world) {
					w.nodes[0].ends(accepted, time.Second, "null")
					w.nodes[1].ends(status503, 0, "null")
					w.nodes[2].ends(sendError(-32000, text), 100*time.Millisecond, "null")
					c := call(method, `["`+tx.raw+`",{}]`)
					w.do(10*time.Second, c)
					if c.Err != nil || string(c.Answer.Result) != `"`+tx.hash+`"` || c.Answer.Backend != "b2" || time.Since(w.begun) != 100*time.Millisecond {
						t.Errorf("%s, %s, %q: after %s: %+v, %v", name, method, text, time.Since(w.begun), c.Answer, c.Err)
					}
				})
			}
		}
	}
}

func TestMulticallHashBeatsAlreadyKnownOfAnUnknownType(t *testing.T) {
	for name, tx := range hashes {
		if tx.hash != "" {
			continue
		}
		for order := range 2 {
			multicalling(t, 3, multicallGroup(errorCheck(order == 0)), func(t *testing.T, w *world) {
				w.nodes[0].ends(alreadyKnown, 100*time.Millisecond, "null")
				w.nodes[1].ends(accepted, time.Second, "null")
				w.nodes[2].ends(noMethod, 200*time.Millisecond*time.Duration(order), "null")
				c := call("eth_sendRawTransaction", `["`+tx.raw+`"]`)
				w.do(10*time.Second, c)
				if c.Err != nil || string(c.Answer.Result) != `"`+legacyHash+`"` || c.Answer.Backend != "b1" {
					t.Errorf("%s: %+v, %v", name, c.Answer, c.Err)
				}
			})
		}
	}
	for _, others := range [][]sendEnd{{noFunds, nonceTooLow}, {nobodyKnows, limitedRPC}, {status503, hangs}, {status429, noJSON}} {
		multicalling(t, 3, multicallGroup(errorCheck(true)), func(t *testing.T, w *world) {
			w.nodes[0].ends(others[0], 0, "null")
			w.nodes[1].ends(alreadyKnown, 100*time.Millisecond, "null")
			w.nodes[2].ends(others[1], 200*time.Millisecond, "null")
			c := call("eth_sendRawTransaction", `["0x7e01"]`)
			w.do(10*time.Second, c)
			wantRPCError(t, c, alreadyKnown.rpcError()) // no hash is invented
		})
	}
}

// permutations calls f with every order of 0 to n-1.
func permutations(n int, f func([]int)) {
	var add func([]int)
	add = func(order []int) {
		if len(order) == n {
			f(order)
			return
		}
		for i := range n {
			if !slices.Contains(order, i) {
				add(append(slices.Clone(order), i))
			}
		}
	}
	add(nil)
}

// The best error is answered in whatever order they arrive.
func TestMulticallAnswersTheBestErrorNotTheLast(t *testing.T) {
	unknownEnd, nobody := sendEnd{1, ""}, sendEnd{2, ""}
	for name, c := range map[string]struct {
		ends  []sendEnd
		found string
		want  sendEnd
	}{
		"nonce and limits":             {[]sendEnd{nonceTooLow, status429, limitedRPC}, "null", nonceTooLow},
		"nonce and no method":          {[]sendEnd{nonceTooLow, noMethod, status429}, "null", nonceTooLow},
		"nonce and other errors":       {[]sendEnd{nonceTooLow, nobodyKnows, internalError}, "null", nonceTooLow},
		"nonce and data":               {[]sendEnd{nonceTooLow, noHeader, limitedRPC}, "null", nonceTooLow},
		"nonce and funds":              {[]sendEnd{nonceTooLow, noFunds, noHeader}, "null", nonceTooLow},
		"nonce, and one lost, found":   {[]sendEnd{nonceTooLow, hangs, status429}, `{"hash":"0x"}`, accepted},
		"nonce, and one lost":          {[]sendEnd{nonceTooLow, hangs, status429}, "null", unknownEnd},
		"nonce, and a 503, found":      {[]sendEnd{nonceTooLow, status503, limitedRPC}, `{}`, accepted},
		"funds, and one lost":          {[]sendEnd{noFunds, status503, hangs}, "null", unknownEnd},
		"funds and limits":             {[]sendEnd{noFunds, limitedRPC, status429}, "null", noFunds},
		"funds and other errors":       {[]sendEnd{noFunds, nobodyKnows, noHeader}, "null", noFunds},
		"unknown errors and limits":    {[]sendEnd{nobodyKnows, limitedRPC, noMethod}, "null", nobodyKnows},
		"limits alone":                 {[]sendEnd{limitedRPC, status429, status429}, "null", limitedRPC},
		"limits and one lost":          {[]sendEnd{limitedRPC, hangs, status429}, "null", unknownEnd},
		"limits and garbage":           {[]sendEnd{limitedRPC, noJSON, noMethod}, "null", unknownEnd},
		"a sick node and one lost":     {[]sendEnd{internalError, hangs, status429}, "null", unknownEnd},
		"HTTP limits":                  {[]sendEnd{status429, status429, status429}, "null", nobody},
		"all lost":                     {[]sendEnd{hangs, hangs, hangs}, "null", unknownEnd},
		"all failed":                   {[]sendEnd{status503, noJSON, hangs}, "null", unknownEnd},
		"one of them accepts":          {[]sendEnd{nonceTooLow, noFunds, accepted}, "null", accepted},
		"one of many failures accepts": {[]sendEnd{status503, hangs, accepted}, "null", accepted},
		"one of them knows it":         {[]sendEnd{status429, nonceTooLow, alreadyKnown}, "null", accepted},
	} {
		t.Run(name, func(t *testing.T) {
			permutations(len(c.ends), func(order []int) {
				s := multicallGroup(errorCheck(true))
				s.backend = func(_ int, o *backend.Options) { o.ResponseTimeout = time.Second }
				multicalling(t, len(c.ends), s, func(t *testing.T, w *world) {
					for member, at := range order {
						w.nodes[member].ends(c.ends[member], time.Duration(at+1)*100*time.Millisecond, c.found)
					}
					got := w.send()
					var none *Unserviceable
					switch c.want {
					case unknownEnd:
						unknown(t, got, legacyHash)
					case nobody:
						if !errors.As(got.Err, &none) || len(none.Reasons) != len(c.ends) {
							t.Errorf("order %v: %+v, %v", order, got.Answer, got.Err)
						}
						if n := w.metric("unserviceable_requests_total"); n != 1 {
							t.Errorf("%v calls were unserviceable", n)
						}
					case accepted:
						wantHash(t, got, "")
					default:
						wantRPCError(t, got, c.want.rpcError())
					}
				})
			})
		})
	}
}

func TestMulticallRefusedConnectionsLeaveNoDoubt(t *testing.T) {
	s := multicallGroup(errorCheck(true))
	s.backend = func(i int, o *backend.Options) {
		if i > 0 {
			o.Dial = dialRefused
		}
	}
	multicalling(t, 3, s, func(t *testing.T, w *world) {
		w.nodes[0].ends(nonceTooLow, 0, "{}")
		wantRPCError(t, w.send(), nonceTooLow.rpcError())
		wantOrder(t, w, "0")
	})
}

func TestMulticallWithoutErrorCheckAnErrorAboutTheTransactionAnswersAtOnce(t *testing.T) {
	for _, e := range []sendEnd{nonceTooLow, noFunds} {
		for _, check := range []bool{false, true} {
			multicalling(t, 3, multicallGroup(errorCheck(check)), func(t *testing.T, w *world) {
				w.nodes[0].ends(limitedRPC, 50*time.Millisecond, "null")
				w.nodes[1].ends(e, 100*time.Millisecond, "null")
				ended := w.nodes[2].ends(accepted, time.Second, "null")
				c := w.send()
				took := time.Since(w.begun)
				if check {
					wantHash(t, c, "b2")
					return
				}
				wantRPCError(t, c, e.rpcError())
				if took != 100*time.Millisecond {
					t.Errorf("after %s", took)
				}
				w.Close(context.Background())
				if ended.Load() != 1 {
					t.Error("the last member did not get it")
				}
			})
		}
	}
	// Others say nothing about it, and are waited out.
	for _, e := range []sendEnd{limitedRPC, internalError, nobodyKnows, noHeader, noMethod, status503, status429, noJSON} {
		multicalling(t, 2, multicallGroup(errorCheck(false)), func(t *testing.T, w *world) {
			w.nodes[0].ends(e, 0, "null")
			w.nodes[1].ends(accepted, time.Second, "null")
			wantHash(t, w.send(), "b1")
		})
	}
	// A nonce that is used up after a lost send may be its echo.
	multicalling(t, 3, multicallGroup(errorCheck(false)), func(t *testing.T, w *world) {
		w.nodes[0].does(cut)
		w.nodes[1].ends(nonceTooLow, 100*time.Millisecond, "{}")
		w.nodes[2].ends(status429, 200*time.Millisecond, "null")
		wantHash(t, w.send(), "b1")
	})
}

func TestMulticallDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		first sendEnd
		raw   string
		want  func(*testing.T, *jsonrpc.Call)
	}{
		"nobody has answered":            {hangs, legacyTx, func(t *testing.T, c *jsonrpc.Call) { unknown(t, c, legacyHash) }},
		"a limit":                        {limitedRPC, legacyTx, func(t *testing.T, c *jsonrpc.Call) { unknown(t, c, legacyHash) }},
		"a failure":                      {status503, legacyTx, func(t *testing.T, c *jsonrpc.Call) { unknown(t, c, legacyHash) }},
		"an error about the transaction": {nonceTooLow, legacyTx, func(t *testing.T, c *jsonrpc.Call) { unknown(t, c, legacyHash) }},
		"a type that is not known":       {hangs, "0x7e01", func(t *testing.T, c *jsonrpc.Call) { unknown(t, c, "") }},
		"known already":                  {alreadyKnown, "0x7e01", func(t *testing.T, c *jsonrpc.Call) { wantRPCError(t, c, alreadyKnown.rpcError()) }},
	} {
		for _, of := range []string{"the client", "the group"} {
			t.Run(name+", "+of, func(t *testing.T) {
				limit := 10 * time.Second
				s := multicallGroup(errorCheck(true), func(o *Options) {
					if of == "the group" {
						o.TotalTimeout = time.Second
					} else {
						limit = time.Second
					}
				})
				multicalling(t, 3, s, func(t *testing.T, w *world) {
					w.nodes[0].ends(c.first, 100*time.Millisecond, "null")
					slow := []*atomic.Int64{w.nodes[1].ends(accepted, 3*time.Second, "null"), w.nodes[2].ends(accepted, 4*time.Second, "null")}
					got := call("eth_sendRawTransaction", `["`+c.raw+`"]`)
					w.do(limit, got)
					if took := time.Since(w.begun); took != time.Second {
						t.Errorf("after %s", took)
					}
					c.want(t, got)
					w.Close(context.Background())
					if slow[0].Load() != 1 || slow[1].Load() != 1 {
						t.Error("sends that had begun were cut off")
					}
				})
			})
		}
	}
}

func TestMulticallClientThatLeaves(t *testing.T) {
	multicalling(t, 2, multicallGroup(), func(t *testing.T, w *world) {
		ended := w.nodes[0].ends(accepted, 3*time.Second, "null")
		w.nodes[1].ends(hangs, 0, "null")
		left := errors.New("client left")
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(time.Second, func() { cancel(left) })
		c := send()
		w.ServeRPC(ctx, callsOf(c))
		if took := time.Since(w.begun); !errors.Is(c.Err, left) || took != time.Second {
			t.Errorf("after %s: %+v, %v", took, c.Answer, c.Err)
		}
		w.Close(context.Background())
		if ended.Load() != 1 {
			t.Error("the send was cut off")
		}
		w.state(0, backend.Well)
	})
}

func TestMulticallOnlySendsGoToAll(t *testing.T) {
	for _, c := range []struct{ method, asked string }{
		{"eth_sendRawTransaction", "111"}, {"eth_sendRawTransactionConditional", "111"},
		{"eth_sendBundle", "100"}, {"eth_sendTransaction", "100"}, {"eth_sendPrivateRawTransaction", "100"}, {"eth_sendRawTransactionSync", "100"},
		{"eth_blockNumber", "100"}, {"foo_bar", "100"},
	} {
		multicalling(t, 3, multicallGroup(), func(t *testing.T, w *world) {
			w.all(func(n *node) { n.ends(accepted, 0, "null") })
			sent := call(c.method, `["`+legacyTx+`"]`)
			w.do(10*time.Second, sent)
			wantHash(t, sent, "")
			if got := w.asksOf(c.method); got != c.asked {
				t.Errorf("%s: asked %s, want %s", c.method, got, c.asked)
			}
		})
	}
	// The rest fails over as with fallback.
	multicalling(t, 3, multicallGroup(), func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultStatus)
		w.well("b1")
		wantOrder(t, w, "01")
	})
}

func TestMulticallInBatches(t *testing.T) {
	multicalling(t, 3, multicallGroup(), func(t *testing.T, w *world) {
		reads := func(n *node, accepts bool) {
			n.does(func(rw http.ResponseWriter, r *http.Request) {
				in, _ := io.ReadAll(r.Body)
				switch text := string(in); {
				case strings.Contains(text, "eth_sendRawTransactionConditional") && !accepts:
					io.WriteString(rw, replaceID(noMethod.body, in))
				case strings.Contains(text, "eth_sendRawTransaction"):
					if !accepts {
						time.Sleep(time.Second)
					}
					io.WriteString(rw, replaceID(accepted.body, in))
				case strings.Contains(text, "eth_sendBundle"):
					io.WriteString(rw, replaceID(accepted.body, in))
				default:
					r.Body = io.NopCloser(strings.NewReader(text))
					n.ServeHTTP(rw, r)
				}
			})
		}
		for i, n := range w.nodes {
			reads(n, i == 2)
		}
		calls := callsOf(send(), read(), call("eth_sendRawTransactionConditional", `["`+legacyTx+`",{}]`), call("eth_chainId", ""), call("eth_sendBundle", "[{}]"), send())
		w.do(10*time.Second, calls...)
		for _, i := range []int{0, 2, 5} {
			wantHash(t, calls[i], "b2")
		}
		for _, i := range []int{1, 3} {
			if c := calls[i]; c.Err != nil || c.Answer.Result == nil || c.Answer.Backend != "b0" {
				t.Errorf("%s: %+v, %v", c.Method, c.Answer, c.Err)
			}
		}
		if took := time.Since(w.begun); took != 0 {
			t.Errorf("answered after %s", took)
		}
		for method, want := range map[string]string{
			"eth_sendRawTransaction": "222", "eth_sendRawTransactionConditional": "111", "eth_blockNumber": "100", "eth_chainId": "100", "eth_sendBundle": "100",
		} {
			if got := w.asksOf(method); got != want {
				t.Errorf("%s: asked %s, want %s", method, got, want)
			}
		}
		for _, a := range w.asks() {
			if strings.Contains(a.body, "eth_sendRaw") && strings.HasPrefix(strings.TrimSpace(a.body), "[") {
				t.Errorf("a send in an upstream batch: %s", a.body)
			}
		}
		if n := w.metric("group_calls_total"); n != 6 {
			t.Errorf("%v calls", n)
		}
		if n := w.metric("backend_group_multicall_request_counter"); n != 9 {
			t.Errorf("%v sends", n)
		}
	})
	multicalling(t, 2, multicallGroup(), func(t *testing.T, w *world) {
		w.all(func(n *node) { n.ends(accepted, 0, "null") })
		done := send()
		done.Err = errors.New("refused before")
		calls := callsOf(done, send(), send())
		w.ServeRPC(context.Background(), calls)
		wantHash(t, calls[1], "")
		wantHash(t, calls[2], "")
		if got := w.asksOf("eth_sendRawTransaction"); done.Answer != nil || got != "22" {
			t.Errorf("%+v, asked %s", done.Answer, got)
		}
	})
}

func TestMulticallBringsAMemberBackThatAccepts(t *testing.T) {
	multicalling(t, 2, multicallGroup(), func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultStatus)
		for range 3 {
			w.well("b1")
		}
		w.state(0, backend.Out)
		w.all(func(n *node) { n.ends(accepted, 0, "null") })
		time.Sleep(time.Millisecond)
		wantHash(t, w.send(), "")
		w.Close(context.Background())
		w.state(0, backend.Well)
	})
}

func TestMulticallCompletions(t *testing.T) {
	for end, e := range map[string]sendEnd{
		"nil": accepted, "known_transaction": nonceTooLow, "pool": noFunds, "rate_limit": limitedRPC, "server": internalError, "unknown": nobodyKnows,
		"status": status503, "invalid_answer": noJSON, "timeout": hangs,
	} {
		multicalling(t, 1, multicallGroup(errorCheck(true)), func(t *testing.T, w *world) {
			w.nodes[0].ends(e, 0, "null")
			w.send()
			w.Close(context.Background())
			if n := w.metric("backend_group_multicall_completion_counter", "backend_group", "g", "backend_name", "b0", "error", end); n != 1 {
				t.Errorf("%s: %v", end, n)
			}
			if n := w.metric("backend_group_multicall_completion_counter"); n != 1 {
				t.Errorf("%s: %v in all", end, n)
			}
		})
	}
}

// On the clock of the world, with the race detector: many sends at once.
func TestMulticallManySendsAtOnce(t *testing.T) {
	w := newWorld(t, 3, multicallGroup())
	w.nodes[0].ends(accepted, 3*time.Millisecond, "null")
	w.nodes[1].ends(alreadyKnown, time.Millisecond, "null")
	w.nodes[2].does(cut)
	calls := make([]*jsonrpc.Call, 100)
	for i := range calls {
		calls[i] = send()
	}
	w.do(10*time.Second, calls...)
	for _, c := range calls {
		wantHash(t, c, "")
	}
	w.Close(context.Background())
	if n := w.metric("backend_group_multicall_completion_counter"); n != 300 {
		t.Errorf("%v have ended", n)
	}
}
