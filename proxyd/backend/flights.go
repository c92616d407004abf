package backend

import (
	"context"
	"sync"
	"time"
)

const (
	// overdueReads is how many reads must be overdue, with nothing at all
	// heard since, before a backend is suspect.
	overdueReads = 3
	// watchEvery is how often the attempts in flight are looked at.
	watchEvery = 25 * time.Millisecond
)

// flight is one attempt that is under way.
type flight struct {
	started time.Time
	overdue time.Time // when the answer is overdue; zero for what is not a read
	// suspected is closed when the backend is suspect and this read overdue; nil
	// as long as nobody selects on it.
	suspected chan struct{}
	told      bool
	// trial is the one call that tries a backend again: it is told as soon as
	// it is overdue, without waiting for others to be.
	trial bool
	// over is true when the answer has come, or its head and the rest streams.
	over bool
	// caller is the context of the goroutine that itself waits for the answer,
	// nil when none does; waiter is what it waits with.
	caller context.Context
	waiter *pooled

	attempt    *Attempt // whose flight it is; nil in tests
	prev, next *flight
}

// flights are the attempts under way at one backend, and the watch over them. A
// timer runs only while there are any.
type flights struct {
	b      *Backend
	mu     sync.Mutex
	first  *flight
	count  int
	owed   int // answers that have not begun to come
	timer  *time.Timer
	armed  bool
	closed bool
}

func (f *flights) init(b *Backend) { f.b = b }

// add puts x under way. It returns false once the backend is closed.
func (f *flights) add(x *flight) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	if x.attempt != nil {
		f.b.attempts.Add(1)
	}
	if x.next = f.first; x.next != nil {
		x.next.prev = x
	}
	f.first = x
	f.count++
	f.owed++
	f.arm()
	return true
}

// arm starts the timer. The caller holds the lock.
func (f *flights) arm() {
	switch {
	case f.armed || f.closed:
		return
	case f.timer == nil:
		f.timer = time.AfterFunc(watchEvery, f.watch)
	default:
		f.timer.Reset(watchEvery)
	}
	f.armed = true
}

// start notes that the attempt itself begins, after the wait for a slot.
func (f *flights) start(x *flight, started, overdue time.Time) {
	f.mu.Lock()
	x.started, x.overdue = started, overdue
	f.mu.Unlock()
}

// landed notes that the answer has come, or its head.
func (f *flights) landed(x *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.land(x)
}

func (f *flights) land(x *flight) {
	x.caller = nil // a stream may outlive its call's time
	if !x.over {
		x.over = true
		f.owed--
	}
}

// remove ends what add began.
func (f *flights) remove(x *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.land(x)
	if x.next != nil {
		x.next.prev = x.prev
	}
	if x.prev != nil {
		x.prev.next = x.next
	} else {
		f.first = x.next
	}
	f.count--
}

// suspicion returns the channel that is closed when x is told.
func (f *flights) suspicion(x *flight) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x.suspected == nil {
		x.suspected = make(chan struct{})
		if x.told {
			close(x.suspected)
		}
	}
	return x.suspected
}

// wasTold reports whether the channel is closed, or would be.
func (f *flights) wasTold(x *flight) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return x.told
}

// none reports whether no answer is waited for.
func (f *flights) none() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.owed == 0
}

// len is the number of attempts under way, those whose answer streams included.
func (f *flights) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// watch counts the reads that are overdue and began after the last byte was
// heard. When they are enough, each is told, so that it can be asked elsewhere.
// Whoever waits for an answer itself is let go when it is told, or when its own
// call is over.
func (f *flights) watch() {
	now := time.Now()
	heard := f.b.health.heard.Load()
	f.mu.Lock()
	defer f.mu.Unlock()
	overdue := 0
	for x := f.first; x != nil; x = x.next {
		if x.isOverdue(now) && x.started.UnixNano() > heard {
			overdue++
		}
	}
	if overdue >= overdueReads {
		f.b.health.suspectNow(now, overdue)
	}
	suspect := f.b.health.suspect.Load()
	for x := f.first; x != nil; x = x.next {
		if (suspect || x.trial) && !x.told && x.isOverdue(now) {
			x.told = true
			if x.suspected != nil {
				close(x.suspected)
			}
		}
		if x.caller == nil {
			continue
		}
		over := x.caller.Err() != nil
		switch {
		case !over && !x.told:
		case x.waiter.letGo():
			x.caller = nil
		case over: // the answer comes, but nobody is left to read it
			x.caller = nil
			x.attempt.drop()
		}
	}
	if f.armed = false; f.owed > 0 {
		f.arm()
	}
}

func (x *flight) isOverdue(now time.Time) bool {
	return !x.over && !x.overdue.IsZero() && x.overdue.Before(now)
}

// cancelAll ends the attempts and lets no further one begin.
func (f *flights) cancelAll(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for x := f.first; x != nil; x = x.next {
		if x.attempt != nil {
			x.attempt.Cancel(cause)
		}
	}
}

// stop ends the watch.
func (f *flights) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed, f.armed = true, false
	if f.timer != nil {
		f.timer.Stop()
	}
}
