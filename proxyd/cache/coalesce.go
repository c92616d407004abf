package cache

import (
	"context"
	"errors"

	"gateway.internal/proxyd/jsonrpc"
)

var errPanic = errors.New("internal error")

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
		Client: &jsonrpc.Client{Auth: call.Client.Auth, RequestID: call.Client.RequestID, Source: call.Client.Source},
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
	// The caller's slice is its own; this one is the shared attempt's.
	plans = append([]plan(nil), plans...)
	c.shared.Go(func() {
		ctx, cancel := context.WithTimeout(c.base, c.opts.Timeout)
		defer cancel()
		c.recovered(calls, func() { next.ServeRPC(ctx, calls) })
		for i := range plans {
			p := &plans[i]
			c.recovered(nil, func() { c.put(p, p.flight.call) })
			c.mu.Lock()
			if c.flights[p.key] == p.flight {
				delete(c.flights, p.key)
			}
			c.mu.Unlock()
			close(p.flight.done)
		}
	})
}

// await gives each call the answer of its flight or of its twin.
func (c *Cache) await(ctx context.Context, plans []plan, next jsonrpc.Handler) {
	var again []*jsonrpc.Call
	for i := range plans {
		p := &plans[i]
		from := p.twin
		if p.flight != nil {
			select {
			case <-p.flight.done:
			default:
				select {
				case <-p.flight.done:
				case <-ctx.Done():
					p.call.Err = context.Cause(ctx)
					continue
				}
			}
			from = p.flight.call
			if from.Answer != nil && len(from.Answer.Result) > c.opts.MaxShared && !p.leads {
				again = append(again, p.call) // too large to be shared
				continue
			}
		}
		p.call.Answer, p.call.Err = from.Answer, from.Err
	}
	if len(again) > 0 {
		next.ServeRPC(ctx, again)
	}
}
