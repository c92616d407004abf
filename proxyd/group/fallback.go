package group

import (
	"math/rand/v2"
	"slices"
)

// fallback asks the members in the order of the list. With weighted routing
// each tier is shuffled by weight instead.
type fallback struct {
	members  []*Member
	weighted bool
}

func newFallback(o Options) Strategy { return &fallback{o.Members, o.Weighted} }

func (f *fallback) Order() []*Member {
	if !f.weighted {
		return f.members
	}
	order := slices.Clone(f.members)
	shuffleByWeight(order)
	return order
}

func (f *fallback) Spreads() bool { return f.weighted }

// shuffleByWeight puts members in a random order in which the chance to come
// next is the weight's share of what is left. Members without weight come last,
// in random order.
func shuffleByWeight(members []*Member) {
	total := 0
	for _, m := range members {
		total += max(0, m.Weight)
	}
	for i := range members {
		pick := i
		if total > 0 {
			at := rand.IntN(total)
			for j := i; j < len(members); j++ {
				if at -= max(0, members[j].Weight); at < 0 {
					pick = j
					break
				}
			}
			total -= max(0, members[pick].Weight)
		} else {
			pick = i + rand.IntN(len(members)-i)
		}
		members[i], members[pick] = members[pick], members[i]
	}
}
