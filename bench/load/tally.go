package main

import (
	"errors"
	"slices"
	"sync"
	"time"

	"gateway.internal/bench/internal/measure"
	"gateway.internal/bench/internal/proc"
)

// slow is from when on a call counts as slow.
const slow = time.Second

// tally collects what happened to requests. Each connection of a closed loop has
// its own.
type tally struct {
	mu       sync.Mutex
	requests int
	slow     int
	sent     int      // bytes of the bodies of answered requests
	received int      // bytes of their answers
	took     []uint32 // microseconds of the requests that were answered rightly
	failed   map[string]int
	wrong    map[string]int
}

// add counts the last request of a connection.
func (t *tally) add(c *conn, took time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if took > slow {
		t.slow++
	}
	if err != nil {
		t.fault(err)
		return
	}
	t.requests++
	t.sent += len(c.x.body)
	t.received += c.received
	t.took = append(t.took, uint32(min(took.Microseconds(), 1<<32-1)))
}

// fault counts an answer that was not right.
func (t *tally) fault(err error) {
	if t.failed == nil {
		t.failed, t.wrong = map[string]int{}, map[string]int{}
	}
	if errors.As(err, new(wrong)) {
		t.wrong[err.Error()]++
		return
	}
	t.failed[err.Error()]++
}

// merge adds another tally's counts.
func (t *tally) merge(o *tally) {
	t.requests += o.requests
	t.slow += o.slow
	t.sent += o.sent
	t.received += o.received
	t.took = append(t.took, o.took...)
	if t.failed == nil {
		t.failed, t.wrong = map[string]int{}, map[string]int{}
	}
	for reason, n := range o.failed {
		t.failed[reason] += n
	}
	for reason, n := range o.wrong {
		t.wrong[reason] += n
	}
}

// result sums up a window.
func (t *tally) result(window, cpu time.Duration) *measure.Result {
	slices.Sort(t.took)
	at := func(q float64) float64 {
		if len(t.took) == 0 {
			return 0
		}
		return float64(t.took[int(q*float64(len(t.took)-1))])
	}
	each := 1 / float64(max(t.requests, 1))
	return &measure.Result{
		Sent: float64(t.sent) * each, Received: float64(t.received) * each,
		Requests: t.requests, Seconds: window.Seconds(), CPU: cpu.Seconds(),
		P50: at(0.5), P99: at(0.99), Max: at(1), Slow: t.slow, Failed: t.failed, Wrong: t.wrong,
	}
}

// meter measures the gateway's processor time from one moment to another.
type meter struct {
	pids    []int
	started time.Time
	before  time.Duration
}

func startMeter(pids []int) (*meter, error) {
	before, err := proc.CPU(pids)
	return &meter{pids: pids, started: time.Now(), before: before}, err
}

// stop returns how long it ran and what was used.
func (m *meter) stop() (window, cpu time.Duration, err error) {
	window = time.Since(m.started)
	after, err := proc.CPU(m.pids)
	return window, after - m.before, err
}
