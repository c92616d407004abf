// Package cache answers calls from what was answered before: an answer that is
// kept, or one that is on its way to somebody else. What may be kept or shared
// is the method table's word; how long, the policy's.
package cache

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// Options configures a Cache. Zero values mean the stated default.
type Options struct {
	// Store keeps the answers; nil keeps none, and only coalescing works.
	Store Store
	// Namespace is put before every key.
	Namespace string
	// TTL is how long immutable answers are kept. Default DefaultTTL.
	TTL time.Duration
	// Rules keep the answers of further methods. The method table must allow
	// it.
	Rules []Rule
	// Coalesce are methods or patterns whose equal calls in flight share one
	// attempt, beside those that are cached.
	Coalesce []string
	// Timeout bounds a shared attempt, which has a deadline of its own. Where
	// it is a little shorter than the clients' own, the elements of a batch
	// that were answered by then are kept. Default 10 s.
	Timeout time.Duration
	// MaxBatch is the most calls of a client's batch that one shared attempt
	// carries: what is joined upstream, so that nobody waits for more than
	// that. Default 10.
	MaxBatch int
	// MaxShared is the largest result in bytes that is kept or shared. Default
	// 8 MiB.
	MaxShared int
	// Metrics and Log are required.
	Metrics *Metrics
	Log     *slog.Logger
}

// Cache is a stage of the handler chain, shared by all routes.
type Cache struct {
	opts     Options
	seed     maphash.Seed
	rules    jsonrpc.Patterns[time.Duration]
	coalesce jsonrpc.Patterns[bool]

	// base is the context of shared attempts, which outlive their clients.
	base   context.Context
	stop   context.CancelFunc
	shared sync.WaitGroup

	mu      sync.Mutex
	flights map[string]*flight
	closed  bool
}

// New builds a cache.
func New(o Options) *Cache {
	if o.TTL <= 0 {
		o.TTL = DefaultTTL
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = 10
	}
	if o.MaxShared <= 0 {
		o.MaxShared = 8 << 20
	}
	c := &Cache{opts: o, seed: maphash.MakeSeed(), flights: make(map[string]*flight)}
	c.base, c.stop = context.WithCancel(context.Background())
	for _, r := range o.Rules {
		c.rules.Set(r.Method, r.TTL)
	}
	for _, m := range o.Coalesce {
		c.coalesce.Set(m, true)
	}
	return c
}

// Close ends the shared attempts under way and waits for them. Calls that come
// later end with context.Canceled where they would need one.
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.shared.Wait()
}

// Middleware answers what it can and passes the rest to next.
func (c *Cache) Middleware(next jsonrpc.Handler) jsonrpc.Handler {
	return jsonrpc.HandlerFunc(func(ctx context.Context, calls []*jsonrpc.Call) { c.serve(ctx, calls, next) })
}

// plan is what is to be done for one call.
type plan struct {
	call   *jsonrpc.Call
	key    string
	ttl    time.Duration
	twin   *jsonrpc.Call // an equal read before it in the same batch
	flight *flight       // an equal call in flight, its own or another's
	leads  bool          // the flight is its own
}

func (c *Cache) serve(ctx context.Context, calls []*jsonrpc.Call, next jsonrpc.Handler) {
	if len(calls) == 1 && !calls[0].Done() && !c.shares(calls[0]) {
		next.ServeRPC(ctx, calls)
		return
	}
	var room [1]string
	keys := c.keys(room[:0], calls, c.shares)
	answers := block{most: len(calls)}
	twins := twins{seed: c.seed, calls: calls, keys: keys}
	var rest []*jsonrpc.Call // what goes on as it is
	var waiting []plan       // what waits for a flight or a twin
	var lead []plan          // what is asked on behalf of all who wait
	for i, call := range calls {
		if call.Done() {
			continue
		}
		p := plan{call: call, key: keys[i], ttl: c.ttl(call)}
		share := p.ttl > 0 || c.coalesces(call)
		dedupe := len(calls) > 1 && call.Row.Coalesce && call.Row.Class == jsonrpc.Read
		if p.ttl > 0 && c.hit(ctx, &p, &answers) {
			continue
		}
		if dedupe {
			if p.twin = twins.elder(i); p.twin != nil {
				waiting = append(waiting, p)
				continue
			}
		}
		if rest == nil {
			rest = make([]*jsonrpc.Call, 0, len(calls))
		}
		switch {
		case !share:
			rest = append(rest, call)
		case !call.Row.Coalesce || !c.joins(call):
			if p.ttl > 0 {
				lead = append(lead, p) // kept, but not shared while in flight
			} else {
				rest = append(rest, call)
			}
		case c.join(&p):
			lead = append(lead, p)
		default:
			waiting = append(waiting, p)
		}
	}
	if len(lead) > 0 {
		c.lead(lead, next)
	}
	if len(rest) > 0 {
		next.ServeRPC(ctx, rest)
	}
	c.await(ctx, lead, waiting, next)
}

func (c *Cache) coalesces(call *jsonrpc.Call) bool {
	if c.coalesce.Len() == 0 || !call.Row.Coalesce {
		return false
	}
	_, _, ok := c.coalesce.Lookup(call.Method)
	return ok
}

// shares reports whether an answer to the call may be kept, or shared while it is
// on its way.
func (c *Cache) shares(call *jsonrpc.Call) bool { return c.ttl(call) > 0 || c.coalesces(call) }

// joins reports whether the call may wait for an equal one that was asked before
// it came. Behind a send of its own batch it may not, unless the answer is the
// same for good.
func (c *Cache) joins(call *jsonrpc.Call) bool {
	return call.Epoch == 0 || call.Row.Immutable != jsonrpc.Never
}

// block allocates the answers to a batch at once.
type block struct {
	most int
	free []jsonrpc.Answer
}

func (b *block) next() *jsonrpc.Answer {
	if len(b.free) == 0 {
		b.free = make([]jsonrpc.Answer, b.most)
	}
	a := &b.free[0]
	b.free = b.free[1:]
	return a
}

// hit answers the call from the store.
func (c *Cache) hit(ctx context.Context, p *plan, answers *block) bool {
	value, ok, err := c.opts.Store.Get(ctx, p.key)
	switch {
	case err != nil:
		c.opts.Metrics.errors.WithLabelValues(p.call.Label).Inc()
		c.opts.Log.Warn("cache read failed", "method", p.call.Label, "error", err)
	case ok:
		c.opts.Metrics.of(p.call.Label).hits.Inc()
		p.call.Answer = answers.next()
		p.call.Answer.Result, p.call.Answer.Backend = value, "cache"
		return true
	}
	c.opts.Metrics.of(p.call.Label).misses.Inc()
	return false
}

// put keeps a flight's answer if the policy allows.
func (c *Cache) put(p *plan, call *jsonrpc.Call) {
	if p.ttl <= 0 || call.Answer == nil || !storable(call.Row, call.Answer) || len(call.Answer.Result) > c.opts.MaxShared {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := c.opts.Store.Put(ctx, p.key, call.Answer.Result, p.ttl); err != nil {
		c.opts.Metrics.errors.WithLabelValues(call.Label).Inc()
		c.opts.Log.Warn("cache write failed", "method", call.Label, "error", err)
	}
}

// recovered runs f and turns a panic into an error for the calls it left open.
func (c *Cache) recovered(calls []*jsonrpc.Call, f func()) {
	defer func() {
		if p := recover(); p != nil {
			c.opts.Log.Error("panic in a shared attempt", "panic", fmt.Sprint(p))
			for _, call := range jsonrpc.Pending(calls) {
				call.Err = errPanic
			}
		}
	}()
	f()
}
