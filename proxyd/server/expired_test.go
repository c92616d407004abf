package server

import (
	"context"
	"testing"
	"time"
)

// A context's error, once there, stays the same.
func TestDeadlineThatIsOverStaysOverForTheSameReason(t *testing.T) {
	within(t, func(t *testing.T, d *deadline, leave context.CancelCauseFunc) {
		time.Sleep(time.Second)
		endedWith(t, "at its time", d, context.DeadlineExceeded, context.DeadlineExceeded)
		leave(errLeft)
		endedWith(t, "when the client left later", d, context.DeadlineExceeded, context.DeadlineExceeded)
	})
}
