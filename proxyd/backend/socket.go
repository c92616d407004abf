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
	// not come yet.
	maxEarly = 64
)

// Socket is a WebSocket connection to a backend. Calls and subscriptions share
// it; its methods may be called by many goroutines.
type Socket struct {
	b    *Backend
	conn *websocket.Conn
	born time.Time
	dead chan struct{}
	used atomic.Int64 // when it was used last, in unix nanoseconds

	mu      sync.Mutex
	err     error // why it is dead
	waiters map[uint64]*waiter
	subs    map[string]func(result []byte)
	asking  int // subscriptions whose answer has not come
	early   []earlyNotification
}

// waiter waits for the answer to one request: a call, or a batch of calls.
type waiter struct {
	first uint64
	calls int
	// taken is called by the reader with the frame that holds the answer, once.
	taken func(frame []byte)
}

type earlyNotification struct {
	id     string
	result []byte
}

func newSocket(b *Backend, conn *websocket.Conn) *Socket {
	s := &Socket{
		b: b, conn: conn, born: time.Now(), dead: make(chan struct{}),
		waiters: make(map[uint64]*waiter), subs: make(map[string]func([]byte)),
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
	for {
		_, frame, err := s.conn.Read(context.Background())
		if err != nil {
			s.end(fmt.Errorf("read: %w", err))
			return
		}
		s.used.Store(time.Now().UnixNano())
		s.b.health.noteHeard(time.Now())
		if err := s.take(frame); err != nil {
			s.end(err)
			return
		}
	}
}

// take gives a frame to whom it is for. A frame that is no JSON-RPC ends the
// socket: nothing that comes behind it can be trusted.
func (s *Socket) take(frame []byte) error {
	f, err := jsonrpc.ParseFrame(frame)
	if err != nil {
		return err
	}
	if f.Subscription != nil {
		s.notify(string(f.Subscription), f.Result)
		return nil
	}
	s.mu.Lock()
	var w *waiter
	if id, ok := jsonrpc.ReplyID(f.ID); ok {
		w = s.waiters[id]
	} else if f.Broken && s.lone() != nil {
		w = s.lone() // an error without an id belongs to the only request
	}
	s.forgetLocked(w)
	s.mu.Unlock()
	if w != nil {
		w.taken(frame)
	}
	return nil // otherwise who asked has given up
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

// send writes a request and has w take its answer.
func (s *Socket) send(ctx context.Context, request []byte, w *waiter) error {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return s.err
	}
	for id := w.first; id < w.first+uint64(w.calls); id++ {
		s.waiters[id] = w
	}
	s.mu.Unlock()
	s.used.Store(time.Now().UnixNano())
	// A context that ended in the middle of a frame would cost the socket.
	writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), socketWrite)
	defer cancel()
	if err := s.conn.Write(writing, websocket.MessageText, request); err != nil {
		s.forget(w)
		s.end(fmt.Errorf("write: %w", err))
		return s.Err()
	}
	return nil
}

// errNoAnswer is why a call of the gateway over a socket was given up.
var errNoAnswer = errors.New("no answer in time")

// RPCError is a JSON-RPC error that a backend answered to a call of the gateway's
// own.
type RPCError struct {
	Backend string
	Code    int64
	// Raw is the error object, without secrets.
	Raw []byte
}

// Error names the backend and the code.
func (e *RPCError) Error() string {
	return fmt.Sprintf("backend %s: JSON-RPC error %d", e.Backend, e.Code)
}

// Ask makes a call of the gateway's own over the socket and returns the result. A
// JSON-RPC error is a *RPCError.
func (s *Socket) Ask(ctx context.Context, method, params string) (result []byte, err error) {
	return s.ask(ctx, method, params, nil)
}

// ask is Ask; accepted is called with the result by the goroutine that reads, before
// it takes the next frame.
func (s *Socket) ask(ctx context.Context, method, params string, accepted func(result []byte)) ([]byte, error) {
	b := s.b
	type outcome struct {
		result []byte
		err    error
	}
	done := make(chan outcome, 1)
	id := b.nextIDs(1)
	w := &waiter{first: id, calls: 1, taken: func(frame []byte) {
		var o outcome
		o.result, o.err = s.readReply(frame, id)
		if o.err == nil && accepted != nil {
			accepted(o.result)
		}
		done <- o
	}}
	request := jsonrpc.AppendRequest(nil, &jsonrpc.Call{Method: method, Params: []byte(params)}, id)
	if err := s.send(ctx, request, w); err != nil {
		return nil, err
	}
	select {
	case o := <-done:
		return o.result, o.err
	case <-s.dead:
		return nil, s.Err()
	case <-ctx.Done():
		s.forget(w)
		return nil, fmt.Errorf("backend %s: %s: %w", b.opts.Name, method, errNoAnswer)
	}
}

func (s *Socket) readReply(frame []byte, id uint64) ([]byte, error) {
	r, err := jsonrpc.ParseReply(frame)
	if err == nil && !isReplyTo(r, id) {
		err = errWrongID
	}
	if err == nil && r.Error != nil {
		var e jsonrpc.ErrorObject
		if e, err = jsonrpc.ParseError(r.Error); err == nil {
			return nil, &RPCError{Backend: s.b.opts.Name, Code: e.Code, Raw: s.b.redact.raw(r.Error)}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", s.b.opts.Name, err)
	}
	return r.Result, nil
}

// Subscribe makes a subscription with the method eth_subscribe. taken gets the result
// of each notification, from the first one on, in order; it is called by the goroutine
// that reads the socket and must not wait. The id is the backend's, for Unsubscribe.
func (s *Socket) Subscribe(ctx context.Context, params string, taken func(result []byte)) (id string, err error) {
	s.mu.Lock()
	s.asking++
	s.mu.Unlock()
	_, err = s.ask(ctx, "eth_subscribe", params, func(result []byte) {
		s.mu.Lock()
		defer s.mu.Unlock()
		id = string(result)
		s.subs[id] = taken
		for _, n := range s.early { // some notify before they answer
			if n.id == id {
				taken(n.result)
			}
		}
	})
	s.mu.Lock()
	if s.asking--; s.asking == 0 {
		s.early = nil
	}
	s.mu.Unlock()
	if err != nil {
		return "", err
	}
	return id, nil
}

// Unsubscribe ends a subscription. Nothing is taken any more when it returns; the
// backend is told without waiting for its answer.
func (s *Socket) Unsubscribe(ctx context.Context, id string) {
	s.mu.Lock()
	_, ok := s.subs[id]
	delete(s.subs, id)
	s.mu.Unlock()
	if !ok {
		return
	}
	w := &waiter{first: s.b.nextIDs(1), calls: 1, taken: func([]byte) {}}
	_ = s.send(ctx, jsonrpc.AppendRequest(nil, &jsonrpc.Call{Method: "eth_unsubscribe", Params: []byte("[" + id + "]")}, w.first), w)
}

// notify gives a notification to its subscription.
func (s *Socket) notify(id string, result []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if taken := s.subs[id]; taken != nil {
		taken(result)
	} else if s.asking > 0 && len(s.early) < maxEarly {
		s.early = append(s.early, earlyNotification{id, result})
	}
}

// watch pings the socket, and closes it when no pong comes or nobody uses it.
func (s *Socket) watch() {
	tick := time.NewTicker(socketPing)
	defer tick.Stop()
	for {
		select {
		case <-s.dead:
			return
		case now := <-tick.C:
			if s.idle(now) {
				s.end(errIdle)
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), socketPong)
			err := s.conn.Ping(ctx)
			cancel()
			if err != nil {
				s.end(fmt.Errorf("no pong: %w", err))
				return
			}
			s.b.health.noteHeard(time.Now())
		}
	}
}

var errIdle = errors.New("nobody uses it")

func (s *Socket) idle(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiters) == 0 && len(s.subs) == 0 && s.asking == 0 && now.Sub(time.Unix(0, s.used.Load())) > socketIdle
}

// end closes the socket for a reason; the first one stands.
func (s *Socket) end(why error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = &Error{Backend: s.b.opts.Name, Kind: Network, Wrote: true, cause: redactedError{s.b.redact, fmt.Errorf("WebSocket: %w", why)}}
	s.mu.Unlock()
	close(s.dead)
	_ = s.conn.CloseNow()
	s.b.sockets.ended(s, why)
}

// Close ends the socket for everybody who uses it, for a reason.
func (s *Socket) Close(why error) { s.end(why) }
