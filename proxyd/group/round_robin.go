package group

import (
	"cmp"
	"slices"
	"sync"
)

// roundRobin asks the members in turn: first the one that was first the longest
// time ago, so that turns stay even whoever else may be asked. With weighted routing a member has as many
// turns as its weight, spread evenly (nginx's smooth weighted round robin).
type roundRobin struct {
	weighted bool

	mu      sync.Mutex
	turn    uint64             // the last one
	last    map[*Member]uint64 // turn of each member
	current map[*Member]int    // credit of each member
}

func newRoundRobin(o Options) Strategy {
	return &roundRobin{weighted: o.Weighted, last: make(map[*Member]uint64), current: make(map[*Member]int)}
}

func (r *roundRobin) Arrange(members []*Member, ask Ask) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.weighted {
		slices.SortStableFunc(members, func(a, b *Member) int { return cmp.Compare(r.last[a], r.last[b]) })
		if !ask.Peek {
			r.turn++
			r.last[members[0]] = r.turn
		}
		return
	}
	if ask.Peek {
		return // whose turn it is, is only known by taking it
	}
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
