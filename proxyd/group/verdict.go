package group

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

// take reads what an attempt came to.
func (r *run) take(ctx context.Context, done *backend.Attempt) {
	i := slices.IndexFunc(r.flying, func(a *asking) bool { return a.Attempt == done })
	a := r.flying[i]
	r.flying = slices.Delete(r.flying, i, i+1)
	r.ended = append(r.ended, a)
	r.tell(a)
	for i, p := range a.calls {
		switch {
		case p.settled:
		case r.loses(p, a, i):
			p.keep(a, i)
		default:
			r.takeResult(ctx, p, a, &a.Results[i])
		}
	}
	r.useSpares()
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
		a.Keep()
		r.answeredBy(p, a)
		r.settle(p, result.Answer)
	case class == jsonrpc.SignedSend && (p.ambiguous || p.doubtful) && o.Class == knownTransaction:
		r.answeredBy(p, a)
		r.lookUp(ctx, p, a.Backend, result.Answer)
	case o.Elsewhere == classify.No || r.g.final(p.call, result) && !p.hides(o):
		r.answeredBy(p, a)
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

// tell tells the strategy, and the times that hedges go by, how an attempt ended.
func (r *run) tell(a *asking) {
	if r.g.outcomes == nil && r.slow == nil {
		return
	}
	result := &a.Results[0]
	e := ending{at: time.Now(), how: hasFailed}
	e.took = e.at.Sub(a.begun)
	switch {
	case result.Err != nil && (result.Err.Kind == backend.Canceled || result.Err.Kind == backend.Overloaded):
		return
	case result.Outcome.Hold != classify.None:
		e.how = wasLimited
	case result.Err == nil && result.Answer.Error == nil:
		e.how, e.timed = wasAnswered, true
	case result.Err == nil && result.Outcome.Elsewhere == classify.No: // the call's own error
		e.how = wasAnswered
	}
	if r.slow != nil && e.timed {
		r.g.latencies.get(r.ask.Label).add(e.took, e.at)
	}
	if r.g.outcomes != nil {
		if e.label = backend.Batched; len(a.calls) == 1 {
			e.label = a.calls[0].call.Label
		}
		r.g.outcomes.ended(a.member, e)
	}
}

// answeredBy notes who answered a call.
func (r *run) answeredBy(p *progress, a *asking) {
	p.answered = a.Backend
	if a.hedge && !a.won {
		a.won, r.outrun = true, true
		r.g.counts.hedgesWon.Inc()
	}
	if r.g.prefers != nil && p.call.Only == "" && r.g.prefers.answered(r.begun, a.member) {
		r.g.notePreferred()
		r.g.opts.Log.Info("preferred backend changed", "backend_group", r.g.opts.Name, "backend", a.member.Name())
	}
}

// hides reports whether an error that says nothing about the call would hide that
// an earlier attempt may have done what it asks for.
func (p *progress) hides(o classify.Outcome) bool {
	return p.ambiguous && (o.NothingRan || o.Sick || o.Hold != classify.None)
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
	// What only a second attempt ran into is no reason to give up the first.
	if (e.Kind == backend.Overloaded || e.Kind == backend.TooLarge) && r.asks(p) {
		p.failures = append(p.failures, e)
		return
	}
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
	case p.best != nil && e.Kind != backend.Canceled && !mayHaveRun && !r.asks(p): // this was the one other backend that was asked
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
		case p.spare != nil:
			s := p.spare
			p.spare = nil
			r.takeResult(ctx, p, s.asking, &s.asking.Results[s.result])
			if !p.settled {
				r.settleBest(p)
			}
		case p.best != nil && !(p.call.Row.Class == jsonrpc.Other && len(r.flying) > 0):
			r.settleBest(p)
		case ctx.Err() != nil:
			r.fail(p, r.orUnknown(p, r.timedOut(p)))
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
	case len(p.failures) == 0 && p.limited:
		return ErrOverCapacity
	case wantsArchive([]*jsonrpc.Call{p.call}) && !slices.ContainsFunc(r.g.members, func(m *Member) bool { return m.Archive }):
		return fmt.Errorf("%w: %w", ErrNoArchive, r.unserviceable(p))
	case r.g.prefers != nil && len(p.failures) > 0:
		return r.allFailed(p)
	case len(p.failures) > 0 && p.timeouts == len(p.failures):
		return r.timedOut(p)
	}
	return r.unserviceable(p)
}

// allFailed is the error of a sticky group.
func (r *run) allFailed(p *progress) error {
	e := &AllFailed{cause: r.unserviceable(p), TimedOut: p.timeouts == len(p.failures)}
	for i, f := range p.failures {
		var of *backend.Error
		if errors.As(f, &of) && !slices.ContainsFunc(p.failures[i+1:], isOf(of.Backend)) {
			e.Endpoints = append(e.Endpoints, of.Backend+": "+of.Short())
		}
	}
	for _, m := range r.g.opts.Members {
		if !slices.Contains(r.asked, m) {
			e.Endpoints = append(e.Endpoints, m.Name()+": not asked, "+m.Standing().State.String())
		}
	}
	return e
}

// unserviceable says why nobody answered: how those failed that were asked, and
// how the others are.
func (r *run) unserviceable(p *progress) *Unserviceable {
	reasons := slices.Clone(p.failures)
	for _, place := range r.g.explain(r.asked, []*jsonrpc.Call{p.call}) {
		if !slices.Contains(r.asked, place.Member) {
			reasons = append(reasons, fmt.Errorf("backend %s: not asked: %s", place.Member.Name(), place.Skipped))
		}
	}
	return &Unserviceable{Group: r.g.opts.Name, Reasons: reasons, RetryAfter: r.g.retryAfter()}
}

// isOf tells the failures of one backend.
func isOf(name string) func(error) bool {
	return func(err error) bool {
		var of *backend.Error
		return errors.As(err, &of) && of.Backend == name
	}
}

// timedOut is ErrTimeout with the same.
func (r *run) timedOut(p *progress) error {
	return fmt.Errorf("%w: %s", ErrTimeout, r.unserviceable(p).text())
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
