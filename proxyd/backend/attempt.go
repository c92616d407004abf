package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

// Result is what one call of an attempt came to: an Answer, with the Outcome of
// its JSON-RPC error if it is one; or an Err and what that means.
type Result struct {
	Answer  *jsonrpc.Answer
	Outcome classify.Outcome
	Err     *Error
}

// Try says how an attempt is to be made.
type Try struct {
	// Timeout is the attempt's share of the call's time. The wait for the head
	// of the answer, and for each piece of it, is cut to the backend's response
	// timeout.
	Timeout time.Duration
	// Group is the asking group's name, noted on answers.
	Group string
	// Watched attempts are told when the backend falls silent. Only reads may
	// be watched.
	Watched bool
	// Trial is true when the caller holds the backend's trial.
	Trial bool
	// Finish lets the attempt run to its own end when it is abandoned: a send
	// that has begun is not cut off.
	Finish bool
	// Own marks a call of the gateway itself, see Backend.Own; Limit bounds its
	// answer in bytes.
	Own   bool
	Limit int64
}

// Attempt is one try at one backend for one or many calls.
type Attempt struct {
	Backend *Backend
	// Calls are what is asked; the attempt reads but never changes them.
	Calls []*jsonrpc.Call
	// Results has one entry for each call once the attempt is done.
	Results []Result

	try       Try
	trial     uint64 // the id of the trial that it holds, 0 for none
	whole     bool   // the timeout is the backend's own
	label     string
	share     time.Duration
	slot      bool // it holds one
	started   time.Time
	ends      time.Time // of the share
	flight    flight
	begun     *pooled // the exchange that the caller's goroutine began
	abandoned atomic.Bool
	settled   atomic.Bool
	kept      bool    // somebody reads the stream
	stream    *stream // the answer's, nil when it came whole

	mu    sync.Mutex
	cause error // why the attempt was canceled
	live  []exchange
	// ctx is made when something needs one.
	ctx    context.Context
	cancel context.CancelCauseFunc

	// room is what the attempt at a single call needs.
	room struct {
		results [1]Result
		answer  jsonrpc.Answer
		reply   reply
		body    body
		live    [1]exchange
		pooled  pooled
	}
}

func (b *Backend) newAttempt(calls []*jsonrpc.Call, try Try) *Attempt {
	a := &Attempt{Backend: b, Calls: calls, try: try, label: attemptLabel(calls)}
	if a.Results = a.room.results[:]; len(calls) > 1 {
		a.Results = make([]Result, len(calls))
	}
	a.live = a.room.live[:0]
	a.whole, a.share = try.Timeout >= b.opts.ResponseTimeout, try.Timeout
	a.try.Timeout = min(try.Timeout, b.opts.ResponseTimeout)
	if try.Trial {
		a.trial = b.health.trialID()
	}
	a.flight = flight{attempt: a, trial: try.Trial}
	return a
}

// Begin starts an attempt and sends it to done when it has ended; done must have
// room. Every attempt must be given to Settle, or abandoned.
func (b *Backend) Begin(calls []*jsonrpc.Call, try Try, done chan<- *Attempt) *Attempt {
	a := b.newAttempt(calls, try)
	a.started = time.Now()
	if !b.flights.add(&a.flight) {
		a.refuse()
		done <- a
		return a
	}
	a.Go(done)
	return a
}

// refuse ends an attempt at a backend that was closed.
func (a *Attempt) refuse() {
	a.fail(a.Calls, a.Results, &Error{Backend: a.Backend.opts.Name, Kind: Canceled, cause: errClosed})
}

// finish runs the attempt to its end, and sends it to done unless that is nil.
func (a *Attempt) finish(done chan<- *Attempt) {
	a.run()
	streams := a.stream != nil // who takes the attempt may end the stream at once
	if done != nil {
		done <- a
	}
	if a.abandoned.Load() {
		a.Settle(false)
	}
	if !streams {
		a.leave()
	}
}

// leave is the very end of an attempt.
func (a *Attempt) leave() {
	a.mu.Lock()
	if a.cancel != nil {
		a.cancel(nil)
	}
	a.mu.Unlock()
	a.Backend.attempts.Done()
}

// Suspected is closed when the answer is overdue and the backend silent.
func (a *Attempt) Suspected() <-chan struct{} { return a.Backend.flights.suspicion(&a.flight) }

// Cancel ends the attempt without a verdict about the backend.
func (a *Attempt) Cancel(cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cause != nil {
		return
	}
	a.cause = cause
	if a.cancel != nil {
		a.cancel(cause)
	}
	for _, x := range a.live {
		x.interrupt(cause)
	}
}

// canceled returns why the attempt was canceled, nil when it was not.
func (a *Attempt) canceled() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cause
}

// context returns a context that ends with the attempt's cancellation.
func (a *Attempt) context() context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx == nil {
		a.ctx, a.cancel = context.WithCancelCause(context.Background())
		if a.cause != nil {
			a.cancel(a.cause)
		}
	}
	return a.ctx
}

// attach lets a cancellation reach an exchange. It returns false when it has
// come already.
func (a *Attempt) attach(x exchange) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cause == nil && !slices.Contains(a.live, x) {
		a.live = append(a.live, x)
	}
	return a.cause == nil
}

func (a *Attempt) detach(x exchange) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := slices.Index(a.live, x); i >= 0 {
		a.live = slices.Delete(a.live, i, i+1)
	}
}

// Abandon says that nobody waits for the attempt any more. It is canceled,
// unless the backend is suspect: then it goes on until the first byte or its
// time-out, since only that tells a pause from a failure.
func (a *Attempt) Abandon() {
	a.abandoned.Store(true)
	if !a.try.Finish && !a.Backend.flights.wasTold(&a.flight) {
		a.Cancel(errAbandoned)
	}
}

// drop ends an attempt whose call is over, before anybody can abandon it.
func (a *Attempt) drop() {
	if !a.try.Finish {
		a.Cancel(errAbandoned)
	}
}

// errClosed is the cause of attempts at a backend that was closed.
var errClosed = errors.New("the backend is closed")

var errAbandoned = errors.New("another attempt was quicker")

// Keep says that the answer was given to its call, whose reader ends its stream.
func (a *Attempt) Keep() { a.kept = true }

// Settle ends the attempt's part in the backend's health. blame says that
// another backend answered the same call, so that a failure counts. An answer
// that nobody keeps is dropped.
func (a *Attempt) Settle(blame bool) {
	if a.settled.Swap(true) {
		return
	}
	b := a.Backend
	if a.stream != nil && !a.kept {
		a.stream.Close()
	}
	if blame {
		for i := range a.Results {
			r := &a.Results[i]
			if r.Err != nil && r.Err.atOnce() {
				return // counted when it happened
			}
			if r.Outcome.Sick {
				b.health.failed(r.Err, a.started, time.Now(), a.trial)
				return
			}
		}
	}
	if a.trial != 0 {
		b.health.endTrial(a.trial)
	}
}

// run makes the exchange and reports what is certain at once.
func (a *Attempt) run() {
	b := a.Backend
	defer func() {
		if p := recover(); p != nil {
			b.opts.Log.Error("panic in an attempt", "backend", b.opts.Name, "panic", fmt.Sprint(p))
			a.fail(a.Calls, a.Results, &Error{Backend: b.opts.Name, Kind: Invalid, Wrote: true, cause: errors.New("internal error")})
		}
		if a.slot {
			b.opts.Slots.release()
		}
		if a.stream != nil {
			b.flights.landed(&a.flight)
		} else {
			b.flights.remove(&a.flight)
		}
		a.report(time.Now())
	}()
	// The wait for a slot is the gateway's own matter: neither the backend's
	// time nor a reason to call it silent.
	if !a.slot && !a.try.Own {
		if err := b.opts.Slots.acquire(a); err != nil {
			e := &Error{Backend: b.opts.Name, Kind: Canceled, cause: err}
			if errors.Is(err, ErrOverloaded) {
				e.Kind = Overloaded
				b.opts.Metrics.overloaded(b.opts.Name)
			}
			a.fail(a.Calls, a.Results, e)
			return
		}
		a.slot = true
	}
	if a.begun == nil {
		started, overdue := a.start(time.Now())
		b.flights.start(&a.flight, started, overdue)
	}
	a.ask(a.Calls, a.Results)
	a.refuseChain()
}

// refuseChain fails a whole batch when one of its answers tells that the backend
// serves another chain: so do the others come from there.
func (a *Attempt) refuseChain() {
	for i := range a.Results {
		if e := a.Results[i].Err; e != nil && e.Kind == WrongChain && len(a.Calls) > 1 {
			a.fail(a.Calls, a.Results, e)
			return
		}
	}
}

// start notes when the attempt itself begins, and returns when its answer will
// be overdue.
func (a *Attempt) start(now time.Time) (started, overdue time.Time) {
	a.started, a.ends = now, now.Add(a.share)
	if a.try.Watched {
		overdue = now.Add(a.Backend.health.expect(a.label))
	}
	return now, overdue
}

// until is when an exchange that begins now must have the head of its answer.
func (a *Attempt) until(now time.Time) time.Time {
	if until := now.Add(a.try.Timeout); until.Before(a.ends) {
		return until
	}
	return a.ends
}

// fail gives the results of calls the same error.
func (a *Attempt) fail(calls []*jsonrpc.Call, results []Result, e *Error) {
	for i := range results {
		results[i] = Result{Err: e, Outcome: e.outcome()}
	}
	if len(results) > 0 {
		a.logFailure(calls[0], &results[0], len(results))
	}
}

// fail1 gives one result an error.
func (a *Attempt) fail1(c *jsonrpc.Call, result *Result, e *Error) {
	*result = Result{Err: e, Outcome: e.outcome()}
	a.logFailure(c, result, 1)
}

// report tells the backend's health what is certain without another backend's
// word, and counts.
func (a *Attempt) report(now time.Time) {
	b := a.Backend
	if a.try.Own {
		return
	}
	answered, atOnce := false, (*Error)(nil)
	for i := range a.Results {
		r := &a.Results[i]
		switch {
		case r.Err == nil && !r.Outcome.Sick && r.Outcome.Hold == classify.None:
			answered = true
			if r.Outcome.Class == "" {
				b.missing.remove(a.Calls[i].Label)
			}
		case r.Err != nil && r.Err.atOnce():
			atOnce = r.Err
		}
	}
	switch {
	case answered:
		b.health.answered(a.label, a.started, now, a.trial)
		if a.stream == nil {
			b.health.untroubled()
		}
	case atOnce != nil:
		b.health.failed(atOnce, a.started, now, a.trial)
	}
	if !answered {
		for i := range a.Results {
			if how := a.Results[i].how(); how != "" {
				b.health.unanswered(how, now)
				break
			}
		}
	}
	b.opts.Metrics.attempt(a, now.Sub(a.started))
}
