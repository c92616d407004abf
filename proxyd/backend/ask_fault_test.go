package backend

import (
	"context"
	"testing"
	"time"
)

// A look that comes while the request is still written must not be the last one:
// the wait that follows would only end with the response timeout.
func TestCallerIsLetGoThoughTheLookCameBeforeItsWait(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.warm(1)
		w := s.wires[0]
		w.hold = make(chan struct{})
		s.play = silent
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begun := time.Now()
		time.AfterFunc(time.Millisecond, cancel)
		time.AfterFunc(watchEvery+time.Millisecond, func() { close(w.hold) }) // behind the first look
		a, ended := s.Ask(ctx, callsOf(blockNumber()), anHour)
		if took := time.Since(begun); ended || took > 3*watchEvery {
			t.Errorf("ended %v after %v, want within %v", ended, took, 3*watchEvery)
		}
		done := make(chan *Attempt, 1)
		a.Go(done)
		a.Abandon()
		<-done
	})
}
