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
	"sync/atomic"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
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
	// Public members are the ones that PublicAttempts counts.
	Public bool
	// Archive members are asked for calls that want an archive.
	Archive bool
	// Cost is the relative price of a call, for the strategy scored.
	Cost float64

	index int // in Options.Members
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
	// TryTimeout bounds one attempt beside the backend's response timeout,
	// TotalTimeout a call in this group; 0 is no bound.
	TryTimeout, TotalTimeout time.Duration
	// Final says which errors are the client's at once.
	Final Final
	// PublicAttempts is how many public members are asked before others, where
	// their tier is the first; 0 is no limit.
	PublicAttempts int
	// MaxBlockLag is how many blocks a member's head may be behind the group's;
	// nil does not look. Heads older than HeadMaxAge say nothing.
	MaxBlockLag *uint64
	HeadMaxAge  time.Duration
	// FailBack is when sticky returns to its first member; 0 is never.
	FailBack time.Duration
	// Rank configures ranked.
	Rank Rank
	// RPCErrorCheck lets multicall answer with an error only when no member may
	// accept the transaction any more.
	RPCErrorCheck bool
	// Hedge asks slow reads twice; nil never does.
	Hedge *Hedge
	// Budget bounds retries in later rounds, and hedges; nil bounds hedges by
	// the default and retries not at all.
	Budget *Budget
	// Metrics and Log are required.
	Metrics *Metrics
	Log     *slog.Logger
}

// Strategy puts members in the order in which calls ask them.
type Strategy interface {
	// Arrange puts members that are equally fit and of one tier in order of
	// preference. It gets at least one, in the order of the configuration.
	Arrange(members []*Member, ask Ask)
	// Spreads reports whether the strategy spreads load, so that soft signs of
	// ill health count only while half of the group is well.
	Spreads() bool
}

// What a strategy may do besides.
type (
	// usageWatcher is told of the calls that are sent to a member.
	usageWatcher interface{ asked(m *Member, calls int) }
	// outcomeWatcher is told how attempts ended.
	outcomeWatcher interface{ ended(m *Member, e ending) }
	// preferrer has a member that it prefers until another answers.
	preferrer interface {
		begin() uint64
		answered(begun uint64, m *Member) (moved bool)
		prefers() int
	}
	// finalizer says which errors are the client's at once.
	finalizer interface {
		final(o classify.Outcome, status int) bool
	}
	// worker does something by itself between start and close.
	worker interface {
		start()
		close()
	}
	// lister may leave members in the order of the list.
	lister interface{ inList() bool }
	// broadcaster sends some calls to all members.
	broadcaster interface {
		broadcasts(c *jsonrpc.Call) bool
	}
	// bound wants to know its group.
	bound interface{ bind(g *Group) }
)

// ending is how an attempt ended.
type ending struct {
	label string
	how   how
	took  time.Duration
	timed bool // took says something about latency: not that of an error, which may be quick
	at    time.Time
}

type how uint8

const (
	wasAnswered how = iota
	hasFailed
	wasLimited // by the member, which asked to be left alone
	wasOutrun  // a hedge answered first
)

// strategies is the table of strategies. A new one is a file and a line here.
var strategies = map[string]func(Options) Strategy{
	"":            newFallback,
	"fallback":    newFallback,
	"round_robin": newRoundRobin,
	"random":      newRandom,
	"sticky":      newSticky,
	"ranked":      newRanked,
	"least_used":  newLeastUsed,
	"scored":      newScored,
	"multicall":   newMulticall,
}

// Group is a set of backends. It is a jsonrpc.Handler.
type Group struct {
	opts     Options
	members  []*Member // by tier
	strategy Strategy
	inList   bool // the order is that of members while all are well
	rounds   int  // extra rounds
	counts   counts

	// The strategy again, nil where it does not do the thing.
	usage    usageWatcher
	outcomes outcomeWatcher
	prefers  preferrer
	finals   finalizer

	latencies   sketches // of methods, for hedges
	hedgeBudget *budget
	retryBudget *budget // nil for none

	made     time.Time
	verified atomic.Bool // a member's chain is known, or was waited for

	lagging atomic.Uint64 // a bit for each member that is behind, by index

	noting sync.Mutex // of the preferred member in the metrics

	sends sync.WaitGroup // of multicall that go on after their call
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
	setDefault(&o.HeadMaxAge, time.Minute)
	g := &Group{opts: o, members: slices.Clone(o.Members), counts: o.Metrics.countsOf(o.Name), made: time.Now(), latencies: sketches{window: hedgeWindow}}
	for i, m := range o.Members {
		m.index = i
	}
	slices.SortStableFunc(g.members, func(a, b *Member) int { return a.Tier - b.Tier })
	if o.MaxRetries != nil {
		g.rounds = *o.MaxRetries
	} else {
		for _, m := range o.Members {
			g.rounds = max(g.rounds, m.MaxRetries())
		}
	}
	g.rounds = max(0, min(g.rounds, maxRounds))
	if g.hedgeBudget = (&budget{Budget: defaultHedgeBudget}); o.Budget != nil {
		g.hedgeBudget = &budget{Budget: *o.Budget}
		g.retryBudget = g.hedgeBudget
	}
	g.strategy = build(o)
	g.usage, _ = g.strategy.(usageWatcher)
	g.outcomes, _ = g.strategy.(outcomeWatcher)
	g.prefers, _ = g.strategy.(preferrer)
	g.finals, _ = g.strategy.(finalizer)
	if b, ok := g.strategy.(bound); ok {
		b.bind(g)
	}
	if l, ok := g.strategy.(lister); ok {
		g.inList = l.inList() && o.PublicAttempts == 0
	}
	g.notePreferred()
	return g, nil
}

// Start begins what the strategy does by itself.
func (g *Group) Start() {
	if w, ok := g.strategy.(worker); ok {
		w.start()
	}
}

// Close ends what Start began, and waits for sends that go on after their calls
// until ctx ends. No call may come any more.
func (g *Group) Close(ctx context.Context) {
	if w, ok := g.strategy.(worker); ok {
		w.close()
	}
	done := make(chan struct{})
	go func() {
		g.sends.Wait() // they end with their backends at the latest
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// notePreferred shows in the metrics whom a sticky group prefers.
func (g *Group) notePreferred() {
	if g.prefers == nil {
		return
	}
	g.noting.Lock() // so that the last one to tell it tells the latest
	defer g.noting.Unlock()
	preferred := g.prefers.prefers()
	for _, m := range g.members {
		g.opts.Metrics.prefers(g.opts.Name, m.Name(), m.index == preferred)
	}
}

func setDefault[T comparable](v *T, otherwise T) {
	var none T
	if *v == none {
		*v = otherwise
	}
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
	if g.opts.TotalTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, g.opts.TotalTimeout)
		defer cancel()
	}
	g.awaitVerified(ctx)
	if m, ok := g.strategy.(broadcaster); ok && slices.ContainsFunc(calls, m.broadcasts) {
		var wait func()
		calls, wait = g.serveBroadcast(ctx, m, calls)
		defer wait()
	}
	g.serve(ctx, calls)
}

// serve asks one member after another for the calls.
func (g *Group) serve(ctx context.Context, calls []*jsonrpc.Call) {
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
