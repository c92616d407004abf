package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// errLongHead ends answers whose head has no end.
var errLongHead = fmt.Errorf("the head of the answer is larger than %d bytes", maxHead)

// maxHead is the largest head of an answer, in bytes.
const maxHead = 256 << 10

// pooled is one request and its answer on one connection of the pool: net/http
// parses the answer, and nothing else of it is used, since two goroutines for
// each connection are most of what a call through it costs. The goroutine that
// makes the exchange owns it; interrupt may be called by others.
type pooled struct {
	a       *Attempt
	calls   []*jsonrpc.Call
	pool    *pool
	timeout time.Duration // to the head of the answer, and for each pause after
	// repeat allows the request to be written again when a connection that lay
	// idle turns out to be dead.
	repeat bool

	mu    sync.Mutex
	conn  *conn
	cause error // why the exchange was interrupted

	wrote bool // bytes of the request may have reached the other side
	heard bool // bytes of the answer have come
}

// maxPooledRequest is the largest request buffer that is kept for the next one.
const maxPooledRequest = 64 << 10

var requests = sync.Pool{New: func() any { return new([]byte) }}

// postRequest tells net/http's parser what the answer answers.
var postRequest = &http.Request{Method: http.MethodPost}

// do writes the request and reads the head of the answer.
func (x *pooled) do(body []byte) (*http.Response, error) {
	room := requests.Get().(*[]byte)
	request := x.a.Backend.appendRequest((*room)[:0], x.calls[0].Client, body)
	defer func() {
		if cap(request) <= maxPooledRequest {
			*room = request
			requests.Put(room)
		}
	}()
	deadline := time.Now().Add(x.timeout)
	for {
		c, err := x.connect(deadline)
		if err != nil {
			return nil, err
		}
		res, err := x.once(c, request)
		if err == nil {
			return res, nil
		}
		x.release(false)
		if !c.reused || x.heard || !x.repeat && x.wrote || x.interrupted() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
	}
}

// connect takes a connection and sets its deadline.
func (x *pooled) connect(deadline time.Time) (*conn, error) {
	if cause := x.interrupted(); cause != nil {
		return nil, cause
	}
	c, err := x.pool.get(!x.repeat)
	if err == nil && c == nil {
		dialing, cancel := context.WithDeadline(x.a.context(), deadline)
		c, err = x.pool.fresh(dialing)
		cancel()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if x.cause != nil {
		_ = c.Close()
		return nil, x.cause
	}
	x.conn = c
	return c, c.SetDeadline(deadline)
}

// once makes the exchange on one connection, up to the head of the answer.
func (x *pooled) once(c *conn, request []byte) (*http.Response, error) {
	c.headLeft, c.got = maxHead, false
	n, werr := c.Write(request)
	x.wrote = x.wrote || n > 0
	if werr != nil && !errors.Is(werr, os.ErrDeadlineExceeded) {
		// The other side may have answered before it had read everything.
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	}
	for {
		res, err := http.ReadResponse(c.reader, postRequest)
		x.heard = x.heard || c.got
		switch {
		case err != nil && werr != nil:
			return nil, werr
		case err != nil:
			return nil, err
		case res.StatusCode >= 100 && res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols:
			continue // an interim answer, RFC 9110 section 15.2
		}
		if werr != nil {
			res.Close = true
		}
		c.headLeft = -1
		return res, nil
	}
}

// finish gives the connection back, or closes it when it cannot be used again.
func (x *pooled) finish(res *http.Response, whole bool) {
	x.release(whole && !res.Close && x.conn.reader.Buffered() == 0)
}

// release ends the ownership of the connection.
func (x *pooled) release(keep bool) {
	x.mu.Lock()
	c := x.conn
	x.conn = nil
	keep = keep && x.cause == nil
	x.mu.Unlock()
	switch {
	case c == nil:
	case keep:
		x.pool.put(c, time.Now())
	default:
		_ = c.Close()
	}
}

// interrupt ends the exchange: what its owner waits for returns at once.
func (x *pooled) interrupt(cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cause != nil {
		return
	}
	x.cause = cause
	if x.conn != nil {
		x.conn.interrupt()
	}
}

// interrupted returns why the exchange was interrupted, nil when it was not.
func (x *pooled) interrupted() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cause
}

// extend gives the next piece of the body its time, unless the exchange is over or
// the piece is here already.
func (x *pooled) extend(deadline time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cause == nil && x.conn != nil && x.conn.reader.Buffered() == 0 {
		_ = x.conn.SetReadDeadline(deadline)
	}
}

// written reports whether bytes of the request may have reached the other side.
func (x *pooled) written() bool { return x.wrote }
