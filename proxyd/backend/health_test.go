package backend

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/devchain"
)

// inTime runs a test of the state machine on the clock of a bubble, with a
// backend that nobody connects to.
func inTime(t *testing.T, change func(*Options), test func(t *testing.T, b *Backend)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newBackend(t, "http://backend.invalid", change)) })
}

// fails counts one failure of an attempt that began and ended now.
func (b *Backend) fails(kind Kind) {
	b.health.failed(&Error{Backend: "b", Kind: kind, cause: errors.New("x")}, time.Now(), time.Now(), b.health.trial.id)
	time.Sleep(time.Millisecond)
}

func (b *Backend) answers() {
	b.health.answered("eth_call", time.Now(), time.Now(), b.health.trial.id)
	time.Sleep(time.Millisecond)
}

func TestFailuresInARowTakeABackendOutOfService(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		b.fails(Network)
		b.fails(Network)
		b.answers()
		b.fails(Network)
		b.fails(Network)
		state(t, b, Well)
		b.fails(Network)
		state(t, b, Out)
	})
}

func TestRefusedConnectionCountsAsAllFailures(t *testing.T) {
	inTime(t, func(o *Options) { o.OutAfter = 50 }, func(t *testing.T, b *Backend) {
		b.fails(Refused)
		state(t, b, Out)
	})
}

func TestOutForItsSecondsThenOneTrialDecides(t *testing.T) {
	inTime(t, func(o *Options) { o.OutFor = time.Minute }, func(t *testing.T, b *Backend) {
		b.fails(Refused)
		time.Sleep(59 * time.Second)
		state(t, b, Out)
		if b.TakeTrial() {
			t.Fatal("a trial while out of service")
		}
		time.Sleep(time.Second)
		state(t, b, Trial)
		if !b.TakeTrial() || b.TakeTrial() {
			t.Fatal("not exactly one trial")
		}
		state(t, b, Out)
		b.fails(Network) // the trial: one failure is enough, for twice as long
		state(t, b, Out)
		time.Sleep(119 * time.Second)
		state(t, b, Out)
		time.Sleep(time.Second)
		state(t, b, Trial)
		b.TakeTrial()
		b.answers()
		state(t, b, Well)
		b.fails(Network) // the row begins anew
		state(t, b, Well)
	})
}

func TestTrialThatEndsWithoutAVerdictMayBeTakenByAnother(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		b.fails(Refused)
		time.Sleep(time.Minute)
		b.TakeTrial()
		b.health.endTrial(b.health.trial.id)
		state(t, b, Trial)
		if !b.TakeTrial() {
			t.Fatal("the trial is lost")
		}
	})
}

func TestTrialThatFailedMeanwhileIsNotTakenAgain(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		b.fails(Refused)
		time.Sleep(time.Minute)
		state(t, b, Trial) // what a caller saw
		b.TakeTrial()
		b.fails(Refused) // while another made the trial
		if b.TakeTrial() {
			t.Fatal("a second trial at a backend that has just failed one")
		}
	})
}

func TestFailuresOfCallsThatWereUnderWayCountOnce(t *testing.T) {
	inTime(t, func(o *Options) { o.OutFor, o.MaxErrorRate = 30*time.Second, 2 }, func(t *testing.T, b *Backend) {
		started := time.Now()
		time.Sleep(time.Second)
		b.fails(Refused)
		until := b.Standing().Until
		time.Sleep(time.Second)
		for range 10 {
			b.health.failed(nil, started, time.Now(), b.health.trial.id)
		}
		if got := b.Standing().Until; !got.Equal(until) {
			t.Fatalf("out of service until %s instead of %s", got, until)
		}
		b.health.answered("eth_call", started, time.Now(), b.health.trial.id)
		state(t, b, Out) // an answer to what was asked before proves nothing
		b.answers()
		state(t, b, Well)
	})
}

func TestErrorRateAndLatencyStrainABackend(t *testing.T) {
	inTime(t, func(o *Options) { o.OutAfter = 1000 }, func(t *testing.T, b *Backend) {
		for range 5 {
			b.answers()
		}
		for range 4 {
			b.fails(Status)
		}
		state(t, b, Well) // below ten samples
		b.fails(Status)
		state(t, b, Strained)
		time.Sleep(windowSeconds * time.Second)
		state(t, b, Well)
		b.health.answered("eth_call", time.Now().Add(-11*time.Second), time.Now(), b.health.trial.id)
		state(t, b, Strained)
	})
}

func TestWindowForgetsSecondBySecond(t *testing.T) {
	var w window
	w.init()
	at := time.Unix(1_700_000_000, 0)
	for i := range 1000 {
		w.success(at.Add(time.Duration(i)*time.Second), time.Second)
		w.failure(at.Add(time.Duration(i) * time.Second))
	}
	if s := w.sums(at.Add(999 * time.Second)); s.successes != 300 || s.failures != 300 || s.latency() != time.Second || s.errorRate() != 0.5 {
		t.Errorf("%+v", s)
	}
	if s := w.sums(at.Add(1199 * time.Second)); s.successes != 100 {
		t.Errorf("%+v", s)
	}
	w.failure(at) // a clock that was set back
	if s := w.sums(at.Add(1e6 * time.Second)); s != (sums{}) {
		t.Errorf("%+v", s)
	}
}

func rateLimited(firm bool) classify.Outcome {
	return classify.Outcome{Class: "rate_limit", Elsewhere: classify.Yes, Hold: classify.Brief, Firm: firm}
}

// held tells b of a limit and returns how long it is held off from now.
func (b *Backend) held(o classify.Outcome, asked time.Duration, label string) time.Duration {
	b.health.holdOff(o, asked, label, time.Now(), time.Now(), b.health.trial.id)
	s := b.Standing()
	if s.State != Held {
		return 0
	}
	return time.Until(s.Until)
}

func TestHoldOffTakesWhatWasAskedFor(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		if d := b.held(rateLimited(true), 7*time.Second, "eth_call"); d != 7*time.Second {
			t.Fatalf("held for %s", d)
		}
		time.Sleep(7 * time.Second)
		state(t, b, Well)
	})
}

func TestHoldOffWithoutAWordDoubles(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 32} {
			if d := b.held(rateLimited(true), 0, "eth_call"); d != want*time.Second {
				t.Fatalf("held for %s, want %ds", d, want)
			}
			time.Sleep(want*time.Second + time.Millisecond)
		}
		for range 20 {
			b.held(rateLimited(true), 0, "eth_call")
			time.Sleep(time.Hour)
		}
		if d := b.held(rateLimited(true), 0, "eth_call"); d != mostBrief {
			t.Fatalf("held for %s", d)
		}
		time.Sleep(mostBrief)
		b.answers()
		if d := b.held(rateLimited(true), 0, "eth_call"); d != time.Second {
			t.Fatalf("held for %s after an answer", d)
		}
	})
}

func TestCallsInFlightBringNoSecondStrike(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		started := time.Now()
		time.Sleep(10 * time.Millisecond)
		for range 50 {
			b.health.holdOff(rateLimited(true), 0, "eth_call", started, time.Now(), b.health.trial.id)
		}
		if d := time.Until(b.Standing().Until); d != time.Second {
			t.Fatalf("held for %s", d)
		}
		b.health.answered("eth_call", started, time.Now(), b.health.trial.id)
		state(t, b, Held) // it answered what was asked before
		time.Sleep(time.Millisecond)
		b.answers()
		state(t, b, Well) // it answers what was asked since
	})
}

func TestTextAloneHoldsOffForAMomentUntilThreeMethodsHearIt(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		text := rateLimited(false)
		for range 5 {
			if d := b.held(text, time.Hour, "eth_call"); d != mostByText {
				t.Fatalf("held for %s", d)
			}
			time.Sleep(3 * time.Second)
		}
		if d := b.held(text, time.Hour, "eth_getLogs"); d != mostByText {
			t.Fatalf("held for %s after two methods", d)
		}
		time.Sleep(3 * time.Second)
		if d := b.held(text, 90*time.Second, "eth_getBalance"); d != 90*time.Second {
			t.Fatalf("held for %s after three methods", d)
		}
	})
	inTime(t, nil, func(t *testing.T, b *Backend) {
		for _, label := range []string{"a", "b", "c"} {
			if d := b.held(rateLimited(false), time.Hour, label); d != mostByText {
				t.Fatalf("held for %s: texts far apart are no sign", d)
			}
			time.Sleep(textWindow)
		}
	})
}

func TestAccountIsHeldOnFirmEvidenceOnly(t *testing.T) {
	inTime(t, nil, func(t *testing.T, _ *Backend) {
		account := new(Account)
		share := func(o *Options) { o.Account = account }
		one, two := newBackend(t, "http://one.invalid", share), newBackend(t, "http://two.invalid", share)
		one.held(rateLimited(false), 0, "eth_call")
		state(t, one, Held)
		state(t, two, Well)
		one.held(rateLimited(true), time.Minute, "eth_call")
		if d := time.Until(two.Standing().Until); d != time.Minute {
			t.Fatalf("the account's other backend is held for %s", d)
		}
		time.Sleep(time.Second)
		two.answers()
		state(t, two, Well)
	})
}

func TestSpentQuotaHoldsOffLonger(t *testing.T) {
	inTime(t, nil, func(t *testing.T, b *Backend) {
		o := classify.Outcome{Class: "billing", Hold: classify.Long, Firm: true}
		if d := b.held(o, 0, "eth_call"); d != firstLong {
			t.Fatalf("held for %s", d)
		}
	})
}

func TestRetryAfterInBothFormsUpToAnHour(t *testing.T) {
	for _, c := range []struct {
		header   string
		from, to time.Duration
	}{
		{"7", 6 * time.Second, 7 * time.Second},
		{"1.5", time.Second, 1500 * time.Millisecond},
		{"86400", 59 * time.Minute, time.Hour},
		{"99999999999", 59 * time.Minute, time.Hour},
		{time.Now().Add(20 * time.Second).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), 15 * time.Second, 20 * time.Second},
		{time.Now().Add(48 * time.Hour).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), 59 * time.Minute, time.Hour},
		{"Mon, 01 Jan 2001 00:00:00 GMT", 0, time.Second},
		{"-3", 0, time.Second}, {"NaN", 0, time.Second}, {"soon", 0, time.Second}, {"", 0, time.Second},
	} {
		node, url := chain(t)
		node.SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: c.header})
		b := newBackend(t, url, nil)
		e := failure(t, ask(t, b, blockNumber())[0], Status, "429")
		s := b.Standing()
		if d := time.Until(s.Until); s.State != Held || d < c.from-time.Second || d > c.to {
			t.Errorf("%q: %s for %s (asked for %s), want up to %s", c.header, s.State, d, e.RetryAfter, c.to)
		}
	}
}

func TestRateLimitInAnAnswerHoldsOff(t *testing.T) {
	node, url := chain(t)
	node.SetFault(devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32005, RPCMessage: "too many requests"})
	b := newBackend(t, url, nil)
	ask(t, b, blockNumber())
	state(t, b, Held)
}

func TestBlameCountsOnlyWhatTheBackendDid(t *testing.T) {
	node, url := chain(t)
	for name, c := range map[string]struct {
		fault devchain.Fault
		blame bool
		want  State
	}{
		"5xx that another answered":        {devchain.Fault{Kind: devchain.FaultStatus, Status: 500}, true, Out},
		"5xx that nobody answered":         {devchain.Fault{Kind: devchain.FaultStatus, Status: 500}, false, Well},
		"garbage that another answered":    {devchain.Fault{Kind: devchain.FaultGarbage}, true, Out},
		"a reset that another answered":    {devchain.Fault{Kind: devchain.FaultClose}, true, Out},
		"an internal error of the node":    {devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32603, RPCMessage: "internal error"}, true, Out},
		"a revert":                         {devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: 3, RPCMessage: "execution reverted"}, true, Well},
		"an unknown error":                 {devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32099, RPCMessage: "what"}, true, Well},
		"missing data that another had":    {devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32000, RPCMessage: "missing trie node"}, true, Well},
		"a text that speaks of a bad call": {devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32602, RPCMessage: "invalid argument 0"}, true, Well},
	} {
		t.Run(name, func(t *testing.T) {
			node.SetFault(c.fault)
			b := newBackend(t, url, func(o *Options) { o.OutAfter = 2 })
			for range 2 {
				state(t, b, Well)
				try(t, b, Try{}, blockNumber()).Settle(c.blame)
			}
			state(t, b, c.want)
		})
	}
}

func TestSilenceCountsWithoutAnotherBackend(t *testing.T) {
	node, url := chain(t)
	node.SetFault(devchain.Fault{Kind: devchain.FaultHang})
	b := newBackend(t, url, func(o *Options) { o.ResponseTimeout = 20 * time.Millisecond })
	for range 3 {
		state(t, b, Well)
		try(t, b, Try{}, blockNumber()).Settle(false)
	}
	state(t, b, Out)
}

func TestCanceledAttemptCountsForNothing(t *testing.T) {
	node, url := chain(t)
	node.SetFault(devchain.Fault{Kind: devchain.FaultHang})
	b := newBackend(t, url, func(o *Options) { o.OutAfter = 1 })
	done := make(chan *Attempt, 1)
	a := b.Begin(callsOf(blockNumber()), Try{Timeout: time.Minute}, done)
	eventually(t, "the request", func() bool { return node.Requests() == 1 })
	a.Abandon()
	a = <-done
	failure(t, a.Results[0], Canceled, "another attempt")
	a.Settle(true)
	state(t, b, Well)
}

func TestAbandonedTrialIsReleased(t *testing.T) {
	node, url := chain(t)
	node.SetFault(devchain.Fault{Kind: devchain.FaultHang})
	b := newBackend(t, url, func(o *Options) { o.OutFor = time.Nanosecond })
	b.health.failed(&Error{Kind: Refused, cause: errClosed}, time.Now(), time.Now(), b.health.trial.id)
	eventually(t, "trial", func() bool { return b.Standing().State == Trial })
	if !b.TakeTrial() {
		t.Fatal("no trial")
	}
	done := make(chan *Attempt, 1)
	a := b.Begin(callsOf(blockNumber()), Try{Timeout: time.Minute, Trial: true}, done)
	eventually(t, "the request", func() bool { return node.Requests() == 1 })
	state(t, b, Out)
	a.Abandon()
	eventually(t, "another trial", b.TakeTrial)
}

func TestSlotsThatAreTakenOverloadAndBlameNobody(t *testing.T) {
	node, url := chain(t)
	node.SetFault(devchain.Fault{Kind: devchain.FaultHang})
	slots := NewSlots(1, 10*time.Millisecond)
	b := newBackend(t, url, func(o *Options) { o.Slots, o.OutAfter = slots, 1 })
	done := make(chan *Attempt, 1)
	first := b.Begin(callsOf(blockNumber()), Try{Timeout: time.Minute}, done)
	eventually(t, "the request", func() bool { return node.Requests() == 1 })
	a := try(t, b, Try{}, blockNumber())
	if e := failure(t, a.Results[0], Overloaded, ErrOverloaded.Error()); !errors.Is(e, ErrOverloaded) || node.Requests() != 1 {
		t.Errorf("%v, %d requests", e, node.Requests())
	}
	a.Settle(true)
	state(t, b, Well)
	first.Abandon()
	<-done
	node.SetFault(devchain.Fault{})
	result(t, ask(t, b, blockNumber())[0], `"0x10"`) // the slot is free again
}

func TestMaxRPSIsABucketOfOneSecond(t *testing.T) {
	inTime(t, func(o *Options) { o.MaxRPS = 3 }, func(t *testing.T, b *Backend) {
		if !b.TakeTokens(2) || b.TakeTokens(2) || !b.TakeTokens(1) || b.Room() >= 1 {
			t.Fatal("not three a second")
		}
		time.Sleep(time.Second)
		if !b.TakeTokens(100) || b.TakeTokens(1) {
			t.Fatal("a batch larger than the limit takes what there is")
		}
	})
	inTime(t, nil, func(t *testing.T, b *Backend) {
		if !b.TakeTokens(1_000_000) || b.Room() < 1e6 || b.Strict() {
			t.Fatal("without max_rps there is no limit")
		}
	})
}
