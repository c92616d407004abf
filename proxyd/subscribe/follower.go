package subscribe

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"
)

// follower follows one backend of the group at a time for all feeds of a hub. It
// runs while there are any; all it has is its own goroutine's.
type follower struct {
	hub   *Hub
	opts  *Options
	chain blocks // as clients know it
	shape shape
	told  int // bytes of the logs that feeds remember

	failed  map[string]time.Time // when a way to follow a member was left
	pace    pace
	sources int       // how many there were
	waits   int       // rounds in a row without a source
	outage  time.Time // since when nobody is followed, zero while somebody is
	warned  time.Time // when that was last said
}

func newFollower(h *Hub) *follower {
	return &follower{hub: h, opts: &h.opts, chain: blocks{most: max(2*h.opts.ReplayBlocks, 16)}, failed: make(map[string]time.Time)}
}

// run follows until no feed is left.
func (f *follower) run() {
	var s *source
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
			if s != nil {
				f.opts.Metrics.followed.WithLabelValues(f.opts.Group.Name(), s.member.Name()).Set(0)
				s.close()
			}
		}
	}()
	for !f.idle() {
		if s = f.connect(); s == nil {
			continue
		}
		group, name := f.opts.Group.Name(), s.member.Name()
		f.opts.Metrics.followed.WithLabelValues(group, name).Set(1)
		f.opts.Log.Info("subscriptions follow backend", "backend_group", group, "backend", name, "polled", s.polls())
		why := f.follow(s)
		f.opts.Metrics.followed.WithLabelValues(group, name).Set(0)
		if why == nil {
			s.close()
			continue
		}
		f.opts.Metrics.moves.WithLabelValues(group, name, why.label).Inc()
		f.opts.Log.Log(f.hub.base, why.level, "subscriptions leave backend", "backend_group", group, "backend", name, "reason", why.text)
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
	f.endOutage()
	return true
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
		case a := <-s.asked:
			f.adopted(s, a)
			f.adopt(s)
		case <-s.lost:
			f.drain(s)
			return f.broke(s.reason)
		case <-f.hub.changed:
			if !f.adopt(s) {
				return nil
			}
		case <-tick.C:
			f.tidy(s)
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
	d := &departure{label: "broke", text: short(err), level: slog.LevelWarn, avoid: true}
	var gap errGap
	switch {
	case errors.As(err, &gap):
		d.label = "gap"
	case errors.Is(err, errOverflow):
		d.label, d.avoid = "overflow", false
	case errors.Is(err, errBehind):
		d.label = "behind"
	case errors.Is(err, errSilent):
		d.label, d.abandon = "stalled", true
	}
	return d
}

// short bounds an error's text.
func short(err error) string {
	text := err.Error()
	return text[:min(len(text), 500)]
}

// take has clients told of an event.
func (f *follower) take(s *source, e event) error {
	s.bytes.Add(-int64(len(e.result)))
	switch {
	case e.mark:
		s.marks--
	case s.marks > 0 && (e.feed == nil || e.feed.kind == logs): // old news, see mark
		f.opts.Metrics.duplicates.WithLabelValues(heads.String()).Inc()
	case e.feed == nil:
		return f.takeHead(s, e.result)
	case s.joined || e.feed.kind != logs:
		f.takeOther(s, e)
	case len(s.held) == maxWaiting:
		return errOverflow
	default:
		s.bytes.Add(int64(len(e.result))) // it still waits
		s.held = append(s.held, e)
	}
	return nil
}

func (f *follower) takeHead(s *source, raw []byte) error {
	h, ok := parseHead(raw)
	if !ok {
		return fmt.Errorf("backend %s told of a head that is none", s.member.Name())
	}
	f.pace.heard(h.number, time.Now())
	if h.whole = s.polls(); !h.whole && !s.shaped {
		f.shape.learn(h.raw)
		s.shaped = true
	}
	switch {
	case !s.joined:
		return f.join(s, h)
	case f.chain.has(h.block), f.chain.precedes(h.block):
		f.opts.Metrics.duplicates.WithLabelValues(heads.String()).Inc()
		return nil
	case f.chain.follows(h.block) && !s.polls():
		f.tellHead(s, h)
		return nil
	}
	// A source that is not polled has left something out, and maybe logs too.
	err := f.reach(f.hub.base, s, h, newLogs)
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
func (f *follower) takeOther(s *source, e event) {
	if e.feed.gone {
		return
	}
	if e.feed.kind != logs {
		e.feed.emit(e.result, s.member.Name())
		return
	}
	if l, ok := parseLog(e.result); ok && !f.isNews(s, e.feed, l) {
		f.opts.Metrics.duplicates.WithLabelValues(logs.String()).Inc()
		return
	}
	e.feed.emit(e.result, s.member.Name()) // what is no log too: it is the backend's word
}

// isNews reports whether clients were not told of a log yet, and remembers that they
// are. When the memory of all feeds is full, the one with the most gives way.
func (f *follower) isNews(s *source, fd *feed, l logEvent) bool {
	l.source = s.number
	if !fd.told.take(l) {
		return false
	}
	if f.told <= maxToldBytes {
		return true
	}
	most := fd
	for other := range s.served {
		if other.told.bytes > most.told.bytes {
			most = other
		}
	}
	most.told.forgetOldest()
	return true
}

// tellHead passes a head on and remembers it. Logs of another block in its place that
// an earlier source told of are taken back.
func (f *follower) tellHead(s *source, h head) {
	s.member.NoteHead(h.number)
	was := blocks{list: slices.Clone(f.chain.list)}
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
	for fd := range s.served {
		switch fd.kind {
		case heads:
			fd.emit(result, s.member.Name())
		case logs:
			if !s.polls() {
				f.takeBack(s, fd, fd.told.orphans(&was, &f.chain, s.number, false))
			}
			fd.told.replaced(h.number)
			if kept := uint64(f.chain.most); h.number > kept {
				fd.told.forget(h.number - kept)
			}
		}
	}
}

// takeBack tells clients that logs are no longer part of the chain.
func (f *follower) takeBack(s *source, fd *feed, gone []logEvent) {
	for _, l := range gone {
		f.replayed(logs)
		fd.emit(takenBack(l.raw), s.member.Name())
	}
}

func (f *follower) replayed(k kind) { f.opts.Metrics.replayed.WithLabelValues(k.String()).Inc() }
