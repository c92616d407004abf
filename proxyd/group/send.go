package group

import (
	"context"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// knownTransaction is the class of errors on a send that can be the echo of an
// earlier attempt of our own.
const knownTransaction = "known_transaction"

var lookupRow = &jsonrpc.Row{Class: jsonrpc.Read, Nullable: true, Block: -1}

// lookUp asks whether the transaction of a send is there, after an attempt whose
// outcome is unknown and an answer that may be its echo. Found is a success with
// the hash. The backend that answered is asked first: it has seen something.
func (r *run) lookUp(ctx context.Context, p *progress, first *backend.Backend, answer *jsonrpc.Answer) {
	hash := sendHash(p.call)
	if hash == "" && !p.ambiguous {
		r.settle(p, answer)
		return
	}
	if hash == "" {
		r.fail(p, &OutcomeUnknown{})
		return
	}
	params := []byte(`["` + hash + `"]`)
	call := &jsonrpc.Call{Method: "eth_getTransactionByHash", Params: params, Row: lookupRow, Label: "eth_getTransactionByHash", Client: &jsonrpc.Client{Auth: "none", Source: "http"}}
	if r.found(ctx, first, call) {
		r.foundSend(p, hash, answer)
		return
	}
	members, _ := r.g.order(nil)
	for _, m := range members {
		if m.Backend != first && r.found(ctx, m.Backend, call) {
			r.foundSend(p, hash, answer)
			return
		}
	}
	r.g.opts.Metrics.lookups.WithLabelValues(r.g.opts.Name, "unknown").Inc()
	if !p.ambiguous {
		r.settle(p, p.best) // what the first backend said stands
		return
	}
	r.fail(p, &OutcomeUnknown{Hash: hash})
}

func (r *run) foundSend(p *progress, hash string, answer *jsonrpc.Answer) {
	r.g.opts.Metrics.lookups.WithLabelValues(r.g.opts.Name, "found").Inc()
	r.settle(p, &jsonrpc.Answer{Result: []byte(`"` + hash + `"`), Backend: answer.Backend, Group: answer.Group})
}

// found asks one backend for a transaction.
func (r *run) found(ctx context.Context, b *backend.Backend, call *jsonrpc.Call) bool {
	deadline, ok := ctx.Deadline()
	left := b.ResponseTimeout()
	if ok {
		left = min(left, time.Until(deadline))
	}
	if left <= 0 || ctx.Err() != nil {
		return false
	}
	done := make(chan *backend.Attempt, 1)
	a := b.Begin([]*jsonrpc.Call{call}, backend.Try{Timeout: left, Group: r.g.opts.Name}, done)
	select {
	case <-done:
		a.Settle(false)
		answer := a.Results[0].Answer
		return answer != nil && answer.Error == nil && string(answer.Result) != "null"
	case <-ctx.Done():
		a.Abandon()
		return false
	}
}
