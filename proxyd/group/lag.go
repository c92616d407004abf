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
	var out []*Member
	var best uint64
	for _, m := range members {
		behind, head := g.behind(m, members, now)
		if best = max(best, head); behind > *g.opts.MaxBlockLag {
			out = append(out, m)
		}
	}
	g.noteLag(members, out, best)
	return out
}

// behind is how many blocks a member is behind the best of members, and that one's head,
// as far as they were known when the member's own head was seen: subscriptions tell of
// heads at once, checks now and then.
func (g *Group) behind(m *Member, members []*Member, now time.Time) (blocks, best uint64) {
	own, seen := m.Head()
	if seen.IsZero() || now.Sub(seen) > g.opts.HeadMaxAge {
		return 0, 0
	}
	heads := make([]uint64, 0, len(members))
	for _, other := range members {
		if head, at := other.HeadAt(seen); !at.IsZero() && now.Sub(at) <= g.opts.HeadMaxAge {
			heads = append(heads, head)
		}
	}
	if best = groupHead(heads); best > own {
		blocks = best - own
	}
	return blocks, best
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
	var members []*Member
	for _, other := range g.members {
		if other == m || other.StandingAt(now).State <= backend.Trial {
			members = append(members, other)
		}
	}
	blocks, _ := g.behind(m, members, now)
	return blocks
}
