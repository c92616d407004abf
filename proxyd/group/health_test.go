package group

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

func TestFailingMemberGoesOutAndOneTrialBringsItBack(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultStatus)
		for range 5 {
			w.well("b1")
		}
		wantOrder(t, w, "01"+"01"+"01"+"1"+"1")
		w.state(0, backend.Out)
		time.Sleep(30 * time.Second)
		w.well("b1") // the trial fails
		w.well("b1")
		wantOrder(t, w, "01"+"1")
		time.Sleep(60 * time.Second) // twice as long as before
		w.nodes[0].is(devchain.FaultNone)
		w.well("b0")
		w.well("b0")
		w.state(0, backend.Well)
	})
}

func TestRefusingMemberGoesOutAtOnce(t *testing.T) {
	w := newWorld(t, 2, setting{backend: refusing(0)})
	w.well("b1")
	w.state(0, backend.Out)
}

func TestExactlyOneOfManyCallsMakesTheTrial(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultStatus)
		for range 3 {
			w.get()
		}
		w.state(0, backend.Out)
		time.Sleep(30 * time.Second)
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: time.Second})
		w.order()
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { w.get() })
		}
		all.Wait()
		if got := w.order(); strings.Count(got, "0") != 1 {
			t.Errorf("asked %s", got)
		}
		w.state(0, backend.Well)
	})
}

func TestTrialAtASilentMemberCostsOnlyItsOverdueTime(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		for range 20 {
			w.well("b0")
		}
		w.nodes[0].is(devchain.FaultStatus)
		for range 3 {
			w.get()
		}
		w.state(0, backend.Out)
		w.nodes[0].is(devchain.FaultHang)
		for n := range 3 {
			time.Sleep(time.Duration(n+1) * 36 * time.Second)
			w.state(0, backend.Trial)
			started := time.Now()
			w.well("b1")
			if took := time.Since(started); took > 300*time.Millisecond {
				t.Errorf("the trial cost its call %s", took)
			}
			time.Sleep(6 * time.Second) // its real time-out decides
			w.state(0, backend.Out)
		}
	})
}

func TestPoisonCallTakesNobodyOut(t *testing.T) {
	for _, kind := range []devchain.FaultKind{devchain.FaultStatus, devchain.FaultGarbage, devchain.FaultClose, devchain.FaultWrongID} {
		w := newWorld(t, 3, setting{})
		w.all(func(n *node) { n.SetFault(devchain.Fault{Kind: kind, Method: "debug_traceCall"}) })
		for range 10 {
			poison := call("debug_traceCall", "[{}]")
			w.do(10*time.Second, poison)
			var nobody *Unserviceable
			if !errors.As(poison.Err, &nobody) {
				t.Fatal(poison.Err)
			}
		}
		for i := range w.backends {
			w.state(i, backend.Well)
		}
		w.well("b0")
	}
}

func TestPoisonCallThatHangsTakesNobodyOutThatAnswersOthers(t *testing.T) {
	inBubble(t, 2, setting{backend: func(_ int, o *backend.Options) { o.ResponseTimeout = time.Second }}, func(t *testing.T, w *world) {
		w.all(func(n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultHang, Method: "debug_traceCall"}) })
		stop := make(chan struct{})
		var all sync.WaitGroup
		for i := range w.backends {
			all.Go(func() {
				done := make(chan *backend.Attempt, 1)
				for {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
						w.backends[i].Begin(callsOf(read()), backend.Try{Timeout: time.Minute}, done)
						(<-done).Settle(false)
					}
				}
			})
		}
		for range 10 {
			poison := call("debug_traceCall", "[{}]")
			w.do(10*time.Second, poison)
			if !errors.Is(poison.Err, ErrTimeout) {
				t.Fatal(poison.Err)
			}
		}
		close(stop)
		all.Wait()
		w.state(0, backend.Well)
		w.state(1, backend.Well)
	})
}

func TestGroupWithOneBackendIsNeverRefused(t *testing.T) {
	inBubble(t, 1, setting{backend: func(_ int, o *backend.Options) {
		o.OutAfter, o.OutFor, o.ResponseTimeout = 1, 600*time.Second, time.Second
	}}, func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultHang)
		w.get()
		w.state(0, backend.Out)
		if w.Usable() {
			t.Error("usable")
		}
		w.nodes[0].is(devchain.FaultNone)
		time.Sleep(time.Millisecond)
		w.well("b0")
		w.state(0, backend.Well)
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "60", Times: 1})
		w.get()
		w.state(0, backend.Held)
		time.Sleep(time.Millisecond)
		w.well("b0")
		w.state(0, backend.Well) // its answer ends the hold-off
	})
}

func TestLeastBadMemberIsTriedWhenAllAreOut(t *testing.T) {
	inBubble(t, 3, setting{}, func(t *testing.T, w *world) {
		w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "10"})
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "20"})
		w.nodes[2].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "30"})
		w.get()
		wantOrder(t, w, "012")
		if w.Usable() {
			t.Error("usable")
		}
		w.nodes[1].is(devchain.FaultNone)
		w.well("b1") // whose hold-off ends first
		wantOrder(t, w, "1")
	})
}

func TestLastResortIsAMemberThatIsOutButNotOneThatIsHeldOff(t *testing.T) {
	inBubble(t, 3, setting{}, func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultStatus)
		w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "600"})
		for range 3 {
			w.well("b2")
		}
		w.state(0, backend.Out)
		w.state(1, backend.Held)
		w.order()
		w.nodes[0].is(devchain.FaultNone)
		w.nodes[1].is(devchain.FaultNone)
		w.nodes[2].SetFault(devchain.Fault{Kind: devchain.FaultStatus, Times: 1})
		w.well("b0")
		wantOrder(t, w, "20")
	})
}

func TestHeldOffMemberIsLeftAloneForItsTime(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "7", Times: 1})
		w.well("b1")
		w.well("b1")
		time.Sleep(7 * time.Second)
		w.well("b0")
		wantOrder(t, w, "01"+"1"+"0")
	})
}

// load sends reads at 200 a second for d and returns how long each took; every
// one must be answered.
func load(t *testing.T, w *world, d time.Duration) []time.Duration {
	t.Helper()
	var all sync.WaitGroup
	n := int(d / (5 * time.Millisecond))
	took := make([]time.Duration, n)
	for i := range n {
		all.Go(func() {
			started := time.Now()
			c := read()
			w.do(10*time.Second, c)
			if took[i] = time.Since(started); c.Err != nil {
				t.Errorf("call %d: %v", i, c.Err)
			}
		})
		time.Sleep(5 * time.Millisecond)
	}
	all.Wait()
	return took
}

func slow(took []time.Duration, limit time.Duration) (n int, most time.Duration) {
	for _, d := range took {
		most = max(most, d)
		if d > limit {
			n++
		}
	}
	return n, most
}

func TestBackendThatHangsUnderLoadCostsNoCallMoreThanItsOverdueTime(t *testing.T) {
	inBubble(t, 2, setting{backend: func(_ int, o *backend.Options) { o.ResponseTimeout = time.Second }}, func(t *testing.T, w *world) {
		load(t, w, 500*time.Millisecond)
		w.nodes[0].is(devchain.FaultHang)
		n, most := slow(load(t, w, 10*time.Second), 100*time.Millisecond)
		t.Logf("%d of 2000 calls were slow, the slowest took %s", n, most)
		if n > 60 || most > 250*time.Millisecond {
			t.Errorf("%d calls were slow, the slowest took %s", n, most)
		}
		w.state(0, backend.Out) // real time-outs have come
	})
}

func TestPauseOfABackendMovesItsCallsAndDoesNotPutItOut(t *testing.T) {
	inBubble(t, 2, setting{backend: func(_ int, o *backend.Options) { o.ResponseTimeout = time.Second }}, func(t *testing.T, w *world) {
		load(t, w, 500*time.Millisecond)
		w.nodes[0].is(devchain.FaultHang)
		time.AfterFunc(700*time.Millisecond, func() { w.nodes[0].is(devchain.FaultNone) })
		suspected := false
		time.AfterFunc(600*time.Millisecond, func() { suspected = w.backends[0].Standing().State == backend.Suspect })
		n, most := slow(load(t, w, 2*time.Second), 100*time.Millisecond)
		t.Logf("%d calls were slow, the slowest took %s", n, most)
		if !suspected || most > 250*time.Millisecond {
			t.Errorf("suspected %t, the slowest call took %s", suspected, most)
		}
		w.state(0, backend.Well)
		w.order()
		w.well("b0") // the first byte has lifted the suspicion
	})
}

func TestSilentSingleBackendIsStillAsked(t *testing.T) {
	inBubble(t, 1, setting{backend: func(_ int, o *backend.Options) { o.ResponseTimeout = time.Second }}, func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultHang)
		time.AfterFunc(700*time.Millisecond, func() { w.nodes[0].is(devchain.FaultNone) })
		load(t, w, time.Second)
	})
}

func TestAllSilentIsATimeoutForEachCall(t *testing.T) {
	inBubble(t, 2, setting{backend: func(_ int, o *backend.Options) { o.ResponseTimeout = time.Second }}, func(t *testing.T, w *world) {
		w.all(func(n *node) { n.is(devchain.FaultHang) })
		var all sync.WaitGroup
		calls := make([]*jsonrpc.Call, 20)
		for i := range calls {
			calls[i] = read()
			all.Go(func() { w.do(10*time.Second, calls[i]) })
		}
		all.Wait()
		for _, c := range calls {
			if !errors.Is(c.Err, ErrTimeout) {
				t.Fatal(c.Err)
			}
		}
	})
}

func TestStreamingBackendIsNotSilent(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		for range 20 {
			w.well("b0")
		}
		// A long answer trickles on one connection while reads queue behind it.
		w.nodes[0].does(func(rw http.ResponseWriter, r *http.Request) {
			for range 20 {
				fmt.Fprint(rw, " ")
				rw.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond)
			}
		})
		var all sync.WaitGroup
		all.Go(func() { w.get() })
		time.Sleep(50 * time.Millisecond)
		w.nodes[0].is(devchain.FaultHang)
		w.nodes[0].serve.Store(nil)
		for range 5 {
			all.Go(func() { w.get() })
		}
		time.Sleep(time.Second)
		synctest.Wait()
		w.state(0, backend.Well)
		w.nodes[0].is(devchain.FaultNone)
		all.Wait()
		time.Sleep(time.Minute) // the handler's end
	})
}

func TestAllTrialsTakenByOthersStillServes(t *testing.T) {
	// Both members come back at the same moment, and every call wants a trial.
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		for round := range 20 {
			w.all(func(n *node) { n.is(devchain.FaultClose) })
			done := make(chan *backend.Attempt, 1)
			for range 3 {
				for _, b := range w.backends {
					b.Begin(callsOf(read()), backend.Try{Timeout: time.Minute}, done)
					(<-done).Settle(true)
				}
			}
			w.state(0, backend.Out)
			w.state(1, backend.Out)
			time.Sleep(30 * time.Second)
			w.all(func(n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: time.Millisecond}) })
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if c := w.get(); c.Err != nil {
						t.Errorf("round %d: %v", round, c.Err)
					}
				})
			}
			all.Wait()
		}
	})
}

func TestRequestThatAFrontRefusesSpeaksAgainstNoBackend(t *testing.T) {
	for _, status := range []int{400, 413, 414, 431} {
		inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
			w.nodes[0].says(status, "<html>refused</html>")
			for range 6 {
				w.well("b1")
			}
			w.state(0, backend.Well)
		})
	}
}

func TestTrickleDoesNotKeepACallFromTheNextBackend(t *testing.T) {
	inBubble(t, 2, setting{backend: func(_ int, o *backend.Options) { o.ResponseTimeout = 300 * time.Millisecond }}, func(t *testing.T, w *world) {
		w.nodes[0].does(func(rw http.ResponseWriter, r *http.Request) {
			for err := error(nil); err == nil; err = http.NewResponseController(rw).Flush() {
				io.WriteString(rw, " ")
				time.Sleep(100 * time.Millisecond)
			}
		})
		for range 3 {
			c := read()
			w.do(time.Second, c)
			if c.Answer == nil || c.Answer.Backend != "b1" {
				t.Fatalf("answer %v, error %v", c.Answer, c.Err)
			}
		}
		w.state(0, backend.Out)
		time.Sleep(time.Second) // on the bubble's clock: the handlers notice
	})
}

func TestFailuresThatBlameNobodyAreSeen(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		w.nodes[0].says(503, "no")
		w.nodes[1].says(500, "no")
		for range 5 {
			w.do(time.Second, read())
		}
		for i, last := range []string{"status 503", "status 500"} {
			w.state(i, backend.Well)
			if got := w.backends[i].Trouble(); got.InRow != 5 || got.Last != last || !got.Since.Equal(w.begun) {
				t.Errorf("backend %d: %+v", i, got)
			}
		}
		w.nodes[0].serve.Store(nil)
		w.well("b0")
		if got := w.backends[0].Trouble(); got != (backend.Trouble{}) {
			t.Errorf("after an answer: %+v", got)
		}
	})
}

func TestBackendThatIsBackInServiceStartsAfresh(t *testing.T) {
	inBubble(t, 2, setting{backend: func(_ int, o *backend.Options) { o.OutFor = 10 * time.Second }}, func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultStatus)
		for range 30 { // three failures, and two trials that fail
			w.well("b1")
			time.Sleep(time.Second)
		}
		w.state(0, backend.Out)
		w.nodes[0].is(devchain.FaultNone)
		time.Sleep(11 * time.Second)
		w.well("b0")
		w.state(0, backend.Well)
		w.well("b0")
	})
}

func TestFailedCallTellsOfThoseThatWereNotAsked(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		w.nodes[0].does(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Retry-After", "100")
			rw.WriteHeader(429)
		})
		w.well("b1")
		w.nodes[1].says(503, "no")
		c := read()
		w.do(time.Second, c)
		if c.Err == nil || !strings.Contains(c.Err.Error(), "backend b1: HTTP status 503") || !strings.Contains(c.Err.Error(), "backend b0: not asked: held") {
			t.Errorf("error %v", c.Err)
		}
		w.nodes[1].is(devchain.FaultHang)
		w.nodes[1].serve.Store(nil)
		c = read()
		w.do(time.Second, c)
		if !errors.Is(c.Err, ErrTimeout) || !strings.Contains(c.Err.Error(), "backend b0: not asked: held") {
			t.Errorf("error %v", c.Err)
		}
		w.nodes[1].is(devchain.FaultNone)
	})
}

func TestLastResortLeavesAHeldBackendAlone(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		w.nodes[0].does(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Retry-After", "100")
			rw.WriteHeader(429)
		})
		w.well("b1")
		w.order()
		w.nodes[1].says(503, "no")
		w.do(time.Second, read())
		if asked := w.order(); asked != "1" {
			t.Errorf("asked %s, want 1 alone", asked)
		}
	})
}

// Calls that fail while all are out of service prolong nothing.
func TestMembersThatAllRefuseGoOutOnceEach(t *testing.T) {
	var refuses atomic.Bool
	s := setting{backend: func(_ int, o *backend.Options) {
		dial := o.Dial
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if refuses.Load() {
				return dialRefused(ctx, network, address)
			}
			return dial(ctx, network, address)
		}
	}}
	inBubble(t, 3, s, func(t *testing.T, w *world) {
		refuses.Store(true)
		var all sync.WaitGroup
		for range 100 {
			for range 5 {
				all.Go(func() {
					if c := w.get(); c.Err == nil {
						t.Error("answered")
					}
				})
			}
			time.Sleep(10 * time.Millisecond)
		}
		all.Wait()
		refuses.Store(false)
		for i, b := range w.backends {
			w.state(i, backend.Out)
			if until := b.Standing().Until.Sub(w.begun); until != 30*time.Second {
				t.Errorf("backend %d is out until %v", i, until)
			}
			if n := w.metric("backend_out_of_service_total", "backend_name", b.Name()); n != 1 {
				t.Errorf("backend %d went out %v times", i, n)
			}
		}
		time.Sleep(29 * time.Second)
		for i := range w.backends {
			w.state(i, backend.Trial)
		}
		refuses.Store(true)
		w.get() // the trial of each fails: twice as long, without going out again
		for i, b := range w.backends {
			if left := time.Until(b.Standing().Until); left != time.Minute {
				t.Errorf("backend %d is out for %v", i, left)
			}
		}
		if n := w.metric("backend_out_of_service_total"); n != 3 {
			t.Errorf("all went out %v times", n)
		}
	})
}

// limit lets a member ask to be left alone for a minute, and then be unfit too.
func (w *world) limit(i int) {
	w.t.Helper()
	w.nodes[i].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "60", Times: 1})
	done := make(chan *backend.Attempt, 1)
	w.backends[i].Begin(callsOf(read()), backend.Try{Timeout: time.Second}, done)
	(<-done).Settle(false)
	w.state(i, backend.Held)
	w.backends[i].Unfit("test", "no peers")
	w.state(i, backend.Unfit)
	w.order()
}

func TestMemberThatAskedToBeLeftAloneIsThoughItBecomesUnfit(t *testing.T) {
	t.Run("last resort", func(t *testing.T) {
		inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
			w.limit(1)
			w.nodes[0].says(503, "no")
			for _, pause := range []time.Duration{0, 30 * time.Second, 29999 * time.Millisecond} {
				time.Sleep(pause)
				if c := w.get(); c.Err == nil {
					t.Fatal(c.Answer)
				}
				wantOrder(t, w, "0")
			}
			time.Sleep(time.Millisecond)
			w.well("b1")
			wantOrder(t, w, "01")
		})
	})
	t.Run("multicall", func(t *testing.T) {
		multicalling(t, 2, multicallGroup(), func(t *testing.T, w *world) {
			w.limit(1)
			w.nodes[0].ends(accepted, 0, "null")
			w.nodes[1].ends(accepted, time.Second, "null")
			for _, pause := range []time.Duration{0, 30 * time.Second, 29999 * time.Millisecond} {
				time.Sleep(pause)
				wantHash(t, w.send(), "b0")
				synctest.Wait()
				wantOrder(t, w, "0")
			}
			time.Sleep(time.Millisecond)
			wantHash(t, w.send(), "b0")
			synctest.Wait()
			if got := sorted(w.order()); got != "01" {
				t.Errorf("asked %s", got)
			}
		})
	})
}
