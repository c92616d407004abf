// Package subscribe serves eth_subscribe. Equal subscriptions of all clients share
// one at a backend, and outlive it: when the backend's socket dies, falls silent or
// goes out of service, another backend is followed, and what was missed between the
// two is fetched, so that clients see every event once and in order.
//
// One goroutine per chain, the follower, has everything that happens to events: it
// follows one backend at a time.
package subscribe

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/jsonrpc"
)

// Options configures a Hub. Zero values mean the stated default.
type Options struct {
	// Group is the group whose members are followed. Required.
	Group *group.Group
	// PollInterval is how often a backend without WebSocket is asked for its head.
	// Default 2 s.
	PollInterval time.Duration
	// HeadStall is how long no head may come before others are asked whether they
	// have one; 0 is four times the usual time between heads.
	HeadStall time.Duration
	// ReplayBlocks is how many blocks are fetched at most to close a gap. Default
	// 128.
	ReplayBlocks int
	// CountGaps lets subscriptions go on behind a gap that cannot be closed; else
	// their sockets are ended.
	CountGaps bool
	// Grace is how long a subscription is kept after its last client has left.
	// Default 10 s.
	Grace time.Duration
	// MaxPerSession bounds the subscriptions of one client's socket. Default 100.
	MaxPerSession int
	// MaxFeeds bounds the different subscriptions of all clients together. Default
	// 10,000.
	MaxFeeds int
	// CallTimeout bounds each call of the hub's own, ReplayTimeout the closing of a
	// gap with one backend. Defaults 5 s and 10 s.
	CallTimeout, ReplayTimeout time.Duration
	// Tick is how often the followed backend is looked at. Default 1 s.
	Tick time.Duration
	// Metrics and Log are required.
	Metrics *Metrics
	Log     *slog.Logger
}

// Hub serves the subscriptions of one chain. It is the jsonrpc.Handler of
// eth_subscribe and eth_unsubscribe.
type Hub struct {
	opts Options
	base context.Context
	stop context.CancelFunc

	mu       sync.Mutex
	feeds    map[string]*feed
	fresh    []*feed // those that no source was asked for yet
	gone     []*feed // those that had to make room for others
	sessions map[jsonrpc.Session]map[string]*subscription
	running  bool // the follower
	closed   bool
	changed  chan struct{} // has room for one: feeds have come or gone
	follower sync.WaitGroup
}

// New builds a hub. Nothing runs before the first subscription.
func New(o Options) *Hub {
	setDefault(&o.PollInterval, 2*time.Second)
	setDefault(&o.ReplayBlocks, 128)
	setDefault(&o.Grace, 10*time.Second)
	setDefault(&o.MaxPerSession, 100)
	setDefault(&o.MaxFeeds, 10_000)
	setDefault(&o.CallTimeout, 5*time.Second)
	setDefault(&o.ReplayTimeout, 10*time.Second)
	setDefault(&o.Tick, time.Second)
	h := &Hub{
		opts: o, feeds: make(map[string]*feed), sessions: make(map[jsonrpc.Session]map[string]*subscription),
		changed: make(chan struct{}, 1),
	}
	h.base, h.stop = context.WithCancel(context.Background())
	return h
}

func setDefault[T comparable](v *T, otherwise T) {
	var none T
	if *v == none {
		*v = otherwise
	}
}

// Close ends the upstream subscriptions and waits for the follower. Clients' sockets
// are for their owner to close.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.stop()
	h.follower.Wait()
}

// Errors that clients are told with a code of their own.
var (
	errNotFound   = rpcError{-32000, "subscription not found"}
	errHTTP       = rpcError{-32601, "notifications not supported: subscribe over WebSocket"}
	errTooMany    = rpcError{-32005, "too many subscriptions on this socket: unsubscribe from some"}
	errFull       = rpcError{-32005, "too many different subscriptions: try again later"}
	errNeedSocket = rpcError{-32601, "this subscription needs a backend with ws_url, and none can be reached now"}
	errUnanswered = rpcError{-32601, "the backend did not answer to such a subscription"}
)

var errInternal = errors.New("internal error")

var errClosed = fmt.Errorf("the gateway is shutting down: %w", context.Canceled)

// ServeRPC implements jsonrpc.Handler.
func (h *Hub) ServeRPC(ctx context.Context, calls []*jsonrpc.Call) {
	pending := jsonrpc.Pending(calls)
	if len(pending) == 1 {
		h.serve(ctx, pending[0])
		return
	}
	var wg sync.WaitGroup
	for _, c := range pending {
		wg.Go(func() { h.serve(ctx, c) })
	}
	wg.Wait()
}

func (h *Hub) serve(ctx context.Context, c *jsonrpc.Call) {
	defer func() {
		if v := recover(); v != nil {
			h.opts.Log.Error("panic in a subscription", "panic", fmt.Sprint(v))
			c.Answer, c.Err = nil, errInternal
		}
	}()
	result, err := h.answer(ctx, c)
	var refused rpcError
	var upstream *upstreamError
	switch {
	case err == nil:
		c.Answer = &jsonrpc.Answer{Result: result, Backend: "proxyd", Group: h.opts.Group.Name()}
	case errors.As(err, &refused):
		c.Answer = &jsonrpc.Answer{Error: refused.json(), Code: refused.code, Backend: "proxyd", Group: h.opts.Group.Name()}
	case errors.As(err, &upstream):
		c.Answer = &jsonrpc.Answer{Error: upstream.raw, Code: upstream.code, Backend: upstream.backend, Group: h.opts.Group.Name()}
	default:
		c.Err = err
	}
}

func (h *Hub) answer(ctx context.Context, c *jsonrpc.Call) (result []byte, err error) {
	session := c.Client.Session
	switch {
	case session == nil:
		return nil, errHTTP
	case c.Method == "eth_unsubscribe":
		id, ok := subscriptionID(c.Params)
		if !ok {
			return nil, rpcError{-32602, "invalid params: want the id of a subscription"}
		}
		if !h.unsubscribe(session, id) {
			return nil, errNotFound
		}
		return []byte("true"), nil
	}
	spec, err := parseSpec(c.Params)
	if err != nil {
		return nil, err
	}
	sub, err := h.subscribe(ctx, session, spec)
	if err != nil {
		return nil, err
	}
	c.Then = sub.begin
	return jsonrpc.AppendString(nil, sub.id), nil
}

// subscription is one client's.
type subscription struct {
	id      string
	session jsonrpc.Session
	feed    *feed
	begun   bool // its client was told the id; guarded by feed.mu
}

// begin lets notifications flow: they must not come before the id.
func (s *subscription) begin() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.begun = true
	if s.feed.last != nil { // a state, which is worth telling at once
		s.session.Notify(s.id, s.feed.last)
	}
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return "0x" + hex.EncodeToString(b[:])
}

// subscribe adds a subscription and waits until a backend serves it.
func (h *Hub) subscribe(ctx context.Context, session jsonrpc.Session, spec spec) (*subscription, error) {
	sub := &subscription{id: newID(), session: session}
	if err := h.join(sub, spec); err != nil {
		return nil, err
	}
	err := sub.feed.await(ctx)
	if err != nil {
		h.unsubscribe(session, sub.id)
		return nil, err
	}
	return sub, nil
}

// join adds a subscription to the feed of its kind.
func (h *Hub) join(sub *subscription, spec spec) error {
	h.mu.Lock()
	own, known := h.sessions[sub.session]
	f := h.feeds[spec.key]
	switch {
	case h.closed:
		h.mu.Unlock()
		return errClosed
	case len(own) >= h.opts.MaxPerSession:
		h.mu.Unlock()
		return errTooMany
	case f == nil && len(h.feeds) >= h.opts.MaxFeeds && !h.hurry():
		h.mu.Unlock()
		return errFull
	}
	if !known {
		own = make(map[string]*subscription)
		h.sessions[sub.session] = own
	}
	own[sub.id] = sub
	if f == nil {
		f = newFeed(spec, h.opts.Metrics)
		h.feeds[spec.key] = f
		h.fresh = append(h.fresh, f)
	}
	sub.feed = f
	f.add(sub)
	h.note()
	h.mu.Unlock()
	if !known { // it may have ended already, and then this leaves
		sub.session.OnEnd(func() { h.leave(sub.session) })
	}
	return nil
}

// hurry takes out the feed that has been without clients for longest, and reports whether
// there was one. The caller holds the lock.
func (h *Hub) hurry() bool {
	var oldest *feed
	var since time.Time
	for _, f := range h.feeds {
		if at, empty := f.emptySince(); empty && (oldest == nil || at.Before(since)) {
			oldest, since = f, at
		}
	}
	if oldest == nil {
		return false
	}
	delete(h.feeds, oldest.key)
	h.gone = append(h.gone, oldest)
	return true
}

// note tells the follower that feeds have changed, and starts it if it is not there.
// The caller holds the lock.
func (h *Hub) note() {
	h.signal()
	if !h.running && !h.closed && len(h.feeds) > 0 {
		h.running = true
		h.follower.Go(newFollower(h).run)
	}
}

func (h *Hub) signal() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// unsubscribe removes a session's subscription, and reports whether it had it.
func (h *Hub) unsubscribe(session jsonrpc.Session, id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := h.sessions[session][id]
	if sub == nil {
		return false
	}
	delete(h.sessions[session], id)
	sub.feed.remove(sub)
	h.note()
	return true
}

// leave removes all subscriptions of a session that has ended.
func (h *Hub) leave(session jsonrpc.Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, sub := range h.sessions[session] {
		sub.feed.remove(sub)
	}
	delete(h.sessions, session)
	h.note()
}

// upstreamError is a backend's refusal of a subscription.
type upstreamError struct {
	backend string
	code    int64
	raw     []byte
}

func (e *upstreamError) Error() string { return "backend " + e.backend + " refused the subscription" }

// rpcError is an error that the hub answers itself.
type rpcError struct {
	code    int64
	message string
}

func (e rpcError) Error() string { return e.message }

func (e rpcError) json() []byte {
	return jsonrpc.AppendErrorObject(nil, e.code, e.message, nil)
}
