package probe

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/backend"
)

func TestChecksComeAtOnceAndThenEveryIntervalGiveOrTakeATenth(t *testing.T) {
	inBubble(t, 10, setting{}, func(t *testing.T, w *world) {
		pass(10 * time.Minute)
		offsets := map[time.Duration]bool{}
		for i, n := range w.nodes {
			at := n.times(blockNumber)
			if len(at) < 18 || at[0] != 0 || at[1] >= 30*time.Second {
				t.Fatalf("backend %d was checked at %v", i, at)
			}
			offsets[at[1].Round(100*time.Millisecond)] = true
			for j := 2; j < len(at); j++ {
				if d := at[j] - at[j-1]; d < 27*time.Second || d > 33*time.Second {
					t.Fatalf("backend %d: %s between two checks", i, d)
				}
			}
		}
		if len(offsets) < 5 {
			t.Fatalf("the checks are not spread: %v", offsets)
		}
	})
}

func TestACheckAsksEachMethodInTurn(t *testing.T) {
	chain := func(i int, o *backend.Options) { o.ChainID = uint64(i) } // none for the first
	checks := func(o *Options) { o.Checks = []string{"net_version", syncing, chainID, blockNumber} }
	skip := func(i int, t *Target) { t.SkipSyncing = i == 1 }
	inBubble(t, 2, setting{backend: chain, probe: checks, target: skip, idle: true}, func(t *testing.T, w *world) {
		w.check(0)
		w.check(1)
		if got := w.nodes[0].methods(); !slices.Equal(got, []string{"net_version", syncing, blockNumber}) {
			t.Errorf("without a declared chain: %v", got)
		}
		if got := w.nodes[1].methods(); !slices.Equal(got, []string{"net_version", chainID, blockNumber}) {
			t.Errorf("with skip_is_syncing_check: %v", got)
		}
	})
}

// The example of the seed, "Endpoint Health Debouncing".
func TestOnlyEqualChecksInARowTurnABackend(t *testing.T) {
	inBubble(t, 1, setting{idle: true}, func(t *testing.T, w *world) {
		for i, step := range []struct {
			ok   bool
			want backend.State
		}{
			{true, backend.Well},
			{false, backend.Well},
			{false, backend.Unfit},
			{true, backend.Unfit},
			{true, backend.Well},
			// Either resets the other.
			{false, backend.Well},
			{true, backend.Well},
			{false, backend.Well},
			{false, backend.Unfit},
			{true, backend.Unfit},
			{false, backend.Unfit},
			{true, backend.Unfit},
			{true, backend.Well},
		} {
			w.nodes[0].saysAll(nil)
			if !step.ok {
				w.nodes[0].saysAll(&answer{status: 503})
			}
			w.check(0)
			if got := w.backends[0].Standing().State; got != step.want {
				t.Fatalf("request %d: %s, want %s", i+1, got, step.want)
			}
			if step.want == backend.Unfit {
				w.reason(0, "eth_blockNumber: status 503")
			}
		}
	})
}

func TestAFailureOfAClientsCallCountsAsAFailedCheck(t *testing.T) {
	inBubble(t, 1, setting{}, func(t *testing.T, w *world) {
		synctest.Wait()
		w.clientFails(0)
		w.state(0, backend.Well)
		w.nodes[0].saysAll(&answer{status: 500})
		pass(31 * time.Second) // one check at least
		w.state(0, backend.Unfit)
		w.clientFails(0)
		w.nodes[0].saysAll(nil)
		pass(66 * time.Second)
		w.state(0, backend.Well)
	})
}

func TestFailuresOfClientsCallsCountOnceBetweenTwoChecks(t *testing.T) {
	few := func(_ int, o *backend.Options) { o.OutAfter, o.MaxErrorRate = 100, 2 }
	inBubble(t, 1, setting{backend: few}, func(t *testing.T, w *world) {
		synctest.Wait()
		for range 20 { // of many calls that are answered
			w.clientFails(0)
		}
		w.state(0, backend.Well)
		pass(time.Minute)
		w.clientFails(0)
		w.state(0, backend.Well)
	})
}

func interval0(o *Options) { o.Interval = 0 }

func TestIntervalZeroAsksOnlyAfterAFailureUntilItIsWell(t *testing.T) {
	inBubble(t, 1, setting{probe: interval0}, func(t *testing.T, w *world) {
		pass(24*time.Hour + 500*time.Millisecond)
		if !isClosed(w.FirstRound()) {
			t.Fatal("the first round waits for checks that are not made")
		}
		for range 50 {
			w.clientCall(0, "eth_gasPrice", false)
		}
		pass(time.Hour)
		if n := w.nodes[0].times(blockNumber); len(n) != 0 {
			t.Fatalf("asked without a failure, at %v", n)
		}
		for range 2 { // and again the same
			w.clientFails(0)
			begun := time.Since(w.begun)
			pass(24 * time.Hour)
			var got []time.Duration
			for _, at := range w.nodes[0].times(blockNumber) {
				got = append(got, at-begun)
			}
			if !slices.Equal(got, seconds(30, 60, 90)) {
				t.Fatalf("asked at %v after the failure", got)
			}
		}
		w.state(0, backend.Well)
	})
}

func TestIntervalZeroTheFailureIsTheFirstObservation(t *testing.T) {
	inBubble(t, 1, setting{probe: interval0}, func(t *testing.T, w *world) {
		w.clientFails(0)
		w.nodes[0].saysAll(&answer{delay: time.Hour})
		begun := time.Since(w.begun)
		pass(34 * time.Second)
		w.state(0, backend.Well)
		pass(2 * time.Second) // 30 s and the timeout of 5 s
		w.state(0, backend.Unfit)
		w.reason(0, "eth_blockNumber: timeout")
		w.nodes[0].saysAll(nil)
		pass(begun + 119*time.Second - time.Since(w.begun)) // checks at 60 s and 90 s
		w.state(0, backend.Unfit)
		pass(2 * time.Second) // the third
		w.state(0, backend.Well)
		w.nodes[0].took()
		pass(24 * time.Hour)
		if n := w.nodes[0].took(); len(n) != 0 {
			t.Fatalf("still asked, at %v", n)
		}
	})
}

func TestIntervalZeroAFailureBetweenBeginsThePassesAnew(t *testing.T) {
	inBubble(t, 1, setting{probe: interval0}, func(t *testing.T, w *world) {
		w.clientFails(0)
		pass(65 * time.Second) // two passes
		w.clientFails(0)
		pass(time.Hour)
		if got := w.nodes[0].times(blockNumber); len(got) != 5 {
			t.Fatalf("asked at %v", got)
		}
	})
}

func TestNoMoreChecksAtOnceThanConfigured(t *testing.T) {
	slow := func(_ int, n *node) { n.saysAll(&answer{delay: time.Second, result: `"0x1"`}) }
	checks := func(o *Options) { o.Checks = []string{"net_version"} }
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 50, setting{node: slow, probe: checks})
		var most atomic.Int64
		busy := func() (n int) {
			for _, nd := range w.nodes {
				nd.mu.Lock()
				n += nd.busy
				nd.mu.Unlock()
			}
			return n
		}
		for range 40 {
			pass(100 * time.Millisecond)
			most.Store(max(most.Load(), int64(busy())))
		}
		if most.Load() != 20 {
			t.Fatalf("%d checks at once, want 20", most.Load())
		}
		if !isClosed(w.FirstRound()) {
			t.Fatal("50 checks of a second, 20 at once, did not end in 4 s")
		}
	})
}

func TestFirstRoundEndsWithTheLastCheck(t *testing.T) {
	slow := func(i int, n *node) { n.says(blockNumber, answer{delay: time.Duration(i) * time.Second}) }
	inBubble(t, 4, setting{node: slow}, func(t *testing.T, w *world) {
		pass(2900 * time.Millisecond)
		if isClosed(w.FirstRound()) {
			t.Fatal("the first round ended before the last check")
		}
		pass(200 * time.Millisecond)
		if !isClosed(w.FirstRound()) {
			t.Fatal("the first round did not end with the last check")
		}
	})
}

func TestFirstRoundEndsAfterTenSeconds(t *testing.T) {
	hangs := func(_ int, n *node) { n.saysAll(&answer{delay: time.Hour}) }
	patient := func(_ int, o *backend.Options) { o.ResponseTimeout = time.Minute }
	inBubble(t, 1, setting{node: hangs, backend: patient}, func(t *testing.T, w *world) {
		pass(9900 * time.Millisecond)
		if isClosed(w.FirstRound()) {
			t.Fatal("the first round ended without the check")
		}
		pass(200 * time.Millisecond)
		if !isClosed(w.FirstRound()) {
			t.Fatal("the first round did not end after ten seconds")
		}
	})
}

func TestNothingToCheckIsAFirstRoundAtOnce(t *testing.T) {
	inBubble(t, 3, setting{probe: func(o *Options) { o.Enabled = false }}, func(t *testing.T, w *world) {
		if !isClosed(w.FirstRound()) {
			t.Fatal("the first round waits for nothing")
		}
		pass(time.Hour)
		w.clientFails(0)
		pass(time.Hour)
		if got := w.nodes[0].times(blockNumber); len(got) != 0 {
			t.Fatalf("without [health] the gateway asked at %v", got)
		}
	})
}

func TestABackendHeldAtStartDoesNotHoldTheFirstRound(t *testing.T) {
	inBubble(t, 1, setting{idle: true}, func(t *testing.T, w *world) {
		w.nodes[0].saysAll(tooMany)
		w.clientCall(0, "eth_gasPrice", false)
		w.state(0, backend.Held)
		w.Start()
		synctest.Wait()
		if !isClosed(w.FirstRound()) {
			t.Fatal("the first round waits for a backend that is left alone")
		}
	})
}

func TestStopEndsACheckThatHangs(t *testing.T) {
	hangs := func(_ int, n *node) { n.saysAll(&answer{delay: time.Hour}) }
	patient := func(_ int, o *backend.Options) { o.ResponseTimeout = time.Hour }
	thresholds := func(o *Options) { o.FailureThreshold = 1 }
	inBubble(t, 30, setting{node: hangs, backend: patient, probe: thresholds}, func(t *testing.T, w *world) {
		pass(time.Second)
		begun := time.Now()
		w.Stop()
		if d := time.Since(begun); d != 0 {
			t.Fatalf("Stop took %s", d)
		}
		for i := range w.backends { // nothing was found out
			w.state(i, backend.Well)
		}
	})
}

func TestAPanicInACheckCountsAsAFailedOne(t *testing.T) {
	zero := func(_ int, n *node) { n.says(blockNumber, answer{result: `"0x0"`}) }
	broken := func(_ int, tg *Target) { tg.Peers = []*backend.Backend{nil} }
	inBubble(t, 1, setting{node: zero, target: broken}, func(t *testing.T, w *world) {
		pass(2 * time.Minute)
		w.state(0, backend.Unfit)
		w.reason(0, "internal error")
		if !strings.Contains(w.logs.String(), "panic in a health check") {
			t.Fatal("the panic was not logged")
		}
		w.nodes[0].saysAll(nil)
		w.nodes[0].says(blockNumber, answer{})
		pass(2 * time.Minute)
		w.state(0, backend.Well)
	})
}

func TestALoopThatPanicsBeginsAgain(t *testing.T) {
	inBubble(t, 1, setting{idle: true}, func(t *testing.T, w *world) {
		var n atomic.Int32
		w.watch(0).seen = func() {
			if n.Add(1) == 1 {
				panic("for the test")
			}
		}
		w.Start()
		pass(2 * time.Minute)
		if got := w.nodes[0].times(blockNumber); len(got) < 3 {
			t.Fatalf("checked at %v only", got)
		}
		if !strings.Contains(w.logs.String(), "panic in a prober") {
			t.Fatal("the panic was not logged")
		}
	})
}
