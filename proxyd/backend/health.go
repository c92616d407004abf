package backend

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gateway.internal/proxyd/classify"
)

// State is how a backend is at a moment. The order is the order in which a
// group prefers its members.
type State uint8

const (
	// Well: nothing speaks against it.
	Well State = iota
	// Strained: its error rate or latency is at or over the threshold.
	Strained
	// Trial: its time out of service is over, and one call may decide.
	Trial
	// Lagging: its head is too far behind those of its group, which is for the
	// group to say.
	Lagging
	// Suspect: it owes several overdue answers and nothing at all was heard.
	Suspect
	// Held: it asked to be left alone.
	Held
	// Out: it is out of service.
	Out
	// Unfit: a health check found that it cannot serve.
	Unfit
	// Foreign: it serves another chain than it must, or that is not known yet; it
	// is never asked.
	Foreign
)

var stateNames = [...]string{"well", "strained", "trial", "lagging", "suspect", "held", "out", "unfit", "foreign"}

func (s State) String() string { return stateNames[s] }

// Standing is a State with what is needed to choose among bad ones.
type Standing struct {
	State State
	// Until is when a Held or Out backend may be asked again.
	Until time.Time
	// Since is when it became Out, Held, Suspect, Unfit or Foreign.
	Since time.Time
	// Share is the part of its usual calls that a backend should get while it
	// comes back from a rate limit; 1 otherwise.
	Share float64
}

// health is the one state machine of a backend. It is fed by every attempt.
type health struct {
	opts *Options

	// heard is when the last byte came from the backend, in unix nanoseconds.
	heard atomic.Int64
	// suspect is set by the watch over the flights.
	suspect      atomic.Bool
	suspectSince atomic.Int64

	heads   heads
	blamed  atomic.Uint64
	changed chan struct{}

	mu       sync.Mutex
	inRow    int // failures in a row
	times    int // it went out of service without a long rest between
	returned time.Time
	// unfit has what health checks found, foreign that it serves another chain.
	unfit        []unfitness
	foreign      string
	foreignSince time.Time
	unverified   bool // it has not answered with the right chain id yet
	outUntil     time.Time
	outSince     time.Time
	outFirst     time.Time // before the trials that failed since
	trial        trial     // the call that decides whether it is well again
	trouble      Trouble
	// wasStrained is what the last line about it said.
	wasStrained bool
	hold        hold
	window      window
	usual       map[string]*usual
}

// trial is the one call that tries a backend again. Its holder is known by id:
// what others bring does not end it.
type trial struct {
	taken bool
	id    uint64 // of the latest one
}

func (t *trial) held(id uint64) bool { return t.taken && id != 0 && id == t.id }

// release ends the trial if it is the one with the id.
func (t *trial) release(id uint64) {
	if t.held(id) {
		t.taken = false
	}
}

func (h *health) init(o *Options) {
	h.opts = o
	h.usual = make(map[string]*usual)
	h.changed = make(chan struct{}, 1)
	h.hold.recovery = o.Recovery
	h.unverified = o.Verify && o.ChainID != 0
	h.window.init()
}

// Standing returns how the backend is now.
func (b *Backend) Standing() Standing { return b.StandingAt(time.Now()) }

// StandingAt is Standing for a caller that knows what time it is.
func (b *Backend) StandingAt(now time.Time) Standing {
	h := &b.health
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Standing{State: Well, Share: 1}
	switch held := h.heldUntil(now); {
	case h.foreign != "" || h.unverified:
		s.State, s.Since = Foreign, h.foreignSince
	case len(h.unfit) > 0:
		s.State, s.Since = Unfit, h.unfit[0].since
	case !h.outUntil.IsZero() && (now.Before(h.outUntil) || h.trial.taken):
		s.State, s.Until, s.Since = Out, h.outUntil, h.outSince
	case now.Before(held):
		s.State, s.Until, s.Since = Held, held, h.hold.since
	case h.hold.recovering && (h.trial.taken || h.opts.ProbedRecovery):
		s.State, s.Until, s.Since = Held, held, h.hold.since
	case !h.outUntil.IsZero():
		s.State, s.Since = Trial, h.outSince
	case h.hold.recovering:
		s.State, s.Since = Trial, h.hold.since
	case h.suspect.Load():
		s.State, s.Since = Suspect, time.Unix(0, h.suspectSince.Load())
		if b.flights.none() && !h.trial.taken {
			s.State = Trial // whoever would have lifted the suspicion is gone
		}
	case h.strained(now):
		s.State = Strained
	}
	if !h.hold.recovered.IsZero() {
		s.Share = share(h.hold.recovered, now)
	}
	return s
}

// Recovering reports whether the backend was rate limited and now needs calls
// that decide whether it is well, and otherwise when it will, the zero time for
// not at all.
func (b *Backend) Recovering(now time.Time) (due bool, at time.Time) {
	h := &b.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.hold.recovering {
		return false, time.Time{}
	}
	at = h.heldUntil(now)
	return !now.Before(at), at
}

func (h *health) heldUntil(now time.Time) time.Time {
	until := h.hold.until
	if a := h.opts.Account; a != nil {
		if u := a.heldUntil(); u.After(until) {
			until = u
		}
	}
	return until
}

func (h *health) strained(now time.Time) bool {
	s := h.window.sums(now)
	return s.errorRate() >= h.opts.MaxErrorRate || s.latency() >= h.opts.MaxLatency
}

// TakeTrial claims the one trial call of a backend in state Trial. Whoever gets
// it must ask the backend; the end of that attempt releases it.
func (b *Backend) TakeTrial() bool {
	h := &b.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); h.trial.taken || now.Before(h.outUntil) || h.hold.recovering && now.Before(h.hold.until) {
		return false // another has it, or it has ended and failed since
	}
	h.trial.taken = true
	h.trial.id++
	return true
}

// trialID is the id of the trial that the caller has just taken.
func (h *health) trialID() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trial.id
}

// endTrial releases the trial without a verdict.
func (h *health) endTrial(id uint64) {
	h.mu.Lock()
	h.trial.release(id)
	h.mu.Unlock()
}

// noteHeard records that a byte came from the backend, which lifts a suspicion.
func (h *health) noteHeard(now time.Time) {
	h.heard.Store(now.UnixNano())
	if h.suspect.CompareAndSwap(true, false) {
		h.opts.Log.Info("backend answers again", "backend", h.opts.Name, "silent_for", time.Since(time.Unix(0, h.suspectSince.Load())).Round(time.Millisecond).String())
	}
}

// answered records an answer to an attempt that began at started. The failures
// in a row are over, and an old hold-off leaves no mark.
func (h *health) answered(label string, started, now time.Time, trial uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	wasOut := !h.outUntil.IsZero()
	// An answer to what was asked before the backend went out proves nothing.
	if !wasOut || started.After(h.outSince) {
		h.inRow = 0
		h.outUntil = time.Time{}
		if wasOut {
			// It starts afresh: what it failed at before says nothing any more.
			h.window.init()
			h.wasStrained = false
			h.returned = now
			h.opts.Log.Info("backend back in service", "backend", h.opts.Name, "out_for", now.Sub(h.outFirst).Round(time.Millisecond).String())
		}
	}
	h.answeredHold(started, now, trial)
	if a := h.opts.Account; a != nil {
		a.answered(started)
	}
	h.window.success(now, now.Sub(started))
	u := h.usual[label]
	if u == nil {
		u = new(usual)
		h.usual[label] = u // labels are bounded by the configuration
	}
	u.add(now.Sub(started))
	h.noteStrain(now)
}

// answeredHold lets an answer count against a hold-off. The caller holds the lock.
func (h *health) answeredHold(started, now time.Time, trial uint64) {
	h.trial.release(trial)
	if h.hold.answered(started, now) {
		h.returned = now
		h.opts.Log.Info("backend recovered from its rate limit", "backend", h.opts.Name)
	}
}

// recoveryAnswered notes that a probe after a rate limit was answered.
func (h *health) recoveryAnswered(started, now time.Time, trial uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answeredHold(started, now, trial)
	if a := h.opts.Account; a != nil {
		a.answered(started)
	}
}

// brokeOff counts a large answer that broke off. Its head was counted as a success.
func (h *health) brokeOff(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.window.failure(now)
	h.noteStrain(now)
}

// failed counts a failure against the backend. Any number of attempts that
// began before the backend went out count once.
func (h *health) failed(e *Error, started, now time.Time, trial uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	tried := h.trial.held(trial) && !h.outUntil.IsZero()
	h.trial.release(trial)
	h.window.failure(now)
	h.noteStrain(now)
	h.blamed.Add(1)
	h.noteChange()
	h.hold.failed(started, now)
	if !h.outUntil.IsZero() && !tried {
		return // it is out for this already, or a trial will tell
	}
	h.inRow++
	if e != nil && e.Kind == Refused {
		h.inRow = max(h.inRow, h.opts.OutAfter)
	}
	if h.inRow < h.opts.OutAfter && !tried {
		return
	}
	message := "backend still out of service"
	if !tried {
		message = "backend out of service"
		h.outFirst = now
		h.opts.Metrics.ejected(h.opts.Name)
	}
	d := h.outFor(now)
	h.outSince, h.outUntil = now, now.Add(d)
	attrs := []any{"backend", h.opts.Name, "failures_in_row", h.inRow, "seconds", d.Seconds()}
	if e != nil {
		attrs = append(attrs, "error", slog.StringValue(truncate(e.Error())))
	}
	h.opts.Log.Warn(message, attrs...)
}

// recoveryFailed notes that a probe after a rate limit failed.
func (h *health) recoveryFailed(now time.Time, trial uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trial.release(trial)
	h.hold.failed(now, now)
}

// outFor is how long the backend is out of service this time: OutFor, that again
// for each time before, at most ten times and five minutes. Who has served for
// as long as it would be out next starts afresh.
func (h *health) outFor(now time.Time) time.Duration {
	most := max(h.opts.OutFor, min(10*h.opts.OutFor, 5*time.Minute))
	next := func() time.Duration { return min(h.opts.OutFor*time.Duration(h.times+1), most) }
	if h.outUntil.IsZero() && !h.returned.IsZero() && now.Sub(h.returned) >= next() {
		h.times = 0
	}
	d := next()
	h.times = min(h.times+1, 10)
	return d
}

// holdOff leaves the backend alone because its answer said so.
func (h *health) holdOff(o classify.Outcome, asked time.Duration, label string, started, now time.Time, trial uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trial.release(trial)
	wasHeld := now.Before(h.hold.until)
	d, firm := h.hold.begin(o, asked, label, started, now)
	h.noteChange()
	if d == 0 {
		return
	}
	if firm && h.opts.Account != nil {
		h.opts.Account.hold(now, now.Add(min(d, maxRetryAfter)))
	}
	if wasHeld {
		return // many calls in flight are told the same
	}
	h.opts.Log.Warn("backend held off", "backend", h.opts.Name, "class", o.Class, "for", d.String())
}

// suspectNow marks the backend as suspect and reports whether that is news.
func (h *health) suspectNow(now time.Time, overdue int) bool {
	if h.suspect.Swap(true) {
		return false
	}
	h.suspectSince.Store(now.UnixNano())
	h.opts.Log.Warn("backend silent, new calls go elsewhere", "backend", h.opts.Name, "overdue", overdue)
	return true
}

// expect is how long an answer to the method usually takes at the most; after
// that it is overdue.
func (h *health) expect(label string) time.Duration {
	most := h.opts.ResponseTimeout / 2
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.usual[label]; u != nil {
		return min(most, max(leastOverdue, u.most()))
	}
	return min(most, time.Second)
}

// leastOverdue is the shortest time after which an answer is called overdue.
const leastOverdue = 150 * time.Millisecond

// usual is the usual time of a method: a moving mean and mean deviation, as TCP
// keeps them of its round trips (RFC 6298).
type usual struct{ mean, deviation float64 }

func (u *usual) add(d time.Duration) {
	x := float64(d)
	if u.mean == 0 {
		u.mean, u.deviation = x, x/2
		return
	}
	diff := x - u.mean
	u.mean += diff / 8
	u.deviation += (max(diff, -diff) - u.deviation) / 4
}

func (u *usual) most() time.Duration { return time.Duration(3 * (u.mean + 4*u.deviation)) }
