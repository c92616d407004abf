package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gateway.internal/bench/internal/measure"
)

// startUpstreams starts the upstreams of a work; the setting is for the gateways
// in front of them.
func (b *bench) startUpstreams(ctx context.Context, w *work) (s *setting, stop func(), err error) {
	s = &setting{timeout: w.timeout, group: w.group, ws: w.ws, heads: w.heads}
	if s.timeout == 0 {
		s.timeout = 5000
	}
	if w.outages {
		s.nodes, err = b.startNodes(ctx, 2, w.heads)
		if err != nil {
			return nil, nil, err
		}
		s.upstreams, s.running = s.nodes.addrs, s.nodes.running()
		return s, s.nodes.stop, nil
	}
	var args []string
	if w.tls {
		s.ca = filepath.Join(b.dir, "ca.pem")
		args = append(args, "-tls", s.ca)
	}
	if w.idLast {
		args = append(args, "-id-last")
	}
	if w.delays != "" {
		args = append(args, "-delay", w.delays)
	}
	if w.heads > 0 {
		args = append(args, "-heads", w.heads.String())
	}
	listeners := w.listeners
	if listeners == 0 {
		listeners = 2
	}
	stop = func() {
		for _, p := range s.running {
			b.processes.stop(p)
		}
	}
	begin := func(args ...string) error {
		p, addrs, err := b.upstream(ctx, args...)
		if err == nil {
			s.running = append(s.running, p)
			s.upstreams = append(s.upstreams, addrs...)
		}
		return err
	}
	if w.first != "" {
		if err := begin("-mode", w.first); err != nil {
			return nil, nil, err
		}
		listeners--
	}
	if err := begin(append(args, "-listeners", fmt.Sprint(listeners))...); err != nil {
		stop()
		return nil, nil, err
	}
	return s, stop, nil
}

// upstream starts the upstream program and returns its addresses.
func (b *bench) upstream(ctx context.Context, args ...string) (*process, []string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("start upstream: %w", err)
	}
	defer r.Close()
	p, err := b.processes.start("upstream", b.loadCore, w, append([]string{b.program("upstream")}, args...)...)
	w.Close()
	if err != nil {
		return nil, nil, err
	}
	_ = r.SetReadDeadline(time.Now().Add(10 * time.Second)) // pipes have deadlines on Linux
	line, err := bufio.NewReader(r).ReadBytes('\n')
	var addrs []string
	if err == nil {
		err = json.Unmarshal(line, &addrs)
	}
	if err != nil {
		b.processes.stop(p)
		return nil, nil, fmt.Errorf("upstream does not say its addresses: %w; it said last:\n%s", err, p.stderr.String())
	}
	return p, addrs, nil
}

// load runs the load generator once against a gateway.
func (b *bench) load(ctx context.Context, w *work, s *server, warmup, length time.Duration, more ...string) (*measure.Result, error) {
	args := slices.Concat([]string{"-target", s.addr, "-pid", fmt.Sprint(s.pid()), "-time", length.String(), "-warmup", warmup.String()}, w.load, more)
	result, err := b.runLoad(ctx, length+warmup, args)
	if err != nil {
		return nil, fmt.Errorf("%w; the gateway said last:\n%s", err, s.stderr.String())
	}
	return result, nil
}

// times are how long a gateway is asked in a work before each round and in it.
func (b *bench) times(w *work) (warmup, length time.Duration) {
	warmup, length = b.warmup(), b.length
	if w.cold {
		warmup = 0
	}
	if w.long > 0 {
		length = time.Duration(w.long * float64(length))
	}
	length = max(length, w.least)
	return warmup, length
}

// warmup is how long a gateway is asked before each round that is not cold.
func (b *bench) warmup() time.Duration {
	return min(b.length/3, time.Second).Round(time.Millisecond)
}

// learning is how long this gateway is asked before work l: until it knows the
// three backends, and until the answers of the slow one are less than a twentieth
// of those that it goes by. The time does not shrink with a short run.
func (b *bench) learning() time.Duration { return max(5*b.length, 8*time.Second) }

// runLoad runs the load generator and reads its result. It may take a minute
// more than it was told to.
func (b *bench) runLoad(ctx context.Context, length time.Duration, args []string) (*measure.Result, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	defer r.Close()
	p, err := b.processes.start("load", b.loadCore, w, append([]string{b.program("load")}, args...)...)
	w.Close()
	if err != nil {
		return nil, err
	}
	defer b.processes.stop(p)
	patience := length + time.Minute
	select {
	case <-p.ended:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(patience):
		return nil, fmt.Errorf("the load generator has not ended after %v", patience)
	}
	var result measure.Result
	if !p.cmd.ProcessState.Success() {
		return nil, fmt.Errorf("the load generator failed: %s", p.stderr.String())
	}
	if err := json.NewDecoder(r).Decode(&result); err != nil {
		return nil, fmt.Errorf("result of the load generator: %w", err)
	}
	return &result, nil
}
