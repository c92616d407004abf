package backend

import (
	"io"
	"testing"
)

// net/http's parser takes a line that a time-out has cut for a whole one.
func TestSilenceWithinALineOfTheHeadIsATimeout(t *testing.T) {
	for _, begun := range []string{"H", "HTTP/1.1 200 OK\r\nContent-Le"} {
		onStage(t, nil, func(t *testing.T, s *stage) {
			s.warm(1)
			s.play = func(w *wire, _ []byte) bool {
				_, _ = io.WriteString(w.far, begun)
				return silent(w, nil)
			}
			a, ended := s.Ask(t.Context(), callsOf(blockNumber()), anHour)
			if !ended {
				goes(t, a)
			}
			a.Settle(false)
			if e := a.Results[0].Err; e == nil || e.Kind != Timeout {
				t.Errorf("%q and no more: %v", begun, e)
			}
		})
	}
}
