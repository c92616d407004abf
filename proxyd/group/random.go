package group

import "math/rand/v2"

// random asks the members in random order, by weight with weighted routing.
type random struct{ weighted bool }

func newRandom(o Options) Strategy { return random{o.Weighted} }

func (r random) Arrange(members []*Member, _ Ask) {
	if r.weighted {
		shuffleByWeight(members)
		return
	}
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
}

func (random) Spreads() bool { return true }
