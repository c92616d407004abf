package subscribe

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/group"
)

// choice is a way to follow a member.
type choice struct {
	member *group.Member
	polls  bool
	// rank is lower for what is better: a member that can serve, of the first
	// tier, over WebSocket.
	rank int
	// avoided was left of late.
	avoided bool
}

func (c choice) key() string { return fmt.Sprint(c.member.Name(), c.polls) }

const (
	// avoidFor is how long a backend that was left is asked only when others
	// cannot be followed.
	avoidFor = 30 * time.Second
	// settleFor is how long a backend is followed at least before a better one
	// takes over.
	settleFor = 30 * time.Second
)

func (f *follower) avoid(m *group.Member, polls bool) {
	f.failed[choice{member: m, polls: polls}.key()] = time.Now()
}

// choices are the ways to follow a member of the group, the best first. Those that
// were left of late come last.
func (f *follower) choices() []choice {
	members, able := f.opts.Group.Followable()
	now := time.Now()
	var list []choice
	for i, m := range members {
		rank := 4 * m.Tier
		if i >= able {
			rank += 1 << 10
		}
		if m.HasSocket() {
			list = append(list, choice{member: m, rank: rank})
		}
		if m.HasHTTP() {
			list = append(list, choice{member: m, polls: true, rank: rank + 1})
		}
	}
	for i := range list {
		left, ok := f.failed[list[i].key()]
		list[i].avoided = ok && now.Sub(left) < avoidFor
		if _, _, _, retryAt := list[i].member.SocketStatus(); !list[i].polls && now.Before(retryAt) {
			list[i].avoided = true
		}
	}
	// Where every socket was left of late, the one that may be opened is better than
	// polling.
	sockets := func(c choice) bool { return !c.polls && !c.avoided }
	if !slices.ContainsFunc(list, sockets) {
		for i := range list {
			if _, _, _, retryAt := list[i].member.SocketStatus(); !list[i].polls && !now.Before(retryAt) {
				list[i].avoided = false
			}
		}
	}
	slices.SortStableFunc(list, func(a, b choice) int {
		if a.avoided != b.avoided {
			if a.avoided {
				return 1
			}
			return -1
		}
		return a.rank - b.rank
	})
	return list
}

// inspect looks whether a source should still be followed; nil when it should.
func (f *follower) inspect(s *source) *departure {
	now := time.Now()
	var here choice
	var better, elsewhere bool
	list := f.choices()
	for _, c := range list {
		if c.member == s.member && c.polls == s.polls() {
			here = c
		}
	}
	for _, c := range list {
		if c.avoided || c.member == s.member && c.polls == s.polls() {
			continue
		}
		elsewhere = elsewhere || c.member != s.member && c.rank < 1<<10
		better = better || c.rank < here.rank
	}
	state, _ := f.opts.Group.Status(s.member)
	switch {
	case state.State == backend.Foreign:
		return &departure{label: "out_of_service", text: "it serves another chain", level: slog.LevelWarn, avoid: true, abandon: true}
	case elsewhere && (state.State == backend.Out || state.State == backend.Unfit || state.State == backend.Lagging):
		return &departure{label: "out_of_service", text: "it is " + state.State.String(), level: slog.LevelWarn, avoid: true}
	case better && here.member != nil && s.joined && now.Sub(s.began) > settleFor:
		return &departure{label: "better", text: "a better one can be followed", level: slog.LevelInfo}
	case now.Before(f.pace.stalledAt(f.opts.HeadStall)):
		return nil
	}
	return f.stalled(s)
}

// stalled finds out whether the chain stands still or only the source does.
func (f *follower) stalled(s *source) *departure {
	tip, _ := f.chain.tip()
	ctx, cancel := context.WithTimeout(f.hub.base, f.opts.CallTimeout)
	defer cancel()
	h, err := s.latest(ctx)
	switch {
	case f.hub.base.Err() != nil:
		return nil
	case err != nil:
		return &departure{label: "stalled", text: "no head came, and it does not answer: " + short(err), level: slog.LevelWarn, avoid: true, abandon: true}
	case len(s.events) > 0:
		return nil // it has just come
	case !s.joined:
		if err := f.join(s, h); err != nil {
			return f.broke(err)
		}
		return nil
	case h.number > tip.number && !s.polls() && s.newer > tip.number:
		return f.broke(errSilent)
	case h.number > tip.number && !s.polls():
		s.newer = h.number // its notification may be on the way
		return nil
	case f.othersAhead(s, tip.number):
		return &departure{label: "stalled", text: "no head came, and others have newer ones", level: slog.LevelWarn, avoid: true}
	}
	f.pace.standsStill(time.Now())
	return nil
}

// maxCompared bounds how many others are asked for their head.
const maxCompared = 3

// othersAhead reports whether another member has a block above number.
func (f *follower) othersAhead(s *source, number uint64) bool {
	members, able := f.opts.Group.Followable()
	asked := 0
	for _, m := range members[:able] {
		if m == s.member || asked == maxCompared {
			continue
		}
		asked++
		ctx, cancel := context.WithTimeout(f.hub.base, f.opts.CallTimeout)
		reply := m.Own(ctx, "eth_blockNumber", "[]", f.opts.CallTimeout)
		cancel()
		if n, ok := backend.Quantity(reply.Result); reply.Err == nil && ok && n > number {
			return true
		}
	}
	return false
}
