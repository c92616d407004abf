package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"gateway.internal/bench/internal/frame"
)

// socket is a WebSocket to the gateway. Its buffers are small, since there may be
// thousands.
type socket struct {
	conn net.Conn
	in   []byte // what was read
	used int    // how much of it is done with
	out  []byte
}

// dialSocket opens a WebSocket.
func dialSocket(target string) (*socket, error) {
	c, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		return nil, err
	}
	s := &socket{conn: c, in: make([]byte, 0, 512)}
	if err := s.upgrade(target); err != nil {
		_ = c.Close()
		return nil, err
	}
	return s, nil
}

func (s *socket) upgrade(host string) error {
	if err := s.conn.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return err
	}
	if _, err := s.conn.Write(frame.AppendUpgrade(nil, host, "")); err != nil {
		return err
	}
	for {
		if i := bytes.Index(s.in, []byte("\r\n\r\n")); i >= 0 {
			s.used = i + 4
			if err := frame.Upgraded(s.in[:s.used]); err != nil {
				return failure(err.Error())
			}
			return nil
		}
		if len(s.in) > 64<<10 {
			return fmt.Errorf("HTTP head of more than %d bytes", 64<<10)
		}
		if err := s.more(); err != nil {
			return err
		}
	}
}

// send sends a message.
func (s *socket) send(text []byte) error {
	s.out = frame.AppendMasked(s.out[:0], frame.Text, text)
	_, err := s.conn.Write(s.out)
	return err
}

// next returns the next message, valid until the next call. Pings are answered.
func (s *socket) next() ([]byte, error) {
	for {
		op, payload, size, err := frame.First(s.in[s.used:])
		if err != nil {
			return nil, wrong(err.Error())
		}
		s.used += size
		switch {
		case size == 0:
			if err := s.more(); err != nil {
				return nil, err
			}
		case op == frame.Text:
			return payload, nil
		case op == frame.Ping:
			if _, err := s.conn.Write(frame.AppendMasked(nil, frame.Pong, payload)); err != nil {
				return nil, err
			}
		case op == frame.Close:
			return nil, closedFailure(payload)
		}
	}
}

// closedFailure is that of a WebSocket that the gateway has closed with a reason.
func closedFailure(payload []byte) error {
	return failure("WebSocket closed by the gateway: " + frame.CloseReason(payload))
}

// more reads what has come, after what is there.
func (s *socket) more() error {
	s.in, s.used = s.in[:copy(s.in, s.in[s.used:])], 0
	if len(s.in) == cap(s.in) {
		s.in = append(make([]byte, 0, 2*cap(s.in)), s.in...)
	}
	n, err := s.conn.Read(s.in[len(s.in):cap(s.in)])
	s.in = s.in[:len(s.in)+n]
	switch {
	case n > 0:
		return nil
	case errors.Is(err, io.EOF) && len(s.in) > 0:
		return errCutOff
	case errors.Is(err, io.EOF):
		return errNoAnswer
	}
	return err
}
