package group

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
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
// others.
func (g *Group) serveBroadcast(ctx context.Context, m multicall, calls []*jsonrpc.Call) (rest []*jsonrpc.Call, wait func()) {
	var wg sync.WaitGroup
	for _, c := range calls {
		if !m.broadcasts(c) {
			rest = append(rest, c)
			continue
		}
		wg.Go(func() {
			defer g.recovered([]*jsonrpc.Call{c})
			g.broadcast(ctx, c)
		})
	}
	return rest, wg.Wait
}

// broadcast sends one transaction to all members. The first that accepts it
// answers the call; the others go on to their own end, so that they have it too.
func (g *Group) broadcast(ctx context.Context, c *jsonrpc.Call) {
	g.opts.Metrics.requests.Inc()
	g.counts.calls.Inc()
	r := &run{g: g, ctx: ctx, open: []*progress{{call: c}}}
	p := r.open[0]
	defer func() { g.countEnd(p) }()
	members := g.broadcastTo([]*jsonrpc.Call{c})
	done := make(chan *backend.Attempt, len(members))
	begun := make([]*backend.Attempt, 0, len(members))
	for _, m := range members {
		g.opts.Metrics.multicallRequests.WithLabelValues(g.opts.Name, m.Name()).Inc()
		r.asked = append(r.asked, m)
		ended := make(chan *backend.Attempt, 1)
		begun = append(begun, m.Begin([]*jsonrpc.Call{c}, backend.Try{Timeout: m.ResponseTimeout(), Group: g.opts.Name, Finish: true}, ended))
		g.sends.Go(func() {
			defer g.recovered(nil)
			a := <-ended
			g.opts.Metrics.multicallEnds.WithLabelValues(g.opts.Name, m.Name(), howEnded(&a.Results[0])).Inc()
			done <- a
		})
	}
	for range begun {
		select {
		case a := <-done:
			r.takeBroadcast(p, a)
		case <-ctx.Done():
			p.ambiguous = true
			r.giveUpBroadcast(p)
		}
		if p.settled {
			break
		}
	}
	if !p.settled {
		r.giveUpBroadcast(p)
	}
	for _, a := range begun {
		a.Abandon() // which lets a send go on
	}
}

// broadcastTo are the members that get a transaction: all that did not ask to be
// left alone, in whatever state; all but those of another chain when none is left.
func (g *Group) broadcastTo(calls []*jsonrpc.Call) []*Member {
	c := g.candidates(calls, time.Now())
	var to []*Member
	for i, m := range c.members {
		if c.standings[i].State != backend.Held && (!m.Strict() || m.TakeTokens(1)) {
			to = append(to, m)
		}
	}
	if len(to) == 0 {
		to = slices.Clone(c.members)
	}
	return to
}

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
		p.best, p.bestRank, p.bestKnows = result.Answer, -1, true
	default:
		if rank := answerRank(o); p.best == nil || rank < p.bestRank {
			p.best, p.bestRank = result.Answer, rank
			p.bestKnows = !o.NothingRan && !o.Sick && o.Hold == classify.None
		}
		if !r.g.opts.RPCErrorCheck && o.Elsewhere == classify.No {
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

// giveUpBroadcast answers with the best error.
func (r *run) giveUpBroadcast(p *progress) {
	switch {
	case p.best != nil:
		r.settleBest(p)
	case r.ctx.Err() != nil:
		r.fail(p, r.orUnknown(p, r.timedOut(p)))
	default:
		r.fail(p, r.failure(p))
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

// recovered turns a panic into an error for the calls that it left open.
func (g *Group) recovered(calls []*jsonrpc.Call) {
	if p := recover(); p != nil {
		g.opts.Log.Error("panic in a backend group", "backend_group", g.opts.Name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		for _, c := range jsonrpc.Pending(calls) {
			c.Err = errPanic
		}
	}
}
