package subscribe

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
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
	// soon is how long the opening of a socket is waited for rather than polling.
	soon = 1500 * time.Millisecond
	// socketFor is how long feeds wait that need a socket while others are polled for.
	socketFor = time.Minute
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
	later := func(c choice) bool { // its socket cannot be opened for a while
		return !c.polls && c.member.SocketStatus().RetryAt.Sub(now) > soon
	}
	for i, c := range list {
		left, ok := f.failed[c.key()]
		list[i].avoided = ok && now.Sub(left) < avoidFor || later(c)
	}
	// Where every socket was left of late, one that may be opened is better than
	// polling.
	if !slices.ContainsFunc(list, func(c choice) bool { return !c.polls && !c.avoided }) {
		for i, c := range list {
			list[i].avoided = c.avoided && (c.polls || later(c))
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
	if s.waiting && now.Sub(s.began) > socketFor {
		f.stopWaiting(s)
	}
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
	case better && here.member != nil && s.joined && (now.Sub(s.began) > settleFor || s.waiting && now.Sub(s.began) > soon):
		return &departure{label: "better", text: "a better one can be followed", level: slog.LevelInfo}
	case now.Before(f.pace.stalledAt(f.opts.HeadStall)):
		return nil
	}
	return f.stalled(s)
}

// stopWaiting ends the clients of feeds that need a socket, since there is none.
func (f *follower) stopWaiting(s *source) {
	s.waiting = false
	f.hub.mu.Lock()
	all := slices.Collect(maps.Values(f.hub.feeds))
	f.hub.mu.Unlock()
	for _, fd := range all {
		if fd.isPaused() {
			f.discard(s, fd)
			fd.lose("the subscription cannot be continued: no backend's WebSocket can be reached")
		}
	}
}

// stalled finds out whether the chain stands still or only the source does.
func (f *follower) stalled(s *source) *departure {
	tip, _ := f.chain.tip()
	ctx, cancel := context.WithTimeout(f.hub.base, f.opts.CallTimeout)
	defer cancel()
	type answer struct {
		head head
		err  error
	}
	own := make(chan answer, 1)
	s.polling.Go(func() {
		a := answer{err: errInternal}
		defer func() { own <- a }()
		defer s.recovered()
		a.head, a.err = s.latest(ctx)
	})
	ahead := f.othersAhead(s, tip.number)
	var h head
	var err error
	select {
	case a := <-own:
		h, err = a.head, a.err
	case <-time.After(leastPatience):
		if ahead {
			return &departure{label: "stalled", text: "no head came, it does not answer, and others have newer ones", level: slog.LevelWarn, avoid: true, abandon: true}
		}
		a := <-own
		h, err = a.head, a.err
	}
	switch {
	case f.hub.base.Err() != nil:
		return nil
	case err != nil:
		return &departure{label: "stalled", text: "no head came, and it does not answer: " + short(err), level: slog.LevelWarn, avoid: true, abandon: true}
	case len(s.events) > 0:
		return nil // it has just come
	case !s.joined:
		if h, err = s.mark(f.hub.base); err == nil {
			err = f.join(s, h)
		}
		if err != nil {
			return f.broke(err)
		}
		return nil
	case h.number > tip.number && !s.polls() && s.newer > tip.number:
		return f.broke(errSilent)
	case h.number > tip.number && !s.polls():
		s.newer = h.number // its notification may be on the way
		return nil
	case ahead:
		return &departure{label: "stalled", text: "no head came, and others have newer ones", level: slog.LevelWarn, avoid: true}
	}
	f.pace.standsStill(time.Now())
	return nil
}

// leastPatience is how long a silent source is waited for when others are ahead.
const leastPatience = 250 * time.Millisecond

// maxCompared bounds how many others are asked for their head.
const maxCompared = 3

// othersAhead reports whether another member has a block above number.
func (f *follower) othersAhead(s *source, number uint64) bool {
	members, able := f.opts.Group.Followable()
	ctx, cancel := context.WithTimeout(f.hub.base, f.opts.CallTimeout)
	defer cancel()
	ahead := make(chan bool, 2*maxCompared)
	asked := 0
	for _, m := range members[:able] {
		if m == s.member || asked == maxCompared {
			continue
		}
		asked++
		s.polling.Go(func() {
			defer func() { ahead <- false }() // which nobody reads, unless it panics
			defer s.recovered()
			reply := m.Own(ctx, "eth_blockNumber", "[]", f.opts.CallTimeout)
			n, ok := backend.Quantity(reply.Result)
			ahead <- reply.Err == nil && ok && n > number
		})
	}
	for range asked {
		if <-ahead {
			return true
		}
	}
	return false
}
