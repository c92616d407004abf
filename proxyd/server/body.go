package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"gateway.internal/proxyd/jsonrpc"
)

// readBody reads the whole body, decompressed, up to the limit.
func (s *Server) readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > s.opts.MaxBody {
		return nil, errBodyTooLarge
	}
	var body []byte
	var err error
	if r.ContentLength > 0 && r.ContentLength <= maxUnread {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, body)
	} else { // a length alone is no reason to take much memory
		var buf bytes.Buffer
		if r.ContentLength > 0 {
			buf.Grow(maxUnread)
		}
		_, err = buf.ReadFrom(io.LimitReader(r.Body, s.opts.MaxBody+1))
		body = buf.Bytes()
	}
	if clientLeft(r, err) {
		return nil, context.Canceled
	}
	if err == nil && int64(len(body)) <= s.opts.MaxBody && strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") && isGzip(body) {
		body, err = inflate(body, s.opts.MaxBody)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, errBodyTimeout
	case err != nil:
		return nil, jsonrpc.ErrParse
	case int64(len(body)) > s.opts.MaxBody:
		return nil, errBodyTooLarge
	}
	return body, nil
}

// maxUnread is the most memory in bytes that is set aside for a body before it
// has come.
const maxUnread = 64 << 10

// clientLeft reports whether a body ended early because its client is gone, and
// not for its form.
func clientLeft(r *http.Request, err error) bool {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	var broken *net.OpError
	return r.Context().Err() != nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &broken)
}

// isGzip tells a compressed body from a plain one that is only marked so, which
// the incumbent accepts.
func isGzip(body []byte) bool { return len(body) > 2 && body[0] == 0x1f && body[1] == 0x8b }

func inflate(body []byte, limit int64) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, limit+1))
}
