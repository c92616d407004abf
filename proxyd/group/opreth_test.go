package group

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

// Conformance with op-reth's list of sequencer endpoints (strategy sticky), and
// with what is better here: 429 moves on, a leaving client does not, and there is
// a way back to the first endpoint.

// stickyGroup is the setting of a sticky group whose endpoints have a second to
// answer.
func stickyGroup(change ...func(*Options)) setting {
	return setting{
		group: func(o *Options) {
			o.Strategy = "sticky"
			for _, f := range change {
				f(o)
			}
		},
		backend: func(_ int, o *backend.Options) { o.ResponseTimeout = time.Second },
	}
}

func failBack(d time.Duration) func(*Options) { return func(o *Options) { o.FailBack = d } }

// dialRefused is the dial of an endpoint where nobody listens.
func dialRefused(context.Context, string, string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}

func stickyRefusing(s setting, members ...int) setting {
	base := s.backend
	s.backend = func(i int, o *backend.Options) {
		base(i, o)
		if slices.Contains(members, i) {
			o.Dial = dialRefused
		}
	}
	return s
}

// preferredIs checks whom a sticky group prefers, in itself and in its gauge.
func (w *world) preferredIs(want string) {
	w.t.Helper()
	if got := w.stickyIndex(); fmt.Sprint("b", got) != want {
		w.t.Fatalf("b%d is preferred, want %s", got, want)
	}
	for _, m := range w.Members() {
		shown := w.metric("group_preferred_backend", "backend_name", m.Name())
		if m.Name() == want != (shown == 1) {
			w.t.Fatalf("the gauge of %s is %v while %s is preferred", m.Name(), shown, want)
		}
	}
}

func (w *world) stickyIndex() int {
	return int(w.strategy.(*sticky).preferred.Load() & stickyIndex)
}

// groupCounts checks the group's counters of calls, successes, failures and
// failovers.
func (w *world) groupCounts(calls, successes, failures, failovers float64) {
	w.t.Helper()
	got := fmt.Sprint(w.metric("group_calls_total"), w.metric("group_successes_total"), w.metric("group_failures_total"), w.metric("group_failovers_total"))
	if want := fmt.Sprint(calls, successes, failures, failovers); got != want {
		w.t.Fatalf("calls, successes, failures, failovers are %s, want %s", got, want)
	}
}

func TestOpRethTransportErrorsMoveOn(t *testing.T) {
	for name, fault := range map[string]func(*node){
		"connection reset":              func(n *node) { n.does(cut) },
		"connection reset in an answer": func(n *node) { n.is(devchain.FaultClose) },
		"timeout":                       func(n *node) { n.is(devchain.FaultHang) },
		"null where there is none":      func(n *node) { n.says(200, `{"jsonrpc":"2.0","id":$id,"result":null}`) },
		"undecodable":                   func(n *node) { n.is(devchain.FaultGarbage) },
		"cut answer":                    func(n *node) { n.is(devchain.FaultTruncate) },
		"empty answer":                  func(n *node) { n.says(200, "") },
		"answer to something else":      func(n *node) { n.is(devchain.FaultWrongID) },
		"neither result nor error":      func(n *node) { n.says(200, `{"jsonrpc":"2.0","id":$id}`) },
		"429":                           func(n *node) { n.is(devchain.FaultRateLimited) },
		"429 without JSON":              func(n *node) { n.says(429, "slow down") },
		"a rate limit in HTTP 200":      func(n *node) { n.errs(-32005, "rate limit") },
		"a fault of its own":            func(n *node) { n.errs(-32603, "internal error") },
		"500":                           func(n *node) { n.says(500, "oops") },
		"500 with an error object":      func(n *node) { n.says(500, `{"id":$id,"error":{"code":-32603,"message":"internal error"}}`) },
		"502":                           func(n *node) { n.says(502, "<html>") },
		"503":                           func(n *node) { n.says(503, "") },
		"504":                           func(n *node) { n.says(504, "") },
		"401":                           func(n *node) { n.says(401, "") },
		"404":                           func(n *node) { n.says(404, "") },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, stickyGroup(), func(t *testing.T, w *world) {
				w.preferredIs("b0")
				fault(w.nodes[0])
				w.well("b1")
				wantOrder(t, w, "01")
				w.preferredIs("b1")
				w.groupCounts(1, 1, 0, 1)
				w.well("b1") // at once, without asking the first
				wantOrder(t, w, "1")
				w.groupCounts(2, 2, 0, 1)
			})
		})
	}
	t.Run("connection refused", func(t *testing.T) {
		inBubble(t, 3, stickyRefusing(stickyGroup(), 0, 1), func(t *testing.T, w *world) {
			w.well("b2")
			wantOrder(t, w, "2")
			w.preferredIs("b2")
			w.groupCounts(1, 1, 0, 2)
		})
	})
}

func TestOpRethNullIsAnAnswerWhereTheMethodKnowsIt(t *testing.T) {
	w := newWorld(t, 2, stickyGroup())
	w.nodes[0].says(200, `{"jsonrpc":"2.0","id":$id,"result":null}`)
	c := call("eth_getTransactionByHash", `["`+legacyHash+`"]`)
	w.do(5*time.Second, c)
	if c.Err != nil || string(c.Answer.Result) != "null" || c.Answer.Backend != "b0" {
		t.Fatalf("%+v, %v", c.Answer, c.Err)
	}
	wantOrder(t, w, "0")
}

func TestOpRethApplicationErrorsAreReturnedAtOnce(t *testing.T) {
	for _, e := range []struct {
		code int
		text string
	}{
		{-32000, "nonce too low: next nonce 10, tx nonce 9"}, {-32000, "insufficient funds for gas * price + value"}, {-32000, "already known"},
		{-32000, "replacement transaction underpriced"}, {-32000, "txpool is full"}, {-32000, "header not found"}, {-32000, "who knows"},
		{3, "execution reverted"}, {-32601, "method not found"}, {-32602, "invalid argument 0"}, {-32099, "the sequencer is asleep"},
	} {
		for _, ask := range []func() *jsonrpc.Call{read, send, func() *jsonrpc.Call { return call("eth_sendTransaction", "[{}]") }} {
			c := ask()
			t.Run(fmt.Sprint(c.Method, " ", e.code, " ", e.text), func(t *testing.T) {
				w := newWorld(t, 3, stickyGroup())
				w.nodes[0].errs(e.code, e.text)
				w.do(5*time.Second, c)
				wantRPCError(t, c, fmt.Sprintf(`{"code":%d,"message":"%s"}`, e.code, e.text))
				wantOrder(t, w, "0")
				w.preferredIs("b0")
				w.groupCounts(1, 1, 0, 0)
				w.state(0, backend.Well)
			})
		}
	}
	t.Run("with HTTP 400", func(t *testing.T) {
		w := newWorld(t, 2, stickyGroup())
		w.nodes[0].says(400, `{"id":$id,"error":{"code":-32000,"message":"who knows"}}`)
		wantRPCError(t, w.get(), `{"code":-32000,"message":"who knows"}`)
		wantOrder(t, w, "0")
	})
	t.Run("and are answers, so that their endpoint becomes preferred", func(t *testing.T) {
		w := newWorld(t, 3, stickyGroup())
		w.nodes[0].does(cut)
		w.nodes[1].errs(-32000, "who knows")
		wantRPCError(t, w.get(), `{"code":-32000,"message":"who knows"}`)
		wantOrder(t, w, "01")
		w.preferredIs("b1")
		w.groupCounts(1, 1, 0, 1)
	})
}

func TestOpRethEndpointsAreAskedInACircleFromThePreferredOne(t *testing.T) {
	w := newWorld(t, 4, stickyGroup())
	fail := func(bad ...int) {
		for _, n := range w.nodes {
			n.serve.Store(nil)
			if slices.Contains(bad, n.index) {
				n.says(500, "")
			}
		}
	}
	for _, step := range []struct {
		bad   []int
		order string
		by    string
	}{
		{nil, "0", "b0"},
		{[]int{0, 1}, "012", "b2"},
		{nil, "2", "b2"},
		{[]int{2, 3}, "230", "b0"},
		{[]int{0}, "01", "b1"},
		{[]int{1, 2}, "123", "b3"},
		{[]int{3, 0, 1}, "3012", "b2"},
	} {
		fail(step.bad...)
		w.well(step.by)
		wantOrder(t, w, step.order)
		w.preferredIs(step.by)
	}
}

func TestOpRethEachEndpointIsAskedAtMostOnce(t *testing.T) {
	w := newWorld(t, 3, stickyGroup())
	w.nodes[0].says(500, "")
	w.well("b1")
	w.order()
	w.all(func(n *node) { n.says(500, "") })
	if c := w.get(); c.Err == nil {
		t.Fatal(c.Answer)
	}
	wantOrder(t, w, "120")
	w.preferredIs("b1") // nobody answered
	w.groupCounts(2, 1, 1, 3)
}

func TestOpRethSingleEndpoint(t *testing.T) {
	inBubble(t, 1, stickyGroup(failBack(time.Second)), func(t *testing.T, w *world) {
		w.well("b0")
		w.nodes[0].is(devchain.FaultStatus)
		for range 5 {
			var all *AllFailed
			if c := w.get(); !errors.As(c.Err, &all) || len(all.Endpoints) != 1 {
				t.Fatal(c.Err)
			}
		}
		w.nodes[0].is(devchain.FaultNone)
		time.Sleep(time.Minute)
		w.well("b0")
		wantOrder(t, w, "0000000")
		w.preferredIs("b0")
	})
}

func TestOpRethRequestTimeoutIsEachEndpointsOwn(t *testing.T) {
	for name, s := range map[string]setting{
		"response_timeout": {
			group:   func(o *Options) { o.Strategy = "sticky" },
			backend: func(_ int, o *backend.Options) { o.ResponseTimeout = 10 * time.Second },
		},
		"try_timeout": {
			group:   func(o *Options) { o.Strategy, o.TryTimeout = "sticky", 10*time.Second },
			backend: func(_ int, o *backend.Options) { o.ResponseTimeout = time.Minute },
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, s, func(t *testing.T, w *world) {
				w.all(func(n *node) { n.is(devchain.FaultHang) })
				c := read()
				w.do(31*time.Second, c)
				asks := w.asks()
				if len(asks) != 3 || time.Since(w.begun) != 30*time.Second {
					t.Fatalf("asked %v in %s", asks, time.Since(w.begun))
				}
				for i, a := range asks {
					if a.node != i || a.at != time.Duration(i)*10*time.Second {
						t.Errorf("attempt %d: endpoint %d after %s", i, a.node, a.at)
					}
				}
				var all *AllFailed
				if !errors.As(c.Err, &all) || !all.TimedOut {
					t.Errorf("%v", c.Err)
				}
			})
		})
	}
}

func TestOpRethAllFailedNamesEachEndpointsReason(t *testing.T) {
	fails := func(t *testing.T, w *world, timedOut bool, want ...string) {
		t.Helper()
		c := w.get()
		var all *AllFailed
		var cause *Unserviceable
		if !errors.As(c.Err, &all) || !errors.As(c.Err, &cause) {
			t.Fatalf("%v, %+v", c.Err, c.Answer)
		}
		if !slices.Equal(all.Endpoints, want) || all.TimedOut != timedOut {
			t.Errorf("timed out %t: %q, want %q", all.TimedOut, all.Endpoints, want)
		}
		if text := all.Error(); text != "all endpoints failed: "+strings.Join(want, "; ") {
			t.Error(text)
		}
	}
	inBubble(t, 5, stickyRefusing(stickyGroup(), 2), func(t *testing.T, w *world) {
		w.nodes[0].says(502, "no")
		w.nodes[1].is(devchain.FaultHang)
		w.nodes[3].is(devchain.FaultGarbage)
		w.nodes[4].says(429, "slow down")
		fails(t, w, false, "b0: status 502", "b1: timeout", "b2: refused", "b3: invalid_answer", "b4: status 429")
		w.preferredIs("b0")
	})
	inBubble(t, 3, stickyGroup(), func(t *testing.T, w *world) {
		w.all(func(n *node) { n.is(devchain.FaultHang) })
		fails(t, w, true, "b0: timeout", "b1: timeout", "b2: timeout")
	})
	inBubble(t, 2, stickyGroup(), func(t *testing.T, w *world) {
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "60"})
		w.well("b1")
		w.nodes[1].is(devchain.FaultHang)
		fails(t, w, true, "b1: timeout", "b0: not asked, held")
		w.nodes[1].says(500, "")
		fails(t, w, false, "b1: status 500", "b0: not asked, held")
	})
	two := 2
	inBubble(t, 3, stickyGroup(func(o *Options) { o.MaxRetries = &two }), func(t *testing.T, w *world) { // each once, as it failed last
		status := 500
		w.nodes[0].does(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(status); status++ })
		w.nodes[1].is(devchain.FaultHang)
		w.nodes[2].is(devchain.FaultGarbage)
		fails(t, w, false, "b0: status 502", "b1: timeout", "b2: invalid_answer")
		wantOrder(t, w, "012"+"012"+"012")
	})
}

func TestOpRethClientThatLeavesIsNoFailoverAndMovesNothing(t *testing.T) {
	inBubble(t, 3, stickyGroup(), func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultHang)
		left := errors.New("client left")
		for range 5 {
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(100*time.Millisecond, func() { cancel(left) })
			c := read()
			w.ServeRPC(ctx, callsOf(c))
			var all *AllFailed
			if !errors.Is(c.Err, left) || errors.As(c.Err, &all) {
				t.Fatal(c.Err)
			}
		}
		wantOrder(t, w, "00000")
		w.preferredIs("b0")
		w.state(0, backend.Well)
		if n := w.metric("group_failovers_total"); n != 0 {
			t.Errorf("%v failovers", n)
		}
		w.nodes[0].is(devchain.FaultNone)
		w.well("b0")
	})
}

// The preference moves only from what it was when the call began.
func TestOpRethSlowAnswerDoesNotUndoANewerPreference(t *testing.T) {
	inBubble(t, 3, stickyGroup(), func(t *testing.T, w *world) {
		w.nodes[0].does(cut)
		w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 500 * time.Millisecond})
		var slow sync.WaitGroup
		slow.Go(func() { w.well("b1") })
		time.Sleep(100 * time.Millisecond)
		w.nodes[1].does(cut) // for new requests
		w.well("b2")
		w.preferredIs("b2")
		slow.Wait() // b1 has answered a call that began when b0 was preferred
		w.preferredIs("b2")
		w.order()
		w.well("b2")
		wantOrder(t, w, "2")
	})
}

func TestOpRethRacingCallsEndAtAnEndpointThatAnswered(t *testing.T) {
	s := stickyGroup(failBack(time.Millisecond))
	s.backend = func(_ int, o *backend.Options) { o.OutAfter, o.MaxErrorRate = 1_000_000, 2 }
	w := newWorld(t, 4, s)
	for round := range 12 {
		// The preferred endpoint fails, and another in each round.
		w.all(func(n *node) { n.serve.Store(nil) })
		first := w.stickyIndex()
		w.nodes[first].says(500, "")
		w.nodes[(first+1+round%3)%4].says(500, "")
		var mu sync.Mutex
		answered := make(map[string]bool)
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				if c := w.get(); c.Err == nil {
					mu.Lock()
					answered[c.Answer.Backend] = true
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if got := fmt.Sprint("b", w.stickyIndex()); !answered[got] {
			t.Fatalf("round %d: %s is preferred, but answered have %v", round, got, answered)
		}
	}
}

func TestOpRethGaugeFollowsRacingCalls(t *testing.T) {
	for range 30 {
		w := newWorld(t, 3, stickyGroup())
		w.all(func(n *node) {
			var turn sync.Mutex
			asked := 0
			n.does(func(rw http.ResponseWriter, r *http.Request) {
				turn.Lock()
				asked++
				bad := (asked+n.index)%2 == 0
				turn.Unlock()
				if bad {
					rw.WriteHeader(500)
					return
				}
				n.ServeHTTP(rw, r)
			})
		})
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { w.get() })
		}
		all.Wait()
		w.preferredIs(fmt.Sprint("b", w.stickyIndex()))
	}
}

// slowLog takes a second to write that b1 is preferred.
type slowLog struct{ slog.Handler }

func (slowLog) Enabled(context.Context, slog.Level) bool { return true }

func (slowLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if r.Message == "preferred backend changed" && a.Key == "backend" && a.Value.String() == "b1" {
			time.Sleep(time.Second)
		}
		return true
	})
	return nil
}

func TestOpRethGaugeShowsTheLastMoveWhoeverIsLateToTellIt(t *testing.T) {
	s := stickyGroup(func(o *Options) { o.Log = slog.New(slowLog{slog.DiscardHandler}) })
	inBubble(t, 3, s, func(t *testing.T, w *world) {
		w.nodes[0].says(500, "")
		var late sync.WaitGroup
		late.Go(func() { w.well("b1") })
		time.Sleep(100 * time.Millisecond)
		w.nodes[1].says(500, "")
		w.well("b2")
		late.Wait()
		w.preferredIs("b2")
	})
}

func TestOpRethNoWayBackWithoutFailBack(t *testing.T) {
	inBubble(t, 2, stickyGroup(), func(t *testing.T, w *world) {
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultStatus, Times: 1})
		w.well("b1")
		for range 100 {
			time.Sleep(time.Hour)
			w.well("b1")
		}
		w.preferredIs("b1")
	})
}

func TestOpRethFailBackAfterItsTime(t *testing.T) {
	inBubble(t, 3, stickyGroup(failBack(time.Minute)), func(t *testing.T, w *world) {
		time.Sleep(700 * time.Millisecond) // not at the beginning of a second
		lost := time.Now()
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultStatus, Times: 1})
		w.well("b1")
		for time.Since(lost) < time.Minute-100*time.Millisecond {
			w.well("b1")
			time.Sleep(100 * time.Millisecond)
		}
		w.well("b1")
		time.Sleep(time.Until(lost.Add(time.Minute)))
		w.order()
		w.well("b0")
		wantOrder(t, w, "0")
		w.preferredIs("b0")
		// When it fails again the time begins again.
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultStatus, Times: 1})
		w.well("b1")
		w.preferredIs("b1")
		time.Sleep(59 * time.Second)
		w.well("b1")
		time.Sleep(time.Second)
		w.well("b0")
		w.preferredIs("b0")
	})
}

func TestOpRethFailBackCountsFromTheFirstEndpointsLoss(t *testing.T) {
	inBubble(t, 3, stickyGroup(failBack(time.Minute)), func(t *testing.T, w *world) {
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultStatus, Times: 1})
		w.well("b1")
		time.Sleep(50 * time.Second)
		w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultStatus, Times: 1})
		w.well("b2")
		w.preferredIs("b2")
		time.Sleep(9 * time.Second)
		w.well("b2")
		time.Sleep(time.Second)
		w.well("b0")
		w.preferredIs("b0")
	})
}

func TestOpRethFailBackWaitsUntilTheFirstIsWell(t *testing.T) {
	inBubble(t, 2, stickyGroup(failBack(time.Minute)), func(t *testing.T, w *world) {
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "100", Times: 1})
		w.well("b1")
		time.Sleep(99 * time.Second)
		w.state(0, backend.Held)
		w.order()
		w.well("b1")
		wantOrder(t, w, "1")
		w.preferredIs("b1")
		time.Sleep(time.Second)
		w.well("b0")
		w.preferredIs("b0")
	})
	inBubble(t, 2, stickyRefusing(stickyGroup(failBack(10*time.Second)), 0), func(t *testing.T, w *world) {
		w.well("b1")
		w.state(0, backend.Out)
		time.Sleep(29 * time.Second)
		w.well("b1")
		w.preferredIs("b1")
		time.Sleep(time.Second) // its time out of service is over: a trial, which fails
		w.well("b1")
		w.preferredIs("b1")
		w.state(0, backend.Out)
	})
}

// Sends follow the rules for signed transactions in a sticky group as elsewhere.
func TestOpRethSends(t *testing.T) {
	// answers lets a node answer sends with an error, and look-ups with a result.
	answers := func(n *node, code int, text, found string) {
		n.does(func(rw http.ResponseWriter, r *http.Request) {
			in, _ := io.ReadAll(r.Body)
			answer := fmt.Sprintf(`{"id":$id,"error":{"code":%d,"message":"%s"}}`, code, text)
			if strings.Contains(string(in), "eth_getTransactionByHash") {
				answer = `{"id":$id,"result":` + found + `}`
			}
			io.WriteString(rw, replaceID(answer, in))
		})
	}
	result := func(t *testing.T, c *jsonrpc.Call, by string) {
		t.Helper()
		if c.Err != nil || string(c.Answer.Result) != `"`+legacyHash+`"` || c.Answer.Backend != by {
			t.Fatalf("%+v, %v", c.Answer, c.Err)
		}
	}
	for name, test := range map[string]func(*testing.T, *world){
		"lost and accepted elsewhere": func(t *testing.T, w *world) {
			w.nodes[0].does(cut)
			result(t, w.send(), "b1")
			wantOrder(t, w, "01")
			w.preferredIs("b1")
			w.groupCounts(1, 1, 0, 1)
		},
		"lost after it was taken, known elsewhere and found": func(t *testing.T, w *world) {
			w.nodes[0].is(devchain.FaultClose)
			result(t, w.send(), "b1")
			wantOrder(t, w, "01"+"1")
		},
		"who answers a look-up becomes preferred": func(t *testing.T, w *world) {
			w.nodes[0].is(devchain.FaultClose)
			result(t, w.send(), "b1")
			w.preferredIs("b1")
		},
		"lost, nonce too low, found": func(t *testing.T, w *world) {
			w.nodes[0].does(cut)
			answers(w.nodes[1], -32000, "nonce too low", "{}")
			result(t, w.send(), "b1")
		},
		"lost, nonce too low, not found": func(t *testing.T, w *world) {
			w.nodes[0].does(cut)
			w.nodes[2].does(cut)
			answers(w.nodes[1], -32000, "nonce too low", "null")
			unknown(t, w.send(), legacyHash)
		},
		"lost, then an error about the transaction": func(t *testing.T, w *world) {
			w.nodes[0].does(cut)
			w.nodes[1].errs(-32000, "insufficient funds for gas * price + value")
			wantRPCError(t, w.send(), `{"code":-32000,"message":"insufficient funds for gas * price + value"}`)
			wantOrder(t, w, "01")
			w.preferredIs("b1")
		},
		"lost, then an error that says nothing about it": func(t *testing.T, w *world) {
			w.nodes[0].does(cut)
			w.nodes[1].errs(-32603, "internal error")
			w.nodes[2].errs(-32603, "internal error")
			unknown(t, w.send(), legacyHash)
		},
		"lost, then endpoints without the method": func(t *testing.T, w *world) {
			w.nodes[0].does(cut)
			w.nodes[1].errs(-32601, "method not found")
			w.nodes[2].errs(-32601, "method not found")
			unknown(t, w.send(), legacyHash)
			wantOrder(t, w, "012")
		},
		"lost, then an endpoint without the method, then accepted": func(t *testing.T, w *world) {
			w.nodes[0].does(cut)
			w.nodes[1].errs(-32601, "method not found")
			result(t, w.send(), "b2")
			w.preferredIs("b2")
		},
		"nonce too low stands where nothing was lost": func(t *testing.T, w *world) {
			w.nodes[0].says(429, "slow down")
			w.nodes[1].errs(-32000, "nonce too low")
			wantRPCError(t, w.send(), `{"code":-32000,"message":"nonce too low"}`)
			wantOrder(t, w, "01")
		},
		"lost everywhere": func(t *testing.T, w *world) {
			w.all(func(n *node) { n.does(cut) })
			unknown(t, w.send(), legacyHash)
			wantOrder(t, w, "012")
			w.preferredIs("b0")
			w.groupCounts(1, 0, 1, 2)
		},
		"written nowhere": func(t *testing.T, w *world) {
			w.all(func(n *node) { n.says(429, "slow down") })
			var all *AllFailed
			if c := w.send(); !errors.As(c.Err, &all) {
				t.Fatal(c.Err)
			}
		},
		"another class is not repeated": func(t *testing.T, w *world) {
			w.nodes[0].does(cut)
			c := call("eth_sendTransaction", "[{}]")
			w.do(5*time.Second, c)
			if c.Err == nil {
				t.Fatal(c.Answer)
			}
			wantOrder(t, w, "0")
			w.preferredIs("b0")
		},
	} {
		t.Run(name, func(t *testing.T) { inBubble(t, 3, stickyGroup(), test) })
	}
}

func TestOpRethBatchElementsMoveThePreferenceToo(t *testing.T) {
	w := newWorld(t, 2, stickyGroup())
	w.nodes[0].does(cut)
	calls := callsOf(read(), call("eth_chainId", ""), call("eth_gasPrice", ""))
	w.do(5*time.Second, calls...)
	for _, c := range calls {
		if c.Err != nil || c.Answer.Backend != "b1" {
			t.Errorf("%s: %+v, %v", c.Method, c.Answer, c.Err)
		}
	}
	wantOrder(t, w, "01")
	w.preferredIs("b1")
	w.groupCounts(3, 3, 0, 1)
}
