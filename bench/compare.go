package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gateway.internal/bench/internal/measure"
	"gateway.internal/bench/internal/proc"
)

// row is what one gateway did in one work: medians over the rounds, sums of what
// went wrong.
type row struct {
	Work     string  `json:"work"`
	Title    string  `json:"title"`
	Gateway  string  `json:"gateway"`
	CPU      float64 `json:"cpu_us_per_request"`
	CPULow   float64 `json:"cpu_us_lowest_round"`
	CPUHigh  float64 `json:"cpu_us_highest_round"`
	Rate     float64 `json:"requests_per_second"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	Peak     int64   `json:"peak_memory_bytes"`
	Idle     float64 `json:"bytes_per_idle_connection,omitempty"`
	Asked    int     `json:"asked,omitempty"`
	Upstream []int   `json:"upstream_requests,omitempty"`
	// Of idle connections, where the gateway says how many goroutines it has.
	Goroutines float64 `json:"goroutines_per_idle_connection,omitempty"`
	IdleCPU    float64 `json:"idle_cpu_percent,omitempty"`
	// Of subscribers. Requests are notifications then, P50 and P99 the times until
	// all have a head, and Subscriptions the most that a round made.
	Heads         int     `json:"heads,omitempty"`
	Slowest       float64 `json:"slowest_head_us,omitempty"`
	Subscriptions int     `json:"upstream_subscriptions,omitempty"`
	// Of listeners while upstreams were killed: those of a round, sums over the
	// rounds, and how much longer than between two blocks one waited at most, for
	// each kill and without.
	Listeners  int       `json:"listeners,omitempty"`
	Closed     int       `json:"closed,omitempty"`
	Missed     int       `json:"missed,omitempty"`
	Twice      int       `json:"twice,omitempty"`
	Disordered int       `json:"disordered,omitempty"`
	Felt       []float64 `json:"felt_us,omitempty"`
	Calm       float64   `json:"calm_us,omitempty"`

	Seconds  float64 `json:"seconds_a_round"`
	Sent     float64 `json:"sent_bytes"`
	Received float64 `json:"received_bytes"`
	Requests int     `json:"requests"`
	Slow     int     `json:"slower_than_1s"`

	Failed map[string]int   `json:"failed,omitempty"`
	Wrong  map[string]int   `json:"wrong,omitempty"`
	Rounds []measure.Result `json:"rounds"`
}

// compare does all works and writes the report.
func (b *bench) compare(ctx context.Context, m *machine) error {
	var rows []row
	for i := range works {
		w := &works[i]
		if !b.chosen(w) || w.reads > 0 && slices.Contains(b.missing, nameViem) {
			continue
		}
		done, err := b.do(ctx, w)
		if err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted in work %s", w.id)
			}
			return fmt.Errorf("work %s: %w", w.id, err)
		}
		rows = append(rows, done...)
	}
	if len(rows) == 0 {
		return fmt.Errorf("no gateway took part: BENCH_GATEWAYS leaves none for the works of BENCH_WORKS; not installed: %s", cmp.Or(strings.Join(b.missing, ", "), "none"))
	}
	m.Load += " before the first round, " + loadAverage() + " after the last"
	r := &report{Machine: m, Rows: rows}
	if err := r.write(b.out); err != nil {
		return err
	}
	fmt.Print(r.markdown())
	fmt.Fprintf(b.progress, "written to %s\n", filepath.Join(b.out, "report.md and report.json"))
	return r.verdict()
}

// do does one work against all its gateways, round by round.
func (b *bench) do(ctx context.Context, w *work) ([]row, error) {
	part := b.taking(w.gateways)
	s, stop, err := b.startUpstreams(ctx, w)
	if err != nil {
		return nil, err
	}
	defer stop()
	servers := make([]*server, len(part))
	defer func() {
		for _, s := range servers {
			if s != nil {
				b.processes.stop(s.process)
			}
		}
	}()
	rows := make([]row, len(part))
	rounds := b.rounds
	if w.once {
		rounds = 1
	}
	for round := range rounds {
		for i, g := range part {
			fmt.Fprintf(b.progress, "%-2s %s, round %d of %d, %s: ", w.id, w.title, round+1, rounds, g.name)
			err := b.round(ctx, w, g, s, &servers[i], &rows[i])
			for _, p := range s.running { // without them no gateway can answer
				if err := p.alive(); err != nil {
					return nil, err
				}
			}
			if err != nil {
				fmt.Fprintln(b.progress, "failed")
				// Another gateway that does not run is no fault of this one.
				if ctx.Err() != nil || g.name == nameProxyd {
					return nil, fmt.Errorf("%s: %w", g.name, err)
				}
				rows[i].Rounds = append(rows[i].Rounds, measure.Result{Failed: map[string]int{"the whole round: " + err.Error(): 1}})
			}
			if (w.cold || err != nil) && servers[i] != nil {
				b.processes.stop(servers[i].process)
				servers[i] = nil
			}
		}
	}
	for i, g := range part {
		rows[i].Work, rows[i].Title, rows[i].Gateway = w.id, w.title, g.name
		rows[i].sumUp()
	}
	return rows, nil
}

// round does one round of a work against a gateway, which is started unless it
// runs or is none.
func (b *bench) round(ctx context.Context, w *work, g *gateway, s *setting, to **server, r *row) (err error) {
	warmup, length := b.times(w)
	if *to == nil && g.command != nil {
		if *to, err = b.serve(ctx, g, s); err != nil {
			return err
		}
		if w.learns {
			warmup = b.learning()
		}
	}
	var result *measure.Result
	if w.reads > 0 {
		result, err = b.read(ctx, w, s, *to)
	} else {
		result, err = b.loadOrOutages(ctx, w, s, *to, warmup, length, b.counters(w, g, s, *to)...)
	}
	var peak int64
	if *to != nil {
		if err := cmp.Or((*to).alive(), err); err != nil {
			return err
		}
		peak, err = (*to).peak()
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(b.progress, brief(result))
	r.Rounds, r.Peak = append(r.Rounds, *result), max(r.Peak, peak)
	return nil
}

// loadOrOutages runs the load generator, and has it kill upstreams where the work is
// about that.
func (b *bench) loadOrOutages(ctx context.Context, w *work, s *setting, to *server, warmup, length time.Duration, more ...string) (*measure.Result, error) {
	if s.nodes == nil {
		return b.load(ctx, w, to, warmup, length, more...)
	}
	addr, done, err := s.nodes.serve(ctx)
	if err != nil {
		return nil, err
	}
	result, err := b.load(ctx, w, to, warmup, length, append(more, "-outages", addr)...)
	err = errors.Join(err, done())
	s.running = s.nodes.running()
	return result, err
}

// counters are where the load generator asks for what the upstreams and the
// gateway have counted.
func (b *bench) counters(w *work, g *gateway, s *setting, to *server) (args []string) {
	if w.delays != "" || w.heads > 0 && !w.outages && g.name == nameProxyd {
		args = append(args, "-counts", s.upstreams[0])
	}
	if to.metrics != "" {
		args = append(args, "-metrics", to.metrics)
	}
	return args
}

// peak is the most memory that a gateway and its children have had.
func (s *server) peak() (int64, error) {
	pids, err := proc.Tree(s.pid())
	if err != nil {
		return 0, err
	}
	return proc.PeakMemory(pids)
}

func brief(r *measure.Result) string {
	text := fmt.Sprintf("%.0f/s", float64(r.Requests)/r.Seconds)
	if r.CPU > 0 {
		text += fmt.Sprintf(", %.1f µs", perRequest(r))
	}
	if r.Heads > 0 {
		text = fmt.Sprintf("%d notifications, %.1f µs each, %.1f ms until all have a head", r.Requests, perRequest(r), r.P50/1000)
	}
	if r.PerConnection > 0 {
		text = fmt.Sprintf("%.1f KiB a connection", r.PerConnection/1024)
	}
	if r.Listeners > 0 {
		text = fmt.Sprintf("%d events to %d listeners, %d kills, longest pause beyond a block %.1f ms; %d closed, %d missed, %d twice, %d out of order", r.Requests, r.Listeners, len(r.Felt),
			slices.Max(append(r.Felt, 0))/1000, r.Closed, r.Missed, r.Twice, r.Disordered)
	}
	if n := measure.Sum(r.Failed); n > 0 {
		text += fmt.Sprintf(", %d failed", n)
	}
	if n := measure.Sum(r.Wrong); n > 0 {
		text += fmt.Sprintf(", %d WRONG", n)
	}
	return text
}

func perRequest(r *measure.Result) float64 {
	if r.Requests == 0 {
		return 0
	}
	return r.CPU * 1e6 / float64(r.Requests)
}

// sumUp fills in what the rounds have in common.
func (r *row) sumUp() {
	r.Failed, r.Wrong = map[string]int{}, map[string]int{}
	var cpu, rate, p50, p99, seconds []float64
	for i := range r.Rounds {
		m := &r.Rounds[i]
		if m.Requests > 0 { // a round without an answer has no times
			cpu, rate = append(cpu, perRequest(m)), append(rate, float64(m.Requests)/m.Seconds)
			p50, p99 = append(p50, m.P50), append(p99, m.P99)
			seconds = append(seconds, m.Seconds)
		}
		r.Requests += m.Requests
		r.Asked += m.Asked
		for i, n := range m.Upstream {
			if i == len(r.Upstream) {
				r.Upstream = append(r.Upstream, 0)
			}
			r.Upstream[i] += n
		}
		r.Slow += m.Slow
		r.Heads += m.Heads
		if m.Heads > 0 {
			r.Slowest = max(r.Slowest, m.Max)
		}
		r.Subscriptions = max(r.Subscriptions, m.Subscriptions)
		r.Listeners = max(r.Listeners, m.Listeners)
		r.Closed += m.Closed
		r.Missed += m.Missed
		r.Twice += m.Twice
		r.Disordered += m.Disordered
		r.Felt, r.Calm = append(r.Felt, m.Felt...), max(r.Calm, m.Calm)
		r.Goroutines, r.IdleCPU = m.Goroutines, m.IdleCPU
		for reason, n := range m.Failed {
			r.Failed[reason] += n
		}
		for reason, n := range m.Wrong {
			r.Wrong[reason] += n
		}
		r.Idle, r.Sent, r.Received = m.PerConnection, m.Sent, m.Received
	}
	r.CPU, r.Rate, r.P50, r.P99, r.Seconds = median(cpu), median(rate), median(p50), median(p99), median(seconds)
	if len(cpu) > 0 {
		r.CPULow, r.CPUHigh = slices.Min(cpu), slices.Max(cpu)
	}
}

// extra is how many requests more came to the upstreams than were asked, in percent
// of these; ok is false where that was not counted.
func (r *row) extra() (percent float64, ok bool) {
	if r.Asked == 0 || len(r.Upstream) == 0 {
		return 0, false
	}
	came := 0
	for _, n := range r.Upstream {
		came += n
	}
	return 100 * (float64(came)/float64(r.Asked) - 1), true
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
