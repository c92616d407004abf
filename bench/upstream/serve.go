package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"gateway.internal/bench/internal/content"
	"gateway.internal/bench/internal/frame"
)

// maxBody bounds a request's body in bytes.
const maxBody = 8 << 20

// headroom is kept free before an answer's body for its HTTP head.
const headroom = 256

// parseError answers what is no request.
const parseError = `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}`

// upstream answers JSON-RPC over HTTP/1.1 and WebSockets with as little work as
// it can.
type upstream struct {
	idLast bool
	// chain publishes heads; nil for none.
	chain *chain
	// broken has it answer status 503.
	broken bool
	ports  []port
	mu     sync.Mutex
	large  map[int][]*content.Large // free ones by size
}

// port is one of the ports that it listens on, as if each were a node.
type port struct {
	delay    time.Duration // of each answer
	requests atomic.Int64  // that came, health checks left out
}

// Where GET is answered with the requests of each port, with the subscriptions that
// were made, and with those that there are.
const (
	countsPath        = "/requests"
	subscriptionsPath = "/subscriptions"
	listeningPath     = "/listening"
)

// serve answers the requests of one connection, one after the other.
func (u *upstream) serve(c net.Conn, p *port) {
	defer c.Close()
	r := &requests{conn: c, buf: make([]byte, 0, 16<<10)}
	out := make([]byte, 0, 16<<10)
	for {
		method, path, body, err := r.next()
		if err != nil {
			if bad := new(badRequest); errors.As(err, bad) {
				fmt.Fprintf(os.Stderr, "upstream: bad request: %v\n", err)
				_, _ = c.Write(append(appendHead(nil, "400 Bad Request", len(err.Error())), err.Error()...))
			}
			return
		}
		switch {
		case string(path) == countsPath:
			text := u.counts()
			_, err = c.Write(append(appendHead(out[:0], "200 OK", len(text)), text...))
		case string(path) == subscriptionsPath:
			text := strconv.Itoa(u.chain.subscriptions())
			_, err = c.Write(append(appendHead(out[:0], "200 OK", len(text)), text...))
		case string(path) == listeningPath:
			text := strconv.Itoa(u.chain.listening())
			_, err = c.Write(append(appendHead(out[:0], "200 OK", len(text)), text...))
		case string(method) == "GET" && !u.broken:
			if answer, ok := frame.AppendAnswer(out[:0], r.head); ok {
				u.serveSocket(c, p, answer, r.buf[r.used:])
				return
			}
			fallthrough
		case string(method) != "POST": // a health check
			_, err = c.Write(append(appendHead(out[:0], "200 OK", len("ok")), "ok"...))
		default:
			p.requests.Add(1)
			if p.delay > 0 {
				time.Sleep(p.delay)
			}
			if u.broken {
				const text = "service unavailable"
				_, err = c.Write(append(appendHead(out[:0], "503 Service Unavailable", len(text)), text...))
			} else {
				out, err = u.answer(c, body, out)
			}
		}
		if err != nil {
			return
		}
	}
}

// counts is how many requests came to each port, as JSON.
func (u *upstream) counts() string {
	text := []byte{'['}
	for i := range u.ports {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, u.ports[i].requests.Load(), 10)
	}
	return string(append(text, ']'))
}

// appendHead appends the HTTP head of an answer with a body of size bytes.
func appendHead(dst []byte, status string, size int) []byte {
	dst = append(append(dst, "HTTP/1.1 "...), status...)
	dst = append(dst, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(size), 10)
	return append(dst, "\r\n\r\n"...)
}

// answer writes the answer to a JSON-RPC body, in one write. It returns the
// buffer for the next one.
func (u *upstream) answer(c net.Conn, body, buf []byte) ([]byte, error) {
	var one request
	s := scanner{b: body}
	if !s.batch() {
		if !s.request(&one) || !s.end() {
			return buf, u.write(c, append(buf[:headroom], parseError...))
		}
		if size, ok := content.LogsSize(one.params); ok && string(one.method) == content.Logs {
			return buf, u.sendLarge(c, &one, size)
		}
		out := u.appendAnswer(buf[:headroom], &one)
		return out, u.write(c, out)
	}
	out := u.appendBatch(buf[:headroom], &s)
	return out, u.write(c, out)
}

// appendBatch appends the answers to the requests of a batch.
func (u *upstream) appendBatch(dst []byte, s *scanner) []byte {
	var one request
	start := len(dst)
	dst = append(dst, '[')
	for more := true; more; {
		if !s.request(&one) {
			return append(dst[:start], parseError...)
		}
		dst = u.appendAnswer(dst, &one)
		if more = s.more(); more {
			dst = append(dst, ',')
		}
	}
	return append(dst, ']')
}

// write sends out[headroom:] as an answer, with the HTTP head put before it.
func (u *upstream) write(c net.Conn, out []byte) error {
	var room [headroom]byte
	head := appendHead(room[:0], "200 OK", len(out)-headroom)
	from := headroom - len(head)
	copy(out[from:], head)
	_, err := c.Write(out[from:])
	return err
}

// appendAnswer appends the answer object to one request.
func (u *upstream) appendAnswer(dst []byte, r *request) []byte {
	if bytes.Equal(r.version, []byte(`"2.0"`)) && len(r.id) > 0 {
		start := len(dst)
		dst = u.appendOpening(dst, r.id)
		if dst, ok := u.chain.appendResult(dst, r); ok {
			return u.appendClosing(dst, r.id)
		}
		if dst, ok := content.AppendResult(dst, r.method, r.params); ok {
			return u.appendClosing(dst, r.id)
		}
		dst = dst[:start]
	}
	dst = append(dst, `{"jsonrpc":"2.0","id":`...)
	if len(r.id) == 0 {
		dst = append(dst, "null"...)
	}
	dst = append(dst, r.id...)
	return append(dst, `,"error":{"code":-32601,"message":"the upstream of the benchmark does not know this call"}}`...)
}

func (u *upstream) appendOpening(dst, id []byte) []byte {
	if u.idLast {
		return append(dst, `{"jsonrpc":"2.0","result":`...)
	}
	dst = append(dst, `{"jsonrpc":"2.0","id":`...)
	return append(append(dst, id...), `,"result":`...)
}

func (u *upstream) appendClosing(dst, id []byte) []byte {
	if u.idLast {
		dst = append(append(dst, `,"id":`...), id...)
	}
	return append(dst, '}')
}

// sendLarge answers with a large result, which is made once for each answer
// under way and only stamped after that.
func (u *upstream) sendLarge(c net.Conn, r *request, size int) error {
	u.mu.Lock()
	var l *content.Large
	if free := u.large[size]; len(free) > 0 {
		l, u.large[size] = free[len(free)-1], free[:len(free)-1]
	}
	u.mu.Unlock()
	if l == nil {
		l = content.NewLarge(size)
	}
	s := content.StampOf(r.method, r.params)
	l.Stamp(&s)
	var opening, closing [200]byte
	o, e := u.appendOpening(opening[:0], r.id), u.appendClosing(closing[:0], r.id)
	var room [400]byte
	head := append(appendHead(room[:0], "200 OK", len(o)+size+len(e)), o...)
	_, err := c.Write(l.Framed(head, e))
	u.mu.Lock()
	if u.large == nil {
		u.large = map[int][]*content.Large{}
	}
	u.large[size] = append(u.large[size], l)
	u.mu.Unlock()
	return err
}
