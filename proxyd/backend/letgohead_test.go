package backend

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// hooked is a connection that calls read when something has come.
type hooked struct {
	net.Conn
	read func()
}

func (h *hooked) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if n > 0 && h.read != nil {
		h.read()
	}
	return n, err
}

// The watch believes that it has let the caller go, and will not look again: then
// the caller has to go, although the head came in that moment.
func TestCallerThatIsLetGoWhenTheHeadComesGoes(t *testing.T) {
	var conn *hooked
	onStage(t, func(o *Options) {
		dial := o.Dial
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			conn = &hooked{Conn: c}
			return conn, err
		}
	}, func(t *testing.T, s *stage) {
		s.warm(1)
		s.play = func(w *wire, _ []byte) bool {
			_, _ = io.WriteString(w.far, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
			return silent(w, nil)
		}
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		conn.read = func() { leave(); s.flights.watch() }
		begun := time.Now()
		a, ended := s.Ask(ctx, callsOf(blockNumber()), anHour)
		if took := time.Since(begun); ended || took > 2*watchEvery {
			t.Errorf("ended %v after %v", ended, took)
		}
		if !ended {
			done := make(chan *Attempt, 1)
			a.Go(done)
			a.Abandon()
			<-done
		}
		if failure(t, a.Results[0], Canceled, ""); time.Since(begun) > 2*watchEvery {
			t.Errorf("over after %v", time.Since(begun))
		}
		a.Settle(false)
	})
}
