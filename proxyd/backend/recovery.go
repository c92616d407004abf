package backend

import "time"

// Recovery says how a backend comes back after a rate limit, in place of the
// usual hold-off: rate_limit_recovery in the configuration. All fields must be
// set.
type Recovery struct {
	// Multiplier is how much longer each hold-off is than the one before.
	Multiplier float64
	// Initial is the first hold-off, Max the longest.
	Initial, Max time.Duration
	// MaxRetries is how many recoveries may fail before the backend is left
	// alone until ResetAfter has passed since the first rate limit.
	MaxRetries int
	// RequiredSuccesses is how many answers in a row bring the backend back,
	// asked for one at a time.
	RequiredSuccesses int
	// ResetAfter is when everything starts afresh.
	ResetAfter time.Duration
}

// backoff is the hold-off after the nth rate limit in a row, the first at first.
// afresh says that the row is over once it has passed.
func (r *Recovery) backoff(n int, first, now time.Time) (d time.Duration, afresh bool) {
	if n > r.MaxRetries {
		return max(first.Add(r.ResetAfter).Sub(now), r.Initial), true
	}
	length := float64(r.Initial) // a large multiplier must not overflow
	for range n - 1 {
		if length *= r.Multiplier; length >= float64(r.Max) {
			return r.Max, false
		}
	}
	return min(time.Duration(length), r.Max), false
}

// HeldUntil is until when the backend asked to be left alone, whatever else its
// Standing says; the zero time, or one that has passed, when it did not.
func (b *Backend) HeldUntil() time.Time {
	b.health.mu.Lock()
	defer b.health.mu.Unlock()
	return b.health.heldUntil(time.Now())
}

// slowStart is how long a backend that comes back from a rate limit gets less
// than its usual share of calls.
const slowStart = 30 * time.Second

// share is the part of its usual calls for a backend that is back since the given
// time: it grows from a tenth to all over slowStart.
func share(back, now time.Time) float64 {
	if back.IsZero() {
		return 1
	}
	return min(1, 0.1+0.9*float64(now.Sub(back))/float64(slowStart))
}
