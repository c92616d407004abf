// Package group answers calls from a set of backends that can serve the same
// methods. A strategy says in which order they are asked; rounds of attempts
// apply failover and retries to whatever the order is.
package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// Member is a backend's place in a group.
type Member struct {
	*backend.Backend
	// Weight is the share of first picks with weighted routing.
	Weight int
	// Tier 0 is asked first; a higher tier only when no member of a lower one
	// can serve.
	Tier int
}

// Options configures a group. Zero values mean the stated default.
type Options struct {
	Name    string
	Members []*Member
	// Strategy is the name of a strategy; "" is fallback.
	Strategy string
	// Weighted shuffles the members of a tier by weight.
	Weighted bool
	// MaxBatch is the most calls joined into one upstream batch. Default 10.
	MaxBatch int
	// MaxAttempts caps the attempts for one call, 0 for no cap beyond the
	// rounds.
	MaxAttempts int
	// MaxRetries is the number of extra rounds; nil takes the largest of the
	// members.
	MaxRetries *int
	// RetryDelay is the wait before the second try at the same backend, which
	// doubles. Default 1 s, at most 3 s, as the incumbent; a set value is not
	// capped.
	RetryDelay *time.Duration
	// Metrics and Log are required.
	Metrics *Metrics
	Log     *slog.Logger
}

// Strategy puts members in the order in which a call asks them.
type Strategy interface {
	// Order returns the members in order of preference. Tiers and health are
	// applied afterwards. The result is not changed by anybody.
	Order() []*Member
	// Spreads reports whether the strategy spreads load, so that soft signs of
	// ill health count only while half of the group is well.
	Spreads() bool
}

// strategies is the table of strategies. A new one is a file and a line here.
var strategies = map[string]func(Options) Strategy{
	"":         newFallback,
	"fallback": newFallback,
}

// Group is a set of backends. It is a jsonrpc.Handler.
type Group struct {
	opts     Options
	strategy Strategy
	rounds   int // extra rounds
}

// New builds a group.
func New(o Options) (*Group, error) {
	build, ok := strategies[o.Strategy]
	if !ok {
		return nil, fmt.Errorf("backend group %s: unknown routing strategy %q", o.Name, o.Strategy)
	}
	if len(o.Members) == 0 {
		return nil, fmt.Errorf("backend group %s: no backends", o.Name)
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = 10
	}
	g := &Group{opts: o}
	if o.MaxRetries != nil {
		g.rounds = *o.MaxRetries
	} else {
		for _, m := range o.Members {
			g.rounds = max(g.rounds, m.MaxRetries())
		}
	}
	g.rounds = max(0, min(g.rounds, maxRounds))
	g.strategy = build(o)
	return g, nil
}

// Name is the group's name in the configuration.
func (g *Group) Name() string { return g.opts.Name }

// Members are the group's members, in the order of the configuration.
func (g *Group) Members() []*Member { return g.opts.Members }

// Usable reports whether any member would be asked in its turn.
func (g *Group) Usable() bool {
	return slices.ContainsFunc(g.opts.Members, func(m *Member) bool { return m.Standing().State <= backend.Trial })
}

// maxRounds bounds the extra rounds, whatever the configuration says: the time of
// a call ends long before.
const maxRounds = 100

// chunksAtOnce bounds the upstream batches of one client batch in flight.
const chunksAtOnce = 16

// ServeRPC asks the members for all calls that are not Done. Calls are joined
// into upstream batches, reads apart from the rest, and these are sent in
// parallel; each fails over on its own.
func (g *Group) ServeRPC(ctx context.Context, calls []*jsonrpc.Call) {
	calls = jsonrpc.Pending(calls)
	switch len(calls) {
	case 0:
		return
	case 1:
		g.run(ctx, calls)
		return
	}
	reads, rest := calls, []*jsonrpc.Call(nil)
	if slices.ContainsFunc(calls, func(c *jsonrpc.Call) bool { return c.Row.Class != jsonrpc.Read }) {
		reads = nil
		for _, c := range calls {
			if c.Row.Class == jsonrpc.Read {
				reads = append(reads, c)
			} else {
				rest = append(rest, c)
			}
		}
	}
	if len(reads) <= g.opts.MaxBatch && len(rest) == 0 {
		defer g.recovered(reads)
		g.run(ctx, reads)
		return
	}
	chunks := slices.AppendSeq(slices.Collect(slices.Chunk(reads, g.opts.MaxBatch)), slices.Chunk(rest, g.opts.MaxBatch))
	var wg sync.WaitGroup
	turns := make(chan struct{}, chunksAtOnce)
	for _, chunk := range chunks {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			defer g.recovered(chunk)
			g.run(ctx, chunk)
		})
	}
	wg.Wait()
}

// errPanic is answered for calls that a panic left open.
var errPanic = errors.New("internal error")

// recovered turns a panic into an error for the calls that it left open.
func (g *Group) recovered(calls []*jsonrpc.Call) {
	if p := recover(); p != nil {
		g.opts.Log.Error("panic in a backend group", "backend_group", g.opts.Name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		for _, c := range jsonrpc.Pending(calls) {
			c.Err = errPanic
		}
	}
}
