package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// conn is a keep-alive connection or a WebSocket to the gateway. A broken one is
// dialled again when it is next used.
type conn struct {
	target string
	ws     bool // it is a WebSocket
	net    net.Conn
	socket *socket
	in     responses
	x      exchange
	body   []byte
	// received is the size of the last answer's body.
	received int
}

// exchangeTimeout is how long an answer may take in all.
const exchangeTimeout = 30 * time.Second

// do asks the next of the calls and checks the answer. It returns nil, a failure
// or a wrong.
func (c *conn) do(calls *calls, timeout bool) error {
	calls.next(&c.x)
	err := c.ask(timeout)
	if err != nil || c.in.closing {
		c.close()
	}
	if err != nil && !errors.As(err, new(wrong)) && !errors.As(err, new(failure)) {
		return failure(reason(err))
	}
	return err
}

func (c *conn) ask(timeout bool) error {
	if err := c.dial(); err != nil {
		return err
	}
	if timeout {
		if err := c.net.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
			return err
		}
	}
	if c.ws {
		return c.askSocket()
	}
	if _, err := c.net.Write(c.x.request); err != nil {
		return err
	}
	if err := c.in.head(); err != nil {
		return err
	}
	c.received = 0
	if c.x.large != nil && c.in.status == 200 {
		return c.receiveLarge()
	}
	c.body = c.body[:0]
	if err := c.in.body(func(chunk []byte) { c.body = append(c.body, chunk...) }); err != nil {
		return err
	}
	c.received = len(c.body)
	if c.in.status != 200 {
		return failure(fmt.Sprintf("HTTP status %d", c.in.status))
	}
	return c.x.check(c.body)
}

func (c *conn) askSocket() error {
	if err := c.socket.send(c.x.body); err != nil {
		return err
	}
	body, err := c.socket.next()
	if err != nil {
		return err
	}
	c.received = len(body)
	return c.x.check(body)
}

func (c *conn) receiveLarge() error {
	s := stream{x: &c.x, begun: c.body[:0]}
	var bad error
	err := c.in.body(func(chunk []byte) {
		if bad == nil {
			bad = s.feed(chunk)
		}
	})
	c.body, c.received = s.begun, s.total
	switch {
	case bad != nil:
		return bad
	case err != nil:
		return err
	}
	return s.end()
}

func (c *conn) dial() error {
	if c.net != nil {
		return nil
	}
	if c.ws {
		s, err := dialSocket(c.target)
		if err == nil {
			c.socket, c.net = s, s.conn
		}
		return err
	}
	n, err := net.DialTimeout("tcp", c.target, 5*time.Second)
	if err != nil {
		return err
	}
	c.net = n
	c.in.reset(n)
	return nil
}

func (c *conn) close() {
	if c.net != nil {
		_ = c.net.Close()
		c.net = nil
	}
}

// reason is an error's text without what differs from one connection to the
// next, so that equal ones are counted together.
func reason(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Sprintf("no complete answer within %v", exchangeTimeout)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}
