package filters

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// maxFilters bounds the filters that are known at all. The least recently used
	// one makes room.
	maxFilters = 100_000
	// maxBytes bounds what the gateway's own filters keep: what they look for, and
	// the logs that they may have to take back.
	maxBytes = 256 << 20
)

// filter is a filter that lives. Its ledger's lock guards it, but for watch.
type filter struct {
	client string    // who made it
	used   time.Time // last
	bytes  int
	gone   bool
	watch  *watch // nil when it lives in a backend
}

// ledger counts the filters that were made through this gateway, and keeps those
// that live in it.
type ledger struct {
	expiry    time.Duration
	perClient int
	metrics   *Metrics

	mu      sync.Mutex
	filters *simplelru.LRU[string, *filter] // by id; the oldest is the next to expire
	clients map[string]int                  // filters of each, with those being made: no more entries than these are
	bytes   int
}

func newLedger(expiry time.Duration, perClient int, metrics *Metrics) *ledger {
	l := &ledger{expiry: expiry, perClient: perClient, metrics: metrics, clients: make(map[string]int)}
	l.filters, _ = simplelru.NewLRU[string, *filter](maxFilters, nil) // fails for no size only
	return l
}

// reserve takes a place for a filter that is about to be made; keep or release must
// follow. It returns false when the client has too many.
func (l *ledger) reserve(client string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	if l.clients[client] >= l.perClient {
		return false
	}
	l.clients[client]++
	return true
}

// release gives a reserved place back.
func (l *ledger) release(client string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uncount(client)
}

// keep puts a filter of the given size into its reserved place.
func (l *ledger) keep(id, client string, w *watch, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	l.remove(id) // a node that began again may give an id twice
	for l.filters.Len() >= maxFilters || l.bytes+bytes > maxBytes && l.filters.Len() > 0 {
		oldest, _, _ := l.filters.GetOldest()
		l.remove(oldest)
		l.metrics.evicted.Inc()
	}
	f := &filter{client: client, used: time.Now(), bytes: bytes, watch: w}
	if w != nil {
		w.filter = f
	}
	l.filters.Add(id, f)
	l.bytes += bytes
}

// use returns the filter and lets its time begin anew; nil when it is unknown or has
// expired.
func (l *ledger) use(id string) *filter {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	f, ok := l.filters.Get(id)
	if !ok {
		return nil
	}
	f.used = time.Now()
	return f
}

// drop ends a filter and returns whether there was one.
func (l *ledger) drop(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	return l.remove(id)
}

// grow lets the filter take that many bytes more, or fewer. It returns false when
// there is no room, or the filter has gone.
func (l *ledger) grow(f *filter, bytes int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.gone || bytes > 0 && l.bytes+bytes > maxBytes {
		return false
	}
	f.bytes += bytes
	l.bytes += bytes
	return true
}

// len is the number of filters that live.
func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	return l.filters.Len()
}

// expire removes what was not used for too long. Uses come in the order of time, so
// that only the oldest have to be looked at.
func (l *ledger) expire() {
	now := time.Now()
	for {
		id, f, ok := l.filters.GetOldest()
		if !ok || now.Sub(f.used) < l.expiry {
			return
		}
		l.remove(id)
		l.metrics.expired.Inc()
	}
}

func (l *ledger) remove(id string) bool {
	f, ok := l.filters.Peek(id)
	if !ok {
		return false
	}
	l.filters.Remove(id)
	f.gone = true
	l.bytes -= f.bytes
	l.uncount(f.client)
	return true
}

func (l *ledger) uncount(client string) {
	if l.clients[client]--; l.clients[client] <= 0 {
		delete(l.clients, client)
	}
}
