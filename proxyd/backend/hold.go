package backend

import (
	"slices"
	"sync"
	"time"

	"gateway.internal/proxyd/classify"
)

const (
	firstBrief = time.Second
	firstLong  = 30 * time.Second
	mostBrief  = 10 * time.Minute
	// mostByText is the longest hold-off for which a text alone is enough.
	mostByText = 2 * time.Second
	// textWindow is how long three texts to three methods may lie apart to be
	// worth as much as a status or a code.
	textWindow = time.Minute
)

// hold is the hold-off of one backend. Its owner locks it.
type hold struct {
	until   time.Time
	since   time.Time
	strikes int
	texts   []textStrike

	recovery   *Recovery // nil for the usual hold-offs
	first      time.Time // of the strikes
	afresh     bool      // the next strike is a first one
	recovering bool      // answers in a row have to bring it back
	successes  int
	recovered  time.Time
}

// textStrike is a rate limit that only a text spoke of.
type textStrike struct {
	label string
	at    time.Time
}

// begin starts or prolongs the hold-off after an answer to an attempt that began
// at started, and returns its length, 0 when it adds nothing. firm says that it
// may count for the whole account.
func (h *hold) begin(o classify.Outcome, asked time.Duration, label string, started, now time.Time) (d time.Duration, firm bool) {
	firm = o.Firm || h.threeMethods(label, now)
	// Calls in flight when the hold began bring no second strike.
	if h.strikes == 0 || started.After(h.since) {
		if h.strikes == 0 || h.afresh {
			h.strikes, h.first, h.afresh = 0, now, false
		}
		h.strikes++
		h.since = now
	}
	h.successes = 0
	recovers := h.recovery != nil && firm && !o.Sick
	first, most := firstBrief, mostBrief
	if o.Hold == classify.Long {
		first, most = firstLong, maxRetryAfter
	}
	d = min(first<<min(h.strikes-1, 16), most)
	switch {
	case recovers:
		d, h.afresh = h.recovery.backoff(h.strikes, h.first, now)
		d = max(d, asked)
		h.recovering = true
	case asked > 0:
		d = asked
	}
	if !firm {
		d = min(d, mostByText)
	}
	if until := now.Add(d); until.After(h.until) {
		h.until = until
		return d, firm
	}
	return 0, firm
}

// failed notes that a call which was to show that the backend has recovered
// failed for another reason than a limit: it counts as one more.
func (h *hold) failed(started, now time.Time) {
	if !h.recovering || now.Before(h.until) || !started.After(h.since) {
		return
	}
	var d time.Duration
	if h.afresh {
		h.strikes, h.first = 0, now
	}
	h.strikes++
	h.successes, h.since = 0, now
	d, h.afresh = h.recovery.backoff(h.strikes, h.first, now)
	h.until = now.Add(d)
}

// threeMethods reports whether, with this one, texts spoke of a limit in answer
// to three different methods.
func (h *hold) threeMethods(label string, now time.Time) bool {
	h.texts = slices.DeleteFunc(h.texts, func(t textStrike) bool {
		return t.label == label || now.Sub(t.at) > textWindow
	})
	if len(h.texts) >= 3 {
		h.texts = h.texts[1:]
	}
	h.texts = append(h.texts, textStrike{label, now})
	return len(h.texts) >= 3
}

// answered ends the row of strikes: the backend answers to what was asked after
// the last one. It reports whether a recovery is complete.
func (h *hold) answered(started, now time.Time) (recovered bool) {
	if h.strikes == 0 || !started.After(h.since) {
		return false
	}
	if h.recovering {
		if h.successes++; h.successes < h.recovery.RequiredSuccesses {
			return false
		}
		h.recovering, h.successes, h.recovered = false, 0, now
		recovered = true
	}
	h.strikes, h.texts, h.until = 0, nil, time.Time{}
	return recovered
}

// Account is what backends of one provider account share: a hold-off that one of
// them was told is meant for all.
type Account struct {
	mu           sync.Mutex
	since, until time.Time
}

func (a *Account) heldUntil() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.until
}

func (a *Account) hold(now, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if until.After(a.until) {
		if now.After(a.until) {
			a.since = now
		}
		a.until = until
	}
}

// answered ends the hold-off: a backend of the account answers to what was asked
// after it began.
func (a *Account) answered(started time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if started.After(a.since) {
		a.until = time.Time{}
	}
}
