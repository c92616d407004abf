package server

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// socketReader and socketWriter are the buffers of a socket in bytes: small, since
	// most sockets are idle. A control frame fits into the latter, and so is written
	// in one piece.
	socketReader, socketWriter = 512, 256
	// socketPiece is how much is written to a socket under one deadline.
	socketPiece = 64 << 10
)

// socketConn is the connection of a client's socket. While frames are gathered their
// bytes are kept, and then written at once.
type socketConn struct {
	net.Conn
	early   []byte // came behind the request for the upgrade
	timeout time.Duration
	// moved is when bytes last went either way, in unix nanoseconds: a client that
	// takes or sends a long message steadily is not dead.
	moved atomic.Int64
	// over is true once nothing more can be read; only the reader uses it.
	over bool

	mu     sync.Mutex
	gather bool
	held   []byte
	until  time.Time // the deadline that is set
	err    error
}

var heldRooms = sync.Pool{New: func() any { return new([]byte) }}

// Read implements net.Conn.
func (c *socketConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.moved.Store(time.Now().UnixNano())
	}
	c.over = c.over || err != nil
	return n, err
}

// Write implements net.Conn.
func (c *socketConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gather && len(c.held)+len(p) <= socketPiece {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	if err := c.flush(); err != nil {
		return 0, err
	}
	return len(p), c.write(p)
}

// flush writes what is held. The caller holds the lock.
func (c *socketConn) flush() error {
	if len(c.held) == 0 {
		return c.err
	}
	held := c.held
	c.held = c.held[:0]
	return c.write(held)
}

// write writes in pieces, each of which has its own time: the client of a long
// message need not be fast, only steady. The caller holds the lock.
func (c *socketConn) write(p []byte) error {
	for len(p) > 0 && c.err == nil {
		piece := p[:min(len(p), socketPiece)]
		p = p[len(piece):]
		// A deadline is a timer: it is moved once a second, not for each frame.
		now := time.Now()
		if c.until.Sub(now) < c.timeout {
			c.until = now.Add(c.timeout + time.Second)
			_ = c.Conn.SetWriteDeadline(c.until)
		}
		if _, c.err = c.Conn.Write(piece); c.err == nil && len(piece) == socketPiece {
			// More than what the kernel takes for a client that is gone.
			c.moved.Store(time.Now().UnixNano())
		}
	}
	return c.err
}

// begin has frames gathered until end.
func (c *socketConn) begin() {
	room := heldRooms.Get().(*[]byte)
	c.mu.Lock()
	c.gather, c.held = true, (*room)[:0]
	c.mu.Unlock()
}

// end writes what was gathered.
func (c *socketConn) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.flush()
	room := c.held[:0]
	c.gather, c.held = false, nil
	heldRooms.Put(&room)
	return err
}

// hijacker hands a connection over with small buffers of its own, instead of those
// of net/http, which are 8 KiB.
type hijacker struct {
	http.ResponseWriter
	timeout time.Duration
	conn    *socketConn // once it was hijacked
	status  int         // that the request was answered with
}

// WriteHeader implements http.ResponseWriter.
func (h *hijacker) WriteHeader(status int) {
	h.status = status
	h.ResponseWriter.WriteHeader(status)
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	h.conn = &socketConn{Conn: conn, early: append([]byte(nil), early...), timeout: h.timeout}
	h.conn.moved.Store(time.Now().UnixNano())
	return h.conn, bufio.NewReadWriter(bufio.NewReaderSize(h.conn, socketReader), bufio.NewWriterSize(h.conn, socketWriter)), nil
}
