package backend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

const (
	// streamFrom is the size in bytes of an answer's body above which a result is
	// passed on while it comes.
	streamFrom = 64 << 10
	// openingRoom is how much is read to find where the result begins, when the
	// length of the body is known.
	openingRoom = 4 << 10
	// closingRoom is how much of the end is held back until all has come: the
	// members behind the result must fit.
	closingRoom = 4 << 10
	// spliceSize is the most that the kernel moves in one go.
	spliceSize = 256 << 10
	// gatherTime is how long small pieces are gathered to be written at once.
	gatherTime = 20 * time.Millisecond
	// slowClient is how long a piece may take to pass before it is the client's
	// doing when the backend gives up behind it.
	slowClient = time.Second
)

var copyRooms = sync.Pool{New: func() any { return new([streamFrom]byte) }}

// stream is a result that is passed on while it comes. What stands before it was
// read already. It is moved by the kernel where the connection is plain TCP and
// the length is known, else copied; in either case the last bytes are held back
// and checked. The grammar of what lies between is not.
type stream struct {
	attempt *Attempt
	body    *body
	id      uint64
	idSeen  bool
	bracket byte // that must end the result
	limit   int64
	atMost  int64
	conn    *conn // for the kernel, nil where it cannot

	begun  bool // it was read
	slow   bool // the client was slow
	closed bool
	have   []byte            // came, and was not passed on
	room   *[streamFrom]byte // where have is, once it is copied
	passed int64             // bytes of the body
	err    error             // of the last Next
	quiet  time.Time         // since when nothing came, zero when something did
}

// startStream begins to read the body. It returns a stream, or else what was read
// and io.EOF when that is all.
func (a *Attempt) startStream(src *body, first uint64) ([]byte, *stream, error) {
	limit := a.Backend.opts.MaxResponseSize
	var begun []byte
	switch {
	case limit > 0 && max(src.left, streamFrom) > limit, src.left >= 0 && src.left <= streamFrom:
		return nil, nil, nil
	case src.left >= 0:
		begun = make([]byte, 0, openingRoom)
		for found := false; !found && len(begun) < openingRoom; {
			n, err := src.Read(begun[len(begun):openingRoom])
			if begun = begun[:len(begun)+n]; err != nil {
				return nil, nil, err
			}
			_, _, found = jsonrpc.Opening(begun)
		}
	default:
		var err error
		begun, err = src.readAll(nil, streamFrom)
		switch {
		case err == nil:
			return begun, nil, io.EOF
		case !errors.Is(err, errTooLarge):
			return nil, nil, err
		}
	}
	at, rawID, ok := jsonrpc.Opening(begun)
	if !ok {
		return begun, nil, nil
	}
	s := &stream{attempt: a, body: src, id: first, limit: limit, atMost: -1, have: begun[at:], passed: int64(at)}
	switch begun[at] {
	case '{', '[':
		s.bracket = begun[at] + 2 // '{'+2 is '}', '['+2 is ']'
	case '"':
		s.bracket = '"'
	default:
		return begun, nil, nil
	}
	if rawID != nil {
		if s.idSeen = isID(rawID, first); !s.idSeen {
			return nil, nil, errWrongID
		}
	}
	src.streams = true
	src.x.rest()
	if src.left >= 0 {
		s.atMost = int64(len(s.have)) + src.left
		if x, ok := src.x.(*pooled); ok {
			if _, ok := x.conn.Conn.(*net.TCPConn); ok {
				s.conn = x.conn
			}
		}
	}
	return nil, s, nil
}

var errWrongID = errors.New("invalid answer: the id is not the one asked with")

// isID reports whether raw spells the id that was asked with.
func isID(raw []byte, id uint64) bool {
	got, ok := jsonrpc.ReplyID(raw)
	return ok && got == id
}

// AtMost implements jsonrpc.Stream.
func (s *stream) AtMost() int64 { return s.atMost }

// Interrupt implements jsonrpc.Stream.
func (s *stream) Interrupt(cause error) { s.attempt.Cancel(cause) }

// Next implements jsonrpc.Stream.
func (s *stream) Next(w jsonrpc.Sink) (n int64, err error) {
	if s.err != nil {
		return 0, s.err
	}
	s.begun = true
	kernel := w.Kernel()
	switch {
	case s.conn == nil || kernel == nil || s.body.left <= closingRoom:
		n, err = s.copy(w)
	case len(s.have) > 0 || s.conn.reader.Buffered() > 0:
		n, err = s.unbuffer(w)
	default:
		n, err = s.splice(kernel, w.Renew())
	}
	s.passed += n
	s.err = err
	return n, err
}

// splice lets the kernel move a piece. until is when w fails.
func (s *stream) splice(w io.ReaderFrom, until time.Time) (int64, error) {
	b, now := s.body, time.Now()
	wait := s.attempt.Backend.opts.ResponseTimeout
	if !until.IsZero() {
		// The kernel does not say whose time has ended. The backend's must end
		// first: then nothing is on its way, and the stream can go on. And it
		// must leave enough for the write.
		wait = min(wait, until.Sub(now)/8)
	}
	if s.quiet.IsZero() {
		s.quiet = now
	}
	b.x.extend(now.Add(wait))
	most := min(b.left-closingRoom, spliceSize)
	n, err := w.ReadFrom(&io.LimitedReader{R: s.conn.Conn, N: most})
	b.left -= n
	began := now
	now = time.Now()
	if now.Sub(began) > slowClient {
		// Whoever has to wait for whom: what has come already waits for the client.
		waiting, _ := s.conn.peek()
		s.slow = s.slow || waiting > 0
	}
	if n > 0 {
		s.quiet = time.Time{}
		s.attempt.Backend.health.noteHeard(now)
	}
	switch late := errors.Is(err, os.ErrDeadlineExceeded); {
	case err == nil && n == most:
		return n, nil
	case err == nil:
		return n, s.cut(io.ErrUnexpectedEOF)
	case s.attempt.canceled() != nil:
		return n, s.cut(err)
	case late && (until.IsZero() || now.Before(until)):
		if n == 0 && now.Sub(s.quiet) >= s.attempt.Backend.opts.ResponseTimeout {
			return n, s.cut(err)
		}
		return n, nil
	case !late && !s.conn.open():
		return n, s.cut(err)
	}
	return n, err // the client's
}

// unbuffer passes on what has come already.
func (s *stream) unbuffer(w jsonrpc.Sink) (int64, error) {
	if len(s.have) == 0 {
		s.have = make([]byte, min(int64(s.conn.reader.Buffered()), s.body.left-closingRoom))
		if _, err := io.ReadFull(s.body, s.have); err != nil {
			return 0, s.cut(err)
		}
	}
	n, err := s.write(w, s.have)
	s.have = nil
	return int64(n), err
}

// copy reads a piece and writes it, except for what may be the end.
func (s *stream) copy(w jsonrpc.Sink) (int64, error) {
	if s.room == nil && len(s.have) <= closingRoom {
		s.room = copyRooms.Get().(*[streamFrom]byte)
		s.have = append(s.room[:0], s.have...)
	}
	whole := s.body.left == 0
	for began := time.Now(); !whole && s.room != nil && len(s.have) < streamFrom; {
		n, err := s.body.Read(s.room[len(s.have):])
		s.have = s.have[:len(s.have)+n]
		whole = err == io.EOF || s.body.left == 0
		switch {
		case err != nil && !whole:
			return 0, s.cut(err)
		case s.limit > 0 && s.passed+int64(len(s.have)) > s.limit:
			return 0, &Error{Backend: s.attempt.Backend.opts.Name, Kind: TooLarge, HTTP: http.StatusOK, Wrote: true, cause: errTooLarge}
		}
		if time.Since(began) > gatherTime {
			break
		}
	}
	if whole {
		return s.end(w)
	}
	out := len(s.have) - closingRoom
	if out <= 0 {
		return 0, nil
	}
	n, err := s.write(w, s.have[:out])
	if s.room == nil {
		s.have = s.have[out:]
	} else {
		s.have = s.room[:copy(s.room[:], s.have[out:])]
	}
	return int64(n), err
}

// write passes a piece on.
func (s *stream) write(w jsonrpc.Sink, piece []byte) (int, error) {
	began := time.Now()
	w.Renew()
	n, err := w.Write(piece)
	s.slow = s.slow || time.Since(began) > slowClient
	return n, err
}

// end checks the end of the answer and writes what of it belongs to the result.
func (s *stream) end(w jsonrpc.Sink) (int64, error) {
	from := max(0, len(s.have)-closingRoom)
	end, id, ok := jsonrpc.Closing(s.have[from:])
	switch {
	case !ok || s.have[from+end-1] != s.bracket || s.bracket == '"' && escaped(s.have[from:from+end-1]):
		return 0, s.invalid(errors.New("invalid answer: the result has no right end"))
	case id == nil && !s.idSeen, id != nil && (s.idSeen || !isID(id, s.id)):
		return 0, s.invalid(errWrongID)
	}
	n, err := s.write(w, s.have[:from+end])
	if err == nil {
		err = io.EOF
	}
	return int64(n), err
}

// escaped reports whether what stands behind b is escaped by it. Where b is all
// backslashes nobody knows how many more stood before it.
func escaped(b []byte) bool {
	slashes := len(b) - len(bytes.TrimRight(b, `\`))
	return slashes%2 == 1 && slashes < len(b)
}

// cut is the error of a body that ended or fell silent too early.
func (s *stream) cut(err error) error {
	return s.attempt.broken(s.body.x, http.StatusOK, fmt.Errorf("read reply: %w", err))
}

// invalid is the error of a body that ended as no answer does.
func (s *stream) invalid(err error) error {
	return s.attempt.invalid(&reply{status: http.StatusOK}, err)
}

// Close implements jsonrpc.Stream. What went wrong is counted and logged here:
// against nobody when the client left or was too slow. No other backend has
// answered the same call, so that the backend stays in service; but one that
// breaks off many answers is strained, and asked after others.
func (s *stream) Close() {
	if s.closed {
		return
	}
	s.closed = true
	a, x := s.attempt, s.body.x
	if s.room != nil {
		copyRooms.Put(s.room)
	}
	a.detach(x)
	// What may stand behind the answer was not read where the kernel moved it.
	x.finish(s.body.res, s.err == io.EOF && (s.conn == nil || s.conn.alive()))
	s.room, s.have = nil, nil
	var failure *Error
	how := streamWhole
	switch {
	case errors.As(s.err, &failure) && s.slow && (failure.Kind == Network || failure.Kind == Timeout):
		how = streamLeft // a provider may well give up a reader that does not read
	case errors.As(s.err, &failure) && failure.Kind != Canceled:
		how = streamBroken
		a.brokeStream(failure)
	case !s.begun:
		how = streamDropped
	case s.err != io.EOF:
		how = streamLeft
	default:
		a.Backend.health.untroubled()
	}
	a.Backend.opts.Metrics.streamed(a.Backend.opts.Name, how)
	a.Backend.flights.remove(&a.flight)
	a.leave()
}

// brokeStream counts and logs a failure behind the head of the answer.
func (a *Attempt) brokeStream(e *Error) {
	c, result := a.Calls[0], Result{Err: e, Outcome: e.outcome()}
	a.Backend.opts.Metrics.failure(a, c, &result)
	a.Backend.health.brokeOff(time.Now())
	if how := result.how(); how != "" {
		a.Backend.health.unanswered(how+" within a large answer", time.Now())
	}
	a.logFailure(c, &result, 1)
}
