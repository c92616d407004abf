package group

import "math/rand/v2"

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

// share is a member's part of the load where weights count, never 0.
func (m *Member) share(weighted bool) float64 {
	if !weighted {
		return 1
	}
	return max(float64(m.Weight), 1e-6)
}
