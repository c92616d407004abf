package main

import (
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"gateway.internal/bench/internal/frame"
)

// socket is a WebSocket to the upstream. Answers and notifications take turns.
type socket struct {
	u    *upstream
	conn net.Conn
	mu   sync.Mutex
	out  []byte // room for what is sent
}

// writeTimeout is how long a peer may take no more of what it is sent.
const writeTimeout = 5 * time.Second

// serveSocket accepts a WebSocket with an answer to its request, and answers what
// comes after it.
func (u *upstream) serveSocket(c net.Conn, p *port, accepted, in []byte) {
	if _, err := c.Write(accepted); err != nil {
		return
	}
	s := &socket{u: u, conn: c}
	defer u.chain.leave(s)
	in = append(make([]byte, 0, 4096), in...)
	var answer []byte
	for {
		op, payload, size, err := frame.First(in)
		if err != nil {
			fmt.Fprintf(os.Stderr, "upstream: bad frame: %v\n", err)
			return
		}
		switch {
		case size == 0:
			if len(in) == cap(in) {
				in = append(make([]byte, 0, 2*cap(in)), in...)
			}
			n, err := c.Read(in[len(in):cap(in)])
			if in = in[:len(in)+n]; n == 0 && err != nil {
				return
			}
			continue
		case op == frame.Close:
			return
		case op == frame.Ping:
			s.write(frame.AppendPong(nil, payload))
		case op == frame.Text:
			p.requests.Add(1)
			answer = s.answer(answer[:0], payload)
		}
		in = in[:copy(in, in[size:])]
	}
}

// answer answers a message. It returns the buffer for the next one.
func (s *socket) answer(buf, body []byte) []byte {
	var one request
	scan := scanner{b: body}
	switch {
	case scan.batch():
		buf = s.u.appendBatch(buf, &scan)
	case !scan.request(&one) || !scan.end():
		buf = append(buf, parseError...)
	case s.u.chain != nil && string(one.method) == "eth_subscribe":
		return s.subscribe(buf, &one)
	case s.u.chain != nil && string(one.method) == "eth_unsubscribe":
		buf = s.unsubscribe(buf, &one)
	default:
		buf = s.u.appendAnswer(buf, &one)
	}
	s.send(buf)
	return buf
}

func (s *socket) subscribe(buf []byte, r *request) []byte {
	logs, ok := wanted(r.params)
	if !ok {
		buf = fmt.Appendf(buf, `{"jsonrpc":"2.0","id":%s,"error":{"code":-32602,"message":"the upstream of the benchmark has only newHeads and logs to subscribe to"}}`, r.id)
		s.send(buf)
		return buf
	}
	s.u.chain.subscribe(s, logs, func(id string) {
		buf = s.u.appendClosing(append(s.u.appendOpening(buf, r.id), id...), r.id)
		s.send(buf)
	})
	return buf
}

func (s *socket) unsubscribe(buf []byte, r *request) []byte {
	if !s.u.chain.unsubscribe(s, first(r.params)) {
		return fmt.Appendf(buf, `{"jsonrpc":"2.0","id":%s,"error":{"code":-32000,"message":"subscription not found"}}`, r.id)
	}
	return s.u.appendClosing(append(s.u.appendOpening(buf, r.id), "true"...), r.id)
}

// wanted reads what is subscribed to: logs is nil for heads.
func wanted(params []byte) (logs *filter, ok bool) {
	s := scanner{b: params}
	if !s.batch() {
		return nil, false
	}
	switch string(s.value()) {
	case `"newHeads"`:
		return nil, true
	case `"logs"`:
		logs = new(filter)
		if s.more() {
			*logs, ok = filterOf(string(s.value()))
			return logs, ok
		}
		return logs, true
	}
	return nil, false
}

// first is the first of the params, as it was spelled.
func first(params []byte) string {
	s := scanner{b: params}
	if !s.batch() {
		return ""
	}
	return string(s.value())
}

// send sends a message.
func (s *socket) send(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = frame.AppendText(s.out[:0], text)
	s.flush(s.out)
}

// write sends a frame.
func (s *socket) write(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush(b)
}

// flush writes to the peer. The reader notices when it is gone.
func (s *socket) flush(b []byte) {
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := s.conn.Write(b); err != nil {
		_ = s.conn.Close()
	}
}
