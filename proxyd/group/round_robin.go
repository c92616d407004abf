package group

import (
	"slices"
	"sync"
	"sync/atomic"
)

// roundRobin asks the members in turn. With weighted routing a member has as many
// turns as its weight, spread evenly (nginx's smooth weighted round robin).
type roundRobin struct {
	next     atomic.Uint64
	weighted bool

	mu      sync.Mutex
	current map[*Member]int // credit of each member
}

func newRoundRobin(o Options) Strategy {
	return &roundRobin{weighted: o.Weighted, current: make(map[*Member]int)}
}

func (r *roundRobin) Arrange(members []*Member, ask Ask) {
	if !r.weighted {
		next := r.next.Load()
		if !ask.Peek {
			next = r.next.Add(1) - 1
		}
		rotate(members, int(next%uint64(len(members))))
		return
	}
	if ask.Peek {
		return // whose turn it is, is only known by taking it
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	total := 0
	first := members[0]
	for _, m := range members {
		total += m.Weight
		r.current[m] += m.Weight
		if r.current[m] > r.current[first] {
			first = m
		}
	}
	r.current[first] -= total
	// The others stand by their credit: who is next after the first.
	slices.SortStableFunc(members, func(a, b *Member) int {
		switch {
		case a == b:
			return 0
		case a == first:
			return -1
		case b == first:
			return 1
		}
		return r.current[b] - r.current[a]
	})
}

func (*roundRobin) Spreads() bool { return true }

// rotate lets members begin with the one at from.
func rotate(members []*Member, from int) {
	slices.Reverse(members[:from])
	slices.Reverse(members[from:])
	slices.Reverse(members)
}
