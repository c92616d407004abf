package backend

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// maxIdleConns is how many idle connections one backend keeps.
	maxIdleConns = 512
	// maxIdleTime is how long a connection may lie idle before it is closed:
	// shorter than what servers and load balancers usually allow.
	maxIdleTime = 50 * time.Second
	// checkIdleAfter is how long a connection may lie idle before it is looked
	// at for having been closed by the other side. A shorter idleness is
	// cheaper to risk than to check.
	checkIdleAfter = time.Second
)

// pool keeps the HTTP/1.1 connections of one backend. It has no goroutine: idle
// connections are checked when they are taken and when others are put back.
type pool struct {
	address string // host:port
	tls     *tls.Config
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	timeout time.Duration // of a dial, TLS included

	mu     sync.Mutex
	idle   []*conn // the one used last is at the end
	closed bool
}

// conn is one connection. While it is out of the pool one goroutine owns it;
// only interrupt may be called by others.
type conn struct {
	net.Conn
	reader *bufio.Reader
	born   time.Time
	parked time.Time
	reused bool
	// headLeft is how much of a head may still come, -1 behind the head; got
	// is true when anything came since the request.
	headLeft int
	got      bool
	failed   error // of the last read
}

// headReader bounds what is read before the head of an answer is complete.
type headReader struct{ c *conn }

func (h headReader) Read(p []byte) (int, error) {
	if h.c.headLeft == 0 {
		return 0, errLongHead
	}
	n, err := h.c.Conn.Read(p)
	h.c.failed = err
	if n > 0 {
		h.c.got = true
	}
	if h.c.headLeft > 0 {
		h.c.headLeft = max(0, h.c.headLeft-n)
	}
	return n, err
}

// get returns an idle connection, nil when there is none. The careful look at one
// even if it was used a moment ago, because they cannot repeat their request.
func (p *pool) get(careful bool, now time.Time) *conn {
	for {
		c := p.takeIdle(now)
		if c == nil {
			return nil
		}
		if (careful || now.Sub(c.parked) > checkIdleAfter) && !c.alive() {
			_ = c.Close()
			continue
		}
		c.reused = true
		return c
	}
}

// takeIdle returns the idle connection that was used last, nil when there is
// none that is young enough.
func (p *pool) takeIdle(now time.Time) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle[len(p.idle)-1] = nil
		p.idle = p.idle[:len(p.idle)-1]
		if now.Sub(c.born) < maxConnAge && now.Sub(c.parked) < maxIdleTime {
			return c
		}
		_ = c.Close()
	}
	return nil
}

// put gives a connection back. Those that lay idle for too long are closed on
// the occasion.
func (p *pool) put(c *conn, now time.Time) {
	c.parked = now
	var old []*conn
	p.mu.Lock()
	n := 0 // the first ones lay idle longest
	for n < len(p.idle) && now.Sub(p.idle[n].parked) > maxIdleTime {
		n++
	}
	if n > 0 {
		old = slices.Clone(p.idle[:n])
		p.idle = slices.Delete(p.idle, 0, n)
	}
	if !p.closed && len(p.idle) < maxIdleConns && now.Sub(c.born) < maxConnAge {
		p.idle = append(p.idle, c)
	} else {
		old = append(old, c)
	}
	p.mu.Unlock()
	for _, c := range old {
		_ = c.Close()
	}
}

// fresh dials.
func (p *pool) fresh(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	raw, err := p.dial(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	if p.tls != nil {
		t := tls.Client(raw, p.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, err
		}
		raw = t
	}
	c := &conn{Conn: raw, born: time.Now()}
	c.reader = bufio.NewReaderSize(headReader{c}, 4<<10)
	return c, nil
}

// close closes the idle connections and those that come back.
func (p *pool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}

// alive reports whether an idle connection can still be used: nothing has come,
// neither an end nor bytes that nobody asked for.
func (c *conn) alive() bool {
	_, err := c.peek()
	return errors.Is(err, syscall.EAGAIN)
}

// open reports whether the other side has not ended a connection.
func (c *conn) open() bool {
	n, err := c.peek()
	return n > 0 || errors.Is(err, syscall.EAGAIN)
}

// peek looks at what has come without waiting or taking it.
func (c *conn) peek() (n int, err error) {
	raw := c.Conn
	if t, ok := raw.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	s, ok := raw.(syscall.Conn)
	if !ok {
		return 0, syscall.EAGAIN
	}
	rc, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	_ = c.SetReadDeadline(time.Time{}) // the last one, when it has passed, would answer
	outer := rc.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	return n, errors.Join(outer, err)
}

// interrupt makes the owner's read or write return at once.
func (c *conn) interrupt() { _ = c.SetDeadline(time.Unix(1, 0)) }
