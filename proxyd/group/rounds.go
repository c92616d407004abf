package group

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// nextRound waits and puts the members that may be asked once more in order. It
// returns false when there is no further round.
func (r *run) nextRound(ctx context.Context) bool {
	if r.round >= r.g.rounds || r.attempts == 0 || r.broke {
		return false
	}
	pause := max(r.backoff(), r.g.heldFor())
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
		return false // what is known now will be known then
	}
	if r.paid = r.takeRetry(); !r.paid {
		return false
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return false
	}
	r.round++
	r.order, r.desperate = r.g.order(r.calls())
	r.order = slices.DeleteFunc(slices.Clone(r.order), func(m *Member) bool {
		return r.g.opts.MaxRetries == nil && m.MaxRetries() < r.round
	})
	return len(r.order) > 0
}

// afford reports whether the budget allows one more attempt of a later round; the
// first one was paid for before the pause.
func (r *run) afford() bool {
	if r.paid {
		r.paid = false
		return true
	}
	return r.takeRetry()
}

// takeRetry takes a retry of the open calls out of the budget.
func (r *run) takeRetry() bool {
	if r.g.retryBudget == nil || r.g.retryBudget.take(len(r.open), time.Now()) {
		return true
	}
	r.broke = true
	r.g.counts.spentRetries.Inc()
	return false
}

// backoff is the pause before the next round: the incumbent's, which grows from
// 1 s to 3 s with up to a quarter of a second of chance, or the configured one.
func (r *run) backoff() time.Duration {
	if first := r.g.opts.RetryDelay; first != nil {
		return *first << min(r.round, 10)
	}
	return min(time.Second<<min(r.round, 10)+rand.N(250*time.Millisecond), 3*time.Second)
}
