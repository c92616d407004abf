package probe

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/backend"
)

// The seed's example, "Rate Limit Recovery".
func seedRecovery() *backend.Recovery {
	return &backend.Recovery{Multiplier: 2, Initial: 300 * time.Second, Max: time.Hour, MaxRetries: 10, RequiredSuccesses: 3, ResetAfter: 24 * time.Hour}
}

// recovering sets the seed's recovery with changes.
func recovering(change func(r *backend.Recovery)) func(int, *backend.Options) {
	return func(_ int, o *backend.Options) {
		o.Recovery = seedRecovery()
		if change != nil {
			change(o.Recovery)
		}
	}
}

// limit makes a call of a client meet a rate limit, and returns when that was.
func (w *world) limit(i int) time.Duration {
	w.t.Helper()
	w.nodes[i].saysAll(tooMany)
	w.clientCall(i, "eth_gasPrice", false)
	synctest.Wait()
	w.state(i, backend.Held)
	w.nodes[i].took()
	return time.Since(w.begun)
}

// since returns the times of all requests since the last time, after begun.
func (n *node) since(begun time.Duration) []time.Duration {
	var at []time.Duration
	for _, a := range n.took() {
		at = append(at, a.at-begun)
	}
	return at
}

func TestARateLimitedBackendIsHeldThenTriedUntilItIsUsable(t *testing.T) {
	for name, change := range map[string]func(*Options){"interval": nil, "interval 0": interval0} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, setting{backend: recovering(nil), probe: change}, func(t *testing.T, w *world) {
				pass(100 * time.Second)
				begun := w.limit(0)
				w.nodes[0].saysAll(nil)
				pass(299*time.Second + 999*time.Millisecond)
				if got := w.nodes[0].since(begun); len(got) != 0 {
					t.Fatalf("asked while held, at %v", got)
				}
				w.state(0, backend.Held)
				pass(1500 * time.Millisecond) // the second call
				w.state(0, backend.Held)
				pass(time.Second)
				if got := w.nodes[0].since(begun); len(got) < 3 || !slices.Equal(got[:3], seconds(300, 301, 302)) {
					t.Fatalf("tried at %v", got)
				}
				w.state(0, backend.Well)
				if s := w.backends[0].Standing(); s.Share > 0.2 {
					t.Fatalf("its share is %v at once", s.Share)
				}
				pass(29 * time.Second)
				if s := w.backends[0].Standing(); s.Share < 0.9 {
					t.Fatalf("its share is %v after half a minute", s.Share)
				}
				if got := w.value("proxyd_health_checks_total", "b0", "recovery", "success"); got != 3 {
					t.Fatalf("%v calls counted", got)
				}
				checks := len(w.nodes[0].times(blockNumber))
				pass(5 * time.Minute)
				if more := len(w.nodes[0].times(blockNumber)); change == nil && more < 8 || change != nil && checks+more != 0 {
					t.Fatalf("%d checks in five minutes afterwards", more)
				}
			})
		})
	}
}

func TestARateLimitDuringTheRecoveryDoublesTheTime(t *testing.T) {
	inBubble(t, 1, setting{backend: recovering(nil)}, func(t *testing.T, w *world) {
		begun := w.limit(0)
		pass(500 * time.Second) // held again at 300 s, until 900 s
		w.state(0, backend.Held)
		w.nodes[0].saysAll(nil)
		pass(400*time.Second + 500*time.Millisecond) // one good call
		w.nodes[0].saysAll(tooMany)
		pass(time.Second) // the next is not: held from 901 s to 2101 s
		w.nodes[0].saysAll(nil)
		pass(time.Hour)
		if got := w.nodes[0].since(begun); !slices.Equal(got[:6], seconds(300, 900, 901, 2101, 2102, 2103)) {
			t.Fatalf("tried at %v", got)
		}
		w.state(0, backend.Well)
	})
}

func TestAFailureDuringTheRecoveryDoublesTheTime(t *testing.T) {
	inBubble(t, 1, setting{backend: recovering(nil)}, func(t *testing.T, w *world) {
		begun := w.limit(0)
		w.nodes[0].saysAll(&answer{status: 500})
		pass(301 * time.Second)
		w.nodes[0].saysAll(&answer{delay: time.Minute})
		pass(610 * time.Second)
		w.nodes[0].saysAll(nil)
		pass(time.Hour)
		// The second ends with its timeout of 5 s.
		if got := w.nodes[0].since(begun); !slices.Equal(got[:5], seconds(300, 900, 2105, 2106, 2107)) {
			t.Fatalf("tried at %v", got)
		}
		w.state(0, backend.Well)
		w.reason(0, "")
	})
}

func TestTheTimeIsNeverLongerThanTheLongestAndWhatTheBackendAskedFor(t *testing.T) {
	inBubble(t, 1, setting{backend: recovering(func(r *backend.Recovery) { r.Max = 700 * time.Second })}, func(t *testing.T, w *world) {
		begun := w.limit(0)
		pass(1700 * time.Second)
		w.nodes[0].saysAll(&answer{status: 429, header: map[string]string{"Retry-After": "1000"}})
		pass(2000 * time.Second)
		if got := w.nodes[0].since(begun); !slices.Equal(got, seconds(300, 900, 1600, 2300, 3300)) {
			t.Fatalf("tried at %v", got)
		}
	})
}

func TestAfterTheLastRetryTheBackendIsLeftAloneUntilTheReset(t *testing.T) {
	few := func(r *backend.Recovery) {
		r.Initial, r.MaxRetries, r.ResetAfter, r.RequiredSuccesses = 10*time.Second, 3, time.Hour, 1
	}
	for name, says := range map[string]*answer{"429": tooMany, "500": {status: 500}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, setting{backend: recovering(few)}, func(t *testing.T, w *world) {
				begun := w.limit(0)
				w.nodes[0].saysAll(says)
				pass(2*time.Hour + 30*time.Minute)
				// Three tries at 10, 30 and 70 s, then one after the hour, from
				// which all begins again.
				want := seconds(10, 30, 70, 3600, 3610, 3630, 3670, 7200, 7210, 7230, 7270)
				if got := w.nodes[0].since(begun); !slices.Equal(got, want) {
					t.Fatalf("tried at %v, want %v", got, want)
				}
				w.nodes[0].saysAll(nil)
				pass(time.Hour)
				w.state(0, backend.Well)
			})
		})
	}
}

func TestALargeMultiplierIsTheLongestTime(t *testing.T) {
	huge := func(r *backend.Recovery) { r.Multiplier = 1e200 }
	inBubble(t, 1, setting{backend: recovering(huge)}, func(t *testing.T, w *world) {
		begun := w.limit(0)
		pass(3 * time.Hour)
		if got := w.nodes[0].since(begun); !slices.Equal(got, seconds(300, 3900, 7500)) {
			t.Fatalf("tried at %v", got)
		}
	})
}

func TestARateLimitThatACheckMeetsIsNoFailure(t *testing.T) {
	// Without a recovery of its own the backend is held for a second, then two, ...
	inBubble(t, 1, setting{}, func(t *testing.T, w *world) {
		pass(time.Second)
		w.nodes[0].saysAll(tooMany)
		for range 3600 {
			pass(time.Second)
			if s := w.backends[0].Standing(); s.State == backend.Unfit {
				t.Fatalf("a rate limit made the backend unfit after %s", time.Since(w.begun))
			}
		}
		at := w.nodes[0].times(blockNumber)
		for i := 3; i < len(at); i++ { // the time grows to ten minutes
			if hold := min(time.Second<<(i-3), 10*time.Minute); at[i]-at[i-1] < hold {
				t.Fatalf("asked again after %s of %s: %v", at[i]-at[i-1], hold, at)
			}
		}
	})
}

func TestAnUnfitBackendThatAskedToBeLeftAloneIs(t *testing.T) {
	inBubble(t, 1, setting{}, func(t *testing.T, w *world) {
		w.nodes[0].saysAll(&answer{status: 500})
		pass(2 * time.Minute)
		w.state(0, backend.Unfit)
		w.nodes[0].saysAll(&answer{status: 429, header: map[string]string{"Retry-After": "1800"}})
		w.clientCall(0, "eth_gasPrice", false)
		w.nodes[0].saysAll(nil)
		w.nodes[0].took()
		pass(1799 * time.Second)
		w.state(0, backend.Unfit)
		if got := w.nodes[0].took(); len(got) != 0 {
			t.Fatalf("asked while held, at %v", got)
		}
		pass(2 * time.Minute)
		w.state(0, backend.Well)
	})
}

func TestALimitBetweenTheCallsOfACheckEndsTheCheck(t *testing.T) {
	inBubble(t, 1, setting{idle: true}, func(t *testing.T, w *world) {
		w.nodes[0].says(blockNumber, answer{delay: time.Second})
		done := make(chan struct{})
		go func() { defer close(done); w.check(0) }()
		time.Sleep(100 * time.Millisecond)
		w.nodes[0].says("eth_gasPrice", *tooMany)
		w.clientCall(0, "eth_gasPrice", false)
		<-done
		if got := w.nodes[0].methods(); !slices.Equal(got, []string{blockNumber, "eth_gasPrice"}) {
			t.Fatalf("asked for %v", got)
		}
		if w.watch(0).streak != (streak{failAfter: 2, passAfter: 2}) {
			t.Fatal("half a check counted")
		}
	})
}

func TestAFirmLimitBehindASoftOneIsRecoveredFrom(t *testing.T) {
	// The text holds the backend for a moment; the 429 that comes meanwhile begins
	// a recovery, without a sign of its own.
	inBubble(t, 1, setting{backend: recovering(nil), probe: interval0}, func(t *testing.T, w *world) {
		synctest.Wait()
		w.nodes[0].says("eth_gasPrice", answer{err: `{"code":-32000,"message":"rate limit exceeded"}`})
		w.nodes[0].says("eth_call", *tooMany)
		w.clientCall(0, "eth_gasPrice", false)
		w.clientCall(0, "eth_call", false)
		pass(400 * time.Second)
		w.state(0, backend.Well)
	})
}

func TestBackendsOfOneAccountRecoverTogether(t *testing.T) {
	account := new(backend.Account)
	shared := func(i int, o *backend.Options) { o.Account = account; recovering(nil)(i, o) }
	inBubble(t, 2, setting{backend: shared}, func(t *testing.T, w *world) {
		pass(time.Minute)
		w.nodes[1].took()
		begun := w.limit(0)
		w.state(1, backend.Held)
		pass(299 * time.Second)
		if got := w.nodes[1].took(); len(got) != 0 {
			t.Fatalf("the other one was asked while held, at %v", got)
		}
		w.nodes[0].saysAll(nil)
		pass(time.Minute)
		w.state(0, backend.Well)
		w.state(1, backend.Well)
		if got := w.nodes[0].since(begun); !slices.Equal(got[:3], seconds(300, 301, 302)) {
			t.Fatalf("tried at %v", got)
		}
		if len(w.nodes[1].took()) == 0 {
			t.Fatal("the other one is not checked any more")
		}
	})
}

func TestAClientsTrialDoesNotStandInTheWayOfTheRecovery(t *testing.T) {
	inBubble(t, 1, setting{backend: recovering(nil), probe: interval0}, func(t *testing.T, w *world) {
		w.limit(0)
		w.nodes[0].saysAll(nil)
		pass(300*time.Second + 500*time.Millisecond) // one call was made
		w.nodes[0].took()
		if !w.backends[0].TakeTrial() {
			t.Fatal("no trial")
		}
		pass(10 * time.Second)
		if got := w.nodes[0].took(); len(got) != 0 {
			t.Fatalf("a second call beside the trial, at %v", got)
		}
		w.clientTries(0) // the second answer
		pass(time.Second)
		if got := w.nodes[0].methods(); !slices.Equal(got, []string{"eth_gasPrice", blockNumber}) {
			t.Fatalf("asked for %v", got)
		}
		w.state(0, backend.Well)
	})
}

func TestNoCallOfAClientTriesABackendThatTheProberRecovers(t *testing.T) {
	never := func(o *Options) { o.Enabled = false } // nobody makes the recovery's calls
	inBubble(t, 1, setting{backend: func(i int, o *backend.Options) { recovering(nil)(i, o); o.OutAfter = 1 }, probe: never}, func(t *testing.T, w *world) {
		w.nodes[0].says("eth_gasPrice", answer{delay: 3 * time.Second, status: 500})
		done := make(chan struct{})
		go func() { defer close(done); w.clientCall(0, "eth_gasPrice", true) }()
		time.Sleep(time.Second)
		w.nodes[0].says("eth_call", *tooMany)
		w.clientCall(0, "eth_call", false)
		<-done
		w.state(0, backend.Out)
		pass(301 * time.Second) // out of service and held off no more
		w.state(0, backend.Held)
	})
}

func TestAnyAnswerThatIsNoLimitBringsABackendBack(t *testing.T) {
	inBubble(t, 1, setting{backend: recovering(nil)}, func(t *testing.T, w *world) {
		w.limit(0)
		w.nodes[0].saysAll(&answer{err: `{"code":-32601,"message":"the method eth_blockNumber does not exist"}`})
		pass(400 * time.Second)
		if due, at := w.backends[0].Recovering(time.Now()); due || !at.IsZero() {
			t.Error("it still recovers")
		}
	})
}
