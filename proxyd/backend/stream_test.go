package backend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/jsonrpc"
)

// bin takes what a stream writes.
type bin struct{ bytes.Buffer }

func (*bin) Kernel() io.ReaderFrom { return nil }

func (*bin) Renew() time.Time { return time.Time{} }

// drain reads a stream to its end.
func drain(s jsonrpc.Stream) (string, error) {
	var to bin
	for {
		if _, err := s.Next(&to); err != nil {
			return to.String(), err
		}
	}
}

// aStream answers with a result that streams.
func aStream(w *wire, request []byte) bool {
	body := fill(`{"id":$0,"result":"`+strings.Repeat("a", 4*streamFrom)+`"}`, idIn(request))
	_, err := fmt.Fprintf(w.far, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return err == nil
}

// streamed asks for a call that streams.
func (s *stage) streamed(t *testing.T) (*Attempt, jsonrpc.Stream) {
	t.Helper()
	s.play = aStream
	c := blockNumber()
	c.MayStream = true
	a, ended := s.Ask(t.Context(), callsOf(c), anHour)
	if !ended {
		goesUnsettled(a)
	}
	if r := a.Results[0]; r.Answer == nil || r.Answer.Stream == nil {
		t.Fatalf("no stream: %+v", r)
	}
	return a, a.Results[0].Answer.Stream
}

func goesUnsettled(a *Attempt) {
	done := make(chan *Attempt, 1)
	a.Go(done)
	<-done
}

func TestStreamKeepsItsConnectionUntilItIsOver(t *testing.T) {
	for _, warm := range []int{0, 1} {
		onStage(t, nil, func(t *testing.T, s *stage) {
			if warm > 0 {
				s.warm(1)
			}
			a, st := s.streamed(t)
			a.Keep()
			a.Settle(false)
			if s.flights.len() != 1 || !s.flights.none() || s.idle() != 0 || s.wires[0].isClosed() {
				t.Errorf("in flight %d, answers owed: %v, idle %d, closed %v", s.flights.len(), !s.flights.none(), s.idle(), s.wires[0].isClosed())
			}
			text, err := drain(st)
			if err != io.EOF || len(text) != 4*streamFrom+2 {
				t.Errorf("%d bytes, %v", len(text), err)
			}
			if n, err := st.Next(new(bin)); n != 0 || err != io.EOF {
				t.Errorf("behind the end: %d bytes, %v", n, err)
			}
			st.Close()
			st.Close()
			if s.flights.len() != 0 || s.idle() != 1 || s.wires[0].isClosed() {
				t.Errorf("behind the end: in flight %d, idle %d, closed %v", s.flights.len(), s.idle(), s.wires[0].isClosed())
			}
		})
	}
}

func TestStreamThatNobodyKeepsIsClosedAndItsConnectionToo(t *testing.T) {
	for name, drop := range map[string]func(a *Attempt, st jsonrpc.Stream){
		"settled":               func(a *Attempt, _ jsonrpc.Stream) { a.Settle(false); a.Settle(false) },
		"settled with blame":    func(a *Attempt, _ jsonrpc.Stream) { a.Settle(true) },
		"kept, and closed":      func(a *Attempt, st jsonrpc.Stream) { a.Keep(); a.Settle(false); st.Close() },
		"kept, closed, settled": func(a *Attempt, st jsonrpc.Stream) { a.Keep(); st.Close(); a.Settle(false) },
		"read in part": func(a *Attempt, st jsonrpc.Stream) {
			a.Keep()
			a.Settle(false)
			_, _ = st.Next(new(bin))
			st.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, nil, func(t *testing.T, s *stage) {
				s.warm(1)
				a, st := s.streamed(t)
				drop(a, st)
				if s.flights.len() != 0 || s.idle() != 0 || !s.wires[0].isClosed() {
					t.Errorf("in flight %d, idle %d, closed %v", s.flights.len(), s.idle(), s.wires[0].isClosed())
				}
				state(t, s.Backend, Well)
			})
		})
	}
}

func TestCloseEndsAStreamAndWaitsForItsReader(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.warm(1)
		a, st := s.streamed(t)
		s.play = nil
		a.Keep()
		a.Settle(false)
		if _, err := st.Next(new(bin)); err != nil {
			t.Fatal(err)
		}
		closed := make(chan struct{})
		go func() { defer close(closed); s.Close() }()
		synctest.Wait()
		_, err := drain(st)
		var e *Error
		if !errors.As(err, &e) || e.Kind != Canceled {
			t.Errorf("the reader sees %v", err)
		}
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close did not wait for the reader")
		default:
		}
		st.Close()
		<-closed
		if !s.wires[0].isClosed() || s.flights.len() != 0 {
			t.Errorf("closed %v, in flight %d", s.wires[0].isClosed(), s.flights.len())
		}
	})
}

func TestInterruptEndsAWaitForMoreOfAStream(t *testing.T) {
	reg := prometheus.NewRegistry()
	onStage(t, func(o *Options) { o.Metrics = NewMetrics(reg) }, func(t *testing.T, s *stage) {
		s.warm(1)
		a, st := s.streamed(t)
		a.Keep()
		a.Settle(false)
		cause := errors.New("the client left")
		time.AfterFunc(time.Second, func() { st.Interrupt(cause) })
		begun := time.Now()
		_, err := drain(slowly{st})
		if !errors.Is(err, cause) || time.Since(begun) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		st.Close()
		st.Interrupt(cause) // may come late
		if state(t, s.Backend, Well); s.Trouble().InRow != 0 {
			t.Errorf("the backend is blamed: %+v", s.Trouble())
		}
		const left = `proxyd_streamed_answers_total{backend_name="b",end="client_left"} 1` + "\n"
		if got := shownLines(reg, "proxyd_streamed_answers_total", "proxyd_rpc_errors_total", "proxyd_provider_errors_total"); got != left {
			t.Errorf("counted as\n%s", got)
		}
	})
}

// slowly waits after each piece, so that a stream is not over at once.
type slowly struct{ jsonrpc.Stream }

func (s slowly) Next(w jsonrpc.Sink) (int64, error) {
	time.Sleep(400 * time.Millisecond)
	return s.Stream.Next(w)
}
