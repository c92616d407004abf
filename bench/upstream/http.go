package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
)

// badRequest is what is wrong with a request's head.
type badRequest string

func (e badRequest) Error() string { return string(e) }

// requests reads the HTTP requests of a connection.
type requests struct {
	conn net.Conn
	buf  []byte // what was read
	used int    // how much of it the last request was
	head []byte // of the last request
}

// next returns the method, path and body of the next request, valid until the
// next call; io.EOF when the peer closed between two.
func (r *requests) next() (method, path, body []byte, err error) {
	r.buf = r.buf[:copy(r.buf, r.buf[r.used:])]
	r.used = 0
	end := -1
	for from := 0; ; {
		if i := bytes.Index(r.buf[from:], []byte("\r\n\r\n")); i >= 0 {
			end = from + i + 4
			break
		}
		from = max(0, len(r.buf)-3)
		if len(r.buf) > 64<<10 {
			return nil, nil, nil, badRequest(fmt.Sprintf("head of more than %d bytes", 64<<10))
		}
		if err := r.read(1); err != nil {
			if err == io.EOF && len(r.buf) > 0 {
				return nil, nil, nil, io.ErrUnexpectedEOF
			}
			return nil, nil, nil, err
		}
	}
	length, err := contentLength(r.buf[:end])
	if err != nil {
		return nil, nil, nil, err
	}
	if missing := end + length - len(r.buf); missing > 0 {
		if err := r.read(missing); err != nil {
			return nil, nil, nil, io.ErrUnexpectedEOF
		}
	}
	r.used, r.head = end+length, r.buf[:end]
	method, rest, _ := bytes.Cut(r.buf[:end], []byte(" "))
	path, _, _ = bytes.Cut(rest, []byte(" "))
	return method, path, r.buf[end:r.used], nil
}

// read reads at least n bytes more.
func (r *requests) read(n int) error {
	for read := 0; read < n; {
		if spare := max(n-read, 4096); cap(r.buf)-len(r.buf) < spare {
			r.buf = append(make([]byte, 0, len(r.buf)+spare+16<<10), r.buf...)
		}
		m, err := r.conn.Read(r.buf[len(r.buf):cap(r.buf)])
		r.buf = r.buf[:len(r.buf)+m]
		if read += m; read < n && err != nil {
			return err
		}
	}
	return nil
}

// contentLength reads the length of the body from a head, 0 if it has none.
func contentLength(head []byte) (int, error) {
	length := 0
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case len(name) == len("content-length") && bytes.EqualFold(name, []byte("content-length")):
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil || n < 0 || n > maxBody {
				return 0, badRequest(fmt.Sprintf("Content-Length %q: must be 0 to %d", value, maxBody))
			}
			length = n
		case len(name) == len("transfer-encoding") && bytes.EqualFold(name, []byte("transfer-encoding")):
			return 0, badRequest(fmt.Sprintf("Transfer-Encoding %q: the upstream of the benchmark reads only bodies with a Content-Length", value))
		}
	}
	return length, nil
}
