package group

import (
	"sync"
	"time"
)

// Budget bounds retries and hedges by the calls of the last ten seconds, so that
// a provider in trouble is not asked many times over (as in Finagle and Envoy).
type Budget struct {
	// Ratio is how many retries and hedges there may be for each call.
	Ratio float64
	// MinPerSecond may be made whatever the number of calls.
	MinPerSecond float64
}

// defaultHedgeBudget holds for hedges where nothing is configured.
var defaultHedgeBudget = Budget{Ratio: 0.2, MinPerSecond: 10}

const budgetSeconds = 10

type budget struct {
	Budget
	mu      sync.Mutex
	seconds [budgetSeconds]struct{ calls, extra int64 }
	calls   int64
	extra   int64
	last    int64
}

func (b *budget) advance(now time.Time) int {
	second := now.Unix()
	if second-b.last >= budgetSeconds {
		b.last = second - budgetSeconds
	}
	for b.last < second {
		b.last++
		old := &b.seconds[b.last%budgetSeconds]
		b.calls -= old.calls
		b.extra -= old.extra
		old.calls, old.extra = 0, 0
	}
	return int(b.last % budgetSeconds)
}

// called counts calls that may be retried or hedged.
func (b *budget) called(n int, now time.Time) {
	b.mu.Lock()
	b.seconds[b.advance(now)].calls += int64(n)
	b.calls += int64(n)
	b.mu.Unlock()
}

// take takes the retry or hedge of n calls, if there is room for it.
func (b *budget) take(n int, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.advance(now)
	if float64(b.extra+int64(n)) > b.Ratio*float64(b.calls)+b.MinPerSecond*budgetSeconds {
		return false
	}
	b.seconds[i].extra += int64(n)
	b.extra += int64(n)
	return true
}
