package group

import (
	"math"
	"slices"
	"sync"
	"time"
)

// Weights of the strategy scored. A member's score is 1/(1+penalty); the sources
// of the figures are eRPC's defaults and trials with recorded latencies.
const (
	scoreWindow = 10 * time.Minute // over which calls count
	// scoreEvery is how often a method's scores are computed anew.
	scoreEvery = time.Second
	// scoreLeast is how many calls must be known for an error rate, and how
	// many answers of a method for its latency.
	scoreLeast = 10
	// scoreFew is the least that rates are shares of, so that one failure among
	// the first few calls changes nothing.
	scoreFew      = 30
	scoreQuantile = 0.7
	errorWeight   = 4.0 // of an error rate of 1
	limitWeight   = 4.0 // of a share of rate limited calls of 1
	outrunWeight  = 2.0 // of a share of 1 for which a hedge had to answer
	slowWeight    = 4.0 // of a second
	// A member that takes five times as long as the fastest one has
	// slowerWeight more; less in proportion.
	slowerWeight = 1.0
	slowerMost   = 4.0
	lagWeight    = 0.125 // of a block behind, at most one for all
	costWeight   = 0.5   // of the dearest member's cost, above the cheapest's
	// The first one stays first until another is better by this ratio, and for
	// at least so long.
	scoreBetter = 1.3
	scoreStay   = 30 * time.Second
	// One read in trickle goes to a member that is not first, one in
	// trickleUnknown while too little is known of it.
	trickle        = 64
	trickleUnknown = 16
)

// scored asks the member first that is best for the method by error rate,
// throttling, latency, head lag and cost. A trickle of reads goes to the others,
// so that they can come back.
type scored struct {
	g        *Group
	weighted bool

	mu      sync.Mutex
	counts  []outcomes            // by index
	latency map[string][]*sketch  // by label and index
	tables  map[string]*scorecard // by label
}

// outcomes counts what became of a member's calls in two generations.
type outcomes struct {
	turned   time.Time
	now, old tally
}

type tally struct{ answered, failed, limited, outrun float64 }

// scorecard is the order of the members for one method.
type scorecard struct {
	made   time.Time
	fronts []front // by tier
	scores []float64
	known  []bool // enough is known of the method's latency
	reads  int    // of the method
	turn   int    // who gets the next read of the trickle
}

// front is who comes first of a tier.
type front struct {
	tier  int
	first int       // its index
	since time.Time // it is first
}

func (c *scorecard) first(tier int) int {
	i := slices.IndexFunc(c.fronts, func(f front) bool { return f.tier == tier })
	return c.fronts[i].first
}

func newScored(o Options) Strategy {
	return &scored{weighted: o.Weighted, counts: make([]outcomes, len(o.Members)), latency: make(map[string][]*sketch), tables: make(map[string]*scorecard)}
}

func (s *scored) bind(g *Group) { s.g = g }

func (*scored) Spreads() bool { return false }

func (s *scored) Arrange(members []*Member, ask Ask) {
	if len(members) < 2 {
		return
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	card := s.card(ask.Label, now)
	first := card.first(members[0].Tier)
	slices.SortStableFunc(members, func(a, b *Member) int {
		switch x, y := card.scores[a.index], card.scores[b.index]; {
		case a.index == first:
			return -1
		case b.index == first:
			return 1
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return a.index - b.index
	})
	if !ask.Reads || ask.Peek {
		return
	}
	every := trickle
	for _, m := range members[1:] {
		if !card.known[m.index] {
			every = trickleUnknown
		}
	}
	if card.reads++; card.reads%every != 0 {
		return
	}
	card.turn++
	i := 1 + card.turn%(len(members)-1)
	if every == trickleUnknown { // to one of which too little is known
		for card.known[members[i].index] {
			i = 1 + i%(len(members)-1)
		}
	}
	rotate(members[:i+1], i)
}

// card returns the order for a method, computed anew when it is old. The caller
// holds the lock.
func (s *scored) card(label string, now time.Time) *scorecard {
	card := s.tables[label]
	if card == nil {
		card = &scorecard{}
		s.tables[label] = card
	}
	if now.Sub(card.made) < scoreEvery {
		return card
	}
	card.made = now
	card.scores, card.known = s.scores(label, now)
	for _, m := range s.g.members { // whose first of each tier is the first of the list
		if !slices.ContainsFunc(card.fronts, func(f front) bool { return f.tier == m.Tier }) {
			card.fronts = append(card.fronts, front{tier: m.Tier, first: m.index})
		}
	}
	for i := range card.fronts {
		s.choose(label, card, &card.fronts[i], now)
	}
	for i, m := range s.g.opts.Members {
		s.g.opts.Metrics.score(s.g.opts.Name, m.Name(), label, card.scores[i])
	}
	return card
}

// choose says who comes first of a tier: whoever does, until another is better by
// scoreBetter.
func (s *scored) choose(label string, card *scorecard, f *front, now time.Time) {
	members, best := s.g.opts.Members, f.first
	for i, m := range members {
		if m.Tier == f.tier && card.scores[i] > card.scores[best] {
			best = i
		}
	}
	if best == f.first || card.scores[best] < scoreBetter*card.scores[f.first] || now.Sub(f.since) < scoreStay {
		return
	}
	s.g.opts.Log.Info("backend scored first", "backend_group", s.g.opts.Name, "method", label, "backend", members[best].Name(),
		"score", card.scores[best], "before", members[f.first].Name(), "its_score", card.scores[f.first])
	f.first, f.since = best, now
}

// scores computes the members' scores for a method, by index.
func (s *scored) scores(label string, now time.Time) (scores []float64, known []bool) {
	members := s.g.opts.Members
	n := len(members)
	scores, known = make([]float64, n), make([]bool, n)
	latency := make([]time.Duration, n)
	fastest, dearest, cheapest := time.Duration(math.MaxInt64), 0.0, math.MaxFloat64
	for i, m := range members {
		if sketches := s.latency[label]; sketches != nil && sketches[i] != nil {
			d, samples := sketches[i].quantile(scoreQuantile, now)
			if known[i] = samples >= scoreLeast; known[i] {
				latency[i] = d
				fastest = min(fastest, d)
			}
		}
		dearest, cheapest = max(dearest, m.Cost), min(cheapest, m.Cost)
	}
	for i, m := range members {
		penalty := 0.0
		if t, calls := s.counts[i].rates(now); calls >= scoreLeast {
			penalty += errorWeight*t.failed + limitWeight*t.limited + outrunWeight*t.outrun
			known[i] = known[i] || t.failed+t.limited > 0.5 // no latency will be known of it
		}
		if latency[i] > 0 { // one of which too little is known is taken for as fast as any
			penalty += slowWeight * (latency[i] - fastest).Seconds()
			penalty += slowerWeight * min(1, (float64(latency[i])/float64(max(fastest, time.Microsecond))-1)/slowerMost)
		}
		penalty += min(1, lagWeight*float64(s.g.lag(m, now)))
		if dearest > 0 {
			penalty += costWeight * (m.Cost - cheapest) / dearest
		}
		scores[i] = 1 / (1 + penalty) * m.share(s.weighted)
	}
	return scores, known
}

// ended takes what became of calls that m was asked.
func (s *scored) ended(m *Member, e ending) {
	s.mu.Lock()
	o := &s.counts[m.index]
	o.turn(e.at)
	switch e.how {
	case wasAnswered:
		o.now.answered++
	case hasFailed:
		o.now.failed++
	case wasLimited:
		o.now.limited++
	case wasOutrun:
		o.now.outrun++
	}
	var x *sketch
	if e.timed { // one that was outrun took at least so long
		if s.latency[e.label] == nil {
			s.latency[e.label] = make([]*sketch, len(s.counts))
		}
		if x = s.latency[e.label][m.index]; x == nil {
			x = newSketch(scoreWindow)
			s.latency[e.label][m.index] = x
		}
	}
	s.mu.Unlock()
	if x != nil { // a rate limit says nothing about latency, nor does a failure
		x.add(e.took, e.at)
	}
}

func (o *outcomes) turn(now time.Time) {
	switch age := now.Sub(o.turned); {
	case age < scoreWindow/2:
		return
	case age < scoreWindow: // the younger one began when it was due, not now
		o.old, o.turned = o.now, o.turned.Add(scoreWindow/2)
	default:
		o.old, o.turned = tally{}, now
	}
	o.now = tally{}
}

// rates returns the shares of what became of the calls, and how many there were.
func (o *outcomes) rates(now time.Time) (t tally, calls float64) {
	o.turn(now)
	a, b := o.now, o.old
	t = tally{a.answered + b.answered, a.failed + b.failed, a.limited + b.limited, a.outrun + b.outrun}
	calls = t.answered + t.failed + t.limited + t.outrun
	of := max(calls, scoreFew)
	return tally{t.answered / of, t.failed / of, t.limited / of, t.outrun / of}, calls
}
