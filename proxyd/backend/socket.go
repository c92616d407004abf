package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"gateway.internal/proxyd/jsonrpc"
)

const (
	// socketPing is how often a socket is pinged, and how long its pong may take.
	socketPing, socketPong = 15 * time.Second, 10 * time.Second
	// socketWrite bounds the writing of one frame.
	socketWrite = 10 * time.Second
	// socketIdle is how long a socket that nobody uses stays open.
	socketIdle = time.Minute
	// maxEarly is how many notifications are kept of subscriptions whose answer has
	// not come yet, maxEarlyBytes how large they may be together.
	maxEarly, maxEarlyBytes = 1024, 16 << 20
)

// Socket is a WebSocket connection to a backend. Calls and subscriptions share
// it; its methods may be called by many goroutines.
type Socket struct {
	b    *Backend
	conn *websocket.Conn
	born time.Time
	dead chan struct{}
	out  chan []byte  // to be written
	used atomic.Int64 // when it was used last, in unix nanoseconds

	mu      sync.Mutex
	err     error // why it is dead
	waiters map[uint64]*waiter
	subs    map[string]func(result []byte)
	ended1  map[string]bool // subscriptions that were ended of late,
	ended2  map[string]bool // and before these
	asking  int             // subscriptions whose answer has not come
	early   []earlyNotification
}

// waiter waits for the answer to one request: a call, or a batch of calls.
type waiter struct {
	first uint64
	calls int
	// taken is called by the reader, once, with the frame that holds the answer, or
	// with why there is none.
	taken func(frame []byte, err error)
	// gone is true when nobody waits any more, but the answer matters.
	gone bool
}

func newSocket(b *Backend, conn *websocket.Conn) *Socket {
	s := &Socket{
		b: b, conn: conn, born: time.Now(), dead: make(chan struct{}), out: make(chan []byte, maxUnwritten),
		waiters: make(map[uint64]*waiter), subs: make(map[string]func([]byte)), ended1: make(map[string]bool),
	}
	s.used.Store(s.born.UnixNano())
	return s
}

// Dead is closed when the socket has broken or was closed.
func (s *Socket) Dead() <-chan struct{} { return s.dead }

// Err says why the socket is dead, without secrets.
func (s *Socket) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// read takes frames until the socket breaks.
func (s *Socket) read() {
	defer s.recovered()
	for {
		frame, id, err := s.readFrame()
		if err == nil {
			s.heard()
			if id == nil {
				err = s.take(frame)
			} else {
				s.giveUp(*id)
			}
		}
		if err != nil {
			s.end(fmt.Errorf("read: %w", err))
			return
		}
	}
}

// heard notes a sign of life. Where there is HTTP too, it says nothing about that.
func (s *Socket) heard() {
	now := time.Now()
	s.used.Store(now.UnixNano())
	if !s.b.HasHTTP() {
		s.b.health.noteHeard(now)
	}
}

// take gives a frame to whom it is for. A frame that is no JSON-RPC ends the
// socket: nothing that comes behind it can be trusted.
func (s *Socket) take(frame []byte) error {
	f, err := jsonrpc.ParseFrame(frame)
	if err != nil {
		return err
	}
	switch {
	case f.Subscription != nil:
		return s.notify(string(f.Subscription), f.Result)
	case f.Foreign:
		return nil // a method of the provider's own
	}
	s.mu.Lock()
	var w *waiter
	if id, ok := jsonrpc.ReplyID(f.ID); ok {
		w = s.waiters[id]
	}
	for i := 0; w == nil && i < len(f.Batch); i++ {
		if id, ok := jsonrpc.ReplyID(f.Batch[i].ID); ok {
			w = s.waiters[id]
		}
	}
	if w == nil && f.Broken {
		w = s.lone() // an error without an id belongs to the only request
	}
	s.forgetLocked(w)
	s.mu.Unlock()
	if w != nil {
		w.taken(frame, nil)
	}
	return nil // otherwise who asked has given up
}

// giveUp tells who asked that its answer is too large.
func (s *Socket) giveUp(id uint64) {
	s.mu.Lock()
	w := s.waiters[id]
	s.forgetLocked(w)
	s.mu.Unlock()
	if w != nil {
		w.taken(nil, errTooLarge)
	}
}

// lone returns the only waiter, nil when there are several or none. The caller
// holds the lock.
func (s *Socket) lone() *waiter {
	var only *waiter
	for _, w := range s.waiters {
		if only != nil && w != only {
			return nil
		}
		only = w
	}
	return only
}

func (s *Socket) forgetLocked(w *waiter) {
	if w == nil {
		return
	}
	for id := w.first; id < w.first+uint64(w.calls); id++ {
		delete(s.waiters, id)
	}
}

// forget gives up waiting.
func (s *Socket) forget(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLocked(w)
}

// maxUnwritten is how many requests wait for being written; more are refused.
const maxUnwritten = 4096

var errFull = errors.New("WebSocket: too many requests wait for being written")

// send queues a request, and has w take its answer. After an error nothing of it was
// written.
func (s *Socket) send(request []byte, w *waiter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	select {
	case s.out <- request:
	default:
		return &Error{Backend: s.b.opts.Name, Kind: Network, cause: errFull}
	}
	for id := w.first; id < w.first+uint64(w.calls); id++ {
		s.waiters[id] = w
	}
	s.used.Store(time.Now().UnixNano())
	return nil
}

// write writes what is queued until the socket breaks.
func (s *Socket) write() {
	defer s.recovered()
	for {
		select {
		case request := <-s.out:
			ctx, cancel := context.WithTimeout(context.Background(), socketWrite)
			err := s.conn.Write(ctx, websocket.MessageText, request)
			cancel()
			if err != nil {
				s.end(fmt.Errorf("write: %w", err))
				return
			}
		case <-s.dead:
			return
		}
	}
}

func (s *Socket) recovered() {
	if v := recover(); v != nil {
		s.b.opts.Log.Error("panic at the WebSocket of a backend", "backend", s.b.opts.Name, "panic", fmt.Sprint(v))
		s.end(errors.New("internal error"))
	}
}

// errNoAnswer is why a call of the gateway over a socket was given up.
var errNoAnswer = errors.New("no answer in time")

// RPCError is a JSON-RPC error that a backend answered to a call of the gateway's
// own.
type RPCError struct {
	Backend, Method string
	// Class is what the error was taken for, "" where nobody asked.
	Class string
	Code  int64
	// Raw is the error object, without secrets.
	Raw []byte
}

// Error names the backend, the method and the code.
func (e *RPCError) Error() string {
	class := ""
	if e.Class != "" {
		class = " of class " + e.Class
	}
	return fmt.Sprintf("backend %s: %s answered an error%s, code %d", e.Backend, e.Method, class, e.Code)
}

// Ask makes a call of the gateway's own over the socket and returns the result. A
// JSON-RPC error is a *RPCError.
func (s *Socket) Ask(ctx context.Context, method, params string) (result []byte, err error) {
	return s.ask(ctx, method, params, nil, nil)
}

// AskThen is Ask; then runs, when there is a result, before any frame behind the answer
// is taken. It must not wait.
func (s *Socket) AskThen(ctx context.Context, method, params string, then func()) (result []byte, err error) {
	return s.ask(ctx, method, params, func([]byte) { then() }, nil)
}

// ask is Ask; accepted is called with the result by the goroutine that reads, before
// it takes the next frame; abandoned in its place when nobody waits any more.
func (s *Socket) ask(ctx context.Context, method, params string, accepted, abandoned func(result []byte)) ([]byte, error) {
	b := s.b
	type outcome struct {
		result []byte
		err    error
	}
	done := make(chan outcome, 1)
	var w *waiter
	id := b.nextIDs(1)
	w = &waiter{first: id, calls: 1, taken: func(frame []byte, err error) {
		o := outcome{err: err}
		if err == nil {
			o.result, o.err = s.readReply(frame, id, method)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case o.err != nil:
		case accepted != nil && abandoned != nil && !isSubscriptionID(o.result):
			o.err = fmt.Errorf("backend %s: the id of a subscription must be a string or a number", b.opts.Name)
		case w.gone && abandoned != nil:
			abandoned(o.result)
		case !w.gone && accepted != nil:
			accepted(o.result)
		}
		done <- o
	}}
	request := jsonrpc.AppendRequest(nil, &jsonrpc.Call{Method: method, Params: []byte(params)}, id)
	if err := s.send(request, w); err != nil {
		return nil, err
	}
	select {
	case o := <-done:
		return o.result, o.err
	case <-s.dead:
		return nil, s.Err()
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case o := <-done: // in the last moment
		return o.result, o.err
	default:
	}
	if w.gone = true; abandoned == nil {
		s.forgetLocked(w)
	}
	return nil, fmt.Errorf("backend %s: %s: %w", b.opts.Name, method, errNoAnswer)
}

func (s *Socket) readReply(frame []byte, id uint64, method string) ([]byte, error) {
	r, err := jsonrpc.ParseReply(frame)
	if err == nil && !isReplyTo(r, id) {
		err = errWrongID
	}
	if err == nil && r.Error != nil {
		var e jsonrpc.ErrorObject
		if e, err = jsonrpc.ParseError(r.Error); err == nil {
			return nil, &RPCError{Backend: s.b.opts.Name, Method: method, Code: e.Code, Raw: s.b.redact.raw(r.Error)}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", s.b.opts.Name, err)
	}
	return r.Result, nil
}

// watch pings the socket, and closes it when no pong comes or nobody uses it.
func (s *Socket) watch() {
	defer s.recovered()
	tick := time.NewTicker(socketPing)
	defer tick.Stop()
	for {
		select {
		case <-s.dead:
			return
		case now := <-tick.C:
			if s.endIdle(now) {
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), socketPong)
			err := s.conn.Ping(ctx)
			cancel()
			if err != nil {
				s.end(fmt.Errorf("no pong: %w", err))
				return
			}
			if !s.b.HasHTTP() {
				s.b.health.noteHeard(time.Now())
			}
		}
	}
}

var errIdle = errors.New("nobody uses it")

// endIdle ends the socket if nobody has used it for a while.
func (s *Socket) endIdle(now time.Time) bool {
	s.mu.Lock()
	waiting := false
	for _, w := range s.waiters {
		waiting = waiting || !w.gone
	}
	idle := !waiting && len(s.subs) == 0 && s.asking == 0 && now.Sub(time.Unix(0, s.used.Load())) > socketIdle
	idle = idle && s.endLocked(errIdle)
	s.mu.Unlock()
	if idle {
		s.ended(errIdle)
	}
	return idle
}

// end closes the socket for a reason; the first one stands.
func (s *Socket) end(why error) {
	s.mu.Lock()
	first := s.endLocked(why)
	s.mu.Unlock()
	if first {
		s.ended(why)
	}
}

// endLocked lets nobody use the socket any more, and reports whether that is news. The
// caller holds the lock.
func (s *Socket) endLocked(why error) bool {
	if s.err != nil {
		return false
	}
	s.err = &Error{Backend: s.b.opts.Name, Kind: Network, Wrote: true, cause: redactedError{s.b.redact, fmt.Errorf("WebSocket: %w", why)}}
	close(s.dead)
	return true
}

// ended is what follows: the next one may be opened before this one is closed.
func (s *Socket) ended(why error) {
	s.b.sockets.ended(s, why)
	_ = s.conn.CloseNow()
}

// Close ends the socket for everybody who uses it, for a reason.
func (s *Socket) Close(why error) { s.end(why) }
