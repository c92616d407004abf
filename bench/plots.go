package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gateway.internal/bench/internal/content"
)

// sweep is one plot: the same work with one of its sizes growing.
type sweep struct {
	file, title, axis string
	number            func(float64) string // prints sizes
	gateways          []string
	points            []int
	work              func(n int) work
}

// sweeps is the table of plots. A new one is an entry here.
var sweeps = []sweep{
	{"clients", "CPU time of a small call by client connections", "client connections", number, all, []int{1, 4, 16, 64, 256, 1000}, func(n int) work {
		return work{load: []string{"-connections", fmt.Sprint(n), "-method", content.Small}}
	}},
	{"body-size", "CPU time of a call by size of its result, 8 connections", "size of the result", size, all, []int{1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20}, func(n int) work {
		return work{load: []string{"-connections", "8", "-method", content.Logs, "-size", fmt.Sprint(n)}}
	}},
	{"batch-size", "CPU time of a batch by number of calls, 8 connections", "calls in a batch", number, all, []int{1, 3, 10, 30, 100}, func(n int) work {
		return work{load: []string{"-connections", "8", "-batch", fmt.Sprint(n), "-method", content.Small}}
	}},
	{"backends", "CPU time of a small call by number of backends, 64 connections", "backends", number, several, []int{1, 2, 4, 8, 16, 32}, func(n int) work {
		return work{listeners: n, load: []string{"-connections", "64", "-method", content.Small}}
	}},
}

// drawAll measures all sweeps, one round a point, and writes an SVG for each and
// the figures of all as JSON.
func (b *bench) drawAll(ctx context.Context, m *machine) error {
	var all report
	all.Machine = m
	for i := range sweeps {
		s := &sweeps[i]
		p := plot{title: s.title, x: s.axis, number: s.number, note: fmt.Sprintf("%s, %d cores, %s; one round of %v for each point", m.CPU, m.Cores, m.Date, b.length)}
		for _, g := range b.taking(s.gateways) {
			p.lines = append(p.lines, line{name: g.name})
		}
		for _, n := range s.points {
			w := s.work(n)
			w.id, w.title, w.gateways, w.once = fmt.Sprintf("%s-%d", s.file, n), fmt.Sprintf("%s: %d", s.title, n), s.gateways, true
			rows, err := b.do(ctx, &w)
			if err != nil {
				if ctx.Err() != nil {
					return errors.New("interrupted")
				}
				return fmt.Errorf("%s: %w", w.title, err)
			}
			for k, r := range rows {
				p.lines[k].points = append(p.lines[k].points, point{float64(n), r.CPU})
			}
			all.Rows = append(all.Rows, rows...)
		}
		file := filepath.Join(b.out, s.file+".svg")
		if err := os.WriteFile(file, []byte(p.svg()), 0o644); err != nil {
			return fmt.Errorf("write plot: %w", err)
		}
		fmt.Println(file)
	}
	text, err := json.MarshalIndent(&all, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(b.out, "plots.json"), append(text, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write figures of the plots: %w", err)
	}
	return all.verdict()
}
