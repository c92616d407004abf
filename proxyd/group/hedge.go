package group

import (
	"slices"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// Hedge says when a read is asked of a second member while the first still
// runs.
type Hedge struct {
	// Quantile of the method's latency in the group after which the first
	// attempt is called slow, like 0.95; 0 takes Delay.
	Quantile float64
	// Delay is the fixed time before a hedge.
	Delay time.Duration
	// Min and Max bound the time; Max holds as long as too little is known.
	Min, Max time.Duration
	// MaxExtra is the most hedges of one call.
	MaxExtra int
}

const (
	hedgeWindow = 2 * time.Minute // over which latencies count
	hedgeLeast  = 20              // samples before the quantile is believed
)

// hedgeable reports whether calls may be asked twice at once.
func (g *Group) hedgeable(calls []*progress) bool {
	if g.opts.Hedge == nil || len(g.members) < 2 {
		return false
	}
	for _, p := range calls {
		if p.call.Row.Class != jsonrpc.Read || !p.call.Row.Hedge {
			return false
		}
	}
	return true
}

// hedgeDelay is how long the first attempt may take before it is hedged.
func (g *Group) hedgeDelay(label string, now time.Time) time.Duration {
	h := g.opts.Hedge
	d := h.Delay
	if h.Quantile > 0 {
		var samples int
		if d, samples = g.latencies.get(label).quantile(h.Quantile, now); samples < hedgeLeast {
			return h.Max
		}
		d += d / 25 // the end of the sketch's bucket
	}
	return min(max(d, h.Min), h.Max)
}

// hedge picks the member for one more attempt beside those that run: a well one of
// the first one's tier that has room for it, if the budget allows it.
func (r *run) hedge() *Member {
	if r.hedges >= r.g.opts.Hedge.MaxExtra || r.desperate || r.spent() {
		return nil
	}
	i := slices.IndexFunc(r.order, func(m *Member) bool {
		return m.Tier == r.asked[0].Tier && m.Room() >= 1 && m.Standing().State == backend.Well
	})
	if i < 0 {
		return nil
	}
	if !r.g.hedgeBudget.take(len(r.open), time.Now()) {
		r.g.counts.spentHedges.Inc()
		return nil
	}
	m := r.order[i]
	if !m.TakeTokens(len(r.open)) {
		return nil
	}
	r.order = slices.Delete(slices.Clone(r.order), i, i+1)
	r.hedges++
	r.g.counts.hedges.Inc()
	return m
}

// spare is the result of a hedge that does not win while the first attempt runs.
type spare struct {
	asking *asking
	result int // its index
}

// keep keeps a result that does not win, a result rather than an error.
func (p *progress) keep(a *asking, i int) {
	if p.spare == nil || p.spare.asking.Results[p.spare.result].Answer.Error != nil {
		p.spare = &spare{a, i}
	}
}

// loses reports whether a result of a hedge is kept back: an error or null may be
// what a node says that has not seen yet what the first one has.
func (r *run) loses(p *progress, a *asking, i int) bool {
	answer := a.Results[i].Answer
	return a.hedge && answer != nil && (answer.Error != nil || string(answer.Result) == "null") && r.asks(p)
}

// asks reports whether an attempt for the call is under way.
func (r *run) asks(p *progress) bool {
	for _, a := range r.flying {
		for _, asked := range a.calls {
			if asked == p {
				return true
			}
		}
	}
	return false
}

// useSpares takes what hedges brought for calls that nothing else is under way for.
func (r *run) useSpares() {
	for _, p := range r.open {
		if s := p.spare; s != nil && !p.settled && !r.asks(p) {
			p.spare = nil
			r.takeResult(r.ctx, p, s.asking, &s.asking.Results[s.result])
		}
	}
}
