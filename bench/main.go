// Command bench compares this gateway with plain reverse proxies: the same work
// against each of them on one machine, in one go.
//
//	go run ./bench            all works
//	go run ./bench -plots     how cost grows, as SVG
//	go run ./bench -profile   where this gateway's time and memory go
//
// Each gateway runs on one core, the upstream and the load generator on another.
// Every answer is checked; one of this gateway that is wrong or failed makes the
// exit code 1, times never do. Results go to bench/out/ and stdout, progress to
// stderr.
//
// HAProxy and nginx are installed where they are missing and that is allowed. Where
// it is not, the run goes on without them and says so; with CI=true it is an error.
// So it does without viem and Node.js, which make tools installs.
//
// Environment: BENCH_SECONDS how long a round is (default 3), BENCH_ROUNDS how
// many there are (default 3), BENCH_WORKS which works (a,b,…; default all, a for
// -profile), BENCH_GATEWAYS which gateways (default all).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const usage = `Compare this gateway with plain reverse proxies, and with viem's fallback transport, on this machine.

Environment:
  BENCH_SECONDS   how long a round is, default 3
  BENCH_ROUNDS    how many there are, default 3
  BENCH_WORKS     which works, like a,b; default all, a for -profile
  BENCH_GATEWAYS  which gateways, like proxyd,haproxy; default all

Flags:`

// bench is one run of the benchmark.
type bench struct {
	// Programs, "" when they are not there.
	haproxy, nginx string
	viem           viem
	// root is the module's directory, dir is for what is only needed while it
	// runs, out for the results.
	root, dir, out string
	// gatewayCore runs the gateway, loadCore the upstream and the load
	// generator; -1 is any.
	gatewayCore, loadCore int
	length                time.Duration
	rounds                int
	works, only           []string // ids and gateways that were asked for; empty for all
	missing               []string // gateways that are not installed and cannot be
	processes             processes
	progress              io.Writer
}

func main() {
	// Children are told to end when the thread that started them does: that
	// must be one that lives as long as the program.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	plots := flag.Bool("plots", false, "draw how cost grows with clients, body size, batch size and backends, instead of the works")
	profile := flag.Bool("profile", false, "show where this gateway's time and memory go, in rounds as long as all rounds together, instead of the works")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("%q is too much: there are only -plots and -profile, and BENCH_SECONDS, BENCH_ROUNDS, BENCH_WORKS and BENCH_GATEWAYS in the environment", flag.Arg(0))
	}
	if *plots && *profile {
		return errors.New("-plots and -profile are two runs: choose one")
	}
	b := &bench{progress: os.Stderr}
	if err := b.environment(); err != nil {
		return err
	}
	if *profile {
		b.only = []string{nameProxyd}
		if len(b.works) == 0 {
			b.works = []string{"a"}
		}
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return fmt.Errorf("temporary directory: %w", err)
	}
	defer os.RemoveAll(b.dir)
	defer b.processes.stopAll()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if *plots {
		b.rounds = 1
	} else if err := b.findViem(); err != nil {
		return err
	}
	m := machineOf(b)
	switch {
	case *plots:
		m.Length = fmt.Sprintf("one of %v after %v of warm-up for each point", b.length, b.warmup())
	case *profile:
		m.Length = "one with a CPU profile and one in which each allocation is noted"
	}
	if b.length < time.Second && !*profile {
		m.Length += "; too short for figures, since the kernel counts CPU in steps of 10 ms"
	}
	fmt.Println(m)
	switch {
	case *plots:
		return b.drawAll(ctx, m)
	case *profile:
		return b.profileAll(ctx, m)
	}
	return b.compare(ctx, m)
}

// environment reads the variables.
func (b *bench) environment() error {
	seconds, err := positive("BENCH_SECONDS", 3)
	if err != nil {
		return err
	}
	rounds, err := positive("BENCH_ROUNDS", 3)
	if err != nil {
		return err
	}
	b.length, b.rounds = time.Duration(seconds*float64(time.Second)), max(1, int(rounds))
	b.works, b.only = list("BENCH_WORKS"), list("BENCH_GATEWAYS")
	for _, id := range b.works {
		if !slices.ContainsFunc(works, func(w work) bool { return strings.HasPrefix(w.id, id) }) {
			return fmt.Errorf("BENCH_WORKS: there is no work %q; there are %s", id, strings.Join(workIDs(), ", "))
		}
	}
	for _, name := range b.only {
		if !slices.ContainsFunc(gateways, func(g gateway) bool { return g.name == name }) {
			return fmt.Errorf("BENCH_GATEWAYS: there is no gateway %q; there are proxyd, haproxy, nginx, reverseproxy, net/http bare, coder/websocket bare and viem", name)
		}
	}
	return nil
}

func workIDs() []string {
	ids := make([]string, len(works))
	for i, w := range works {
		ids[i] = w.id
	}
	return ids
}

func positive(name string, otherwise float64) (float64, error) {
	text := os.Getenv(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n <= 0 || n > 3600 {
		return 0, fmt.Errorf("%s=%q: must be a number above 0, like %g", name, text, otherwise)
	}
	return n, nil
}

// list splits a variable at commas.
func list(name string) (items []string) {
	for item := range strings.SplitSeq(os.Getenv(name), ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// chosen reports whether a work was asked for. A letter stands for all that
// begin with it.
func (b *bench) chosen(w *work) bool {
	return len(b.works) == 0 || slices.ContainsFunc(b.works, func(id string) bool { return strings.HasPrefix(w.id, id) })
}

// wanted reports whether a gateway was asked for.
func (b *bench) wanted(name string) bool { return len(b.only) == 0 || slices.Contains(b.only, name) }

// taking are the gateways that take part in a work.
func (b *bench) taking(names []string) (part []*gateway) {
	for i := range gateways {
		g := &gateways[i]
		if slices.Contains(names, g.name) && b.wanted(g.name) && !slices.Contains(b.missing, g.name) {
			part = append(part, g)
		}
	}
	return part
}

// program is where one of the benchmark's own programs was built.
func (b *bench) program(name string) string { return filepath.Join(b.dir, name) }
