package subscribe

import (
	"math"
	"time"
)

// tidy is sweep between events.
func (f *follower) tidy(s *source) {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	f.sweep(s)
}

// sweep removes feeds that nobody wants any more. The caller holds the hub's lock.
func (f *follower) sweep(s *source) {
	now := time.Now()
	for key, fd := range f.hub.feeds {
		if fd.empty(now, f.opts.Grace) {
			delete(f.hub.feeds, key)
			f.drop(s, fd)
		}
	}
}

// drop forgets a feed; s is nil while nobody is followed.
func (f *follower) drop(s *source, fd *feed) {
	fd.gone = true
	fd.told.forget(math.MaxUint64)
	if s == nil {
		return
	}
	delete(s.served, fd)
	s.unsubscribe(fd)
}

// discard takes a feed out of the hub, so that who subscribes next makes a new one.
func (f *follower) discard(s *source, fd *feed) {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	if f.hub.feeds[fd.key] == fd {
		delete(f.hub.feeds, fd.key)
	}
	f.drop(s, fd)
}

// adopt begins to subscribe to what is new. It returns false when nothing is left.
func (f *follower) adopt(s *source) bool {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	for _, fd := range f.hub.gone {
		f.drop(s, fd)
	}
	f.hub.gone = nil
	for len(f.hub.fresh) > 0 && len(s.asking) < subscribesAtOnce { // the rest when these are answered
		fd := f.hub.fresh[0]
		f.hub.fresh = f.hub.fresh[1:]
		switch {
		case f.hub.feeds[fd.key] != fd: // it is gone already
		case fd.kind == heads: // they come anyway
			f.accept(s, fd)
		default:
			tip, _ := f.chain.tip()
			fd.since, fd.told.all = tip.number, &f.told
			s.begin(fd)
		}
	}
	return len(f.hub.feeds) > 0
}

// adopted is about a feed whose subscription was asked for.
func (f *follower) adopted(s *source, a asked) {
	delete(s.asking, a.feed)
	f.hub.mu.Lock()
	wanted := f.hub.feeds[a.feed.key] == a.feed
	f.hub.mu.Unlock()
	switch {
	case a.err == nil && wanted:
		f.accept(s, a.feed)
	case a.err == nil:
		s.unsubscribe(a.feed)
	case isRefusal(a.err):
		a.feed.settle(a.err)
		f.discard(s, a.feed)
	}
	// Otherwise the source is lost, and the next one serves it.
}

// accept notes that the source serves a feed.
func (f *follower) accept(s *source, fd *feed) {
	s.served[fd] = true
	fd.pause(false)
	fd.settle(nil)
}
