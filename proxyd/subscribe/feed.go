package subscribe

import (
	"context"
	"sync"
	"time"
)

// feed is one subscription as the backends know it, which all equal subscriptions
// of clients share. The follower owns what the lock does not guard.
type feed struct {
	spec
	metrics *Metrics

	mu      sync.Mutex
	subs    map[*subscription]struct{}
	emptied time.Time // when the last one left
	last    []byte    // the last state, for syncing
	settled chan struct{}
	served  bool  // a backend has accepted it
	err     error // why none did
	paused  bool  // it waits for a backend with a socket

	gone  bool   // it was dropped; what still comes is nobody's
	since uint64 // the head when it began: logs of later blocks are its own
	told  told   // for logs
	// unread is the last block of which its logs were fetched, when those of later ones
	// could not be; refusals counts the times.
	unread   uint64
	refusals int
}

func newFeed(s spec, m *Metrics) *feed {
	return &feed{spec: s, metrics: m, subs: make(map[*subscription]struct{}), settled: make(chan struct{})}
}

func (f *feed) add(s *subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[s] = struct{}{}
	f.metrics.subscriptions.WithLabelValues(f.kind.String()).Inc()
}

func (f *feed) remove(s *subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.subs[s]; !ok {
		return
	}
	delete(f.subs, s)
	f.metrics.subscriptions.WithLabelValues(f.kind.String()).Dec()
	if len(f.subs) == 0 {
		f.emptied = time.Now()
	}
}

// empty reports whether the last client left so long ago.
func (f *feed) empty(now time.Time, grace time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs) == 0 && now.Sub(f.emptied) >= grace
}

// clients is how many subscriptions of clients the feed has.
func (f *feed) clients() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs)
}

// emptySince is when the last client left.
func (f *feed) emptySince() (at time.Time, empty bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.emptied, len(f.subs) == 0
}

// await waits until a backend serves the feed, or none will.
func (f *feed) await(ctx context.Context) error {
	select {
	case <-f.settled:
	default:
		select {
		case <-f.settled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && f.paused {
		return errNeedSocket
	}
	return f.err
}

// settle tells who waits that the feed is served, or why it is not. The first time
// stands.
func (f *feed) settle(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.served || f.err != nil {
		return
	}
	f.served, f.err = err == nil, err
	close(f.settled)
}

// pause notes whether the feed waits for a backend with a socket.
func (f *feed) pause(paused bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paused = paused
}

func (f *feed) isPaused() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.paused
}

func (f *feed) isServed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.served
}

// emit passes a backend's event on to all clients.
func (f *feed) emit(result []byte, from string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kind == syncing {
		f.last = result
	}
	n := 0
	for s := range f.subs {
		if s.begun {
			s.session.Notify(s.id, result)
			n++
		}
	}
	f.metrics.notifications.WithLabelValues(from, f.kind.String()).Add(float64(n))
}

// lose ends the sockets of all clients, since events were lost.
func (f *feed) lose(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		s.session.Lose(reason)
	}
}
