package group

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

// multicall sends signed transactions to all members and asks for everything
// else as fallback does.
type multicall struct{ fallback }

func newMulticall(o Options) Strategy { return multicall{fallback{o.Weighted}} }

// broadcasts reports whether a call goes to all members.
func (multicall) broadcasts(c *jsonrpc.Call) bool {
	return c.Method == "eth_sendRawTransaction" || c.Method == "eth_sendRawTransactionConditional"
}

// serveBroadcast sends those calls to all members that go to all, and returns the
// others. wait waits for the answers.
func (g *Group) serveBroadcast(ctx context.Context, b broadcaster, calls []*jsonrpc.Call) (rest []*jsonrpc.Call, wait func()) {
	var sends []*jsonrpc.Call
	for _, c := range calls {
		if b.broadcasts(c) {
			sends = append(sends, c)
		} else {
			rest = append(rest, c)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		turns := make(chan struct{}, chunksAtOnce)
		for _, c := range sends {
			turns <- struct{}{}
			wg.Go(func() {
				defer func() { <-turns }()
				defer g.recovered([]*jsonrpc.Call{c})
				g.broadcast(ctx, c)
			})
		}
		wg.Wait()
	}()
	return rest, func() { <-done }
}

// broadcast sends one transaction to all members. The first that accepts it
// answers the call; the others go on to their own end, so that they have it too.
func (g *Group) broadcast(ctx context.Context, c *jsonrpc.Call) {
	g.opts.Metrics.requests.Inc()
	g.counts.calls.Inc()
	all := []progress{{call: c}}
	p := &all[0]
	r := &run{g: g, ctx: ctx, open: []*progress{p}}
	defer g.countEnds(all)
	if ctx.Err() != nil {
		r.fail(p, r.whyOver())
		return
	}
	members := r.broadcastTo(p)
	asked := *c // nobody else's: sends may outlive the call
	asked.MayStream = false
	ends := make(chan *backend.Attempt, len(members))
	for _, m := range members {
		g.opts.Metrics.multicallRequests.WithLabelValues(g.opts.Name, m.Name()).Inc()
		r.asked = append(r.asked, m)
		timeout := m.ResponseTimeout()
		if most := g.opts.TryTimeout; most > 0 {
			timeout = min(timeout, most)
		}
		m.Begin([]*jsonrpc.Call{&asked}, backend.Try{Timeout: timeout, Group: g.opts.Name, Finish: true}, ends)
	}
	done := make(chan *backend.Attempt, len(members))
	g.sends.Go(func() {
		defer g.recovered(nil)
		g.endBroadcast(ends, done)
	})
	for range members {
		select {
		case a := <-done:
			r.takeBroadcast(p, a)
		case <-ctx.Done():
			r.leaveBroadcast(p)
		}
		if p.settled {
			return
		}
	}
	r.giveUpBroadcast(p)
}

// whyOver is the error of a call whose time is over, or whose client has left.
func (r *run) whyOver() error {
	if cause := context.Cause(r.ctx); !errors.Is(cause, context.DeadlineExceeded) && !errors.Is(r.ctx.Err(), context.DeadlineExceeded) {
		return cause
	}
	return ErrTimeout
}

// endBroadcast passes the ends of the sends on, and settles them when all have
// ended: a failure counts against its backend when another one answered.
func (g *Group) endBroadcast(ends <-chan *backend.Attempt, done chan<- *backend.Attempt) {
	all := make([]*backend.Attempt, 0, cap(ends))
	someAnswered := false
	for range cap(ends) {
		a := <-ends
		result := &a.Results[0]
		g.opts.Metrics.multicallEnds.WithLabelValues(g.opts.Name, a.Backend.Name(), howEnded(result)).Inc()
		someAnswered = someAnswered || result.Err == nil && !result.Outcome.Sick && result.Outcome.Hold == classify.None
		all = append(all, a)
		done <- a
	}
	for _, a := range all {
		a.Settle(someAnswered && a.Results[0].Outcome.Sick)
	}
}

// broadcastTo are the members that get a transaction: all that did not ask to be
// left alone, in whatever state; all but those of another chain when none is left.
// One at its strict max_rps never gets it.
func (r *run) broadcastTo(p *progress) []*Member {
	now := time.Now()
	c := r.g.candidates(r.calls(), now)
	var to, held []*Member
	for _, m := range c.members {
		switch {
		case m.HeldUntil().After(now):
			held = append(held, m)
		case r.mayBroadcast(p, m):
			to = append(to, m)
		}
	}
	if len(to) == 0 {
		for _, m := range held {
			if r.mayBroadcast(p, m) {
				to = append(to, m)
			}
		}
	}
	return to
}

// mayBroadcast takes a token of m's max_rps, without which only a strict limit is
// in the way.
func (r *run) mayBroadcast(p *progress, m *Member) bool {
	taken := m.TakeTokens(1)
	p.limited = p.limited || !taken && m.Strict()
	return taken || !m.Strict()
}

// Ranks of errors that speak of the transaction: before those of answerRank.
const (
	rankTheSame = -3 + iota // it is there already
	rankNonce               // it, or another one with its nonce, is
	rankRefused
)

// takeBroadcast decides what one member's answer means for the call: a hash is
// the answer, and so is "already known" where the hash can be computed. Errors
// that speak of the transaction are answered when no member is left that may
// accept it, or at once when RPCErrorCheck is off.
func (r *run) takeBroadcast(p *progress, a *backend.Attempt) {
	result := &a.Results[0]
	o := result.Outcome
	switch {
	case result.Err != nil:
		p.failures = append(p.failures, result.Err)
		if result.Err.Kind == backend.Timeout {
			p.timeouts++
		}
		p.ambiguous = p.ambiguous || !o.NothingRan
	case result.Answer.Error == nil:
		r.settle(p, result.Answer)
	case o.Class == knownTransaction && isAlreadyKnown(result.Answer):
		if hash := sendHash(p.call); hash != "" {
			r.settle(p, &jsonrpc.Answer{Result: []byte(`"` + hash + `"`), Backend: result.Answer.Backend, Group: result.Answer.Group})
			return
		}
		p.best, p.bestRank, p.bestKnows = result.Answer, rankTheSame, true
	default:
		rank := answerRank(o)
		switch {
		case o.Class == knownTransaction:
			rank = rankNonce
		case o.Elsewhere == classify.No:
			rank = rankRefused
		}
		if p.best == nil || rank < p.bestRank {
			p.best, p.bestRank, p.answered = result.Answer, rank, a.Backend
			p.bestKnows = !o.NothingRan && !o.Sick && o.Hold == classify.None
		}
		// A nonce that is used up may be the echo of a send whose end is unknown.
		if !r.g.opts.RPCErrorCheck && o.Elsewhere == classify.No && !(p.ambiguous && rank == rankNonce) {
			r.settle(p, result.Answer)
		}
	}
}

// isAlreadyKnown tells "already known" from other errors about a transaction that
// is there, like a nonce that is used up.
func isAlreadyKnown(a *jsonrpc.Answer) bool {
	e, err := jsonrpc.ParseError(a.Error)
	if err != nil {
		return false
	}
	text := strings.ToLower(e.Message)
	return !strings.Contains(text, "nonce") && (strings.Contains(text, "already") || strings.Contains(text, "known"))
}

// giveUpBroadcast answers with the best error when all members have failed.
func (r *run) giveUpBroadcast(p *progress) {
	switch {
	case p.best == nil:
		r.fail(p, r.failure(p))
	case p.ambiguous && p.bestRank == rankNonce:
		r.lookUp(r.ctx, p, p.answered, p.best)
	case p.ambiguous && r.g.opts.RPCErrorCheck && p.bestRank != rankTheSame: // who did not answer may have accepted it
		r.fail(p, r.orUnknown(p, r.timedOut(p)))
	default:
		r.settleBest(p)
	}
}

// leaveBroadcast answers when the time of the call is over, or its client has
// left, while members have not answered: one of them may accept the transaction.
func (r *run) leaveBroadcast(p *progress) {
	p.ambiguous = true
	switch err := r.whyOver(); {
	case err != ErrTimeout:
		r.fail(p, err)
	case p.best != nil && p.bestRank == rankTheSame:
		r.settle(p, p.best)
	default:
		r.fail(p, r.orUnknown(p, ErrTimeout))
	}
}

// howEnded is a metric's label for what became of a send.
func howEnded(r *backend.Result) string {
	switch {
	case r.Err != nil:
		return r.Err.Kind.String()
	case r.Answer.Error != nil:
		return r.Outcome.Class
	}
	return "nil"
}
