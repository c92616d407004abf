package backend

import (
	"sync"
	"sync/atomic"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// relearnAfter is how long what a backend was found not to do is remembered.
const relearnAfter = 10 * time.Minute

// learnt is the largest batch that a backend was found to take.
type learnt struct {
	most  atomic.Int64 // 0: nothing learnt
	until atomic.Int64 // unix nanoseconds
}

// takes reports whether n calls at once are not known to be too many.
func (l *learnt) takes(n int) bool {
	most := int(l.most.Load())
	return most == 0 || n <= most || time.Now().UnixNano() > l.until.Load()
}

// split cuts calls into what the backend is known to take at once.
func (l *learnt) split(calls []*jsonrpc.Call) [][]*jsonrpc.Call {
	if l.takes(len(calls)) {
		return [][]*jsonrpc.Call{calls}
	}
	most := int(l.most.Load())
	var parts [][]*jsonrpc.Call
	for len(calls) > most {
		parts = append(parts, calls[:most])
		calls = calls[most:]
	}
	return append(parts, calls)
}

// refused notes that a batch of n was refused for its size or for being one.
func (l *learnt) refused(n int) {
	most := int64(max(1, n/2))
	if known := l.most.Load(); known > 0 && time.Now().UnixNano() <= l.until.Load() {
		most = min(most, known) // a larger batch that was under way teaches nothing
	}
	l.most.Store(most)
	l.until.Store(time.Now().Add(relearnAfter).UnixNano())
}

// unsupported remembers which methods a backend said that it lacks.
type unsupported struct {
	mu    sync.Mutex
	until map[string]time.Time
	any   atomic.Bool
}

func (u *unsupported) add(label string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.until == nil {
		u.until = make(map[string]time.Time)
	}
	u.until[label] = time.Now().Add(relearnAfter) // labels are bounded
	u.any.Store(true)
}

func (u *unsupported) remove(label string) {
	if u.has(label) {
		u.mu.Lock()
		delete(u.until, label)
		u.mu.Unlock()
	}
}

func (u *unsupported) has(label string) bool {
	if !u.any.Load() {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Now().Before(u.until[label])
}
