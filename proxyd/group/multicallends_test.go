package group

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

func TestMulticallTakesAMemberThatFailsOutWhenAnotherAccepts(t *testing.T) {
	for _, slow := range []int{0, 1} { // who ends last
		multicalling(t, 2, multicallGroup(), func(t *testing.T, w *world) {
			delays := [2]time.Duration{}
			delays[slow] = time.Second
			w.nodes[0].ends(sendEnd{500, "no"}, delays[0], "null")
			w.nodes[1].ends(accepted, delays[1], "null")
			for range 3 {
				w.state(0, backend.Well)
				wantHash(t, w.send(), "b1")
				time.Sleep(2 * time.Second)
			}
			w.state(0, backend.Out)
			w.state(1, backend.Well)
		})
	}
	multicalling(t, 2, multicallGroup(), func(t *testing.T, w *world) { // nobody accepts: it may be the call
		w.all(func(n *node) { n.ends(sendEnd{500, "no"}, 0, "null") })
		for range 10 {
			unknown(t, w.send(), legacyHash)
			synctest.Wait()
		}
		w.state(0, backend.Well)
		w.state(1, backend.Well)
	})
}

// A send is answered whole, and what the others answer leaves nothing behind.
func TestMulticallLeavesNoStreamOfALargeAnswer(t *testing.T) {
	multi := func(o *Options) { o.Strategy, o.Hedge = "multicall", nil }
	for name, first := range map[string]int{"of the first": 0, "of the second": 1} {
		t.Run(name, func(t *testing.T) {
			hedging(t, 2, Hedge{}, multi, func(t *testing.T, s *streams) {
				s.nodes[first].late(100*time.Millisecond, `"result":`+big(first))
				s.nodes[1-first].late(200*time.Millisecond, `"result":`+big(1-first))
				c := streamable("eth_sendRawTransaction", `["`+legacyTx+`"]`)
				s.do(10*time.Second, c)
				if c.Err != nil || read1(t, c) != big(first) {
					t.Errorf("%v", c.Err)
				}
				time.Sleep(time.Second)
				s.Close(context.Background())
				if n := s.sum("proxyd_streamed_answers_total"); n != 0 {
					t.Errorf("%v answers streamed", n)
				}
				s.nothingLeft() // which closes the backends
			})
		})
	}
}

func TestMulticallBoundsTheSendsOfABatchInFlight(t *testing.T) {
	multicalling(t, 2, multicallGroup(), func(t *testing.T, w *world) {
		var now, most atomic.Int64
		w.all(func(n *node) {
			n.does(func(rw http.ResponseWriter, r *http.Request) {
				in, _ := io.ReadAll(r.Body)
				for n := now.Add(1); ; {
					old := most.Load()
					if n <= old || most.CompareAndSwap(old, n) {
						break
					}
				}
				time.Sleep(100 * time.Millisecond)
				now.Add(-1)
				io.WriteString(rw, replaceID(accepted.body, in))
			})
		})
		calls := make([]*jsonrpc.Call, 100)
		for i := range calls {
			calls[i] = send()
		}
		w.do(10*time.Second, calls...)
		for _, c := range calls {
			wantHash(t, c, "")
		}
		if took := time.Since(w.begun); took != 700*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
		// Who has just been answered may be counted beside whom that let in.
		if n := most.Load(); n < 2*chunksAtOnce || n > 4*chunksAtOnce {
			t.Errorf("%d requests at once", n)
		}
		if got := w.asksOf("eth_sendRawTransaction"); got != "100100" {
			t.Errorf("sent %s times", got)
		}
	})
}

// A shutdown that is over does not wait for sends: they end with their backends.
func TestMulticallCloseEndsWithItsContext(t *testing.T) {
	multi := func(o *Options) { o.Strategy, o.Hedge = "multicall", nil }
	hedging(t, 2, Hedge{}, multi, func(t *testing.T, s *streams) {
		s.nodes[0].ends(accepted, 0, "null")
		s.nodes[1].is(devchain.FaultHang)
		wantHash(t, s.send(), "b0")
		begun := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Close(ctx)
		if took := time.Since(begun); took != time.Second {
			t.Errorf("closed after %v", took)
		}
		if n := s.sum("proxyd_backend_in_flight"); n != 1 {
			t.Errorf("%v sends are under way", n)
		}
		for _, b := range s.backends {
			b.Close()
		}
		s.Close(context.Background())
		if took := time.Since(begun); took != time.Second {
			t.Errorf("the last send ended after %v", took)
		}
		s.nothingLeft()
		if got := s.asksOf("eth_sendRawTransaction"); got != "11" {
			t.Errorf("sent %s times", got)
		}
	})
}

func TestMulticallBeginsNoSendAfterTheTimeOfItsCall(t *testing.T) {
	inBubble(t, 2, setting{group: func(o *Options) { o.Strategy = "multicall" }}, func(t *testing.T, w *world) {
		w.all(func(n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 3 * time.Second}) })
		calls := make([]*jsonrpc.Call, 3*chunksAtOnce)
		for i := range calls {
			calls[i] = send()
		}
		w.do(time.Second, calls...)
		if n := len(w.asks()); n != 2*chunksAtOnce {
			t.Errorf("%d requests, want those that began in time", n)
		}
		unknown := 0
		for _, c := range calls {
			var u *OutcomeUnknown
			if errors.As(c.Err, &u) {
				unknown++
			} else if !errors.Is(c.Err, ErrTimeout) {
				t.Errorf("error %v", c.Err)
			}
		}
		if unknown != chunksAtOnce {
			t.Errorf("%d outcomes are unknown, want those of calls that were sent", unknown)
		}
	})
}
