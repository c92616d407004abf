package backend

import "time"

// Trouble is what a backend has failed to answer of late, whoever is to blame:
// a call that fails everywhere takes nobody out of service, but somebody who
// looks for a fault must see it.
type Trouble struct {
	// InRow is the number of attempts in a row that brought no answer.
	InRow int
	// Since is when the first of them ended.
	Since time.Time
	// Last says how the last one failed, in a word or two, like "timeout" or
	// "status 503".
	Last string
}

// Trouble returns what the backend has failed to answer since its last answer.
func (b *Backend) Trouble() Trouble {
	b.health.mu.Lock()
	defer b.health.mu.Unlock()
	return b.health.trouble
}

// unanswered notes that an attempt brought no answer.
func (h *health) unanswered(how string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trouble.InRow == 0 {
		h.trouble.Since = now
	}
	h.trouble.InRow++
	h.trouble.Last = how
}

// untroubled notes that an attempt brought a whole answer.
func (h *health) untroubled() {
	h.mu.Lock()
	h.trouble = Trouble{}
	h.mu.Unlock()
}

// how says in a word or two how a result failed, "" when it did not or when the
// gateway ended the attempt itself.
func (r *Result) how() string {
	switch {
	case r.Err != nil && (r.Err.Kind == Canceled || r.Err.Kind == Overloaded):
		return ""
	case r.Err != nil:
		return r.Err.Short()
	case r.Outcome.Class != "":
		return "error of class " + r.Outcome.Class
	}
	return ""
}

// noteStrain writes a line when the error rate or the latency passes its
// threshold, in either direction. The caller holds the lock.
func (h *health) noteStrain(now time.Time) {
	strained := h.strained(now)
	if strained == h.wasStrained {
		return
	}
	h.wasStrained = strained
	s := h.window.sums(now)
	attrs := []any{"backend", h.opts.Name, "error_rate", s.errorRate(), "avg_latency_ms", s.latency().Milliseconds()}
	if strained {
		h.opts.Log.Warn("backend strained, others are asked first", attrs...)
	} else {
		h.opts.Log.Info("backend no longer strained", attrs...)
	}
}
