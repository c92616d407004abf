package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

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
	Rate     float64 `json:"requests_per_second"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	Peak     int64   `json:"peak_memory_bytes"`
	Idle     float64 `json:"bytes_per_idle_connection,omitempty"`
	Sent     float64 `json:"sent_bytes"`
	Received float64 `json:"received_bytes"`
	Requests int     `json:"requests"`
	Slow     int     `json:"slower_than_1s"`

	Failed map[string]int   `json:"failed,omitempty"`
	Wrong  map[string]int   `json:"wrong,omitempty"`
	Rounds []measure.Result `json:"rounds"`

	mayFail bool
}

// compare does all works and writes the report.
func (b *bench) compare(ctx context.Context, m *machine) error {
	var rows []row
	for i := range works {
		w := &works[i]
		if !b.chosen(w) {
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
	s := &setting{timeout: w.timeout}
	if s.timeout == 0 {
		s.timeout = 5000
	}
	stop, err := b.startUpstreams(ctx, w, s)
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
			if servers[i] == nil {
				if servers[i], err = b.serve(ctx, g, s); err != nil {
					return nil, err
				}
			}
			fmt.Fprintf(b.progress, "%-2s %s, round %d of %d, %s: ", w.id, w.title, round+1, rounds, g.name)
			result, err := b.load(ctx, w, servers[i])
			if err != nil {
				fmt.Fprintln(b.progress, "failed")
				return nil, fmt.Errorf("%s: %w", g.name, err)
			}
			fmt.Fprintln(b.progress, brief(result))
			peak, err := servers[i].peak()
			if err != nil {
				return nil, err
			}
			rows[i].Rounds, rows[i].Peak = append(rows[i].Rounds, *result), max(rows[i].Peak, peak)
			if w.cold {
				b.processes.stop(servers[i].process)
				servers[i] = nil
			}
		}
	}
	for i, g := range part {
		rows[i].Work, rows[i].Title, rows[i].Gateway, rows[i].mayFail = w.id, w.title, g.name, w.mayFail && g.name != nameProxyd
		rows[i].sumUp()
	}
	return rows, nil
}

// peak is the most memory that a gateway and its children have had.
func (s *server) peak() (int64, error) {
	pids, err := proc.Tree(s.pid())
	if err == nil {
		var peak int64
		if peak, err = proc.PeakMemory(pids); err == nil {
			return peak, nil
		}
	}
	return 0, fmt.Errorf("%s ended during the work: %w; it said last:\n%s", s.name, err, s.stderr.String())
}

func brief(r *measure.Result) string {
	text := fmt.Sprintf("%.0f/s, %.1f µs", float64(r.Requests)/r.Seconds, perRequest(r))
	if r.PerConnection > 0 {
		text = fmt.Sprintf("%.1f KiB a connection", r.PerConnection/1024)
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
	var cpu, rate, p50, p99 []float64
	for i := range r.Rounds {
		m := &r.Rounds[i]
		cpu, rate = append(cpu, perRequest(m)), append(rate, float64(m.Requests)/m.Seconds)
		p50, p99 = append(p50, m.P50), append(p99, m.P99)
		r.Requests += m.Requests
		r.Slow += m.Slow
		for reason, n := range m.Failed {
			r.Failed[reason] += n
		}
		for reason, n := range m.Wrong {
			r.Wrong[reason] += n
		}
		r.Idle, r.Sent, r.Received = m.PerConnection, m.Sent, m.Received
	}
	r.CPU, r.Rate, r.P50, r.P99 = median(cpu), median(rate), median(p50), median(p99)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
