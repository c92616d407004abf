package backend

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// overSocket is one exchange over the backend's WebSocket connection, for a backend
// without an HTTP URL. Its answer looks like one over HTTP with status 200.
type overSocket struct {
	a      *Attempt
	calls  []*jsonrpc.Call
	body   []byte
	first  uint64
	wrote  atomic.Bool
	socket *Socket
	waiter *waiter
	once   sync.Once
	cut    chan struct{} // closed by interrupt
	cause  error
}

func newOverSocket(a *Attempt, calls []*jsonrpc.Call) *overSocket {
	x := &overSocket{a: a, calls: calls, first: a.Backend.nextIDs(len(calls)), cut: make(chan struct{})}
	x.body = appendBody(nil, calls, x.first)
	return x
}

func (x *overSocket) do() (*http.Response, error) {
	now := time.Now()
	ctx, cancel := context.WithDeadlineCause(x.a.context(), x.a.until(now), errResponseTimeout)
	defer cancel()
	s, err := x.a.Backend.Socket(ctx)
	if err != nil {
		return nil, err
	}
	type answer struct {
		frame []byte
		err   error
	}
	answers := make(chan answer, 1)
	x.socket, x.waiter = s, &waiter{first: x.first, calls: len(x.calls), taken: func(frame []byte, err error) { answers <- answer{frame, err} }}
	if err := s.send(x.body, x.waiter); err != nil {
		return nil, err
	}
	x.wrote.Store(true)
	select {
	case a := <-answers:
		frame := a.frame
		if a.err != nil {
			return nil, a.err
		}
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(frame)), ContentLength: int64(len(frame))}, nil
	case <-s.dead:
		return nil, s.Err()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-x.cut:
		return nil, x.cause
	}
}

func (x *overSocket) finish(*http.Response, bool) {
	if x.waiter != nil {
		x.socket.forget(x.waiter)
	}
}

func (x *overSocket) interrupt(cause error) {
	x.once.Do(func() {
		x.cause = cause
		close(x.cut)
	})
}

func (x *overSocket) size() int { return len(x.body) }

// The whole answer is here with its head.
func (x *overSocket) here() bool       { return true }
func (x *overSocket) extend(time.Time) {}
func (x *overSocket) rest()            {}

func (x *overSocket) written() bool { return x.wrote.Load() }
