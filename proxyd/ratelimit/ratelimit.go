// Package ratelimit refuses calls of clients that ask too often: a base rate for
// every call, and further limits for single methods. Each call of a batch
// counts.
package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/ulule/limiter/v3"

	"gateway.internal/proxyd/jsonrpc"
)

// Key says by what calls are counted.
type Key string

const (
	// ByAddress counts by the client's address, IPv6 by its /64.
	ByAddress Key = "address"
	// ByAlias counts by the alias of the client's key, and by address for
	// clients without one.
	ByAlias Key = "alias"
	// ByBoth counts by each of them, and both limits hold.
	ByBoth Key = "both"
)

// Limit allows Calls in each Interval.
type Limit struct {
	Calls    int64
	Interval time.Duration
	// Global limits hold for exempt clients too.
	Global bool
	// Shared limits have one counter for all clients.
	Shared bool
}

// Options configures a Limiter. Zero values mean the stated default.
type Options struct {
	// Base limits every call; without Calls there is no base limit.
	Base Limit
	// Methods limits methods or patterns of methods, beside Base.
	Methods map[string]Limit
	// Key says by what is counted. Default ByAddress.
	Key Key
	// ExemptOrigins and ExemptUserAgents free the clients whose header they
	// match, except from global limits.
	ExemptOrigins, ExemptUserAgents []*regexp.Regexp
	// Store counts. Default NewMemory(0).
	Store limiter.Store
	// Metrics and Log are required.
	Metrics *Metrics
	Log     *slog.Logger
}

// Refused says that a client is over a limit.
type Refused struct {
	// Limit is the number of calls allowed in the window.
	Limit int64
	// Reset is the time until the window ends.
	Reset time.Duration
}

// Error names the limit.
func (r *Refused) Error() string { return fmt.Sprintf("over rate limit of %d calls", r.Limit) }

// ErrStore is answered when the store fails: a limit that cannot be counted
// holds.
var ErrStore = errors.New("rate limit store failed")

// Limiter is a stage of the handler chain, shared by all routes.
type Limiter struct {
	opts    Options
	base    *rule
	methods jsonrpc.Patterns[*rule]
}

type rule struct {
	prefix string
	limit  Limit
	rate   limiter.Rate
}

// New builds a limiter.
func New(o Options) *Limiter {
	if o.Store == nil {
		o.Store = NewMemory(0)
	}
	if o.Key == "" {
		o.Key = ByAddress
	}
	l := &Limiter{opts: o}
	if o.Base.Calls > 0 {
		l.base = newRule("main", o.Base)
	}
	for method, limit := range o.Methods {
		l.methods.Set(method, newRule(method, limit))
	}
	return l
}

func newRule(name string, limit Limit) *rule {
	if limit.Interval <= 0 {
		limit.Interval = time.Second
	}
	return &rule{prefix: name + ":", limit: limit, rate: limiter.Rate{Limit: limit.Calls, Period: limit.Interval}}
}

// Limits reports whether any limit is set.
func (l *Limiter) Limits() bool { return l.base != nil || l.methods.Len() > 0 }

// Middleware refuses what is over a limit and passes the rest to next.
func (l *Limiter) Middleware(next jsonrpc.Handler) jsonrpc.Handler {
	return jsonrpc.HandlerFunc(func(ctx context.Context, calls []*jsonrpc.Call) {
		l.charge(ctx, calls)
		if calls = jsonrpc.Pending(calls); len(calls) > 0 {
			next.ServeRPC(ctx, calls)
		}
	})
}

// charge counts the calls and gives those that are over a limit their error. All
// calls must be of one client.
func (l *Limiter) charge(ctx context.Context, calls []*jsonrpc.Call) {
	calls = jsonrpc.Pending(calls)
	if len(calls) == 0 || calls[0].Client.Exempt {
		return
	}
	exempt := l.exempt(calls[0].Client)
	if l.base != nil && (!exempt || l.base.limit.Global) {
		l.apply(ctx, l.base, calls)
	}
	if l.methods.Len() == 0 {
		return
	}
	if len(calls) == 1 {
		if r, _, ok := l.methods.Lookup(calls[0].Method); ok && !calls[0].Done() && (!exempt || r.limit.Global) {
			l.apply(ctx, r, calls)
		}
		return
	}
	perRule := make(map[*rule][]*jsonrpc.Call)
	for _, c := range calls {
		if r, _, ok := l.methods.Lookup(c.Method); ok && !c.Done() && (!exempt || r.limit.Global) {
			perRule[r] = append(perRule[r], c)
		}
	}
	for r, calls := range perRule {
		l.apply(ctx, r, calls)
	}
}

// apply charges the calls to one rule. What still fits passes, from the front.
func (l *Limiter) apply(ctx context.Context, r *rule, calls []*jsonrpc.Call) {
	client := calls[0].Client
	if r.limit.Shared {
		l.take(ctx, r, "*", calls)
		return
	}
	byAlias := client.Auth != "" && client.Auth != "none" && l.opts.Key != ByAddress
	if byAlias {
		l.take(ctx, r, "alias "+client.Auth, calls)
	}
	if !byAlias || l.opts.Key == ByBoth {
		l.take(ctx, r, client.Key, calls)
	}
}

func (l *Limiter) take(ctx context.Context, r *rule, key string, calls []*jsonrpc.Call) {
	n := int64(len(calls))
	got, err := l.opts.Store.Increment(ctx, r.prefix+key, n, r.rate)
	if err != nil {
		l.opts.Metrics.errors.Inc()
		l.opts.Log.Error("rate limit store failed", "error", err)
		for _, c := range calls {
			c.Err = ErrStore
		}
		return
	}
	if !got.Reached {
		return
	}
	fits := max(0, n+min(0, got.Remaining))
	if got.Remaining >= 0 {
		fits = 0 // a store that does not tell by how much the limit is passed
	}
	refused := &Refused{Limit: got.Limit, Reset: max(0, time.Until(time.Unix(got.Reset, 0)))}
	for _, c := range calls[fits:] {
		if c.Done() {
			continue // over the other of two limits already
		}
		c.Err = refused
		l.opts.Metrics.refused.WithLabelValues(c.Label).Inc()
	}
}

// exempt reports whether the client's headers free it from limits that are not
// global.
func (l *Limiter) exempt(client *jsonrpc.Client) bool {
	for _, re := range l.opts.ExemptOrigins {
		if client.Origin != "" && re.MatchString(client.Origin) {
			return true
		}
	}
	for _, re := range l.opts.ExemptUserAgents {
		if client.UserAgent != "" && re.MatchString(client.UserAgent) {
			return true
		}
	}
	return false
}
