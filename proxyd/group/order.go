package group

import (
	"slices"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// order returns the members to ask for calls, in order. Those that cannot serve
// now are left out; when none can, the least bad one is returned and desperate is
// true, so that a call is tried rather than refused.
func (g *Group) order(calls []*jsonrpc.Call) (members []*Member, desperate bool) {
	if len(g.opts.Members) == 1 {
		return g.opts.Members, true
	}
	members = g.strategy.Order()
	now := time.Now()
	if inOrder(members, calls, now) {
		return members, false
	}
	standing := make(map[*Member]backend.Standing, len(members))
	well := 0
	for _, m := range members {
		s := m.StandingAt(now)
		standing[m] = s
		if s.State == backend.Well {
			well++
		}
	}
	ignoreSoft := g.strategy.Spreads() && 2*well < len(members)
	usable := make([]*Member, 0, len(members))
	for _, m := range members {
		if standing[m].State <= backend.Trial {
			usable = append(usable, m)
		}
	}
	if len(usable) == 0 {
		return []*Member{leastBad(members, standing)}, true
	}
	// A stable sort keeps the strategy's order among equals. What a member
	// lacks weighs more than its tier: a method it does not have it cannot
	// serve.
	rank := func(m *Member) int {
		r := 4 * m.Tier
		if standing[m].State == backend.Strained && !ignoreSoft {
			r++
		}
		if !supports(m, calls) {
			r += 1 << 20
		}
		return r
	}
	slices.SortStableFunc(usable, func(a, b *Member) int { return rank(a) - rank(b) })
	return usable, false
}

// inOrder reports whether all members are well and stand in the order of their
// tiers: the usual case, in which nothing has to be sorted.
func inOrder(members []*Member, calls []*jsonrpc.Call, now time.Time) bool {
	tier := 0
	for _, m := range members {
		if m.Tier < tier || m.StandingAt(now).State != backend.Well || !supports(m, calls) {
			return false
		}
		tier = m.Tier
	}
	return true
}

func supports(m *Member, calls []*jsonrpc.Call) bool {
	for _, c := range calls {
		if !m.Supports(c.Label) {
			return false
		}
	}
	return true
}

// leastBad returns the member that is likeliest to serve although none can: a
// silent one, else the one whose hold-off or time out of service ends first.
func leastBad(members []*Member, standing map[*Member]backend.Standing) *Member {
	return slices.MinFunc(members, func(a, b *Member) int {
		x, y := standing[a], standing[b]
		if s := boolRank(x.State == backend.Suspect) - boolRank(y.State == backend.Suspect); s != 0 {
			return s
		}
		if c := x.Until.Compare(y.Until); c != 0 {
			return c
		}
		return x.Since.Compare(y.Since)
	})
}

func boolRank(first bool) int {
	if first {
		return 0
	}
	return 1
}

// retryAfter is when the first member may serve again, 0 when one can now.
func (g *Group) retryAfter() time.Duration {
	var soonest time.Duration
	now := time.Now()
	for i, m := range g.opts.Members {
		s := m.Standing()
		if s.State <= backend.Suspect {
			return 0
		}
		if d := max(0, s.Until.Sub(now)); i == 0 || d < soonest {
			soonest = d
		}
	}
	return soonest
}
