package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
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
// makes the exchange owns it; interrupt and letGo may be called by others.
type pooled struct {
	a       *Attempt
	pool    *pool
	room    *requestRoom
	request []byte // with its head
	body    int    // size of the body
	first   uint64 // id of the first call
	// deadline is when the head of the answer must be here.
	deadline time.Time
	// repeat allows the request to be written again when a connection that lay
	// idle turns out to be dead.
	repeat bool

	mu      sync.Mutex
	conn    *conn
	cause   error // why the exchange was interrupted
	waiting bool  // the owner waits for the head and may be let go
	freed   bool  // it was let go
	come    bool  // the head is here

	sent  bool  // the request was written to conn
	werr  error // as far as that went
	wrote bool  // bytes of the request may have reached the other side
	heard bool  // bytes of the answer have come
}

// requestRoom keeps the memory of a request, and of its body alone.
type requestRoom struct{ request, body []byte }

// maxPooledRequest is the largest request buffer that is kept for the next one.
const maxPooledRequest = 64 << 10

var requests = sync.Pool{New: func() any { return new(requestRoom) }}

// postRequest tells net/http's parser what the answer answers.
var postRequest = &http.Request{Method: http.MethodPost}

// set prepares x to ask for calls.
func (x *pooled) set(a *Attempt, calls []*jsonrpc.Call, now time.Time) {
	b := a.Backend
	x.a, x.pool, x.repeat, x.deadline = a, b.pool, onlyReads(calls), a.until(now)
	x.first = b.nextIDs(len(calls))
	x.room = requests.Get().(*requestRoom)
	body := appendBody(x.room.body[:0], calls, x.first)
	x.request = b.appendRequest(x.room.request[:0], calls[0].Client, body)
	x.body = len(body)
	x.room.body, x.room.request = body, x.request
}

func (x *pooled) size() int { return x.body }

// do sends the request, unless that has been done, and reads the head of the
// answer.
func (x *pooled) do() (*http.Response, error) {
	for {
		if !x.sent {
			if err := x.connect(); err != nil {
				return nil, err
			}
			x.send()
		}
		x.sent = false
		res, err := x.head()
		if err == nil {
			return res, nil
		}
		again := x.conn.reused && !x.heard && (x.repeat || !x.wrote)
		x.release(false)
		if !again || x.interrupted() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
	}
}

// connect takes a connection, a new one when none lies idle.
func (x *pooled) connect() error {
	if x.conn != nil || x.connectIdle(time.Now()) {
		return nil
	}
	if cause := x.interrupted(); cause != nil {
		return cause
	}
	dialing, cancel := context.WithDeadline(x.a.context(), x.deadline)
	c, err := x.pool.fresh(dialing)
	cancel()
	if err != nil {
		return err
	}
	return x.take(c)
}

// connectIdle takes a connection if one lies idle.
func (x *pooled) connectIdle(now time.Time) bool {
	c := x.pool.get(!x.repeat, now)
	return c != nil && x.take(c) == nil
}

// take makes c the exchange's.
func (x *pooled) take(c *conn) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cause != nil {
		_ = c.Close()
		return x.cause
	}
	x.conn = c
	return c.SetDeadline(x.deadline)
}

// send writes the request.
func (x *pooled) send() {
	c := x.conn
	c.headLeft, c.got = maxHead, false
	n, err := c.Write(x.request)
	x.sent, x.werr, x.wrote = true, err, x.wrote || n > 0
}

// begin sends the request on the connection that it has, and waits for the head of
// the answer. It returns false when it was let go or the head does not come; do
// finds out which, and goes on.
func (x *pooled) begin() bool {
	if x.repeat {
		// Requests that have come meanwhile are read first: what is written
		// together wakes the other side once. Not for sends, whose connection
		// has just been looked at.
		runtime.Gosched()
	}
	if x.send(); x.werr != nil {
		return false
	}
	x.mu.Lock()
	x.waiting = x.cause == nil
	wait := x.waiting && !x.freed
	x.mu.Unlock()
	come := wait && x.headComes()
	x.mu.Lock()
	defer x.mu.Unlock()
	// Whoever was let go is expected to go on elsewhere, even if the head came at
	// the same moment.
	x.come = come && !x.freed
	x.waiting = false
	if x.freed && x.cause == nil {
		_ = x.conn.SetReadDeadline(x.deadline)
	}
	return x.come
}

// headComes waits for the whole head of an answer, as far as the buffer holds it.
// It returns false when that does not come, or when it is an interim one, after
// which there is more to wait for.
func (x *pooled) headComes() bool {
	r := x.conn.reader
	for n := 1; ; n = r.Buffered() + 1 {
		if _, err := r.Peek(n); err != nil {
			return false
		}
		head, _ := r.Peek(r.Buffered())
		if bytes.HasPrefix(head, []byte("HTTP/1.1 1")) {
			return false
		}
		if len(head) == r.Size() || bytes.Contains(head, []byte("\n\r\n")) || bytes.Contains(head, []byte("\n\n")) {
			return true
		}
	}
}

// letGo ends the wait of begin, or keeps it from beginning. Nothing is lost: do goes
// on where it was. It returns false when the wait is over already.
func (x *pooled) letGo() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.come {
		return false
	}
	x.freed = true
	if x.waiting && x.conn != nil {
		x.waiting = false
		_ = x.conn.SetReadDeadline(time.Unix(1, 0))
	}
	return true
}

// head reads the head of the answer.
func (x *pooled) head() (*http.Response, error) {
	c := x.conn
	c.failed = nil // that begin was let go says nothing about the answer
	if x.werr != nil && !errors.Is(x.werr, os.ErrDeadlineExceeded) {
		// The other side may have answered before it had read everything.
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	}
	for {
		res, err := http.ReadResponse(c.reader, postRequest)
		x.heard = x.heard || c.got
		switch {
		case err != nil && x.werr != nil:
			return nil, x.werr
		case err != nil && errors.Is(c.failed, os.ErrDeadlineExceeded):
			return nil, c.failed // net/http takes a line that was cut for a whole one
		case err != nil:
			return nil, err
		case res.StatusCode >= 100 && res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols:
			continue // an interim answer, RFC 9110 section 15.2
		}
		if x.werr != nil {
			res.Close = true
		}
		c.headLeft = -1
		return res, nil
	}
}

// finish gives the connection back, or closes it when it cannot be used again.
func (x *pooled) finish(res *http.Response, whole bool) {
	x.release(whole && !res.Close && x.conn.reader.Buffered() == 0)
	if cap(x.request) <= maxPooledRequest && cap(x.room.body) <= maxPooledRequest {
		requests.Put(x.room)
	}
	x.room, x.request = nil, nil
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

func (x *pooled) here() bool { return x.conn.reader.Buffered() > 0 }

// extend gives the next piece of the body its time, unless the exchange is over.
func (x *pooled) extend(deadline time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cause == nil && x.conn != nil {
		_ = x.conn.SetReadDeadline(deadline)
	}
}

// rest has nothing to do: a connection's deadline matters to reads only.
func (x *pooled) rest() {}

// written reports whether bytes of the request may have reached the other side.
func (x *pooled) written() bool { return x.wrote }
