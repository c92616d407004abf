package backend

import (
	"context"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// maxHere is the largest request in bytes that the caller's goroutine writes
// itself: it fits into the buffers of any idle connection, so that the write
// does not wait.
const maxHere = 16 << 10

// Ask begins an attempt for a caller that has nothing to do but to wait. When an
// idle connection is at hand the attempt is made in the caller's goroutine, and
// ended is true; unless the backend falls silent or ctx ends before the head of
// the answer is here. An attempt that has not ended must be given to Go.
func (b *Backend) Ask(ctx context.Context, calls []*jsonrpc.Call, try Try) (a *Attempt, ended bool) {
	a = b.newAttempt(calls, try)
	ready := a.prepare(ctx)
	if !b.flights.add(&a.flight) {
		if a.begun != nil {
			a.begun.finish(nil, false)
		}
		if a.slot {
			b.opts.Slots.release()
		}
		a.refuse()
		return a, true
	}
	if ready && a.attach(a.begun) && a.begun.begin() {
		a.finish(nil)
		return a, true
	}
	return a, false
}

// Go lets an attempt go on in a goroutine of its own, as Begin does.
func (a *Attempt) Go(done chan<- *Attempt) { go a.finish(done) }

// prepare takes a slot and an idle connection, if both are there.
func (a *Attempt) prepare(ctx context.Context) bool {
	b := a.Backend
	a.started = time.Now()
	if b.pool == nil || !b.batchCap.takes(len(a.Calls)) || !b.opts.Slots.try() {
		return false
	}
	a.slot = true
	a.flight.started, a.flight.overdue = a.start(a.started)
	x := &a.room.pooled
	x.set(a, a.Calls, a.started)
	a.begun = x
	a.flight.caller, a.flight.waiter = ctx, x
	return len(x.request) <= maxHere && x.connectIdle(a.started)
}
