package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

const reading = `
A request is one HTTP request: a batch is one. Figures are medians of the rounds: user and system time of the client's process and
allocations for a request; × is CPU µs through that of the first client.

All clients send the same bodies and header fields, have a time-out, read the whole answer into memory of its own, parse it and check ids
and lengths. "backend" is proxyd/backend with what it does besides: health, metrics, the watch for silent upstreams; "backend, net/http"
is what http2 = true selects, here with HTTP/1.1. The bare clients do none of that, so that the comparison is in their favour. Large
results are mostly passed on by the gateway while they come; here they are read whole.

| work | client | CPU µs | in rounds | × | allocations | requests/s |
|---|---|--:|--:|--:|--:|--:|
`

// head is what stands above the figures.
func head(rounds string) string {
	info, _ := debug.ReadBuildInfo()
	fasthttp := info.Deps[slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == "github.com/valyala/fasthttp" })]
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	_, model, _ := strings.Cut(string(cpu), "\nmodel name\t: ")
	model, _, _ = strings.Cut(model, "\n")
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("- Date: %s\n- Machine: %s, %d cores, load average %.4s\n- Versions: %s, fasthttp %s\n- Rounds: %s\n",
		time.Now().UTC().Format("2006-01-02 15:04 MST"), model, runtime.NumCPU(), load, runtime.Version(), fasthttp.Version, rounds) + reading
}

// rows are the lines of a work; all has its figures by client and round.
func rows(title string, all [][]figures) string {
	var b strings.Builder
	first, _, _ := spread(all[0], cpuTime)
	for k, rounds := range all {
		cpu, low, high := spread(rounds, cpuTime)
		objects, _, _ := spread(rounds, allocations)
		each, _, _ := spread(rounds, rate)
		fmt.Fprintf(&b, "| %s | %s | %.1f | %.1f–%.1f | %.2f | %.1f | %.0f |\n", title, clients[k].name, cpu, low, high, cpu/first, objects, each)
		title = ""
	}
	return b.String()
}

// spread is the median, the lowest and the highest of a figure.
func spread(rounds []figures, figure int) (median, low, high float64) {
	var all []float64
	for _, f := range rounds {
		all = append(all, f[figure])
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2, all[0], all[len(all)-1]
}
