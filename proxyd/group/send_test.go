package group

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

func send() *jsonrpc.Call { return call("eth_sendRawTransaction", `["`+legacyTx+`"]`) }

func (w *world) send() *jsonrpc.Call {
	c := send()
	w.do(10*time.Second, c)
	return c
}

// cut takes the request and resets the connection: nobody can tell what became
// of it.
func cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func unknown(t *testing.T, c *jsonrpc.Call, hash string) {
	t.Helper()
	var u *OutcomeUnknown
	if !errors.As(c.Err, &u) || u.Hash != hash {
		t.Fatalf("got %+v, %v, want an unknown outcome with hash %q", c.Answer, c.Err, hash)
	}
}

// refusing makes a member refuse connections.
func refusing(members ...int) func(int, *backend.Options) {
	return func(i int, o *backend.Options) {
		for _, m := range members {
			if i == m {
				o.URL, o.Dial = "http://127.0.0.1:1", nil
			}
		}
	}
}

func TestSendIsRepeatedAfterATransportErrorAndFoundByItsHash(t *testing.T) {
	w := newWorld(t, 2, setting{})
	w.nodes[0].is(devchain.FaultClose) // it takes the transaction and cuts the answer
	c := w.send()
	if c.Err != nil || string(c.Answer.Result) != `"`+legacyHash+`"` || c.Answer.Backend != "b1" {
		t.Fatalf("%+v, %v", c.Answer, c.Err)
	}
	asks := w.asks()
	if len(asks) != 3 || !strings.Contains(asks[2].body, `"method":"eth_getTransactionByHash","params":["`+legacyHash+`"]`) {
		t.Errorf("asked %v", asks)
	}
}

func TestSendIsLookedUpAtOtherMembersToo(t *testing.T) {
	w := newWorld(t, 3, setting{})
	w.nodes[0].does(cut)
	w.nodes[1].says(200, `{"id":$id,"error":{"code":-32000,"message":"nonce too low: next nonce 10, tx nonce 9"}}`)
	w.do(time.Second, call("eth_chainId", "")) // whatever
	c := send()
	other := send()
	w.nodes[2].serve.Store(nil)
	w.order()
	// The third member got it from the first.
	direct := make(chan *backend.Attempt, 1)
	w.backends[2].Begin(callsOf(other), backend.Try{Timeout: time.Second}, direct)
	(<-direct).Settle(false)
	w.order()
	w.do(10*time.Second, c)
	if c.Err != nil || string(c.Answer.Result) != `"`+legacyHash+`"` {
		t.Fatalf("%+v, %v", c.Answer, c.Err)
	}
	wantOrder(t, w, "01"+"1"+"02") // the look-up at 1, then the others
}

func TestSendThatCannotBeFoundHasAnUnknownOutcome(t *testing.T) {
	for _, text := range []string{"already known", "nonce too low", "ALREADY_EXISTS: already known", "Known transaction", "AlreadyKnown", "OldNonce, Current nonce: 7"} {
		w := newWorld(t, 2, setting{})
		w.nodes[0].does(cut)
		w.nodes[1].does(func(rw http.ResponseWriter, r *http.Request) {
			in, _ := io.ReadAll(r.Body)
			answer := `{"id":$id,"error":{"code":-32000,"message":"` + text + `"}}`
			if strings.Contains(string(in), "eth_getTransactionByHash") {
				answer = `{"id":$id,"result":null}`
			}
			io.WriteString(rw, replaceID(answer, in))
		})
		unknown(t, w.send(), legacyHash)
	}
}

func TestErrorOnASendStandsWithoutAnAmbiguousAttempt(t *testing.T) {
	for _, text := range []string{"already known", "nonce too low", "insufficient funds for gas * price + value"} {
		want := `{"code":-32000,"message":"` + text + `"}`
		w := newWorld(t, 2, setting{})
		w.nodes[0].errs(-32000, text)
		wantRPCError(t, w.send(), want)
		wantOrder(t, w, "0")

		w = newWorld(t, 2, setting{backend: refusing(0)}) // nothing was written there
		w.nodes[1].errs(-32000, text)
		wantRPCError(t, w.send(), want)
		wantOrder(t, w, "1")

		w = newWorld(t, 2, setting{})
		w.nodes[0].is(devchain.FaultRateLimited) // nothing ran there
		w.nodes[1].errs(-32000, text)
		wantRPCError(t, w.send(), want)
		wantOrder(t, w, "01")
	}
}

func TestOtherErrorsAfterAnAmbiguousAttemptStand(t *testing.T) {
	w := newWorld(t, 2, setting{})
	w.nodes[0].does(cut)
	w.nodes[1].errs(-32000, "insufficient funds for gas * price + value")
	wantRPCError(t, w.send(), `{"code":-32000,"message":"insufficient funds for gas * price + value"}`)
	wantOrder(t, w, "01")
}

func TestSendWithoutAnyAnswer(t *testing.T) {
	w := newWorld(t, 2, setting{})
	w.all(func(n *node) { n.does(cut) })
	unknown(t, w.send(), legacyHash)
	c := call("eth_sendRawTransaction", `["0x7e01"]`)
	w.do(time.Second, c)
	unknown(t, c, "")

	w = newWorld(t, 2, setting{backend: refusing(0, 1)})
	var nobody *Unserviceable
	if c := w.send(); !errors.As(c.Err, &nobody) {
		t.Fatalf("nothing was written, and so nothing is unknown: %v", c.Err)
	}
}

func TestLimitErrorDoesNotHideAnUnknownOutcome(t *testing.T) {
	w := newWorld(t, 2, setting{})
	w.nodes[0].errs(-32005, "rate limit")
	w.nodes[1].does(cut)
	unknown(t, w.send(), legacyHash)

	w = newWorld(t, 3, setting{})
	w.nodes[0].errs(-32005, "rate limit")
	w.nodes[1].does(cut)
	if c := w.send(); c.Err != nil || string(c.Answer.Result) != `"`+legacyHash+`"` {
		t.Fatalf("a send is repeated after a transport error: %+v, %v", c.Answer, c.Err)
	}

	w = newWorld(t, 2, setting{})
	w.nodes[0].does(cut)
	w.nodes[1].errs(-32005, "rate limit")
	unknown(t, w.send(), legacyHash)
}

func TestDeadlineDuringASendIsUnknownAndTheSendRunsOn(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 2 * time.Second})
		c := send()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 2 * time.Second})
		w.ServeRPC(ctx, callsOf(c))
		unknown(t, c, legacyHash)
	})
}

func TestSendThatHasBegunIsNotCutOffWithItsClient(t *testing.T) {
	chain := devchain.New(devchain.Options{})
	inBubble(t, 1, setting{chain: chain}, func(t *testing.T, w *world) {
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 2 * time.Second})
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		c := send()
		w.ServeRPC(ctx, callsOf(c))
		if !errors.Is(c.Err, context.Canceled) || len(chain.Pooled()) != 0 {
			t.Fatal(c.Err)
		}
		time.Sleep(2 * time.Second)
		if len(chain.Pooled()) != 1 {
			t.Error("the transaction was lost")
		}
	})
}

func TestOtherMethodsRunAtMostOnce(t *testing.T) {
	ambiguous := map[string]func(*node){
		"reset":       func(n *node) { n.does(cut) },
		"half answer": func(n *node) { n.is(devchain.FaultClose) },
		"garbage":     func(n *node) { n.is(devchain.FaultGarbage) },
		"wrong id":    func(n *node) { n.is(devchain.FaultWrongID) },
		"500":         func(n *node) { n.says(500, "oops") },
		"hang":        func(n *node) { n.is(devchain.FaultHang) },
	}
	for _, method := range []string{"eth_sendTransaction", "eth_newFilter", "foo_bar"} {
		for name, fault := range ambiguous {
			t.Run(method+" "+name, func(t *testing.T) {
				w := newWorld(t, 2, setting{
					group:   func(o *Options) { n := 3; o.MaxRetries = &n },
					backend: func(_ int, o *backend.Options) { o.ResponseTimeout = 300 * time.Millisecond },
				})
				fault(w.nodes[0])
				c := call(method, "")
				w.do(time.Second, c)
				if c.Answer != nil || name == "hang" != errors.Is(c.Err, ErrTimeout) {
					t.Errorf("%+v, %v", c.Answer, c.Err)
				}
				wantOrder(t, w, "0")
			})
		}
	}
	for name, fault := range map[string]func(*node){
		"429":                   func(n *node) { n.is(devchain.FaultRateLimited) },
		"405":                   func(n *node) { n.says(405, "no") },
		"limit in an answer":    func(n *node) { n.errs(-32005, "rate limit") },
		"unsupported":           func(n *node) { n.errs(-32601, "method not found") },
		"401":                   func(n *node) { n.says(401, "who are you") },
		"unsupported with 2 to": func(n *node) { n.errs(-32004, "method not supported") },
	} {
		t.Run("nothing ran: "+name, func(t *testing.T) {
			w := newWorld(t, 2, setting{})
			fault(w.nodes[0])
			w.nodes[1].says(200, `{"id":$id,"result":"0xf"}`)
			c := call("eth_newFilter", "[{}]")
			w.do(time.Second, c)
			if c.Err != nil || string(c.Answer.Result) != `"0xf"` {
				t.Errorf("%+v, %v", c.Answer, c.Err)
			}
		})
	}
	t.Run("nothing written", func(t *testing.T) {
		w := newWorld(t, 2, setting{backend: refusing(0)})
		w.nodes[1].says(200, `{"id":$id,"result":"0xf"}`)
		c := call("eth_newFilter", "[{}]")
		w.do(time.Second, c)
		if c.Err != nil || string(c.Answer.Result) != `"0xf"` {
			t.Errorf("%+v, %v", c.Answer, c.Err)
		}
	})
	t.Run("an error that may have run is final", func(t *testing.T) {
		w := newWorld(t, 2, setting{})
		w.nodes[0].errs(-32000, "who knows")
		c := call("eth_sendTransaction", "[{}]")
		w.do(time.Second, c)
		wantRPCError(t, c, `{"code":-32000,"message":"who knows"}`)
		wantOrder(t, w, "0")
	})
	t.Run("a limit does not hide a later doubt", func(t *testing.T) {
		w := newWorld(t, 2, setting{})
		w.nodes[0].errs(-32005, "rate limit")
		w.nodes[1].does(cut)
		c := call("eth_sendTransaction", "[{}]")
		w.do(time.Second, c)
		if c.Err == nil {
			t.Errorf("the client is told %s though it may have run", c.Answer.Error)
		}
	})
}

func TestReadIsRepeatedAfterAnything(t *testing.T) {
	for _, fault := range []func(*node){
		func(n *node) { n.does(cut) }, func(n *node) { n.is(devchain.FaultClose) }, func(n *node) { n.is(devchain.FaultGarbage) }, func(n *node) { n.says(500, "oops") },
	} {
		w := newWorld(t, 2, setting{})
		fault(w.nodes[0])
		w.well("b1")
	}
	w := newWorld(t, 1, rounds(1))
	w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultStatus, Times: 1})
	w.well("b0")
	wantOrder(t, w, "00")
}

func TestBatchOfSendsFailsOverOneByOne(t *testing.T) {
	w := newWorld(t, 2, setting{})
	w.nodes[0].does(cut)
	other := call("eth_sendTransaction", "[{}]")
	signed := send()
	w.do(10*time.Second, signed, other, read())
	if signed.Err != nil || string(signed.Answer.Result) != `"`+legacyHash+`"` {
		t.Errorf("the signed one: %+v, %v", signed.Answer, signed.Err)
	}
	if other.Err == nil {
		t.Errorf("the other one was repeated: %+v", other.Answer)
	}
	for _, a := range w.asks() {
		if a.node == 1 && strings.Contains(a.body, "eth_sendTransaction") {
			t.Errorf("asked at the second member: %s", a.body)
		}
	}
}

func TestCloseDuringACallOfAnotherClassDoesNotRepeatIt(t *testing.T) {
	w := newWorld(t, 2, setting{})
	w.nodes[0].is(devchain.FaultHang)
	c := call("eth_sendTransaction", "[{}]")
	done := make(chan struct{})
	go func() { defer close(done); w.do(10*time.Second, c) }()
	eventually(t, "the request", func() bool { return len(w.asks()) == 1 })
	w.backends[0].Close()
	<-done
	if c.Err == nil {
		t.Errorf("%+v", c.Answer)
	}
	wantOrder(t, w, "0")
}

func TestLookUpsEndWithTheDeadline(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		w.nodes[0].does(cut)
		w.nodes[1].does(func(rw http.ResponseWriter, r *http.Request) {
			in, _ := io.ReadAll(r.Body)
			if strings.Contains(string(in), "eth_getTransactionByHash") {
				<-r.Context().Done()
				return
			}
			fmt.Fprint(rw, replaceID(`{"id":$id,"error":{"code":-32000,"message":"already known"}}`, in))
		})
		c := send()
		started := time.Now()
		w.do(2*time.Second, c)
		unknown(t, c, legacyHash)
		if took := time.Since(started); took > 2*time.Second {
			t.Errorf("took %s", took)
		}
	})
}
