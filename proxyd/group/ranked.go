package group

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gateway.internal/proxyd/backend"
)

// Rank configures the strategy ranked.
type Rank struct {
	// Interval is the time between two rounds of pings. Default 10 s.
	Interval time.Duration
	// Samples is how many pings of each member count. Default 10.
	Samples int
	// Timeout is how long a ping may take. Default 1 s.
	Timeout time.Duration
	// Method is what pings call. Default eth_blockNumber.
	Method string
	// Latency and Stability are the weights of speed and of answering at all.
	// Defaults 0.3 and 0.7 when both are 0.
	Latency, Stability float64
}

// leastIdle is the shortest time without a call after which pings pause.
const leastIdle = 30 * time.Second

// ranked asks the members in the order of their scores, which pings of all of
// them keep up to date (viem's fallback transport with rank). A ping that fails
// counts as one that took its whole timeout.
type ranked struct {
	rank    Rank
	members []*Member
	opts    Options

	places atomic.Pointer[[]int] // place of each member by index; nil is the list's order
	used   atomic.Int64          // unix nanoseconds of the last call
	paused atomic.Bool
	wake   chan struct{}

	samples [][]sample // of each member, by index, oldest first
	failing []bool     // the last ping of each
	stop    context.CancelFunc
	ended   sync.WaitGroup
}

type sample struct {
	took time.Duration
	ok   bool
}

func newRanked(o Options) Strategy {
	r := &ranked{rank: o.Rank, members: o.Members, opts: o, wake: make(chan struct{}, 1), samples: make([][]sample, len(o.Members)), failing: make([]bool, len(o.Members))}
	setDefault(&r.rank.Interval, 10*time.Second)
	setDefault(&r.rank.Samples, 10)
	setDefault(&r.rank.Timeout, time.Second)
	setDefault(&r.rank.Method, "eth_blockNumber")
	if r.rank.Latency+r.rank.Stability == 0 {
		r.rank.Latency, r.rank.Stability = 0.3, 0.7
	}
	return r
}

func (r *ranked) Arrange(members []*Member, _ Ask) {
	if places := r.places.Load(); places != nil {
		slices.SortStableFunc(members, func(a, b *Member) int { return (*places)[a.index] - (*places)[b.index] })
	}
}

// asked notes that the group has calls, whoever gets them, and wakes the pings.
func (r *ranked) asked(*Member, int) {
	r.used.Store(time.Now().UnixNano())
	if r.paused.Load() {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

func (*ranked) Spreads() bool { return false }

// start begins to ping.
func (r *ranked) start() {
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.used.Store(time.Now().UnixNano())
	r.ended.Go(func() {
		t := time.NewTicker(r.rank.Interval)
		defer t.Stop()
		for {
			r.round(ctx)
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
			paused, ok := r.awake(ctx)
			if !ok {
				return
			}
			if paused {
				t.Reset(r.rank.Interval) // which has run on
			}
		}
	})
}

func (r *ranked) close() {
	if r.stop != nil {
		r.stop()
		r.ended.Wait()
	}
}

// awake waits while the group has no calls, and reports whether it did; ok is
// false when the strategy is closed.
func (r *ranked) awake(ctx context.Context) (paused, ok bool) {
	idle := max(leastIdle, 3*r.rank.Interval)
	if time.Since(time.Unix(0, r.used.Load())) < idle {
		return false, true
	}
	r.paused.Store(true)
	defer r.paused.Store(false)
	if time.Since(time.Unix(0, r.used.Load())) < idle {
		return false, true // a call has come that did not see the pause
	}
	select {
	case <-r.wake:
		return true, true
	case <-ctx.Done():
		return true, false
	}
}

// round pings all members at once and ranks them.
func (r *ranked) round(ctx context.Context) {
	var wg sync.WaitGroup
	for i, m := range r.members {
		if s := m.Standing().State; s == backend.Held || s == backend.Foreign {
			continue // it asked to be left alone, or is never asked
		}
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					r.opts.Log.Error("panic in a ping", "backend", m.Name(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				}
			}()
			reply := m.Own(ctx, r.rank.Method, "[]", r.rank.Timeout)
			if reply.Canceled {
				return
			}
			s := sample{took: reply.Took, ok: reply.Err == nil}
			r.notePing(i, reply.Err)
			if !s.ok {
				s.took = r.rank.Timeout
			}
			r.samples[i] = append(r.samples[i], s)
			if over := len(r.samples[i]) - r.rank.Samples; over > 0 {
				r.samples[i] = slices.Delete(r.samples[i], 0, over)
			}
		})
	}
	wg.Wait()
	if ctx.Err() == nil {
		r.place()
	}
}

// notePing writes a line when a member's pings begin to fail, and when they are
// answered again.
func (r *ranked) notePing(i int, err error) {
	name := r.members[i].Name()
	switch failed := err != nil; {
	case failed && !r.failing[i]:
		r.opts.Log.Warn("ping failed", "backend_group", r.opts.Name, "backend", name, "method", r.rank.Method, "error", err)
	case !failed && r.failing[i]:
		r.opts.Log.Info("ping answered again", "backend_group", r.opts.Name, "backend", name)
	}
	r.failing[i] = err != nil
}

// place computes the scores and puts the members in their order.
func (r *ranked) place() {
	scores := r.scores()
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case scores[a] > scores[b]:
			return -1
		case scores[a] < scores[b]:
			return 1
		}
		return 0
	})
	places := make([]int, len(order))
	for place, i := range order {
		places[i] = place
		r.opts.Metrics.score(r.opts.Name, r.members[i].Name(), "", scores[i])
	}
	if old := r.places.Load(); old == nil && order[0] != 0 || old != nil && (*old)[order[0]] != 0 {
		r.opts.Log.Info("backend ranked first", "backend_group", r.opts.Name, "backend", r.members[order[0]].Name(), "score", scores[order[0]])
	}
	r.places.Store(&places)
}

// scores returns each member's score, by index: 1 is best. One that has never
// answered a ping has 0; so does one without pings as yet, which the list's order
// then places.
func (r *ranked) scores() []float64 {
	means := make([]float64, len(r.samples))
	slowest := 0.0
	for i, samples := range r.samples {
		for _, s := range samples {
			means[i] += float64(s.took)
			slowest = max(slowest, float64(s.took))
		}
		means[i] /= float64(max(1, len(samples)))
	}
	scores := make([]float64, len(r.samples))
	for i, samples := range r.samples {
		answered := 0
		for _, s := range samples {
			if s.ok {
				answered++
			}
		}
		if answered == 0 {
			continue
		}
		latency := 1 - means[i]/max(slowest, 1)
		stability := float64(answered) / float64(len(samples))
		scores[i] = (r.rank.Latency*latency + r.rank.Stability*stability) / (r.rank.Latency + r.rank.Stability)
	}
	return scores
}
