package backend

import (
	"sync"
	"time"
)

const (
	// overdueReads is how many reads must be overdue, with nothing at all
	// heard since, before a backend is suspect.
	overdueReads = 3
	// watchEvery is how often the reads in flight are looked at.
	watchEvery = 25 * time.Millisecond
)

// flight is one attempt that is under way.
type flight struct {
	started time.Time
	overdue time.Time // when the answer is overdue; zero for what is not a read
	// suspected is closed when the backend is suspect and this read overdue.
	suspected chan struct{}
	told      bool
	// trial is the one call that tries a backend again: it is told as soon as
	// it is overdue, without waiting for others to be.
	trial bool
}

// flights are the attempts under way at one backend, and the watch over them. A
// timer runs only while there are any.
type flights struct {
	b      *Backend
	mu     sync.Mutex
	set    map[*flight]struct{}
	timer  *time.Timer
	armed  bool
	closed bool
}

func (f *flights) init(b *Backend) {
	f.b = b
	f.set = make(map[*flight]struct{})
}

func (f *flights) add(x *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set[x] = struct{}{}
	if !f.armed && !f.closed && !x.overdue.IsZero() {
		f.armed = true
		if f.timer == nil {
			f.timer = time.AfterFunc(watchEvery, f.watch)
		} else {
			f.timer.Reset(watchEvery)
		}
	}
}

func (f *flights) remove(x *flight) {
	f.mu.Lock()
	delete(f.set, x)
	f.mu.Unlock()
}

func (f *flights) none() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.set) == 0
}

// len is the number of attempts under way.
func (f *flights) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.set)
}

// watch counts the reads that are overdue and began after the last byte was
// heard. When they are enough, each is told, so that it can be asked elsewhere.
func (f *flights) watch() {
	now := time.Now()
	heard := f.b.health.heard.Load()
	f.mu.Lock()
	defer f.mu.Unlock()
	reads, overdue := 0, 0
	for x := range f.set {
		if x.overdue.IsZero() {
			continue
		}
		reads++
		if x.overdue.Before(now) && x.started.UnixNano() > heard {
			overdue++
		}
	}
	if overdue >= overdueReads {
		f.b.health.suspectNow(now, overdue)
	}
	suspect := f.b.health.suspect.Load()
	for x := range f.set {
		if (suspect || x.trial) && !x.told && !x.overdue.IsZero() && x.overdue.Before(now) {
			x.told = true
			close(x.suspected)
		}
	}
	f.armed = reads > 0 && !f.closed
	if f.armed {
		f.timer.Reset(watchEvery)
	}
}

func (f *flights) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed, f.armed = true, false
	if f.timer != nil {
		f.timer.Stop()
	}
}
