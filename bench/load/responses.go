package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// readBuffer is how many bytes of an answer are read at once.
const readBuffer = 64 << 10

// responses reads the HTTP/1.1 responses of a connection.
type responses struct {
	conn    net.Conn
	buf     []byte
	from    int // of what was read and not used
	to      int
	status  int
	length  int // of the body, -1 when it comes in chunks
	closing bool
}

// Errors of broken responses.
var (
	errNoAnswer = errors.New("connection closed without an answer")
	errCutOff   = errors.New("connection closed in the middle of an answer")
)

func (r *responses) reset(c net.Conn) {
	if r.buf == nil {
		r.buf = make([]byte, 4096)
	}
	*r = responses{conn: c, buf: r.buf}
}

// more reads what has come, after what is there.
func (r *responses) more() error {
	switch {
	case r.from == r.to:
		r.from, r.to = 0, 0
	case r.to == len(r.buf):
		r.to = copy(r.buf, r.buf[r.from:r.to])
		r.from = 0
	}
	if r.to == len(r.buf) {
		r.buf = append(r.buf, make([]byte, max(readBuffer-len(r.buf), len(r.buf)))...)
	}
	n, err := r.conn.Read(r.buf[r.to:])
	r.to += n
	if n > 0 {
		return nil
	}
	return err
}

// head reads the head of the next response.
func (r *responses) head() error {
	for {
		if i := bytes.Index(r.buf[r.from:r.to], []byte("\r\n\r\n")); i >= 0 {
			head := r.buf[r.from : r.from+i]
			r.from += i + 4
			if err := r.parse(head); err != nil {
				return err
			}
			if r.status >= 200 {
				return nil
			}
			continue // 1xx: the response proper follows
		}
		if r.to-r.from > 64<<10 {
			return fmt.Errorf("HTTP head of more than %d bytes", 64<<10)
		}
		if err := r.more(); err != nil {
			if r.from < r.to && errors.Is(err, io.EOF) {
				return errCutOff
			}
			if errors.Is(err, io.EOF) {
				return errNoAnswer
			}
			return err
		}
	}
}

func (r *responses) parse(head []byte) error {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if len(line) < 12 || string(line[:9]) != "HTTP/1.1 " {
		return fmt.Errorf("not an HTTP/1.1 status line: %.40q", line)
	}
	var err error
	if r.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return fmt.Errorf("not an HTTP/1.1 status line: %.40q", line)
	}
	haveLength := false
	r.length, r.closing = 0, false
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case is(name, "content-length"):
			if r.length, err = strconv.Atoi(string(value)); err != nil || r.length < 0 {
				return fmt.Errorf("Content-Length %.40q is no length", value)
			}
			haveLength = true
		case is(name, "transfer-encoding") && is(value, "chunked"):
			r.length, haveLength = -1, true
		case is(name, "connection") && is(value, "close"):
			r.closing = true
		}
	}
	if !haveLength && r.status >= 200 {
		return errors.New("response without Content-Length that is not chunked")
	}
	return nil
}

func is(b []byte, lower string) bool {
	return len(b) == len(lower) && bytes.EqualFold(b, []byte(lower))
}

// body hands the body of the response to use, piece by piece. Pieces are valid
// during the call only.
func (r *responses) body(use func([]byte)) error {
	if r.length >= 0 {
		return r.piece(r.length, use)
	}
	for {
		line, err := r.line()
		if err != nil {
			return err
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 31)
		if err != nil {
			return fmt.Errorf("chunk of size %.40q", line)
		}
		if n == 0 {
			break
		}
		if err := r.piece(int(n), use); err != nil {
			return err
		}
		if line, err = r.line(); err != nil {
			return err
		}
		if len(line) > 0 {
			return fmt.Errorf("chunk that goes on with %.40q", line)
		}
	}
	for { // trailers
		line, err := r.line()
		if err != nil || len(line) == 0 {
			return err
		}
	}
}

// piece reads exactly n bytes.
func (r *responses) piece(n int, use func([]byte)) error {
	for n > 0 {
		if r.from == r.to {
			if len(r.buf) < readBuffer && n > len(r.buf) {
				r.buf = make([]byte, readBuffer)
				r.from, r.to = 0, 0
			}
			if err := r.more(); err != nil {
				return cutOff(err)
			}
		}
		k := min(n, r.to-r.from)
		use(r.buf[r.from : r.from+k])
		r.from += k
		n -= k
	}
	return nil
}

// line reads a line, without its end.
func (r *responses) line() ([]byte, error) {
	for {
		if i := bytes.Index(r.buf[r.from:r.to], []byte("\r\n")); i >= 0 {
			line := r.buf[r.from : r.from+i]
			r.from += i + 2
			return line, nil
		}
		if r.to-r.from > 4096 {
			return nil, errors.New("chunk size line of more than 4096 bytes")
		}
		if err := r.more(); err != nil {
			return nil, cutOff(err)
		}
	}
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCutOff
	}
	return err
}
