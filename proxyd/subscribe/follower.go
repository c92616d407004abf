package subscribe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"gateway.internal/proxyd/group"
)

// follower follows one backend of the group at a time for all feeds of a hub. It
// runs while there are any; all it has is its own goroutine's.
type follower struct {
	hub   *Hub
	opts  *Options
	chain blocks
	shape shape

	served  []*feed // those that the source serves
	failed  map[string]time.Time
	pace    pace
	polls   bool   // the present source is polled
	from    string // its name
	sources int    // how many there were
	misses  int    // attempts in a row to close one gap
	waits   int    // rounds in a row without a source
}

func newFollower(h *Hub) *follower {
	return &follower{hub: h, opts: &h.opts, chain: blocks{most: max(2*h.opts.ReplayBlocks, 16)}, failed: make(map[string]time.Time)}
}

// run follows until no feed is left.
func (f *follower) run() {
	defer func() {
		if v := recover(); v != nil {
			f.opts.Log.Error("panic in subscriptions", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			f.hub.mu.Lock()
			for _, fd := range f.hub.feeds {
				fd.settle(errClosed)
				fd.lose("internal error")
			}
			clear(f.hub.feeds)
			f.hub.running = false
			f.hub.mu.Unlock()
		}
	}()
	for !f.idle() {
		s := f.connect()
		if s == nil {
			continue
		}
		why := f.follow(s)
		f.opts.Metrics.followed.WithLabelValues(f.opts.Group.Name(), s.member.Name()).Set(0)
		if why == nil {
			s.close()
			continue
		}
		f.opts.Metrics.moves.WithLabelValues(f.opts.Group.Name(), s.member.Name(), why.label).Inc()
		f.opts.Log.Log(f.hub.base, why.level, "subscriptions leave backend", "backend_group", f.opts.Group.Name(), "backend", s.member.Name(), "reason", why.text)
		if why.abandon {
			s.abandon(errors.New(why.text))
		} else {
			s.close()
		}
		if why.avoid {
			f.avoid(s.member, s.polls())
		}
	}
}

// idle reports whether there is nothing left to follow for, and then ends the
// follower's being there.
func (f *follower) idle() bool {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	if f.hub.closed {
		for _, fd := range f.hub.feeds {
			fd.settle(errClosed)
		}
	}
	f.sweep(nil)
	if len(f.hub.feeds) > 0 && !f.hub.closed {
		return false
	}
	f.hub.running = false
	return true
}

// sweep removes feeds that nobody wants any more. The caller holds the hub's lock.
func (f *follower) sweep(s *source) {
	now := time.Now()
	for key, fd := range f.hub.feeds {
		if !fd.empty(now, f.opts.Grace) {
			continue
		}
		delete(f.hub.feeds, key)
		f.drop(fd)
		if s != nil {
			s.unsubscribe(fd)
		}
	}
}

func (f *follower) drop(fd *feed) {
	for i, other := range f.served {
		if other == fd {
			f.served = append(f.served[:i], f.served[i+1:]...)
			return
		}
	}
}

// departure is why a backend is no longer followed.
type departure struct {
	label   string // in metrics
	text    string
	level   slog.Level
	avoid   bool // leave it alone for a while, if there is another
	abandon bool // its socket too
}

// follow takes the source's events until it has to be left; nil when nobody wants
// events any more.
func (f *follower) follow(s *source) *departure {
	tick := time.NewTicker(f.opts.Tick)
	defer tick.Stop()
	if !f.adopt(s) {
		return nil
	}
	for {
		select {
		case e := <-s.events:
			if err := f.take(s, e); err != nil {
				return f.broke(err)
			}
		case <-s.lost:
			f.drain(s)
			return f.broke(s.reason)
		case <-f.hub.changed:
			if !f.adopt(s) {
				return nil
			}
		case <-tick.C:
			if !f.adopt(s) {
				return nil
			}
			if why := f.inspect(s); why != nil {
				return why
			}
		case <-f.hub.base.Done():
			return nil
		}
	}
}

// drain takes what a lost source has brought before: it need not be fetched.
func (f *follower) drain(s *source) {
	for s.joined {
		select {
		case e := <-s.events:
			if f.take(s, e) != nil {
				return
			}
		default:
			return
		}
	}
}

func (f *follower) broke(err error) *departure {
	d := &departure{label: "broke", text: err.Error(), level: slog.LevelWarn, avoid: true}
	var gap errGap
	switch {
	case errors.As(err, &gap):
		d.label = "gap"
	case errors.Is(err, errOverflow):
		d.label, d.avoid = "overflow", false
	case errors.Is(err, errSilent):
		d.label, d.abandon = "stalled", true
	}
	return d
}

// adopt subscribes to what is new and unsubscribes from what nobody wants. It
// returns false when nothing is left.
func (f *follower) adopt(s *source) bool {
	h := f.hub
	h.mu.Lock()
	f.sweep(s)
	var fresh []*feed
	for _, fd := range h.feeds {
		if !f.serves(fd) {
			fresh = append(fresh, fd)
		}
	}
	left := len(h.feeds) > 0
	h.mu.Unlock()
	for _, fd := range fresh {
		if fd.isServed() { // by a source before, but not by this one
			continue
		}
		if err := f.serve(s, fd); err != nil {
			h.mu.Lock()
			fd.settle(f.refusal(err))
			if h.feeds[fd.key] == fd {
				delete(h.feeds, fd.key)
			}
			h.mu.Unlock()
		}
	}
	return left
}

func (f *follower) serves(fd *feed) bool {
	for _, other := range f.served {
		if other == fd {
			return true
		}
	}
	return false
}

// serve has the source serve a feed.
func (f *follower) serve(s *source, fd *feed) error {
	if fd.kind != heads { // those come anyway
		if err := s.subscribe(f.hub.base, fd, fd.spec); err != nil {
			return err
		}
	}
	if !fd.isServed() {
		tip, _ := f.chain.tip()
		fd.since = tip.number
	}
	f.served = append(f.served, fd)
	fd.settle(nil)
	return nil
}

// take has clients told of an event.
func (f *follower) take(s *source, e event) error {
	if e.feed != nil && !s.joined && e.feed.kind == logs {
		if len(s.held) == maxWaiting {
			return errOverflow
		}
		s.held = append(s.held, e)
		return nil
	}
	if e.feed != nil {
		f.takeOther(e)
		return nil
	}
	h, ok := parseHead(e.result)
	if !ok {
		return fmt.Errorf("backend %s told of a head that is none", s.member.Name())
	}
	f.learnNumber(s, h)
	if h.whole = s.polls(); !h.whole && !s.shaped {
		f.shape.learn(h.raw)
		s.shaped = true
	}
	tip, known := f.chain.tip()
	switch {
	case !known:
		f.tellHead(h)
		return nil
	case !s.joined:
		return f.join(s, h)
	case f.chain.has(h.block) && h.number <= tip.number:
		f.opts.Metrics.duplicates.WithLabelValues("newHeads").Inc()
		return nil
	case f.chain.follows(h.block) && !s.polls():
		f.tellHead(h)
		return nil
	}
	what := noLogs // which a source that reorganises tells by itself
	if s.polls() || h.number > tip.number {
		what = newLogs
	}
	err := f.reach(f.hub.base, s, h, what)
	var gap errGap
	switch {
	case err == nil:
		s.missed = 0
	case s.polls() && !errors.As(err, &gap) && s.missed+1 < pollFailures:
		s.missed++ // the next head brings this one along
		return nil
	}
	return err
}

// takeOther passes on what is no head.
func (f *follower) takeOther(e event) {
	if e.feed.kind != logs {
		e.feed.emit(e.result, f.from)
		return
	}
	l, ok := parseLog(e.result)
	l.source = f.sources
	switch {
	case !ok:
		e.feed.emit(e.result, f.from) // not as a log should be, but the backend's word
	case e.feed.told.take(l):
		e.feed.emit(e.result, f.from)
	default:
		f.opts.Metrics.duplicates.WithLabelValues("logs").Inc()
	}
}

// learnNumber notes a head for whoever compares backends, and when it came.
func (f *follower) learnNumber(s *source, h head) {
	s.member.NoteHead(h.number)
	f.pace.heard(h.number, time.Now())
}

// tellHead passes a head on and remembers it. Logs of another block in its place that
// an earlier source told of are taken back.
func (f *follower) tellHead(h head) {
	if f.chain.follows(h.block) {
		f.chain.push(h.block)
	} else {
		f.chain.restart(h.block)
	}
	result := h.raw
	if h.whole {
		result = f.shape.cut(h.raw)
		f.replayed(heads)
	}
	for _, fd := range f.served {
		switch fd.kind {
		case heads:
			fd.emit(result, f.from)
		case logs:
			if !f.polls {
				for _, l := range fd.told.orphans(h.number-1, &f.chain, f.present()) {
					f.replayed(logs)
					fd.emit(takenBack(l.raw), f.from)
				}
			}
			if kept := uint64(f.chain.most); h.number > kept {
				fd.told.forget(h.number - kept)
			}
		}
	}
}

func (f *follower) replayed(k kind) { f.opts.Metrics.replayed.WithLabelValues(k.String()).Inc() }

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
			f.opts.Metrics.followed.WithLabelValues(f.opts.Group.Name(), s.member.Name()).Set(1)
			f.opts.Log.Info("subscriptions follow backend", "backend_group", f.opts.Group.Name(), "backend", s.member.Name(), "polled", s.polls())
			return s
		}
		failure = err
		f.avoid(c.member, c.polls)
		f.opts.Log.Warn("backend cannot be followed", "backend_group", f.opts.Group.Name(), "backend", c.member.Name(), "polled", c.polls, "error", short(err))
	}
	f.refuseWaiting(failure)
	f.pause()
	return nil
}

// short bounds an error's text.
func short(err error) string {
	text := err.Error()
	return text[:min(len(text), 500)]
}

// refuseWaiting tells clients that wait for their first event's backend that there
// is none.
func (f *follower) refuseWaiting(why error) {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	for key, fd := range f.hub.feeds {
		if fd.isServed() {
			continue
		}
		fd.settle(f.refusal(why))
		delete(f.hub.feeds, key)
	}
}

// refusal is what a client is told that waits for a subscription.
func (f *follower) refusal(why error) error {
	var own rpcError
	var upstream *upstreamError
	if errors.As(why, &own) || errors.As(why, &upstream) {
		return why
	}
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
	t := time.NewTimer(min(250*time.Millisecond<<min(f.waits, 10), 5*time.Second))
	defer t.Stop()
	f.waits++
	for {
		select {
		case <-t.C:
			return
		case <-f.hub.base.Done():
			return
		case <-f.hub.changed: // somebody waits, or nobody any more
			return
		}
	}
}

// open follows a backend: its subscriptions are made first, so that nothing new is
// missed while what lies between is fetched.
func (f *follower) open(c choice) (*source, error) {
	ctx, cancel := context.WithTimeout(f.hub.base, f.opts.ReplayTimeout)
	defer cancel()
	s, err := openSource(ctx, c.member, c.polls, f.opts)
	if err != nil {
		return nil, err
	}
	f.polls, f.from = s.polls(), s.member.Name()
	f.sources++
	if err := f.resume(ctx, s); err != nil {
		s.close()
		f.served = nil
		return nil, err
	}
	return s, nil
}

// resume makes the feeds' subscriptions at a new source and closes the gap to what
// clients were told.
func (f *follower) resume(ctx context.Context, s *source) error {
	f.hub.mu.Lock()
	all := make([]*feed, 0, len(f.hub.feeds))
	for _, fd := range f.hub.feeds {
		if fd.isServed() {
			all = append(all, fd)
		}
	}
	f.hub.mu.Unlock()
	f.served = f.served[:0]
	var refusedNow, lost []*feed
	for _, fd := range all {
		err := f.serve(s, fd)
		var refused *upstreamError
		switch {
		case err == nil && fd.kind != other:
		case err == nil: // nobody knows what was missed
			lost = append(lost, fd)
		case (errors.As(err, &refused) || errors.Is(err, errNeedSocket)) && fd.kind != logs:
			refusedNow = append(refusedNow, fd)
		default:
			return err
		}
	}
	h, err := s.latest(ctx)
	if err != nil {
		return err
	}
	f.learnNumber(s, h)
	if err := f.start(s, h); err != nil {
		return err
	}
	if len(lost) > 0 {
		f.gap("what comes between two connections is not known for this kind of subscription", lost...)
	}
	for _, fd := range refusedNow { // they would wait for ever
		f.opts.Log.Warn("backend has no such subscription", "backend_group", f.opts.Group.Name(), "backend", s.member.Name(), "kind", fd.kind.String())
		fd.lose("the subscription cannot be continued: no backend offers it now")
	}
	return nil
}

// start compares a new source's head with what clients were told.
func (f *follower) start(s *source, h head) error {
	if _, known := f.chain.tip(); !known {
		f.chain.restart(h.block) // what was before nobody was promised
		s.joined = true
		return nil
	}
	return f.join(s, h)
}

// join lets a source take over once it is where clients are: one that is behind is
// waited for.
func (f *follower) join(s *source, h head) error {
	tip, _ := f.chain.tip()
	if h.number < tip.number || h.number == tip.number && h.hash != tip.hash {
		if time.Since(s.began) < f.pace.patience(f.opts.HeadStall) || f.othersAhead(s, tip.number-1) {
			return nil
		}
		f.opts.Log.Warn("the chain has gone back", "backend_group", f.opts.Group.Name(), "backend", s.member.Name(), "from", tip.number, "to", h.number)
	}
	err := f.reach(f.hub.base, s, h, allLogs)
	var gap errGap
	switch {
	case err == nil:
	case errors.As(err, &gap):
		f.restart(h, gap.reason)
	case s.isLost():
		return err
	default:
		// Another may be able to close it, but not for ever.
		if f.misses++; f.misses < mostMisses {
			return err
		}
		f.restart(h, "what was missed could not be fetched")
	}
	f.misses, s.joined = 0, true
	for _, e := range s.held {
		f.takeOther(e)
	}
	s.held = nil
	return nil
}

// present names the source whose own logs are for it to take back, 0 where that is
// polled and tells nothing by itself.
func (f *follower) present() int {
	if f.polls {
		return 0
	}
	return f.sources
}

// mostMisses is how often the closing of one gap is tried.
const mostMisses = 3

// restart goes on behind a gap.
func (f *follower) restart(h head, reason string) {
	f.gap(reason, f.served...)
	f.chain.restart(h.block)
	for _, fd := range f.served {
		fd.told, fd.since = told{}, h.number
	}
}

// gap tells clients that events were lost, or only counts it.
func (f *follower) gap(reason string, feeds ...*feed) {
	f.opts.Metrics.gaps.WithLabelValues(f.opts.Group.Name()).Inc()
	f.opts.Log.Warn("events of subscriptions were lost", "backend_group", f.opts.Group.Name(), "reason", reason, "subscriptions", len(feeds))
	if f.opts.CountGaps {
		return
	}
	for _, fd := range feeds {
		switch fd.kind {
		case pending, syncing: // nobody was promised all
		default:
			fd.lose("events were lost: " + reason)
		}
	}
}
