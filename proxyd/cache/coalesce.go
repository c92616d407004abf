package cache

import (
	"context"
	"errors"

	"gateway.internal/proxyd/jsonrpc"
)

// errPanic ends calls that a panic left open, errOpen those that a stage did.
var (
	errPanic = errors.New("panic in a shared attempt")
	errOpen  = errors.New("a stage left the call open")
)

// flight is a call that is being asked on behalf of everybody who waits for an
// equal one.
type flight struct {
	done chan struct{} // closed when answer or err is set
	call *jsonrpc.Call
}

// join makes the call wait for an equal one in flight. It returns true when
// there was none, so that the caller leads.
func (c *Cache) join(p *plan) (leads bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.flights[p.key]; ok {
		p.flight = f
		c.opts.Metrics.coalesced.WithLabelValues(p.call.Label).Inc()
		return false
	}
	p.flight, p.leads = newFlight(p.call), true
	c.flights[p.key] = p.flight
	return true
}

// newFlight copies the call, so that the shared attempt outlives its client and
// carries nothing of it.
func newFlight(call *jsonrpc.Call) *flight {
	return &flight{done: make(chan struct{}), call: &jsonrpc.Call{
		Method: call.Method, Params: call.Params, Row: call.Row, Label: call.Label,
		Client: &jsonrpc.Client{Auth: call.Client.Auth, Archive: call.Client.Archive, RequestID: call.Client.RequestID, Source: call.Client.Source},
	}}
}

// lead asks for flights on a context of their own: whoever leaves does not end
// the attempt for the others.
func (c *Cache) lead(plans []plan, next jsonrpc.Handler) {
	calls := make([]*jsonrpc.Call, len(plans))
	for i := range plans {
		p := &plans[i]
		if p.flight == nil {
			p.flight, p.leads = newFlight(p.call), true
		}
		calls[i] = p.flight.call
	}
	// The caller's slice is its own; this one is the shared attempts'.
	plans = append([]plan(nil), plans...)
	c.mu.Lock()
	defer c.mu.Unlock()
	turns := make(chan struct{}, attemptsAtOnce)
	for i := 0; i < len(plans); i += c.opts.MaxBatch {
		j := min(i+c.opts.MaxBatch, len(plans))
		plans, calls := plans[i:j], calls[i:j]
		if c.closed {
			for _, call := range calls {
				call.Err = context.Canceled
			}
			for k := range plans {
				c.land(&plans[k])
			}
			continue
		}
		c.shared.Go(func() {
			ctx, cancel := context.WithTimeout(c.base, c.opts.Timeout)
			defer cancel()
			turns <- struct{}{}
			c.recovered(calls, func() { next.ServeRPC(ctx, calls) })
			<-turns
			for k := range plans {
				p := &plans[k]
				c.recovered(nil, func() { c.put(p, p.flight.call) })
				c.mu.Lock()
				c.land(p)
				c.mu.Unlock()
			}
		})
	}
}

// attemptsAtOnce bounds the shared attempts of one client's batch in flight.
const attemptsAtOnce = 16

// land gives those who wait for the flight its answer, and lets the next equal
// call ask again. The caller holds the lock.
func (c *Cache) land(p *plan) {
	if c.flights[p.key] == p.flight {
		delete(c.flights, p.key)
	}
	close(p.flight.done)
}

// await gives each call the answer of its flight or of its twin.
func (c *Cache) await(ctx context.Context, lead, waiting []plan, next jsonrpc.Handler) {
	var again []*jsonrpc.Call
	for _, plans := range [2][]plan{lead, waiting} {
		for i := range plans {
			p := &plans[i]
			if p.flight == nil {
				continue
			}
			if !p.flight.wait(ctx) {
				p.call.Err = context.Cause(ctx)
				continue
			}
			if a := p.flight.call.Answer; a != nil && len(a.Result) > c.opts.MaxShared && !p.leads {
				again = append(again, p.call) // too large to be shared
				continue
			}
			take(p.call, p.flight.call)
		}
	}
	if len(again) > 0 {
		next.ServeRPC(ctx, again)
	}
	// Only now has every twin's elder its answer.
	for i := range waiting {
		if p := &waiting[i]; p.twin != nil {
			take(p.call, p.twin)
		}
	}
}

// wait waits for the flight's end. It returns false when the context ended
// before.
func (f *flight) wait(ctx context.Context) bool {
	select {
	case <-f.done:
		return true
	default:
	}
	select {
	case <-f.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// take gives a call what another came to, which is never nothing.
func take(call, from *jsonrpc.Call) {
	call.Answer, call.Err = from.Answer, from.Err
	if !from.Done() {
		call.Err = errOpen
	}
}
