package subscribe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"gateway.internal/proxyd/group"
)

// connect finds a backend to follow and brings it to where clients are; nil when
// there is none now, after a pause.
func (f *follower) connect() *source {
	var failure error
	list := f.choices()
	if len(list) == 0 && f.unverified() {
		f.pause() // it is not known yet who serves the right chain
		return nil
	}
	for _, c := range list {
		if f.hub.base.Err() != nil {
			return nil
		}
		s, err := f.open(c)
		if err == nil {
			f.waits = 0
			f.endOutage()
			return s
		}
		failure = err
		f.avoid(c.member, c.polls)
		f.opts.Log.Warn("backend cannot be followed", "backend_group", f.opts.Group.Name(), "backend", c.member.Name(), "polled", c.polls, "error", short(err))
	}
	f.noteOutage()
	f.refuseWaiting(failure)
	f.pause()
	return nil
}

// noteOutage says that nobody can be followed, once a minute.
func (f *follower) noteOutage() {
	now := time.Now()
	if f.outage.IsZero() {
		f.outage = now
		f.opts.Metrics.outage.WithLabelValues(f.opts.Group.Name()).Set(1)
	}
	if now.Sub(f.warned) < time.Minute {
		return
	}
	f.warned = now
	f.opts.Log.Warn("no backend can be followed, subscriptions wait", "backend_group", f.opts.Group.Name(), "for", now.Sub(f.outage).Round(time.Second).String())
}

// endOutage says that somebody is followed again.
func (f *follower) endOutage() {
	if f.outage.IsZero() {
		return
	}
	f.opts.Log.Warn("a backend can be followed again", "backend_group", f.opts.Group.Name(), "after", time.Since(f.outage).Round(time.Second).String())
	f.opts.Metrics.outage.WithLabelValues(f.opts.Group.Name()).Set(0)
	f.outage, f.warned = time.Time{}, time.Time{}
}

// refuseWaiting tells clients that wait for their first event's backend that there
// is none.
func (f *follower) refuseWaiting(why error) {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	for key, fd := range f.hub.feeds {
		if !fd.isServed() {
			fd.settle(f.refusal(why))
			delete(f.hub.feeds, key)
		}
	}
}

// refusal is what a client is told whose subscription no backend serves.
func (f *follower) refusal(why error) error {
	refused := &group.Unserviceable{Group: f.opts.Group.Name()}
	if why != nil {
		refused.Reasons = []error{why}
	}
	return refused
}

// unverified reports whether a member may serve once its chain is known.
func (f *follower) unverified() bool {
	return slices.ContainsFunc(f.opts.Group.Members(), func(m *group.Member) bool { return m.Unverified() })
}

// pause waits before the next round without a source.
func (f *follower) pause() {
	t := time.NewTimer(min(leastPause<<min(f.waits, 10), mostPause))
	defer t.Stop()
	early := time.NewTimer(leastPause) // clients do not set the pace
	defer early.Stop()
	f.waits++
	changed := (<-chan struct{})(nil)
	for {
		select {
		case <-t.C:
			return
		case <-f.hub.base.Done():
			return
		case <-early.C:
			changed = f.hub.changed
		case <-changed: // somebody waits, or nobody any more
			return
		}
	}
}

// leastPause and mostPause are between rounds in which nobody could be followed.
const leastPause, mostPause = 250 * time.Millisecond, 5 * time.Second

// errBehind says that a backend is behind what clients were told, and others are not.
var errBehind = errors.New("it is behind other backends")

// open follows a backend: its subscriptions are made first, so that nothing new is
// missed while what lies between is fetched.
func (f *follower) open(c choice) (*source, error) {
	ctx, cancel := context.WithTimeout(f.hub.base, f.opts.ReplayTimeout)
	defer cancel()
	s, err := openSource(f.hub.base, ctx, c.member, c.polls, f.opts)
	if err != nil {
		return nil, err
	}
	f.sources++
	s.number = f.sources
	err = f.resume(s)
	if tip, _ := f.chain.tip(); err == nil && !s.joined && f.waits == 0 && f.othersAhead(s, max(tip.number, 1)-1) {
		err = errBehind // one of the others may be followed at once
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// resume makes the feeds' subscriptions at a new source and closes the gap to what
// clients were told.
func (f *follower) resume(s *source) error {
	f.hub.mu.Lock()
	all := make([]*feed, 0, len(f.hub.feeds))
	f.hub.fresh = nil
	for _, fd := range f.hub.feeds {
		if fd.isServed() {
			all = append(all, fd)
		} else {
			f.hub.fresh = append(f.hub.fresh, fd)
		}
	}
	f.hub.mu.Unlock()
	errs := make([]error, len(all))
	var asked, failed atomic.Int64
	fails := func() bool { // and is left, but for one that it leaves without an answer when all others were tried
		return failed.Load() > 0 && (f.waits == 0 || f.waits < mostRounds && asked.Load() >= subscribesAtOnce && 2*failed.Load() > asked.Load())
	}
	_ = atOnce(len(all), subscribesAtOnce, func(i int) error {
		if all[i].kind == heads || s.isLost() || fails() {
			return nil
		}
		errs[i] = s.subscribe(all[i], all[i].spec)
		if asked.Add(1); errs[i] != nil && !isRefusal(errs[i]) {
			failed.Add(1)
		}
		return nil
	})
	switch {
	case s.isLost():
		return s.reason
	case fails(), f.waits < mostRounds && 2*failed.Load() > int64(len(all)):
		return errs[slices.IndexFunc(errs, func(err error) bool { return err != nil && !isRefusal(err) })]
	}
	var refused, lost []*feed
	for i, fd := range all {
		switch {
		case errs[i] == nil:
			f.accept(s, fd)
			if fd.kind == other { // nobody knows what was missed
				lost = append(lost, fd)
			}
		case errors.Is(errs[i], errNeedSocket) && fd.kind != other: // nobody was promised all
			s.waiting = true
			fd.pause(true)
		default:
			refused = append(refused, fd)
		}
	}
	if len(refused) > 0 && f.waits == 0 {
		return fmt.Errorf("it refuses a subscription to %s", refused[0].kind) // others may not
	}
	h, err := s.mark(f.hub.base)
	if err != nil {
		return err
	}
	s.member.NoteHead(h.number)
	f.pace.heard(h.number, time.Now())
	if _, known := f.chain.tip(); !known {
		f.chain.restart(h.block) // what was before nobody was promised
		s.joined = true
	} else if err := f.join(s, h); err != nil {
		return err
	}
	if len(lost) > 0 {
		f.gap("what comes between two connections is not known for this kind of subscription", lost...)
	}
	for _, fd := range refused { // they would wait for ever
		f.opts.Log.Warn("backend refuses a subscription", "backend_group", f.opts.Group.Name(), "backend", s.member.Name(), "kind", fd.kind.String())
		f.discard(s, fd)
		fd.lose("the subscription cannot be continued: the backend that is left refuses it")
	}
	return nil
}

// join lets a source take over once it is where clients are: one that is behind is
// waited for.
func (f *follower) join(s *source, h head) error {
	tip, _ := f.chain.tip()
	if h.number < tip.number || h.number == tip.number && h.hash != tip.hash {
		switch {
		case time.Since(s.began) < f.pace.patience(f.opts.HeadStall):
			return nil
		case f.othersAhead(s, max(tip.number, 1)-1):
			return errBehind
		}
		f.opts.Log.Warn("the chain has gone back", "backend_group", f.opts.Group.Name(), "backend", s.member.Name(), "from", tip.number, "to", h.number)
	}
	err := f.reach(f.hub.base, s, h, allLogs)
	var gap errGap
	switch {
	case err == nil:
	case errors.As(err, &gap):
		f.restart(s, h, gap.reason)
	case s.isLost() || f.waits < mostRounds:
		return err // another may be able to close it, but not for ever
	default:
		f.restart(s, h, "what was missed could not be fetched")
	}
	s.joined = true
	for _, e := range s.held {
		s.bytes.Add(-int64(len(e.result)))
		f.takeOther(s, e)
	}
	s.held = nil
	return nil
}

// mostRounds is how many rounds over all backends, with a pause behind each, are made to
// close a gap.
const mostRounds = 3

// restart goes on behind a gap.
func (f *follower) restart(s *source, h head, reason string) {
	f.gap(reason, slices.Collect(maps.Keys(s.served))...)
	f.chain.restart(h.block)
	f.pace = pace{}
	f.pace.heard(h.number, time.Now())
	for fd := range s.served {
		fd.told.forget(math.MaxUint64)
		fd.told.floor, fd.since, fd.refusals = 0, h.number, 0
	}
}

// gap tells clients that events were lost, or only counts it.
func (f *follower) gap(reason string, feeds ...*feed) {
	clients := 0
	for _, fd := range feeds {
		clients += fd.clients()
	}
	f.opts.Metrics.gaps.WithLabelValues(f.opts.Group.Name()).Inc()
	f.opts.Log.Warn("events of subscriptions were lost", "backend_group", f.opts.Group.Name(), "reason", reason, "subscriptions_of_clients", clients, "sockets_ended", !f.opts.CountGaps)
	if f.opts.CountGaps {
		return
	}
	for _, fd := range feeds {
		if fd.kind != pending && fd.kind != syncing { // of which nobody was promised all
			fd.lose("events were lost: " + reason)
		}
	}
}
