package backend

import (
	"testing"
	"time"
)

// recovering is a backend that comes back from a rate limit by two answers, asked
// for by clients' calls.
func recovering(o *Options) {
	o.Recovery = &Recovery{Multiplier: 2, Initial: 10 * time.Second, Max: time.Hour, MaxRetries: 3, RequiredSuccesses: 2, ResetAfter: 24 * time.Hour}
	o.OutAfter, o.MaxErrorRate = 1000, 2
}

func TestFailuresOfCallsBegunBeforeALimitAreNoFailedRecoveries(t *testing.T) {
	inTime(t, recovering, func(t *testing.T, b *Backend) {
		begun := time.Now()
		time.Sleep(time.Second)
		if d := b.held(rateLimited(true), 0, "eth_call"); d != 10*time.Second {
			t.Fatalf("held for %s", d)
		}
		time.Sleep(10 * time.Second)
		for range 20 {
			b.health.failed(nil, begun, time.Now(), b.health.trial.id)
			state(t, b, Trial)
		}
		if !b.TakeTrial() {
			t.Fatal("no trial")
		}
		time.Sleep(time.Millisecond)
		b.fails(Status) // the trial: the first recovery that failed
		if d := time.Until(b.HeldUntil()); d != 20*time.Second-time.Millisecond {
			t.Fatalf("held for %s after a failed recovery", d)
		}
	})
}

func TestAnswerBegunBeforeALimitFreesNoTrialOfTheRecovery(t *testing.T) {
	inTime(t, recovering, func(t *testing.T, b *Backend) {
		begun := time.Now()
		time.Sleep(time.Second)
		b.held(rateLimited(true), 0, "eth_call")
		time.Sleep(10 * time.Second)
		if !b.TakeTrial() {
			t.Fatal("no trial")
		}
		b.health.answered("eth_call", begun, time.Now(), 0)
		state(t, b, Held)
		if b.TakeTrial() {
			t.Fatal("a second trial beside the first")
		}
		b.answers() // that of the trial, the first of two
		state(t, b, Trial)
		b.TakeTrial()
		b.answers()
		state(t, b, Well)
	})
}

func TestOnlyItsHolderEndsATrial(t *testing.T) {
	for name, brings := range map[string]func(b *Backend, begun time.Time){
		"a failure": func(b *Backend, begun time.Time) {
			b.health.failed(&Error{Backend: "b", Kind: Refused, cause: errClosed}, begun, time.Now(), 0)
		},
		"a limit, begun before": func(b *Backend, begun time.Time) {
			b.health.holdOff(rateLimited(false), 0, "eth_call", begun, time.Now(), 0)
			time.Sleep(mostByText)
		},
		"the end of an older trial": func(b *Backend, _ time.Time) { b.health.endTrial(b.health.trial.id - 1) },
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, recovering, func(t *testing.T, b *Backend) {
				begun := time.Now()
				time.Sleep(time.Second)
				b.held(rateLimited(true), 0, "eth_call")
				time.Sleep(10 * time.Second)
				b.TakeTrial()
				brings(b, begun)
				if b.TakeTrial() {
					t.Fatal("a second trial beside the first")
				}
			})
		})
	}
}

func TestCallBegunWhileOutDoesNotDecideTheTrial(t *testing.T) {
	for _, taken := range []bool{true, false} {
		inTime(t, func(o *Options) { o.OutFor = time.Minute }, func(t *testing.T, b *Backend) {
			b.fails(Refused)
			time.Sleep(time.Second)
			begun := time.Now() // a last resort, while it is out
			time.Sleep(time.Minute)
			if taken {
				b.TakeTrial()
			}
			b.health.failed(&Error{Backend: "b", Kind: Timeout, cause: errClosed}, begun, time.Now(), 0)
			if taken {
				b.answers()
				state(t, b, Well)
				return
			}
			state(t, b, Trial)
		})
	}
}
