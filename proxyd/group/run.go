package group

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// run is the life of one upstream request: a call, or a batch of calls, until
// each has an answer or an error. Backends are asked one after another; a second
// attempt runs beside the first only when the first backend has fallen silent.
type run struct {
	g    *Group
	ctx  context.Context // of the calls
	open []*progress     // calls without a verdict
	all  []progress      // every call
	ask  Ask

	round     int
	order     []*Member // who is left to ask in this round
	desperate bool      // nobody is usable: order is the least bad
	asked     []*Member // in any round
	attempts  int
	resorted  bool   // the last resort was tried
	begun     uint64 // the strategy's preference at the beginning
	hedges    int
	slow      *time.Timer // fires when the newest attempt but hedges is slow; nil without hedging
	outrun    bool        // a hedge answered
	paid      bool        // for the first attempt of the round
	broke     bool        // the budget allowed no more

	ready  *backend.Attempt      // it ended in this goroutine
	done   chan *backend.Attempt // nil until an attempt has a goroutine
	flying []*asking
	ended  []*asking

	// room is what most runs need: one call and one attempt.
	room struct {
		states  [1]progress
		open    [1]*progress
		members [2]*Member
		flying  [1]*asking
		ended   [1]*asking
		asking  asking
		asked   [1]*progress
		calls   [1]*jsonrpc.Call
	}
}

// asking is an attempt and the calls it is for, in its order.
type asking struct {
	*backend.Attempt
	member *Member
	calls  []*progress
	begun  time.Time
	moved  bool // its overdue calls were asked elsewhere
	hedge  bool // it runs beside another that is only slow
	won    bool // it is a hedge that answered
}

// progress is what is known of one call.
type progress struct {
	call *jsonrpc.Call
	// best is the best JSON-RPC error so far, and from whom.
	best     *jsonrpc.Answer
	bestRank int
	// bestKnows is true when best says something about the call, rather than
	// that the backend did not look at it.
	bestKnows bool
	errors    int // JSON-RPC errors so far
	// ambiguous is true when a call that changes something may have reached a
	// backend that did not answer; doubtful when one answered an error that may
	// not be final.
	ambiguous, doubtful bool
	failures            []error
	timeouts            int
	limited             bool // a member was left out for its strict max_rps
	spare               *spare
	// answered is who answered the call, which is what lets the failures of
	// others count.
	answered *backend.Backend
	settled  bool
}

func (g *Group) run(ctx context.Context, calls []*jsonrpc.Call) {
	r := &run{g: g, ctx: ctx}
	states, open, members := r.room.states[:], r.room.open[:], r.room.members[:0]
	if len(calls) > 1 {
		states, open = make([]progress, len(calls)), make([]*progress, len(calls))
	}
	r.open, r.all, r.asked = open, states, members
	r.flying, r.ended = r.room.flying[:0], r.room.ended[:0]
	for i, c := range calls {
		states[i].call = c
		r.open[i] = &states[i]
	}
	g.opts.Metrics.requests.Inc()
	g.counts.calls.Add(float64(len(calls)))
	defer r.end()
	if g.prefers != nil {
		r.begun = g.prefers.begin()
	}
	if g.retryBudget != nil || g.opts.Hedge != nil {
		g.hedgeBudget.called(len(calls), time.Now())
	}
	r.order, r.desperate = g.order(calls)
	if g.opts.Log.Enabled(ctx, slog.LevelDebug) {
		g.logOrder(ctx, r.order, calls)
	}
	if !r.launch(ctx) {
		r.giveUp(ctx)
		return
	}
	for {
		a, what := r.next(ctx)
		switch what {
		case timeOver:
			r.giveUp(ctx)
			return
		case backendSilent:
			r.flying[len(r.flying)-1].moved = true
			r.launchBeside(ctx)
			continue
		case attemptSlow:
			if m := r.hedge(); m != nil {
				r.begin(ctx, m, false, true)
				r.slow.Reset(g.hedgeDelay(r.ask.Label, time.Now()))
			}
			continue
		}
		r.take(ctx, a)
		if len(r.open) == 0 {
			return
		}
		if !r.waiting() && !r.launch(ctx) && len(r.flying) == 0 {
			r.giveUp(ctx)
			return
		}
	}
}

// event is what a run waits for.
type event uint8

const (
	attemptEnded  event = iota
	backendSilent       // the newest attempt is overdue there
	attemptSlow         // slower than usual
	timeOver            // that of the calls
)

// next waits for the next event, with the attempt that has ended.
func (r *run) next(ctx context.Context) (a *backend.Attempt, what event) {
	if a = r.ready; a != nil {
		r.ready = nil
		return a, attemptEnded
	}
	var isSlow <-chan time.Time
	if r.slow != nil {
		isSlow = r.slow.C
	}
	select {
	case a := <-r.done:
		return a, attemptEnded
	case <-r.suspected():
		return nil, backendSilent
	case <-isSlow:
		return nil, attemptSlow
	case <-ctx.Done():
		return nil, timeOver
	}
}

// waiting reports whether an attempt is under way from which an answer can be
// hoped for soon.
func (r *run) waiting() bool {
	return slices.ContainsFunc(r.flying, func(a *asking) bool { return !a.moved })
}

// suspected is closed when the newest attempt is overdue at a silent backend.
func (r *run) suspected() <-chan struct{} {
	if len(r.flying) == 0 || r.flying[len(r.flying)-1].moved {
		return nil
	}
	return r.flying[len(r.flying)-1].Suspected()
}

// launch starts the next attempt: at the next backend of this round, else, after
// a pause, in the next round. It returns false when there is none.
func (r *run) launch(ctx context.Context) bool {
	for {
		if ctx.Err() != nil {
			return false
		}
		if r.round > 0 && len(r.order) > 0 && !r.afford() {
			r.order = nil
		}
		if m, trial := r.pick(); m != nil {
			r.begin(ctx, m, trial, false)
			return true
		}
		if len(r.flying) > 0 {
			return false
		}
		// Whoever answered with a JSON-RPC error was asked about: it is not asked
		// about in a last resort or another round.
		for _, p := range r.open {
			if p.best != nil {
				r.settleBest(p)
			}
		}
		if r.closeSettled(); len(r.open) == 0 || r.spent() {
			return false
		}
		if m := r.lastResort(); m != nil {
			r.begin(ctx, m, m.Standing().State == backend.Trial && m.TakeTrial(), false)
			return true
		}
		if !r.nextRound(ctx) {
			return false
		}
	}
}

// launchBeside starts an attempt at the next backend of this round while another
// runs.
func (r *run) launchBeside(ctx context.Context) {
	if m, trial := r.pick(); m != nil {
		r.begin(ctx, m, trial, false)
	}
}

// begin starts an attempt at m for all open calls.
func (r *run) begin(ctx context.Context, m *Member, trial, hedge bool) {
	calls, asked := r.room.calls[:], r.room.asked[:]
	a := &r.room.asking
	if r.attempts > 0 || len(r.open) > 1 {
		calls, asked = make([]*jsonrpc.Call, len(r.open)), make([]*progress, len(r.open))
		a = new(asking)
	}
	copy(asked, r.open)
	a.calls, a.member, a.hedge = asked, m, hedge
	if r.g.outcomes != nil || r.g.opts.Hedge != nil {
		a.begun = time.Now()
	}
	reads, sends := true, false
	for i, p := range r.open {
		calls[i] = p.call
		reads = reads && p.call.Row.Class == jsonrpc.Read
		sends = sends || p.call.Row.Class != jsonrpc.Read
	}
	r.attempts++
	switch {
	case hedge:
	case r.round > 0:
		r.g.counts.retries.Inc()
	case r.attempts > 1:
		r.g.counts.failovers.Inc()
	}
	r.asked = append(r.asked, m)
	if r.g.usage != nil {
		r.g.usage.asked(m, len(calls))
	}
	try := backend.Try{
		Timeout: r.timeout(ctx), Group: r.g.opts.Name, Trial: trial, Finish: sends,
		Watched: reads && len(r.g.opts.Members) > 1,
	}
	if most := r.g.opts.TryTimeout; most > 0 {
		try.Timeout = min(try.Timeout, most)
	}
	if r.attempts == 1 && r.g.hedgeable(r.open) {
		r.ask = askOf(calls)
		r.slow = time.NewTimer(r.g.hedgeDelay(r.ask.Label, a.begun))
	} else if r.slow != nil && !hedge {
		r.slow.Reset(r.g.hedgeDelay(r.ask.Label, a.begun))
	}
	switch {
	case r.slow == nil && len(r.flying) == 0:
		var ended bool
		if a.Attempt, ended = m.Ask(ctx, calls, try); ended {
			r.ready = a.Attempt
		} else {
			a.Go(r.results())
		}
	default: // this goroutine has more to listen to
		a.Attempt = m.Begin(calls, try, r.results())
	}
	r.flying = append(r.flying, a)
}

// results is where attempts with a goroutine of their own end.
func (r *run) results() chan<- *backend.Attempt {
	if r.done == nil {
		r.done = make(chan *backend.Attempt, (r.g.rounds+1)*len(r.g.opts.Members)+1) // one more for the last resort
	}
	return r.done
}

// timeout is what an attempt may take of the time that is left: everything but
// half an equal share for each backend not yet asked.
func (r *run) timeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return time.Hour
	}
	left := time.Until(deadline)
	unasked := 0
	for _, m := range r.order {
		if !slices.Contains(r.asked, m) {
			unasked++
		}
	}
	return max(time.Millisecond, left-left*time.Duration(unasked)/time.Duration(2*(unasked+1)))
}

// end settles the attempts: a failure counts against its backend when another
// backend answered the same call.
func (r *run) end() {
	if r.slow != nil {
		r.slow.Stop()
	}
	now := time.Now()
	for _, a := range r.flying {
		if !a.hedge && r.outrun {
			r.wasOutrun(a, now)
		}
		a.Abandon()
	}
	if r.ready != nil {
		r.ready.Settle(false)
	}
	for len(r.done) > 0 {
		(<-r.done).Settle(false)
	}
	for _, a := range r.ended {
		blame := false
		for i, p := range a.calls {
			if a.Results[i].Outcome.Sick && p.answered != nil && p.answered != a.Backend {
				blame = true
			}
		}
		a.Settle(blame)
	}
	r.g.countEnds(r.all)
}

// wasOutrun notes that a hedge answered before a: it would have taken longer still.
func (r *run) wasOutrun(a *asking, now time.Time) {
	took := now.Sub(a.begun)
	r.g.latencies.get(r.ask.Label).add(took, now)
	if r.g.outcomes != nil {
		r.g.outcomes.ended(a.member, ending{label: r.ask.Label, how: wasOutrun, took: took, timed: true, at: now})
	}
}

// countEnds counts what became of calls.
func (g *Group) countEnds(all []progress) {
	answered := 0
	for i := range all {
		if all[i].call.Answer != nil {
			answered++
		}
	}
	if answered > 0 {
		g.counts.successes.Add(float64(answered))
	}
	if answered < len(all) {
		g.counts.failures.Add(float64(len(all) - answered))
	}
}

// logOrder says at debug whom a call asks, and why not the others.
func (g *Group) logOrder(ctx context.Context, members []*Member, calls []*jsonrpc.Call) {
	var order, skipped []string
	for _, p := range g.explain(members, calls) {
		if p.Skipped == "" {
			order = append(order, p.Member.Name()+" ("+p.State.String()+")")
		} else {
			skipped = append(skipped, p.Member.Name()+": "+p.Skipped)
		}
	}
	attrs := []any{"backend_group", g.opts.Name, "method", askOf(calls).Label, "order", order, "skipped", skipped}
	if c := calls[0].Client; c != nil {
		attrs = append(attrs, "req_id", c.RequestID)
	}
	g.opts.Log.DebugContext(ctx, "order of backends", attrs...)
}
