package backend

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

func TestWithoutASlotTheAttemptWaitsOutsideOfAsk(t *testing.T) {
	slots := func(n int) func(*Options) {
		return func(o *Options) { o.Slots = NewSlots(n, 2*time.Second) }
	}
	onStage(t, slots(1), func(t *testing.T, s *stage) {
		s.warm(1)
		s.opts.Slots.free <- struct{}{} // another attempt's
		begun := time.Now()
		a, ended := s.Ask(t.Context(), callsOf(blockNumber()), anHour)
		if ended || time.Since(begun) != 0 {
			t.Fatalf("ended %v after %v", ended, time.Since(begun))
		}
		failure(t, goes(t, a)[0], Overloaded, ErrOverloaded.Error())
		if took := time.Since(begun); took != 2*time.Second || s.requests() != 0 || s.idle() != 1 {
			t.Errorf("refused after %v, %d requests", took, s.requests())
		}
	})
	onStage(t, slots(1), func(t *testing.T, s *stage) {
		s.warm(1)
		s.opts.Slots.free <- struct{}{}
		a, _ := s.Ask(t.Context(), callsOf(blockNumber()), anHour)
		time.AfterFunc(time.Second, s.opts.Slots.release)
		result(t, goes(t, a)[0], `"0x1"`)
		if len(s.opts.Slots.free) != 0 || s.requests() != 1 {
			t.Errorf("%d slots are held, %d requests", len(s.opts.Slots.free), s.requests())
		}
	})
}

func TestSlotIsGivenBackHoweverAnAttemptEnds(t *testing.T) {
	large := `"` + strings.Repeat("a", 2*streamFrom) + `"`
	say := func(text string) func(*wire, []byte) bool {
		return func(w *wire, request []byte) bool {
			body := fill(text, idIn(request))
			_, err := fmt.Fprintf(w.far, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			return err == nil
		}
	}
	status := func(code string) func(*wire, []byte) bool {
		return func(w *wire, _ []byte) bool {
			_, err := io.WriteString(w.far, "HTTP/1.1 "+code+"\r\nContent-Length: 0\r\n\r\n")
			return err == nil
		}
	}
	for name, c := range map[string]struct {
		play func(*wire, []byte) bool
		ask  func(t *testing.T, s *stage) // nil asks and waits
	}{
		"result":                {play: nil},
		"error":                 {play: say(`{"id":$0,"error":{"code":3,"message":"reverted"}}`)},
		"garbage":               {play: say(`garbage`)},
		"status":                {play: status("503 Unavailable")},
		"no HTTP":               {play: func(w *wire, _ []byte) bool { _, _ = io.WriteString(w.far, "hello\r\n\r\n"); return false }},
		"cut":                   {play: func(*wire, []byte) bool { return false }},
		"too large":             {play: say(`{"id":$0,"result":` + large + `}`)},
		"silence until the end": {play: silent},
		"panic":                 {play: say(`{"id":$0,"error":{"code":3,"message":"reverted"}}`), ask: func(t *testing.T, s *stage) { s.opts.Classify = nil; s.askOnce(t, nil) }},
		"stream, read":          {play: say(`{"id":$0,"result":` + large + `}`), ask: func(t *testing.T, s *stage) { s.askOnce(t, func(st jsonrpc.Stream) { drain(st); st.Close() }) }},
		"stream, unread":        {play: say(`{"id":$0,"result":` + large + `}`), ask: func(t *testing.T, s *stage) { s.askOnce(t, func(st jsonrpc.Stream) { st.Close() }) }},
		"caller gone": {play: silent, ask: func(t *testing.T, s *stage) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			a, ended := s.Ask(ctx, callsOf(blockNumber()), anHour)
			if ended {
				t.Error("ended")
			}
			done := make(chan *Attempt, 1)
			a.Go(done)
			a.Abandon()
			<-done
		}},
		"backend closed before": {play: silent, ask: func(t *testing.T, s *stage) {
			s.Close()
			if a, ended := s.Ask(t.Context(), callsOf(blockNumber()), anHour); !ended || a.Results[0].Err == nil {
				t.Errorf("ended %v, %+v", ended, a.Results[0])
			}
		}},
		"backend closed within": {play: silent, ask: func(t *testing.T, s *stage) {
			go func() { time.Sleep(time.Second); s.Close() }()
			s.askOnce(t, nil)
		}},
	} {
		for _, warm := range []int{0, 1} {
			t.Run(fmt.Sprint(name, ", ", warm, " idle"), func(t *testing.T) {
				onStage(t, func(o *Options) {
					o.Slots = NewSlots(1, time.Second)
					if name == "too large" {
						o.MaxResponseSize = streamFrom
					}
				}, func(t *testing.T, s *stage) {
					if warm > 0 {
						s.warm(warm)
					}
					s.play = c.play
					if c.ask == nil {
						s.askOnce(t, nil)
					} else {
						c.ask(t, s)
					}
					if synctest.Wait(); len(s.opts.Slots.free) != 0 || s.flights.len() != 0 {
						t.Errorf("%d slots are held, %d attempts in flight", len(s.opts.Slots.free), s.flights.len())
					}
				})
			})
		}
	}
}

// askOnce asks for one call, whose stream, if it comes as one, goes to read.
func (s *stage) askOnce(t *testing.T, read func(jsonrpc.Stream)) {
	t.Helper()
	c := blockNumber()
	c.MayStream = read != nil
	a, ended := s.Ask(t.Context(), callsOf(c), anHour)
	if !ended {
		done := make(chan *Attempt, 1)
		a.Go(done)
		<-done
	}
	if r := a.Results[0]; r.Answer != nil && r.Answer.Stream != nil {
		a.Keep()
		read(r.Answer.Stream)
	} else if read != nil {
		t.Errorf("no stream: %+v", r)
	}
	a.Settle(false)
}
