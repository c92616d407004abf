package probe

import (
	"math/rand/v2"
	"time"
)

// part is a random part of d, so that what starts together spreads.
func part(d time.Duration) time.Duration { return time.Duration(rand.Float64() * float64(d)) }

// jitter is d, give or take a tenth.
func jitter(d time.Duration) time.Duration {
	return time.Duration((0.9 + 0.2*rand.Float64()) * float64(d))
}

// after is d behind begun, or behind now when that has passed already: what takes
// longer than its interval gets a pause all the same.
func after(begun, now time.Time, d time.Duration) time.Time {
	if next := begun.Add(d); next.After(now) {
		return next
	}
	return now.Add(d)
}
