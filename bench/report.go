package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gateway.internal/bench/internal/measure"
)

// report is all that was found out.
type report struct {
	Machine *machine  `json:"machine"`
	Rows    []row     `json:"rows"`
	Targets []verdict `json:"targets"`
}

// find returns the row of a gateway in a work, nil when it did not take part.
func (r *report) find(work, gateway string) *row {
	i := slices.IndexFunc(r.Rows, func(o row) bool { return o.Work == work && o.Gateway == gateway })
	if i < 0 {
		return nil
	}
	return &r.Rows[i]
}

// write puts the report into a directory, as Markdown and as JSON.
func (r *report) write(dir string) error {
	r.Targets = r.targets()
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "report.json"), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "report.md"), []byte(r.Machine.String()+"\n"+r.markdown()), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// reading says how the table is meant.
const reading = `A request is one HTTP request: a batch is one. Each gateway has a core of its own, and the load generator shares another with the
upstream, so that the rates say little and the processor's time is what compares.

- CPU µs: user and system time of the gateway's processes for a request, the median of the rounds; beside it the lowest and the highest.
- p50, p99: from when a request was sent; in h0, h and i from when it was due, whether those before it had been answered or not.
- peak MiB: the most resident memory of the gateway's processes since it was started.
- failed, wrong: requests without an answer or with an error, and answers with an id, a length or a byte that is not that of the call;
  of all rounds, warm-ups included. Every byte of every answer is compared.
- × HAProxy: CPU µs of the gateway through that of HAProxy in the same work.
- l: the upstreams wait so long before they answer, and count what comes to them in the rounds; 8 connections ask. Extra is what came
  to them beyond the clients' calls, in percent of these; a call that is under way when a round begins or ends may count on one side only.
- m: viem in Node.js reads balances, four at a time, through this gateway or with its own fallback transport over the same two backends.
  Its options are the defaults, but for the timeout of the transports below fallback, which is this gateway's response timeout. It
  shares a core with the upstreams, and has made 200 reads from a good one before.
- n, o: the bare one is Go's net/http with coder/websocket and next to nothing else: a handler that waits in the reader, and for o a loop
  that writes the same notification to all. In o the upstream of this gateway publishes a head every 500 ms; CPU µs are those of a
  notification, and the time is from the upstream's write, or from before the first write of the loop, until the last client has
  read it. Every byte of every notification is compared, and that each client gets each head once and in order.
- q: two upstreams publish the same heads and logs, one block each second by the clock. The one that is followed is killed (kill -9)
  between two blocks, as one is published, or just before, by turns, and started again before the other one is. Each client listens to heads
  and to one log in each block, and is checked by itself: each event from its first to the last once, in order, each byte and thereby
  the hashes that link heads. A pause is how much longer than a second a client waited for its next head or its next log.

proxyd reads each call, looks up its method, limits, caches and counts it, and checks each answer and its id. HAProxy, nginx and
reverseproxy (Go's httputil.ReverseProxy) forward bytes.

`

// markdown is one table of all works and, below it, what went wrong and the
// targets.
func (r *report) markdown() string {
	var b strings.Builder
	if len(r.Machine.Missing) > 0 {
		fmt.Fprintf(&b, "**Skipped, since they are not installed and cannot be: %s.**\n\n", strings.Join(r.Machine.Missing, ", "))
	}
	b.WriteString(reading)
	head := "| work | gateway | CPU µs | in rounds | requests/s | p50 ms | p99 ms | peak MiB | failed | wrong | over 1 s | × HAProxy |\n" +
		"|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
	last := ""
	for i := range r.Rows {
		o := &r.Rows[i]
		if o.Idle > 0 || o.Asked > 0 || o.Heads > 0 || o.Listeners > 0 {
			continue
		}
		b.WriteString(head)
		head = ""
		title := ""
		if o.Work != last {
			title = fmt.Sprintf("%s %s (bodies %.0f → %.0f bytes)", o.Work, o.Title, o.Sent, o.Received)
		}
		last = o.Work
		ratio := "–"
		if h := r.find(o.Work, nameHAProxy); h != nil && h.CPU > 0 && o.CPU > 0 {
			ratio = fmt.Sprintf("%.2f", o.CPU/h.CPU)
		}
		between := "–"
		if len(o.Rounds) > 1 {
			between = figure(o.CPULow) + "–" + figure(o.CPUHigh)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.0f | %.2f | %.2f | %.0f | %d | %d | %d | %s |\n", title, o.Gateway, figure(o.CPU), between, o.Rate,
			o.P50/1000, o.P99/1000, mib(o.Peak), measure.Sum(o.Failed), measure.Sum(o.Wrong), o.Slow, ratio)
	}
	r.idleTable(&b)
	r.tailTable(&b)
	r.viemTable(&b)
	r.socketTable(&b)
	r.headTable(&b)
	r.outageTable(&b)
	r.faults(&b)
	r.targetTable(&b)
	return b.String()
}

func (r *report) idleTable(b *strings.Builder) {
	head := "\nMemory is resident memory of the gateway's processes; the kernel's buffers of sockets are not in it.\n\n| j 5,000 idle connections | KiB each | peak MiB | failed | wrong | × bare net/http | × HAProxy |\n|---|--:|--:|--:|--:|--:|--:|\n"
	for i := range r.Rows {
		o := &r.Rows[i]
		if o.Idle <= 0 || o.Goroutines > 0 {
			continue
		}
		b.WriteString(head)
		head = ""
		ratio := func(other string) string {
			if h := r.find(o.Work, other); h != nil && h.Idle > 0 {
				return fmt.Sprintf("%.2f", o.Idle/h.Idle)
			}
			return "–"
		}
		fmt.Fprintf(b, "| %s | %.1f | %.0f | %d | %d | %s | %s |\n", o.Gateway, o.Idle/1024, mib(o.Peak), measure.Sum(o.Failed), measure.Sum(o.Wrong),
			ratio(nameBare), ratio(nameHAProxy))
	}
}

// tailTable is that of the works with upstreams that take their time.
func (r *report) tailTable(b *strings.Builder) {
	head := "\n| l one slow backend of three | p50 ms | p99 ms | calls | to the first | to the second | to the third | extra % | failed | wrong |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
	for i := range r.Rows {
		o := &r.Rows[i]
		extra, ok := o.extra()
		if !ok || len(o.Upstream) != 3 {
			continue
		}
		b.WriteString(head)
		head = ""
		fmt.Fprintf(b, "| %s %s | %.2f | %.2f | %d | %d | %d | %d | %.2f | %d | %d |\n", o.Work, o.Title, o.P50/1000, o.P99/1000, o.Asked,
			o.Upstream[0], o.Upstream[1], o.Upstream[2], extra, measure.Sum(o.Failed), measure.Sum(o.Wrong))
	}
}

// viemTable is that of the works with viem.
func (r *report) viemTable(b *strings.Builder) {
	head := "\n| m viem with two backends | through | reads | HTTP requests | failed | wrong | p50 ms | p99 ms | over 1 s | s a round |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
	last := ""
	for i := range r.Rows {
		o := &r.Rows[i]
		if o.Asked == 0 || len(o.Upstream) > 0 {
			continue
		}
		b.WriteString(head)
		head = ""
		title, through := "", "its http transport, to proxyd"
		if o.Gateway == nameViem {
			through = "its fallback transport"
		}
		if o.Work != last {
			title = o.Work + " " + o.Title
		}
		last = o.Work
		failed, wrong := measure.Sum(o.Failed), measure.Sum(o.Wrong)
		fmt.Fprintf(b, "| %s | %s | %d | %d | %d | %d | %.1f | %.1f | %d | %.2f |\n", title, through, o.Requests+failed+wrong, o.Asked, failed, wrong,
			o.P50/1000, o.P99/1000, o.Slow, o.Seconds)
	}
}

// socketTable is that of the idle WebSockets.
func (r *report) socketTable(b *strings.Builder) {
	head := "\n| n idle WebSockets | gateway | KiB each | goroutines each | CPU while idle, % of a core | peak MiB | failed | wrong | × bare |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n"
	last := ""
	for i := range r.Rows {
		o := &r.Rows[i]
		if o.Idle <= 0 || o.Goroutines <= 0 {
			continue
		}
		b.WriteString(head)
		head = ""
		fmt.Fprintf(b, "| %s | %s | %.1f | %.2f | %.2f | %.0f | %d | %d | %s |\n", titleOnce(o, &last), o.Gateway, o.Idle/1024, o.Goroutines, o.IdleCPU, mib(o.Peak),
			measure.Sum(o.Failed), measure.Sum(o.Wrong), r.toBare(o, func(o *row) float64 { return o.Idle }))
	}
}

// headTable is that of the subscribers.
func (r *report) headTable(b *strings.Builder) {
	head := "\n| o subscribers | gateway | CPU µs | in rounds | × bare | ms until all have it, p50 | slowest | × bare | heads | notifications | bytes each | upstream subscriptions | peak MiB | failed | wrong |\n" +
		"|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
	last := ""
	for i := range r.Rows {
		o := &r.Rows[i]
		if o.Heads == 0 {
			continue
		}
		b.WriteString(head)
		head = ""
		made := "–"
		if o.Gateway == nameProxyd {
			made = fmt.Sprint(o.Subscriptions)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s–%s | %s | %.1f | %.1f | %s | %d | %d | %.0f | %s | %.0f | %d | %d |\n", titleOnce(o, &last), o.Gateway,
			figure(o.CPU), figure(o.CPULow), figure(o.CPUHigh), r.toBare(o, func(o *row) float64 { return o.CPU }),
			o.P50/1000, o.Slowest/1000, r.toBare(o, func(o *row) float64 { return o.P50 }),
			o.Heads, o.Requests, o.Received, made, mib(o.Peak), measure.Sum(o.Failed), measure.Sum(o.Wrong))
	}
}

// outageTable is that of the listeners whose upstreams are killed.
func (r *report) outageTable(b *strings.Builder) {
	head := "\n| q upstreams killed | gateway | rounds | kills | events | sockets closed | missed | duplicated | out of order | longest pause beyond a block in ms, p50 of the kills | the most | without a kill | CPU µs an event | peak MiB | failed | wrong |\n" +
		"|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
	for i := range r.Rows {
		o := &r.Rows[i]
		if o.Listeners == 0 {
			continue
		}
		b.WriteString(head)
		head = ""
		fmt.Fprintf(b, "| %s %s | %s | %d | %d | %d | %d | %d | %d | %d | %.1f | %.1f | %.1f | %s | %.0f | %d | %d |\n", o.Work, o.Title, o.Gateway, len(o.Rounds), len(o.Felt), o.Requests,
			o.Closed, o.Missed, o.Twice, o.Disordered, median(o.Felt)/1000, slices.Max(append(o.Felt, 0))/1000, o.Calm/1000, figure(o.CPU), mib(o.Peak),
			measure.Sum(o.Failed), measure.Sum(o.Wrong))
	}
}

// titleOnce is what a row's work is, in the first of its rows.
func titleOnce(o *row, last *string) string {
	if o.Work == *last {
		return ""
	}
	*last = o.Work
	return o.Work + " " + o.Title
}

// toBare is a figure through that of the bare WebSockets in the same work.
func (r *report) toBare(o *row, figure func(*row) float64) string {
	bare := r.find(o.Work, nameSocket)
	if bare == nil || figure(bare) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", figure(o)/figure(bare))
}

// faults lists the reasons of what failed or was wrong.
func (r *report) faults(b *strings.Builder) {
	head := "\nWhat failed or was wrong:\n\n"
	for i := range r.Rows {
		o := &r.Rows[i]
		for _, kind := range []struct {
			name   string
			counts map[string]int
		}{{"wrong", o.Wrong}, {"failed", o.Failed}} {
			for _, reason := range slices.Sorted(maps.Keys(kind.counts)) {
				b.WriteString(head)
				head = ""
				fmt.Fprintf(b, "- %s %s: %d %s: %s\n", o.Work, o.Gateway, kind.counts[reason], kind.name, strings.Join(strings.Fields(reason), " "))
			}
		}
	}
}

// verdict is an error when an answer of this gateway was wrong or failed. Other
// gateways are only reported, and times are not judged.
func (r *report) verdict() error {
	var errs []error
	for i := range r.Rows {
		o := &r.Rows[i]
		if o.Gateway != nameProxyd {
			continue
		}
		wrong, failed := measure.Sum(o.Wrong), measure.Sum(o.Failed)
		if wrong > 0 || failed > 0 {
			errs = append(errs, fmt.Errorf("work %s, %s: %d answers were wrong and %d requests failed of %d; the report says why", o.Work, o.Gateway, wrong, failed, wrong+failed+o.Requests))
		}
		if o.Requests == 0 {
			errs = append(errs, fmt.Errorf("work %s, %s: no request was answered", o.Work, o.Gateway))
		}
	}
	return errors.Join(errs...)
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// figure prints a time with as many digits as it is worth.
func figure(us float64) string {
	if us < 100 {
		return fmt.Sprintf("%.1f", us)
	}
	return fmt.Sprintf("%.0f", us)
}
