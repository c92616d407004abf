package group

import (
	"slices"
	"time"
)

// laggards returns the members whose heads are more than MaxBlockLag behind the
// group's, nil when heads are not watched. A head that was not seen for
// HeadMaxAge says nothing.
func (g *Group) laggards(now time.Time) []*Member {
	if g.opts.MaxBlockLag == nil {
		return nil
	}
	heads := make([]uint64, 0, len(g.members))
	known := make([]bool, len(g.members))
	for i, m := range g.members {
		if head, seen := m.Head(); !seen.IsZero() && now.Sub(seen) <= g.opts.HeadMaxAge {
			heads = append(heads, head)
			known[i] = true
		}
	}
	best := groupHead(heads)
	var out []*Member
	for i, m := range g.members {
		if head, _ := m.Head(); known[i] && best > head && best-head > *g.opts.MaxBlockLag {
			out = append(out, m)
		}
	}
	return out
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
	var heads []uint64
	for _, m := range g.members {
		if head, seen := m.Head(); !seen.IsZero() && now.Sub(seen) <= g.opts.HeadMaxAge {
			heads = append(heads, head)
		}
	}
	head, seen := m.Head()
	if best := groupHead(heads); !seen.IsZero() && now.Sub(seen) <= g.opts.HeadMaxAge && best > head {
		return best - head
	}
	return 0
}
