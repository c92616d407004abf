package group

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
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
	scoreLeast    = 10
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
	costWeight   = 0.3   // of the dearest member's cost
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
	reads    atomic.Uint64

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
	first  int       // index of the member in front
	since  time.Time // it is there
	scores []float64
	known  []bool // enough is known of the method's latency
	turn   int    // who gets the next read of the trickle
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
	slices.SortStableFunc(members, func(a, b *Member) int {
		switch x, y := card.scores[a.index], card.scores[b.index]; {
		case a.index == card.first:
			return -1
		case b.index == card.first:
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
	every := uint64(trickle)
	for _, m := range members[1:] {
		if !card.known[m.index] {
			every = trickleUnknown
		}
	}
	if s.reads.Add(1)%every != 0 {
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
	best := 0
	for i, score := range card.scores {
		if score > card.scores[best] {
			best = i
		}
	}
	switch {
	case best == card.first:
	case card.scores[best] < scoreBetter*card.scores[card.first]:
	case now.Sub(card.since) < scoreStay:
	default:
		s.g.opts.Log.Info("backend scored first", "backend_group", s.g.opts.Name, "method", label, "backend", s.g.members[best].Name(),
			"score", card.scores[best], "before", s.g.members[card.first].Name(), "its_score", card.scores[card.first])
		card.first, card.since = best, now
	}
	for i, m := range s.g.opts.Members {
		s.g.opts.Metrics.score(s.g.opts.Name, m.Name(), label, card.scores[i])
	}
	return card
}

// scores computes the members' scores for a method, by index.
func (s *scored) scores(label string, now time.Time) (scores []float64, known []bool) {
	members := s.g.opts.Members
	n := len(members)
	scores, known = make([]float64, n), make([]bool, n)
	latency := make([]time.Duration, n)
	fastest, dearest := time.Duration(math.MaxInt64), 0.0
	for i, m := range members {
		if sketches := s.latency[label]; sketches != nil && sketches[i] != nil {
			d, samples := sketches[i].quantile(scoreQuantile, now)
			if known[i] = samples >= scoreLeast; known[i] {
				latency[i] = d
				fastest = min(fastest, d)
			}
		}
		dearest = max(dearest, m.Cost)
	}
	for i, m := range members {
		penalty := 0.0
		if t, calls := s.counts[i].rates(now); calls >= scoreLeast {
			penalty += errorWeight*t.failed + limitWeight*t.limited + outrunWeight*t.outrun
		}
		if known[i] { // one of which too little is known is taken for as fast as any
			penalty += slowWeight * (latency[i] - fastest).Seconds()
			penalty += slowerWeight * min(1, (float64(latency[i])/float64(max(fastest, time.Microsecond))-1)/slowerMost)
		}
		penalty += min(1, lagWeight*float64(s.g.lag(m, now)))
		if dearest > 0 {
			penalty += costWeight * m.Cost / dearest
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
	if e.how == wasAnswered {
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
	case age < scoreWindow:
		o.old = o.now
	default:
		o.old = tally{}
	}
	o.now, o.turned = tally{}, now
}

// rates returns the shares of what became of the calls, and how many there were.
func (o *outcomes) rates(now time.Time) (t tally, calls float64) {
	o.turn(now)
	a, b := o.now, o.old
	t = tally{a.answered + b.answered, a.failed + b.failed, a.limited + b.limited, a.outrun + b.outrun}
	if calls = t.answered + t.failed + t.limited + t.outrun; calls == 0 {
		return t, 0
	}
	return tally{t.answered / calls, t.failed / calls, t.limited / calls, t.outrun / calls}, calls
}
