package backend

import (
	"context"
	"errors"
	"time"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

// Reply is what a call of the gateway's own came to.
type Reply struct {
	// Result is the JSON of the result, nil when Err is set.
	Result []byte
	// Took is the time from the call to its answer or failure.
	Took time.Duration
	// Err says why there is no result; a JSON-RPC error is one too.
	Err error
	// Canceled is true when the gateway itself ended the call: nothing is known.
	Canceled bool
	// Limited is true when the backend asked to be left alone, as for a rate limit,
	// which speaks for no sickness.
	Limited bool
}

// maxOwn bounds the answer to a call of the gateway's own, in bytes: a head or an
// id is short.
const maxOwn = 1 << 20

var ownRow = &jsonrpc.Row{Class: jsonrpc.Read, Nullable: true, Block: -1}

// Own asks the backend on the gateway's own account: a health check or a ping.
// The call takes no slot and no token of max_rps, and counts in no metric of
// clients and not in the health of client traffic; a rate limit that it meets
// holds the backend off all the same. timeout is cut to the response timeout.
func (b *Backend) Own(ctx context.Context, method, params string, timeout time.Duration) Reply {
	return b.own(ctx, method, params, Try{Timeout: timeout, Limit: maxOwn})
}

// OwnLarge is Own for an answer that may be as long as a client's.
func (b *Backend) OwnLarge(ctx context.Context, method, params string, timeout time.Duration) Reply {
	return b.own(ctx, method, params, Try{Timeout: timeout, Limit: DefaultMaxResponseSize})
}

// ProbeRecovery makes one of the calls that decide whether a backend that was
// rate limited is well again. It does nothing when another call decides already.
func (b *Backend) ProbeRecovery(ctx context.Context, method string, timeout time.Duration) Reply {
	if !b.TakeTrial() {
		return Reply{Canceled: true, Err: errors.New("another call tries the backend already")}
	}
	return b.own(ctx, method, "[]", Try{Timeout: timeout, Limit: maxOwn, Trial: true})
}

func (b *Backend) own(ctx context.Context, method, params string, try Try) Reply {
	try.Own = true
	call := &jsonrpc.Call{Method: method, Params: []byte(params), Row: ownRow, Label: method}
	started := time.Now()
	done := make(chan *Attempt, 1)
	a := b.Begin([]*jsonrpc.Call{call}, try, done)
	select {
	case <-done:
	case <-ctx.Done():
		a.Cancel(context.Cause(ctx))
		<-done
	}
	r := &a.Results[0]
	reply := Reply{Took: time.Since(started)}
	switch {
	case !try.Trial:
	case r.Err == nil && !r.Outcome.Sick && r.Outcome.Hold == classify.None: // an error too, as long as it is no limit
		b.health.recoveryAnswered(a.started, time.Now(), a.trial)
	case r.Outcome.Hold == classify.None && (r.Err == nil || r.Err.Kind != Canceled):
		b.health.recoveryFailed(time.Now(), a.trial)
	}
	a.Settle(false)
	reply.Limited = r.Outcome.Hold != classify.None && !r.Outcome.Sick
	switch {
	case r.Err != nil:
		reply.Err, reply.Canceled = r.Err, r.Err.Kind == Canceled
	case r.Answer.Error != nil:
		reply.Err = &RPCError{Backend: b.opts.Name, Method: method, Class: r.Outcome.Class, Code: r.Answer.Code, Raw: r.Answer.Error}
	default:
		reply.Result = r.Answer.Result
	}
	return reply
}
