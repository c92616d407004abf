package probe

import (
	"context"
	"log/slog"
	"time"

	"gateway.internal/proxyd/backend"
)

// lookAgain is how often a backend's state is looked at, without asking it,
// even if nothing is due and it announced no change.
const lookAgain = time.Minute

// verifyAgain is the time between two checks of a backend whose chain is not known
// yet.
const verifyAgain = time.Second

// watch checks one backend. All of it runs in one goroutine.
type watch struct {
	p    *Prober
	t    Target
	b    *backend.Backend
	seen func() // the first check is over

	streak streak
	begun  bool
	next   time.Time // of the next check; zero for none
	resume time.Time // when the next recovery call may be made
	// blamed is how many failures of clients' calls are known, and counted is
	// true when one has counted since the last check.
	blamed  uint64
	counted bool
}

func newWatch(p *Prober, t Target) *watch {
	w := &watch{p: p, t: t, b: t.Backend, seen: func() {}}
	w.streak = streak{failAfter: p.o.FailureThreshold, passAfter: p.o.SuccessThreshold}
	if p.o.Interval > 0 {
		w.seen = p.seen()
	} else {
		w.streak.passAfter = p.o.EphemeralHealthyThreshold
	}
	return w
}

func (w *watch) about() slog.Attr { return slog.String("backend", w.b.Name()) }

func (w *watch) run(ctx context.Context) {
	if w.p.o.Interval > 0 && !w.begun {
		w.begun = true
		w.next = time.Now().Add(part(w.p.o.Interval))
		w.check(ctx)
		w.seen()
		w.verifySoon()
	}
	for ctx.Err() == nil {
		timer := time.NewTimer(w.pause(time.Now()))
		select {
		case <-ctx.Done():
		case <-w.b.Changed():
		case <-timer.C:
		}
		timer.Stop()
		w.noteFailures(time.Now())
		w.recover(ctx)
		w.checkWhenDue(ctx)
	}
}

// pause is how long nothing is to be done, unless the backend changes.
func (w *watch) pause(now time.Time) time.Duration {
	wake := now.Add(lookAgain)
	if !w.next.IsZero() && w.next.Before(wake) {
		wake = w.next
	}
	due, at := w.b.Recovering(now)
	if due {
		at = w.resume
	}
	if (due || !at.IsZero()) && at.Before(wake) {
		wake = at
	}
	return max(0, wake.Sub(now))
}

// noteFailures counts that calls of clients failed. Between two checks they count
// once: most calls succeed meanwhile, of which nothing is said here, and failures
// in a row are the backend's own to count.
func (w *watch) noteFailures(now time.Time) {
	blamed := w.b.Blamed()
	failed := blamed != w.blamed
	w.blamed = blamed
	if failed && !w.counted && !w.streak.unfit {
		w.counted = true
		w.observe("calls fail")
	}
	foreign := w.b.Standing().State == backend.Foreign
	if (failed || foreign) && w.p.o.Interval == 0 && w.next.IsZero() {
		w.next = now.Add(w.p.o.EphemeralInterval)
	}
}

// observe notes the outcome of a check, "" for a good one.
func (w *watch) observe(reason string) {
	turned := w.streak.add(reason == "")
	switch {
	case w.streak.unfit && reason != "":
		w.b.Unfit("check", reason)
	case turned:
		w.b.Unfit("check", "")
	case reason != "":
		w.p.o.Log.Debug("health check failed", "backend", w.b.Name(), "reason", reason, "in_row", w.streak.failing, "threshold", w.streak.failAfter)
	}
}

// checkWhenDue makes the check that is due, if one is, and sets the time of the
// next.
func (w *watch) checkWhenDue(ctx context.Context) {
	begun := time.Now()
	if w.next.IsZero() || begun.Before(w.next) {
		return
	}
	w.check(ctx)
	switch o := &w.p.o; {
	case o.Interval > 0:
		w.next = after(begun, time.Now(), jitter(o.Interval))
		w.verifySoon()
	case w.streak.passing >= o.EphemeralHealthyThreshold && w.b.Standing().State != backend.Foreign:
		w.next = time.Time{}
	default:
		w.next = after(begun, time.Now(), o.EphemeralInterval)
	}
}

// verifySoon lets the next check come soon while the backend's chain is not known,
// since it gets no calls until then.
func (w *watch) verifySoon() {
	if soon := time.Now().Add(verifyAgain); w.b.Unverified() && soon.Before(w.next) {
		w.next = soon
	}
}

// leftAlone reports whether the backend asked to be left alone, or recovers from
// that: then only the calls that decide about its recovery are made.
func (w *watch) leftAlone(now time.Time) bool {
	due, at := w.b.Recovering(now)
	return due || !at.IsZero() || now.Before(w.b.HeldUntil())
}
