package group

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

// run is the life of one upstream request: a call, or a batch of calls, until
// each has an answer or an error. Backends are asked one after another; a second
// attempt runs beside the first only when the first backend has fallen silent.
type run struct {
	g    *Group
	open []*progress // calls without a verdict

	round     int
	order     []*Member        // who is left to ask in this round
	desperate bool             // nobody is usable: order is the least bad
	asked     map[*Member]bool // in any round
	attempts  int
	resorted  bool // the last resort was tried

	done   chan *backend.Attempt
	flying []*asking
	ended  []*asking
}

// asking is an attempt and the calls it is for, in its order.
type asking struct {
	*backend.Attempt
	calls []*progress
	moved bool // its overdue calls were asked elsewhere
}

// progress is what is known of one call.
type progress struct {
	call *jsonrpc.Call
	// best is the best JSON-RPC error so far, and from whom.
	best     *jsonrpc.Answer
	bestRank int
	// bestKnows is true when best says something about the call, rather than
	// that the backend did not look at it.
	bestKnows bool
	errors    int // JSON-RPC errors so far
	// ambiguous is true when a call that changes something may have reached a
	// backend that did not answer; doubtful when one answered an error that may
	// not be final.
	ambiguous, doubtful bool
	failures            []error
	timeouts            int
	limited             bool // a member was left out for its strict max_rps
	// answered is who answered the call, which is what lets the failures of
	// others count.
	answered *backend.Backend
	settled  bool
}

func (g *Group) run(ctx context.Context, calls []*jsonrpc.Call) {
	r := &run{g: g, asked: make(map[*Member]bool, 2)}
	states := make([]progress, len(calls))
	r.open = make([]*progress, len(calls))
	for i, c := range calls {
		states[i].call = c
		r.open[i] = &states[i]
	}
	r.done = make(chan *backend.Attempt, (g.rounds+1)*len(g.opts.Members)+1) // one more for the last resort
	g.opts.Metrics.requests.Inc()
	defer r.end()
	r.order, r.desperate = g.order(calls)
	if !r.launch(ctx) {
		r.giveUp(ctx)
		return
	}
	for {
		select {
		case a := <-r.done:
			r.take(ctx, a)
			if len(r.open) == 0 {
				return
			}
			if r.waiting() || r.launch(ctx) || len(r.flying) > 0 {
				continue
			}
			r.giveUp(ctx)
			return
		case <-r.suspected():
			r.flying[len(r.flying)-1].moved = true
			r.launchBeside(ctx)
		case <-ctx.Done():
			r.giveUp(ctx)
			return
		}
	}
}

// waiting reports whether an attempt is under way from which an answer can be
// hoped for soon.
func (r *run) waiting() bool {
	return slices.ContainsFunc(r.flying, func(a *asking) bool { return !a.moved })
}

// suspected is closed when the newest attempt is overdue at a silent backend.
func (r *run) suspected() <-chan struct{} {
	if len(r.flying) == 0 || r.flying[len(r.flying)-1].moved {
		return nil
	}
	return r.flying[len(r.flying)-1].Suspected()
}

// launch starts the next attempt: at the next backend of this round, else, after
// a pause, in the next round. It returns false when there is none.
func (r *run) launch(ctx context.Context) bool {
	for {
		if ctx.Err() != nil {
			return false
		}
		if m, trial := r.pick(); m != nil {
			r.begin(ctx, m, trial)
			return true
		}
		if len(r.flying) > 0 {
			return false
		}
		// Whoever answered with a JSON-RPC error was asked about: it is not asked
		// about in a last resort or another round.
		for _, p := range r.open {
			if p.best != nil {
				r.settleBest(p)
			}
		}
		if r.closeSettled(); len(r.open) == 0 || r.spent() {
			return false
		}
		if m := r.lastResort(); m != nil {
			r.begin(ctx, m, m.Standing().State == backend.Trial && m.TakeTrial())
			return true
		}
		if !r.nextRound(ctx) {
			return false
		}
	}
}

// launchBeside starts an attempt at the next backend of this round while another
// runs.
func (r *run) launchBeside(ctx context.Context) {
	if m, trial := r.pick(); m != nil {
		r.begin(ctx, m, trial)
	}
}

// spent reports whether max_attempts have been made.
func (r *run) spent() bool {
	most := r.g.opts.MaxAttempts
	return most > 0 && r.attempts >= most
}

// pick takes the next member that can be asked now out of the round's order.
func (r *run) pick() (m *Member, trial bool) {
	if r.spent() {
		return nil, false
	}
	var full []*Member // at their max_rps
	for i, m := range r.order {
		state := m.Standing().State
		if state > backend.Trial && !r.desperate {
			continue // its state changed since the round began
		}
		if !m.TakeTokens(len(r.open)) {
			full = append(full, m)
			continue
		}
		if state == backend.Trial {
			if trial = m.TakeTrial(); !trial && !r.desperate {
				continue // another call has it
			}
		}
		r.order = append(slices.Clone(r.order[i+1:]), full...)
		return m, trial
	}
	// All are at their max_rps: the call still goes out, to the one with most
	// room, except where the limit is strict.
	r.order = nil
	for _, f := range full {
		if f.Strict() {
			for _, p := range r.open {
				p.limited = true
			}
		} else if m == nil || f.Room() > m.Room() {
			m = f
		}
	}
	if m == nil {
		return nil, false
	}
	r.order = slices.DeleteFunc(full, func(f *Member) bool { return f == m })
	return m, m.Standing().State == backend.Trial && m.TakeTrial()
}

// lastResort returns a member that is not usable and was not asked, once, for
// calls that nobody has answered: better than no answer at all. A member that
// asked to be left alone is left alone, as long as another was asked; one at its
// strict limit always is.
func (r *run) lastResort() *Member {
	limited := slices.ContainsFunc(r.open, func(p *progress) bool { return p.limited })
	if r.resorted || r.attempts == 0 && limited {
		return nil
	}
	r.resorted = true
	standing := make(map[*Member]backend.Standing)
	var left []*Member
	for _, m := range r.g.opts.Members {
		if r.asked[m] || m.Strict() && !m.TakeTokens(len(r.open)) {
			continue
		}
		if s := m.Standing(); s.State != backend.Held || r.attempts == 0 {
			left = append(left, m)
			standing[m] = s
		}
	}
	if len(left) == 0 {
		return nil
	}
	return leastBad(left, standing)
}

// begin starts an attempt at m for all open calls.
func (r *run) begin(ctx context.Context, m *Member, trial bool) {
	calls := make([]*jsonrpc.Call, len(r.open))
	reads, sends := true, false
	for i, p := range r.open {
		calls[i] = p.call
		reads = reads && p.call.Row.Class == jsonrpc.Read
		sends = sends || p.call.Row.Class != jsonrpc.Read
	}
	r.attempts++
	switch {
	case r.round > 0:
		r.g.opts.Metrics.retries.WithLabelValues(r.g.opts.Name).Inc()
	case r.attempts > 1:
		r.g.opts.Metrics.failovers.WithLabelValues(r.g.opts.Name).Inc()
	}
	r.asked[m] = true
	a := &asking{calls: slices.Clone(r.open)}
	a.Attempt = m.Begin(calls, backend.Try{
		Timeout: r.timeout(ctx), Group: r.g.opts.Name, Trial: trial, Finish: sends,
		Watched: reads && len(r.g.opts.Members) > 1,
	}, r.done)
	r.flying = append(r.flying, a)
}

// timeout is what an attempt may take of the time that is left: everything but
// half an equal share for each backend not yet asked.
func (r *run) timeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return time.Hour
	}
	left := time.Until(deadline)
	unasked := 0
	for _, m := range r.order {
		if !r.asked[m] {
			unasked++
		}
	}
	return max(time.Millisecond, left-left*time.Duration(unasked)/time.Duration(2*(unasked+1)))
}

// nextRound waits and puts the members that may be asked once more in order. It
// returns false when there is no further round.
func (r *run) nextRound(ctx context.Context) bool {
	if r.round >= r.g.rounds || r.attempts == 0 {
		return false
	}
	pause := r.backoff()
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
		return false // what is known now will be known then
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return false
	}
	r.round++
	calls := make([]*jsonrpc.Call, len(r.open))
	for i, p := range r.open {
		calls[i] = p.call
	}
	r.order, r.desperate = r.g.order(calls)
	r.order = slices.DeleteFunc(slices.Clone(r.order), func(m *Member) bool {
		return r.g.opts.MaxRetries == nil && m.MaxRetries() < r.round
	})
	return len(r.order) > 0
}

// backoff is the pause before the next round: the incumbent's, which grows from
// 1 s to 3 s with up to a quarter of a second of chance, or the configured one.
func (r *run) backoff() time.Duration {
	if first := r.g.opts.RetryDelay; first != nil {
		return *first << min(r.round, 10)
	}
	return min(time.Second<<min(r.round, 10)+rand.N(250*time.Millisecond), 3*time.Second)
}

// take reads what an attempt came to.
func (r *run) take(ctx context.Context, done *backend.Attempt) {
	i := slices.IndexFunc(r.flying, func(a *asking) bool { return a.Attempt == done })
	a := r.flying[i]
	r.flying = slices.Delete(r.flying, i, i+1)
	r.ended = append(r.ended, a)
	for i, p := range a.calls {
		if !p.settled {
			r.takeResult(ctx, p, a, &a.Results[i])
		}
	}
	r.closeSettled()
}

// takeResult decides what one result means for its call.
func (r *run) takeResult(ctx context.Context, p *progress, a *asking, result *backend.Result) {
	o := result.Outcome
	class := p.call.Row.Class
	switch {
	case result.Err != nil:
		r.takeFailure(p, result)
	case result.Answer.Error == nil:
		p.answered = a.Backend
		r.settle(p, result.Answer)
	case class == jsonrpc.SignedSend && (p.ambiguous || p.doubtful) && o.Class == knownTransaction:
		p.answered = a.Backend
		r.lookUp(ctx, p, a.Backend, result.Answer)
	case o.Elsewhere == classify.No:
		p.answered = a.Backend
		r.settle(p, result.Answer)
	default:
		if !o.Sick && o.Hold == classify.None {
			p.answered = a.Backend
		}
		p.errors++
		if rank := answerRank(o); p.best == nil || rank < p.bestRank {
			p.best, p.bestRank = result.Answer, rank
			p.bestKnows = !o.NothingRan && !o.Sick && o.Hold == classify.None
		}
		p.doubtful = p.doubtful || !o.NothingRan
		// One other backend is asked about a JSON-RPC error, and of calls that
		// must not run twice only when nothing ran.
		switch {
		case class == jsonrpc.Other && !o.NothingRan:
			r.settle(p, result.Answer) // what ran has said this
		case p.errors > 1:
			r.settleBest(p)
		}
	}
}

// settleBest answers with the best JSON-RPC error, unless it would hide that
// another attempt may have done what the call asks for.
func (r *run) settleBest(p *progress) {
	if p.ambiguous && !p.bestKnows {
		r.fail(p, r.failure(p))
		return
	}
	r.settle(p, p.best)
}

func (r *run) takeFailure(p *progress, result *backend.Result) {
	e := result.Err
	class := p.call.Row.Class
	mayHaveRun := class != jsonrpc.Read && !result.Outcome.NothingRan
	p.ambiguous = p.ambiguous || mayHaveRun
	switch e.Kind {
	case backend.Overloaded:
		r.fail(p, r.orUnknown(p, backend.ErrOverloaded))
		return
	case backend.TooLarge:
		r.fail(p, ErrTooLarge)
		return
	case backend.Canceled: // the gateway's own doing
	case backend.Timeout:
		p.timeouts++
		p.failures = append(p.failures, e)
	default:
		p.failures = append(p.failures, e)
	}
	switch {
	case class == jsonrpc.Other && mayHaveRun:
		r.fail(p, r.failure(p))
	case p.best != nil && e.Kind != backend.Canceled && !mayHaveRun: // this was the one other backend that was asked
		r.settleBest(p)
	}
}

// answerRank orders JSON-RPC errors by how much they say about the call rather
// than about the backend.
func answerRank(o classify.Outcome) int {
	switch {
	case o.Elsewhere == classify.Once:
		return 0
	case !o.Sick && o.Hold == classify.None && !o.NothingRan:
		return 1
	case o.Class == "unsupported":
		return 2
	case o.Hold == classify.Brief:
		return 3
	}
	return 4
}

// giveUp gives every open call its verdict.
func (r *run) giveUp(ctx context.Context) {
	for _, p := range r.open {
		switch {
		case ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) && !errors.Is(ctx.Err(), context.DeadlineExceeded):
			r.fail(p, context.Cause(ctx))
		case p.call.Row.Class == jsonrpc.SignedSend && len(r.flying) > 0:
			p.ambiguous = true
			r.fail(p, r.orUnknown(p, ErrTimeout))
		case p.best != nil && !(p.call.Row.Class == jsonrpc.Other && len(r.flying) > 0):
			r.settleBest(p)
		case ctx.Err() != nil:
			r.fail(p, r.orUnknown(p, ErrTimeout))
		default:
			r.fail(p, r.failure(p))
		}
	}
	r.closeSettled()
}

// orUnknown returns err, unless p is a signed transaction that may have arrived
// all the same.
func (r *run) orUnknown(p *progress, err error) error {
	if p.ambiguous && p.call.Row.Class == jsonrpc.SignedSend {
		return &OutcomeUnknown{Hash: sendHash(p.call)}
	}
	return err
}

// failure is the error for a call that nobody answered.
func (r *run) failure(p *progress) error {
	switch {
	case p.ambiguous && p.call.Row.Class == jsonrpc.SignedSend:
		return r.orUnknown(p, nil)
	case len(p.failures) > 0 && p.timeouts == len(p.failures):
		return ErrTimeout
	case len(p.failures) == 0 && p.limited:
		return ErrOverCapacity
	}
	return &Unserviceable{Group: r.g.opts.Name, Reasons: p.failures, RetryAfter: r.g.retryAfter()}
}

func (r *run) settle(p *progress, a *jsonrpc.Answer) {
	p.settled = true
	p.call.Answer = a
}

func (r *run) fail(p *progress, err error) {
	p.settled = true
	p.call.Err = err
	var nobody *Unserviceable
	if errors.As(err, &nobody) {
		r.g.opts.Metrics.unserviceableCall(p.call)
	}
}

func (r *run) closeSettled() {
	r.open = slices.DeleteFunc(r.open, func(p *progress) bool { return p.settled })
}

// end settles the attempts: a failure counts against its backend when another
// backend answered the same call.
func (r *run) end() {
	for _, a := range r.flying {
		a.Abandon()
	}
	for len(r.done) > 0 {
		(<-r.done).Settle(false)
	}
	for _, a := range r.ended {
		blame := false
		for i, p := range a.calls {
			if a.Results[i].Outcome.Sick && p.answered != nil && p.answered != a.Backend {
				blame = true
			}
		}
		a.Settle(blame)
	}
}
