package backend

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"
)

// The deadline of a call ends with the head of its answer. The watch looks at a
// stream too, as long as any other answer is owed.
func TestStreamBegunInAskOutlivesTheDeadlineOfItsCall(t *testing.T) {
	for _, here := range []bool{true, false} {
		t.Run(fmt.Sprint("in the caller's goroutine: ", here), func(t *testing.T) {
			onStage(t, nil, func(t *testing.T, s *stage) {
				if here {
					s.warm(2)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				s.play = aStream
				c := blockNumber()
				c.MayStream = true
				a, ended := s.Ask(ctx, callsOf(c), anHour)
				if ended != here {
					t.Fatalf("ended %v", ended)
				}
				if !ended {
					goesUnsettled(a)
				}
				a.Keep()
				a.Settle(false)
				s.play = silent
				done := make(chan *Attempt, 1)
				other := s.Begin(callsOf(blockNumber()), anHour, done)
				time.Sleep(2 * time.Second) // the call's time is over, its stream is not
				text, err := drain(a.Results[0].Answer.Stream)
				if err != io.EOF || len(text) != 4*streamFrom+2 {
					t.Errorf("%d bytes, then %v", len(text), err)
				}
				a.Results[0].Answer.Stream.Close()
				other.Abandon()
				<-done
			})
		})
	}
}

// net/http's parser takes a line feed alone for the end of a line.
func TestHeadWithBareLineFeedsIsNotWaitedForAnyLonger(t *testing.T) {
	for _, warm := range []int{0, 1} {
		t.Run(fmt.Sprint(warm, " idle"), func(t *testing.T) {
			onStage(t, nil, func(t *testing.T, s *stage) {
				if warm > 0 {
					s.warm(warm)
				}
				s.play = func(w *wire, request []byte) bool {
					body := fill(`{"id":$0,"result":"0x1"}`, idIn(request))
					fmt.Fprintf(w.far, "HTTP/1.1 200 OK\nContent-Length: %d\n\n%s", len(body), body)
					return true
				}
				begun := time.Now()
				a, ended := s.Ask(t.Context(), callsOf(blockNumber()), anHour)
				if !ended {
					goes(t, a)
				}
				if result(t, a.Results[0], `"0x1"`); time.Since(begun) != 0 {
					t.Errorf("answered after %v", time.Since(begun))
				}
				a.Settle(false)
			})
		})
	}
}
