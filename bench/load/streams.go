package main

import (
	"fmt"

	"gateway.internal/bench/internal/frame"
)

// streams reads what comes over many WebSockets.
type streams struct {
	poller *poller
	rest   [][]byte // what was read of a message that is not complete, for each
	buf    []byte
}

func newStreams(n int) (streams, error) {
	poller, err := newPoller(n)
	return streams{poller: poller, rest: make([][]byte, n), buf: make([]byte, 64<<10)}, err
}

// add takes a WebSocket over, with what was read of it already.
func (s *streams) add(i int, c *socket) error {
	s.rest[i] = append(s.rest[i], c.in[c.used:]...)
	return s.poller.add(i, c.conn)
}

// leftover calls take with the messages that came before a WebSocket was added.
func (s *streams) leftover(i int, take func(i int, text []byte)) error {
	left := s.rest[i]
	s.rest[i] = nil
	return s.messages(i, left, take)
}

// read calls take with the messages that have come. They are valid until it
// returns. An error says that no more will come.
func (s *streams) read(i int, take func(i int, text []byte)) error {
	kept := copy(s.buf, s.rest[i])
	n, err := s.poller.read(i, s.buf[kept:])
	if err != nil {
		return failure("subscriber: " + reason(err))
	}
	return s.messages(i, s.buf[:kept+n], take)
}

// messages takes what was read apart, and keeps what is not complete.
func (s *streams) messages(i int, in []byte, take func(i int, text []byte)) error {
	for {
		op, payload, size, err := frame.First(in)
		switch {
		case err != nil:
			return wrong(err.Error())
		case size == 0 && len(in) > len(s.buf)/2:
			return wrong(fmt.Sprintf("message of more than %d bytes to a subscriber", len(s.buf)/2))
		case size == 0:
			s.rest[i] = append(s.rest[i][:0], in...)
			return nil
		case op == frame.Ping:
			s.poller.write(i, frame.AppendMasked(nil, frame.Pong, payload))
		case op == frame.Close:
			return closedFailure(payload)
		case op == frame.Text:
			take(i, payload)
		}
		in = in[size:]
	}
}
