package group

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
)

// What only the hedge ran into does not end the call that the first attempt serves,
// nor does it speak against the first.
func TestHedgeWithoutASlotOrWithTooLargeAnAnswerLeavesTheCallToTheFirst(t *testing.T) {
	for name, c := range map[string]struct {
		backend func(o *backend.Options)
		harm    func(w *world) (undo func())
	}{
		"no slot": {
			func(o *backend.Options) { o.Slots = backend.NewSlots(1, 10*time.Millisecond) },
			func(w *world) func() {
				a := w.backends[1].Begin(callsOf(read()), backend.Try{Timeout: time.Minute}, make(chan *backend.Attempt, 1))
				time.Sleep(time.Second)
				return a.Abandon
			},
		},
		"too large": {
			func(o *backend.Options) { o.MaxResponseSize = 1000 },
			func(w *world) func() {
				w.nodes[1].says(200, `{"jsonrpc":"2.0","id":$id,"result":`+big(1)+`}`)
				return func() {}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := setting{
				group: func(o *Options) { byScore(o); o.Hedge = &afterTenth },
				backend: func(i int, o *backend.Options) {
					if i == 1 {
						c.backend(o)
					}
				},
			}
			inBubble(t, 2, s, func(t *testing.T, w *world) {
				w.nodes[0].late(300*time.Millisecond, `"result":"0x7"`)
				w.nodes[1].late(20*time.Second, `"result":"0x8"`)
				defer c.harm(w)()
				begun := time.Now()
				w.well("b0")
				if took := time.Since(begun); took != 300*time.Millisecond {
					t.Errorf("answered after %v", took)
				}
				if hedges, won := w.metric("group_hedges_total"), w.metric("group_hedges_won_total"); hedges != 1 || won != 0 {
					t.Errorf("%v hedges, %v won", hedges, won)
				}
				if got := w.strategy.(*scored).counts[0].now; got != (tally{answered: 1}) {
					t.Errorf("counted for the first: %+v", got)
				}
				if good, bad := w.metric("group_successes_total"), w.metric("group_failures_total"); good != 1 || bad != 0 {
					t.Errorf("%v successes, %v failures", good, bad)
				}
			})
		})
	}
}

// An error is asked about at the second member; that a hedge beside it breaks does
// not end the wait for it.
func TestHedgeThatBreaksDoesNotEndTheWaitForAnotherAnswer(t *testing.T) {
	hedging(t, 3, afterTenth, nil, func(t *testing.T, s *streams) {
		s.nodes[0].errs(-32000, "odd")
		s.nodes[1].late(500*time.Millisecond, `"result":"0x7"`)
		s.nodes[2].does(cut)
		s.well("b1")
		if got := s.hedgedAt(); got != "0 1@0s 2@100ms" {
			t.Errorf("asked %s", got)
		}
		s.nothingLeft()
	})
}

// Of what hedges brought while the first ran, a result is kept rather than an error,
// whichever came first.
func TestHedgesResultIsKeptRatherThanAnothersError(t *testing.T) {
	null, odd := `"result":null`, `"error":{"code":-32000,"message":"odd"}`
	for by, said := range map[string][2]string{"b1": {null, odd}, "b2": {odd, null}} {
		hedging(t, 3, Hedge{Delay: time.Second / 10, Max: time.Second, MaxExtra: 2}, nil, func(t *testing.T, s *streams) {
			s.nodes[0].does(func(w http.ResponseWriter, _ *http.Request) { time.Sleep(500 * time.Millisecond); w.WriteHeader(500) })
			s.nodes[1].late(10*time.Millisecond, said[0])
			s.nodes[2].late(10*time.Millisecond, said[1])
			c := call("eth_getTransactionByHash", `["`+legacyHash+`"]`)
			s.do(10*time.Second, c)
			if c.Err != nil || string(c.Answer.Result) != "null" || c.Answer.Backend != by {
				t.Errorf("%+v, %v, want null of %s", c.Answer, c.Err, by)
			}
			if got := s.hedgedAt(); got != "0 1@100ms 2@200ms" {
				t.Errorf("asked %s", got)
			}
			s.nothingLeft()
		})
	}
}

// counting is a context that counts how often its user waits.
type counting struct {
	context.Context
	waits atomic.Int32
}

func (c *counting) Done() <-chan struct{} {
	c.waits.Add(1)
	return c.Context.Done()
}

// With nobody left to hedge to, the run sleeps until something ends.
func TestRunSleepsWhenNobodyIsLeftToHedgeTo(t *testing.T) {
	for name, c := range map[string]struct {
		extra int
		unfit bool
		asked string
	}{
		"all are asked":         {9, false, "01"},
		"the other is not well": {2, true, "0"},
		"hedges are used up":    {1, false, "01"},
	} {
		t.Run(name, func(t *testing.T) {
			hedging(t, 2, Hedge{Delay: time.Millisecond, Max: time.Second, MaxExtra: c.extra}, nil, func(t *testing.T, s *streams) {
				s.nodes[0].late(2*time.Second, `"result":"0x7"`)
				s.nodes[1].is(devchain.FaultHang)
				if c.unfit {
					s.backends[1].Unfit("test", "left alone")
				}
				ctx := &counting{Context: t.Context()}
				q := read()
				s.ServeRPC(ctx, callsOf(q))
				if q.Err != nil || q.Answer.Backend != "b0" {
					t.Fatalf("%+v, %v", q.Answer, q.Err)
				}
				wantOrder(t, s.world, c.asked)
				if n := ctx.waits.Load(); n > 20 {
					t.Errorf("the run woke up %d times", n)
				}
				s.nothingLeft()
			})
		})
	}
}

// The first attempt of a further round has its whole delay, whatever passed of the
// one before while all failed and the round waited.
func TestFirstAttemptOfALaterRoundIsHedgedAfterItsWholeDelay(t *testing.T) {
	one := 1
	again := func(o *Options) { o.MaxRetries, o.RetryDelay = &one, after(300*time.Millisecond) }
	hedging(t, 2, afterTenth, again, func(t *testing.T, s *streams) {
		for i, d := range []time.Duration{500 * time.Millisecond, 50 * time.Millisecond} {
			var asked atomic.Int32
			s.nodes[i].does(func(w http.ResponseWriter, r *http.Request) {
				in, _ := io.ReadAll(r.Body)
				if asked.Add(1) == 1 {
					w.WriteHeader(500)
					return
				}
				select {
				case <-time.After(d):
				case <-r.Context().Done():
				}
				io.WriteString(w, replaceID(fmt.Sprintf(`{"jsonrpc":"2.0","id":$id,"result":"0x%d"}`, i), in))
			})
		}
		s.well("b1")
		if got := s.hedgedAt(); got != "0 1@0s 0@300ms 1@400ms" {
			t.Errorf("asked %s", got)
		}
		s.nothingLeft()
	})
}
