package backend

import "time"

// windowSeconds is the length of the window for error rate and latency, as in
// the incumbent.
const windowSeconds = 300

// leastSamples is how many attempts must be in the window before their error
// rate counts.
const leastSamples = 10

// window sums attempts over the last five minutes in buckets of a second. Its
// owner locks it. Every operation takes constant time, apart from skipping the
// seconds without traffic.
type window struct {
	buckets []sums
	total   sums
	last    int64 // unix second of the newest bucket
}

type sums struct {
	successes, failures int64
	time                time.Duration // of successes
}

// init empties the window.
func (w *window) init() { *w = window{buckets: make([]sums, windowSeconds)} }

// advance clears the buckets between the newest second and now.
func (w *window) advance(now time.Time) *sums {
	second := now.Unix()
	if second-w.last >= windowSeconds {
		clear(w.buckets)
		w.total = sums{}
		w.last = second
	}
	for w.last < second {
		w.last++
		old := &w.buckets[w.last%windowSeconds]
		w.total.successes -= old.successes
		w.total.failures -= old.failures
		w.total.time -= old.time
		*old = sums{}
	}
	return &w.buckets[w.last%windowSeconds]
}

func (w *window) success(now time.Time, d time.Duration) {
	b := w.advance(now)
	b.successes++
	b.time += d
	w.total.successes++
	w.total.time += d
}

func (w *window) failure(now time.Time) {
	w.advance(now).failures++
	w.total.failures++
}

func (w *window) sums(now time.Time) sums {
	w.advance(now)
	return w.total
}

func (s sums) errorRate() float64 {
	n := s.successes + s.failures
	if n < leastSamples {
		return 0
	}
	return float64(s.failures) / float64(n)
}

func (s sums) latency() time.Duration {
	if s.successes == 0 {
		return 0
	}
	return s.time / time.Duration(s.successes)
}
