package backend

import (
	"bytes"
	"context"
	"errors"
	"io"

	"gateway.internal/proxyd/jsonrpc"
)

// endsKept is how much is kept of the beginning and of the end of a frame that is too
// large, to find its id.
const endsKept = 512

// readFrame reads a whole frame. Of one over the size limit it returns the id of the
// request that it answers; where that cannot be told, the socket is of no more use.
func (s *Socket) readFrame() (frame []byte, tooLarge *uint64, err error) {
	_, r, err := s.conn.Reader(context.Background())
	if err != nil {
		return nil, nil, err
	}
	limit := s.b.opts.MaxResponseSize
	if limit <= 0 {
		limit = DefaultMaxResponseSize
	}
	r = hearing{r, s}
	frame, err = io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil || int64(len(frame)) <= limit {
		return frame, nil, err
	}
	head := bytes.Clone(frame[:min(len(frame), endsKept)])
	tail := bytes.Clone(frame[max(0, len(frame)-endsKept):])
	frame = nil
	piece := make([]byte, 32<<10)
	for err == nil {
		var n int
		n, err = r.Read(piece)
		tail = append(tail, piece[:n]...)
		tail = append(tail[:0], tail[max(0, len(tail)-endsKept):]...)
	}
	if err != io.EOF {
		return nil, nil, err
	}
	raw := jsonrpc.LeadingID(head)
	if raw == nil {
		raw = jsonrpc.ClosingID(tail)
	}
	if id, ok := jsonrpc.ReplyID(raw); ok {
		return nil, &id, nil
	}
	return nil, nil, errNobodys
}

// errNobodys ends a socket: what was in the frame is lost, and nobody knows for whom.
var errNobodys = errors.New("a frame over max_response_size_bytes that answers no request")

// hearing takes each piece of a frame for a sign of life.
type hearing struct {
	io.Reader
	s *Socket
}

func (h hearing) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	h.s.heard()
	return n, err
}
