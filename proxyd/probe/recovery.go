package probe

import (
	"context"
	"time"

	"gateway.internal/proxyd/backend"
)

// recoveryPause is the time between two calls that decide about a recovery.
const recoveryPause = time.Second

// recovery is what metrics call those calls.
const recovery = "recovery"

// recover makes one of the calls that decide whether a backend that was rate
// limited is well again, if one is due. The backend judges the answer itself.
func (w *watch) recover(ctx context.Context) {
	if !w.recoveryDue() || !w.p.take(ctx) {
		return
	}
	defer w.p.release()
	if !w.recoveryDue() { // the wait for a slot may have been long
		return
	}
	defer func() { w.resume = time.Now().Add(recoveryPause) }()
	reply := w.b.ProbeRecovery(ctx, blockNumber, w.b.ResponseTimeout())
	if reply.Canceled {
		return
	}
	w.p.o.Metrics.checked(w.b.Name(), recovery, reply, reply.Err == nil)
	if head, ok := backend.Quantity(reply.Result); ok {
		w.noteHead(head)
	}
}

func (w *watch) recoveryDue() bool {
	now := time.Now()
	due, _ := w.b.Recovering(now)
	return due && !now.Before(w.resume)
}
