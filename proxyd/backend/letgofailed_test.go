package backend

import (
	"context"
	"io"
	"testing"
	"time"
)

// The time-out that let the caller go is not the attempt's.
func TestMalformedAnswerIsNoTimeoutThoughItsCallerWasLetGo(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.warm(1)
		s.play = func(w *wire, _ []byte) bool {
			_, _ = io.WriteString(w.far, "HELLO WORLD\r\n")
			return silent(w, nil)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a, ended := s.Ask(ctx, callsOf(blockNumber()), anHour)
		if ended {
			t.Fatal("it was not let go")
		}
		if failure(t, goes(t, a)[0], Network, "malformed"); s.Trouble().InRow != 1 {
			t.Errorf("%+v", s.Trouble())
		}
	})
}
