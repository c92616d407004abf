package group

import (
	"slices"
	"time"

	"gateway.internal/proxyd/backend"
)

// laggards returns which of the members are more than MaxBlockLag behind the
// group's head, nil when heads are not watched. members are those that could be
// asked: what others say of their heads counts for nothing. A head that was not
// seen for HeadMaxAge says nothing either.
func (g *Group) laggards(members []*Member, now time.Time) []*Member {
	if g.opts.MaxBlockLag == nil {
		return nil
	}
	heads := make([]uint64, 0, len(members))
	for _, m := range members {
		if head, known := g.head(m, now); known {
			heads = append(heads, head)
		}
	}
	best := groupHead(heads)
	var out []*Member
	for _, m := range members {
		if head, known := g.head(m, now); known && best > head && best-head > *g.opts.MaxBlockLag {
			out = append(out, m)
		}
	}
	g.noteLag(members, out, best)
	return out
}

// head is the number of a member's latest block, if it was seen of late.
func (g *Group) head(m *Member, now time.Time) (number uint64, known bool) {
	number, seen := m.Head()
	return number, !seen.IsZero() && now.Sub(seen) <= g.opts.HeadMaxAge
}

// noteLag writes a line about those of members that fell behind, or have caught up;
// of others nothing is known. Of more than 64 members it knows the first ones.
func (g *Group) noteLag(members, lagging []*Member, best uint64) {
	now := g.lagging.Load()
	for _, m := range members {
		now &^= 1 << m.index
	}
	for _, m := range lagging {
		now |= 1 << m.index
	}
	before := g.lagging.Swap(now)
	if before == now {
		return
	}
	for _, m := range g.opts.Members[:min(len(g.opts.Members), 64)] {
		head, _ := m.Head()
		switch bit := uint64(1) << m.index; {
		case now&bit != 0 && before&bit == 0:
			g.opts.Log.Warn("backend behind its group, others are asked", "backend_group", g.opts.Name, "backend", m.Name(), "head", head, "group_head", best)
		case now&bit == 0 && before&bit != 0:
			g.opts.Log.Info("backend no longer behind its group", "backend_group", g.opts.Name, "backend", m.Name(), "head", head)
		}
	}
}

// groupHead is the head that members are measured against: the highest, but of
// three or more the highest that two have reached, so that one node far ahead
// does not take the rest out.
func groupHead(heads []uint64) uint64 {
	if len(heads) == 0 {
		return 0
	}
	slices.Sort(heads)
	if len(heads) >= 3 {
		return heads[len(heads)-2]
	}
	return heads[len(heads)-1]
}

// lag is how many blocks a member is behind the group, 0 when that is not known.
func (g *Group) lag(m *Member, now time.Time) uint64 {
	own, known := g.head(m, now)
	if !known {
		return 0
	}
	var heads []uint64
	for _, m := range g.members {
		if head, known := g.head(m, now); known && m.StandingAt(now).State <= backend.Trial {
			heads = append(heads, head)
		}
	}
	if best := groupHead(heads); best > own {
		return best - own
	}
	return 0
}
