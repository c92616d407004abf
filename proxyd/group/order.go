package group

import (
	"math/rand/v2"
	"slices"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// Ask says what a strategy may know of the calls that it orders members for.
type Ask struct {
	// Label is the method's, or backend.Batched.
	Label string
	// Reads is true when all calls are reads.
	Reads bool
	// Peek is true when nobody will be asked, or others are asked before: the
	// strategy must not count it.
	Peek bool
}

func askOf(calls []*jsonrpc.Call) Ask {
	ask := Ask{Label: backend.Batched, Reads: true}
	if len(calls) == 1 {
		ask.Label = calls[0].Label
	}
	for _, c := range calls {
		ask.Reads = ask.Reads && c.Row.Class == jsonrpc.Read
	}
	return ask
}

// Place is a member's place in the order for a call, and why.
type Place struct {
	Member *Member
	// Skipped says why the member is not asked in its turn, "" when it is.
	Skipped string
	// State is how the member is.
	State backend.State
}

// order returns the members to ask for calls, in order. Those that cannot serve
// now are left out; when none can, those that only lag are taken, else the least bad
// one is returned and desperate is true, so that a call is tried rather than refused. Only a member on another
// chain, or one that is no archive where archives are asked for, is never tried.
func (g *Group) order(calls []*jsonrpc.Call) (members []*Member, desperate bool) {
	now := time.Now()
	if g.inList && !wantsArchive(calls) && onlyOf(calls) == "" && g.allWell(calls, now) {
		return g.members, len(g.members) == 1
	}
	c := g.candidates(calls, now)
	if len(c.usable) == 0 {
		if m := c.leastBad(nil); m != nil {
			return []*Member{m}, true
		}
		return nil, true
	}
	return g.arrange(c, calls, askOf(calls)), len(g.members) == 1
}

// allWell reports whether all members can be asked in the order of the list: the
// usual case, in which nothing has to be sorted.
func (g *Group) allWell(calls []*jsonrpc.Call, now time.Time) bool {
	for _, m := range g.members {
		if s := m.StandingAt(now); s.State != backend.Well || s.Share < 1 || !supports(m, calls) {
			return false
		}
	}
	return g.laggards(g.members, now) == nil
}

// candidates are the members that may be asked for a call.
type candidates struct {
	members   []*Member // but those on another chain, no archives, and others than the only one, which are never tried
	standings []backend.Standing
	usable    []*Member
}

func (c *candidates) standing(m *Member) backend.Standing {
	return c.standings[slices.Index(c.members, m)]
}

// candidates looks at every member.
func (g *Group) candidates(calls []*jsonrpc.Call, now time.Time) *candidates {
	c := &candidates{members: make([]*Member, 0, len(g.members)), standings: make([]backend.Standing, 0, len(g.members))}
	archive, only := wantsArchive(calls), onlyOf(calls)
	can := make([]*Member, 0, len(g.members)) // but for their lag
	for _, m := range g.members {
		s := m.StandingAt(now)
		if s.State <= backend.Trial {
			can = append(can, m)
		}
		if s.State == backend.Foreign || archive && !m.Archive || only != "" && m.Name() != only {
			continue
		}
		c.members, c.standings = append(c.members, m), append(c.standings, s)
	}
	lagging := g.laggards(can, now)
	well := 0
	for i, m := range c.members {
		if slices.Contains(lagging, m) {
			c.standings[i].State = backend.Lagging
		}
		if c.standings[i].State == backend.Well {
			well++
		}
	}
	// While less than half is well, soft signs say nothing.
	ignoreSoft := g.strategy.Spreads() && 2*well < len(c.members)
	c.usable = make([]*Member, 0, len(c.members))
	for i, m := range c.members {
		s := &c.standings[i]
		if ignoreSoft && (s.State == backend.Strained || s.State == backend.Lagging) {
			s.State = backend.Well
		}
		if s.State <= backend.Trial {
			c.usable = append(c.usable, m)
		}
	}
	if len(c.usable) == 0 { // then late ones are better than one
		for i, m := range c.members {
			if c.standings[i].State == backend.Lagging {
				c.usable = append(c.usable, m)
			}
		}
	}
	return c
}

// arrange puts the usable members in order: those that have the method, tier by
// tier, strained ones and those that come back slowly behind the others of their
// tier; among equals as the strategy says.
func (g *Group) arrange(c *candidates, calls []*jsonrpc.Call, ask Ask) []*Member {
	ranks := make([]int, len(g.members)) // by index
	for _, m := range c.usable {
		s := c.standing(m)
		r := 4 * m.Tier
		if s.State == backend.Strained || s.Share < 1 && rand.Float64() > s.Share {
			r++
		}
		if !supports(m, calls) {
			r += 1 << 20 // a method that it does not have it cannot serve
		}
		ranks[m.index] = r
	}
	order := c.usable
	slices.SortStableFunc(order, func(a, b *Member) int { return ranks[a.index] - ranks[b.index] })
	for from := 0; from < len(order); {
		to := from + 1
		for to < len(order) && ranks[order[to].index] == ranks[order[from].index] {
			to++
		}
		g.strategy.Arrange(order[from:to], ask)
		from, ask.Peek = to, true // only the first ones take a turn
	}
	return g.capPublic(order)
}

// capPublic puts public members beyond the first few behind all others, where
// public ones come first.
func (g *Group) capPublic(order []*Member) []*Member {
	most := g.opts.PublicAttempts
	if most <= 0 {
		return order
	}
	var behind []*Member
	public := 0
	order = slices.DeleteFunc(order, func(m *Member) bool {
		if !m.Public {
			return false
		}
		if public++; public > most {
			behind = append(behind, m)
		}
		return public > most
	})
	return append(order, behind...)
}

func wantsArchive(calls []*jsonrpc.Call) bool {
	return len(calls) > 0 && calls[0].Client != nil && calls[0].Client.Archive
}

// onlyOf names the member that must answer, "" for any.
func onlyOf(calls []*jsonrpc.Call) string {
	if len(calls) == 0 {
		return ""
	}
	return calls[0].Only
}

func supports(m *Member, calls []*jsonrpc.Call) bool {
	for _, c := range calls {
		if !m.Supports(c.Label) {
			return false
		}
	}
	return true
}

// leastBad returns the member that is likeliest to serve although none can, of
// those for which may is true: one that lags, a silent one, the one whose hold-off
// or time out of service ends first, one that a check found unfit. It returns nil
// when there is none.
func (c *candidates) leastBad(may func(*Member) bool) *Member {
	var best *Member
	var bestIs backend.Standing
	for i, m := range c.members {
		if s := c.standings[i]; (may == nil || may(m)) && (best == nil || lessBad(s, bestIs)) {
			best, bestIs = m, s
		}
	}
	return best
}

func lessBad(a, b backend.Standing) bool {
	if x, y := badness(a.State), badness(b.State); x != y {
		return x < y
	}
	if x := a.Until.Compare(b.Until); x != 0 {
		return x < 0
	}
	return a.Since.Before(b.Since)
}

func badness(s backend.State) int {
	if s == backend.Out {
		return int(backend.Held) // which of the two ends first decides
	}
	return int(s)
}

// Explain says where each member stands for calls, in the order in which they
// would be asked now, those that would not be last.
func (g *Group) Explain(calls []*jsonrpc.Call) []Place {
	c := g.candidates(calls, time.Now())
	var order []*Member
	if len(c.usable) > 0 {
		ask := askOf(calls)
		ask.Peek = true
		order = g.arrange(c, calls, ask)
	} else if m := c.leastBad(nil); m != nil {
		order = []*Member{m}
	}
	return g.explain(order, calls)
}

// Followable returns the members that may be followed for events: those that can
// serve now, in the order in which a read would ask them, and behind them those that
// would not be asked but are not known to be unfit, since their sockets may fare
// better. usable is how many the former are.
func (g *Group) Followable() (members []*Member, usable int) {
	c := g.candidates(nil, time.Now())
	rest := make([]*Member, 0, len(c.members))
	for i, m := range c.members {
		if s := c.standings[i].State; s < backend.Unfit && !slices.Contains(c.usable, m) {
			rest = append(rest, m)
		}
	}
	if len(c.usable) > 0 {
		members = slices.Clone(g.arrange(c, nil, Ask{Label: "eth_subscribe", Reads: true, Peek: true}))
	}
	return append(members, rest...), len(members)
}

// Status says how a member is in this group, and how many blocks it is behind when
// it is Lagging.
func (g *Group) Status(m *Member) (s backend.Standing, behind uint64) {
	now := time.Now()
	c := g.candidates(nil, now)
	if i := slices.Index(c.members, m); i >= 0 {
		s = c.standings[i]
	} else {
		s = m.StandingAt(now)
	}
	if s.State == backend.Lagging {
		behind = g.lag(m, now)
	}
	return s, behind
}

// explain says why the order is what it is.
func (g *Group) explain(order []*Member, calls []*jsonrpc.Call) []Place {
	now := time.Now()
	c := g.candidates(calls, now)
	places := make([]Place, 0, len(g.members))
	for _, m := range order {
		places = append(places, Place{Member: m, State: c.state(m)})
	}
	for _, m := range g.members {
		if slices.Contains(order, m) {
			continue
		}
		p := Place{Member: m, State: c.state(m)}
		switch i := slices.Index(c.members, m); {
		case p.State == backend.Foreign:
			p.Skipped = m.Unfitness()
		case i < 0 && onlyOf(calls) != "":
			p.Skipped = "another backend must answer"
		case i < 0:
			p.Skipped = "no archive"
		case p.State <= backend.Trial:
			p.Skipped = p.State.String() // its turn had not come
		default:
			p.Skipped = reason(m, c.standings[i], now)
		}
		places = append(places, p)
	}
	return places
}

// state is how a member is, as the candidates see it.
func (c *candidates) state(m *Member) backend.State {
	if i := slices.Index(c.members, m); i >= 0 {
		return c.standings[i].State
	}
	return m.Standing().State
}

// reason says why a member is not asked in its turn.
func reason(m *Member, s backend.Standing, now time.Time) string {
	text := s.State.String()
	if why := m.Unfitness(); why != "" {
		text += ": " + why
	}
	if left := s.Until.Sub(now); left > 0 {
		text += " for " + left.Round(time.Millisecond).String()
	}
	return text
}

// retryAfter is when the first member may serve again, 0 when one can now or
// nobody can tell.
func (g *Group) retryAfter() time.Duration {
	var soonest time.Duration
	now := time.Now()
	for _, m := range g.members {
		s := m.Standing()
		if s.State <= backend.Suspect {
			return 0
		}
		if d := s.Until.Sub(now); d > 0 && (soonest == 0 || d < soonest) {
			soonest = d
		}
	}
	return soonest
}

// heldFor is how long every member wants to be left alone, 0 when one does not.
func (g *Group) heldFor() time.Duration {
	for _, m := range g.members {
		if m.Standing().State != backend.Held {
			return 0
		}
	}
	return g.retryAfter()
}
