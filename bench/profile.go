package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gateway.internal/bench/internal/measure"
)

// profiles are the files of a work and what their counts are divided by.
type profiles struct {
	work                *work
	cpu, allocs, before string // before holds what was allocated until the round began
	// timed and counted are the rounds of cpu and of allocs.
	timed, counted *measure.Result
}

// profileAll profiles this gateway in each work and writes the summaries.
func (b *bench) profileAll(ctx context.Context, m *machine) error {
	var all strings.Builder
	var r report
	for i := range works {
		w := &works[i]
		if !b.chosen(w) {
			continue
		}
		if w.reads > 0 {
			return fmt.Errorf("work %s is about viem, and has no profile", w.id)
		}
		if w.outages {
			return fmt.Errorf("work %s is about upstreams that are killed, and has no profile", w.id)
		}
		p, err := b.profile(ctx, w)
		var text string
		if err == nil {
			text, err = p.summary(ctx)
		}
		if err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted in work %s", w.id)
			}
			return fmt.Errorf("profile of work %s: %w", w.id, err)
		}
		fmt.Print(text)
		all.WriteString(text)
		o := row{Work: w.id, Gateway: nameProxyd, Rounds: []measure.Result{*p.timed, *p.counted}}
		o.sumUp()
		r.Rows = append(r.Rows, o)
	}
	file := filepath.Join(b.out, "profile.md")
	if err := os.WriteFile(file, []byte(m.String()+"\n"+all.String()), 0o644); err != nil {
		return fmt.Errorf("write the summary: %w", err)
	}
	fmt.Fprintf(b.progress, "written to %s; the profiles are beside it, for go tool pprof\n", file)
	return r.verdict()
}

// profile does two rounds of a work: one for the processor's time and one in which
// each allocation is noted, which takes time of its own.
func (b *bench) profile(ctx context.Context, w *work) (*profiles, error) {
	s, stop, err := b.startUpstreams(ctx, w)
	if err != nil {
		return nil, err
	}
	defer stop()
	if s.pprof, err = freeAddr(); err != nil {
		return nil, err
	}
	p := &profiles{work: w, cpu: b.profileFile(w, "cpu"), allocs: b.profileFile(w, "allocs"), before: filepath.Join(b.dir, w.id+"-before.pprof")}
	fetch := func(what, file string) error { return download(ctx, "http://"+s.pprof+"/debug/pprof/"+what, file) }

	p.timed, err = b.profiledRound(ctx, w, s, "CPU", func(run func() error) error {
		profiled := make(chan error, 1)
		go func() { profiled <- fetch(fmt.Sprintf("profile?seconds=%.0f", b.profileLength(w).Seconds()), p.cpu) }()
		return errors.Join(run(), <-profiled)
	})
	if err != nil {
		return nil, err
	}
	s.everyAllocation = true
	p.counted, err = b.profiledRound(ctx, w, s, "allocations", func(run func() error) error {
		// What was allocated shows up with the next collection, which gc=1 makes.
		allocations := func(file string) error {
			return errors.Join(fetch("heap?gc=1", b.profileFile(w, "heap")), fetch("allocs", file))
		}
		return errors.Join(allocations(p.before), run(), allocations(p.allocs))
	})
	return p, err
}

// profiledRound starts this gateway with its profiler on, warms it up and has
// take do the round.
func (b *bench) profiledRound(ctx context.Context, w *work, s *setting, what string, take func(run func() error) error) (*measure.Result, error) {
	server, err := b.serve(ctx, &gateway{nameProxyd, proxydCommand}, s)
	if err != nil {
		return nil, err
	}
	defer b.processes.stop(server.process)
	if err := server.ready(ctx, s.pprof); err != nil {
		return nil, err
	}
	fmt.Fprintf(b.progress, "%-2s %s, %s: ", w.id, w.title, what)
	if warmup, _ := b.times(w); warmup > 0 {
		if _, err := b.load(ctx, w, server, 0, warmup); err != nil {
			return nil, fmt.Errorf("warm up: %w", err)
		}
	}
	var result *measure.Result
	err = take(func() (err error) {
		result, err = b.load(ctx, w, server, 0, b.profileLength(w))
		return err
	})
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(b.progress, brief(result))
	return result, nil
}

// profileLength is how long a profiled round is: as all rounds together, in whole
// seconds, since the profiler knows no others.
func (b *bench) profileLength(w *work) time.Duration {
	_, length := b.times(w)
	return time.Duration(math.Ceil((length * time.Duration(b.rounds)).Seconds())) * time.Second
}

func (b *bench) profileFile(w *work, kind string) string {
	return filepath.Join(b.out, w.id+"-"+kind+".pprof")
}

// download writes what a URL answers to a file.
func download(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %.200s", url, resp.Status, body)
	}
	return os.WriteFile(file, body, 0o644)
}
