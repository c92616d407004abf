package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gateway.internal/bench/internal/content"
	"gateway.internal/bench/internal/measure"
)

// nameViem is both what is missing where there is no viem and, as a gateway, viem's
// own fallback transport, which asks the upstreams without one.
const nameViem = "viem"

// readsAtOnce is how many reads of a viem work are under way at a time.
const readsAtOnce = 4

// viem is what the works with viem need.
type viem struct{ node, script, modules string }

// findViem finds Node.js and viem, where a chosen work needs them. Where they are
// missing these works are left out, with CI=true it is an error.
func (b *bench) findViem() error {
	if !b.wanted(nameProxyd) && !b.wanted(nameViem) || !slices.ContainsFunc(works, func(w work) bool { return w.reads > 0 && b.chosen(&w) }) {
		return nil
	}
	b.viem = viem{node: look("node"), script: filepath.Join(b.root, "bench", "viem", "reads.mjs"), modules: filepath.Join(b.root, "integration_tests", "node")}
	var missing error
	if b.viem.node == "" {
		missing = errors.New("there is no node (Node.js)")
	} else if _, err := os.Stat(filepath.Join(b.viem.modules, "node_modules", "viem", "package.json")); err != nil {
		missing = fmt.Errorf("there is no viem: %w", err)
	}
	if missing == nil {
		return nil
	}
	missing = fmt.Errorf("%w; make tools installs it", missing)
	if os.Getenv("CI") == "true" {
		return missing
	}
	fmt.Fprintf(b.progress, "SKIPPED: viem and the works with it, since %v\n", missing)
	b.missing = append(b.missing, nameViem)
	return nil
}

// reads is what bench/viem/reads.mjs prints.
type reads struct {
	Milliseconds float64 `json:"ms"`
	Requests     int     `json:"requests"`
	Calls        []struct {
		Address, Balance, Error string
		Milliseconds            float64 `json:"ms"`
	} `json:"calls"`
}

// readCount is how many reads a viem work makes in a round.
func (b *bench) readCount(w *work) int {
	return max(4*readsAtOnce, int(float64(w.reads)*b.length.Seconds()))
}

// read has viem read through a gateway, or with its fallback transport from the
// upstreams themselves when to is nil.
func (b *bench) read(ctx context.Context, w *work, s *setting, to *server) (*measure.Result, error) {
	addrs := s.upstreams
	if to != nil {
		addrs = []string{to.addr}
	}
	count := b.readCount(w)
	args := []string{b.viem.node, b.viem.script, b.viem.modules, fmt.Sprint(count), fmt.Sprint(readsAtOnce), fmt.Sprint(s.timeout),
		"http://" + s.upstreams[len(s.upstreams)-1]}
	for _, addr := range addrs {
		args = append(args, "http://"+addr)
	}
	// Each read may be as slow as two upstreams that time out.
	text, err := b.output(ctx, nameViem, time.Minute+time.Duration(2*count*s.timeout/readsAtOnce)*time.Millisecond, args)
	if err != nil {
		return nil, err
	}
	var done reads
	if err := json.Unmarshal(text, &done); err != nil {
		return nil, fmt.Errorf("result of %s: %w", b.viem.script, err)
	}
	if len(done.Calls) != count {
		return nil, fmt.Errorf("%s made %d reads of %d", b.viem.script, len(done.Calls), count)
	}
	return done.result(), nil
}

// output runs a program beside the upstreams and returns what it prints.
func (b *bench) output(ctx context.Context, name string, patience time.Duration, args []string) ([]byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer r.Close()
	p, err := b.processes.start(name, b.loadCore, w, args...)
	w.Close()
	if err != nil {
		return nil, err
	}
	defer b.processes.stop(p)
	var text bytes.Buffer
	read := make(chan error, 1)
	go func() { _, err := io.Copy(&text, r); read <- err }() // more than a pipe holds
	select {
	case <-p.ended:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(patience):
		return nil, fmt.Errorf("%s has not ended after %v", name, patience)
	}
	if !p.cmd.ProcessState.Success() {
		return nil, fmt.Errorf("%s failed (%s): %s", name, p.cmd.ProcessState, p.stderr.String())
	}
	err = <-read
	return text.Bytes(), err
}

// result checks the answers and sums up.
func (d *reads) result() *measure.Result {
	m := &measure.Result{Seconds: d.Milliseconds / 1000, Asked: d.Requests, Failed: map[string]int{}, Wrong: map[string]int{}}
	var took []float64
	for _, c := range d.Calls {
		us := c.Milliseconds * 1000
		if us > 1e6 {
			m.Slow++
		}
		want, _ := content.AppendResult(nil, content.Small, fmt.Appendf(nil, `["%s","latest"]`, c.Address))
		switch {
		case c.Error != "":
			m.Failed[c.Error]++
		case `"`+c.Balance+`"` != string(want):
			m.Wrong["another balance than that of the address"]++
		default:
			m.Requests++
			took = append(took, us)
		}
	}
	if slices.Sort(took); len(took) > 0 {
		at := func(q float64) float64 { return took[int(q*float64(len(took)-1))] }
		m.P50, m.P99, m.Max = at(0.5), at(0.99), at(1)
	}
	return m
}

// viemVersion says which viem and Node.js there are.
func (b *bench) viemVersion() string {
	if b.viem.node == "" || slices.Contains(b.missing, nameViem) {
		return "left out"
	}
	var pkg struct{ Version string }
	text, err := os.ReadFile(filepath.Join(b.viem.modules, "node_modules", "viem", "package.json"))
	if err != nil || json.Unmarshal(text, &pkg) != nil {
		return "unknown"
	}
	return pkg.Version + ", Node.js " + version(b.viem.node, "--version")
}
