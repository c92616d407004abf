package main

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"

	"gateway.internal/bench/internal/measure"
)

// Phases of a closed loop.
const (
	warming = iota
	measuring
	ending
)

// closedLoop keeps each connection busy: the next request goes out when the
// answer to the last one has come. Faults count in the warm-up too.
func closedLoop(o *options, pids []int) (*measure.Result, error) {
	var phase atomic.Int32
	var done atomic.Int64
	var wg sync.WaitGroup
	conns := make([]conn, o.connections)
	tallies := make([]tally, o.connections)
	for i := range conns {
		c, t := &conns[i], &tallies[i]
		c.target, c.ws = o.target, o.ws
		wg.Go(func() {
			defer c.close()
			// Deadlines cost time: only large answers and slow gateways get
			// far with one, so one a second will do.
			var deadline time.Time
			for phase.Load() != ending {
				from := time.Now()
				renew := c.net == nil || from.After(deadline)
				if renew {
					deadline = from.Add(time.Second)
				}
				err := c.do(&o.calls, renew)
				switch {
				case phase.Load() == measuring:
					t.add(c, time.Since(from), err)
					done.Add(1)
				case err != nil:
					t.fault(err)
				}
				if err != nil {
					time.Sleep(time.Millisecond) // a refused connection must not spin
				}
			}
		})
	}
	time.Sleep(o.warmup)
	before, countErr := o.count()
	m, err := startMeter(pids)
	if err := cmp.Or(err, countErr); err != nil {
		phase.Store(ending)
		wg.Wait()
		return nil, err
	}
	phase.Store(measuring)
	time.Sleep(o.window)
	// Time is used in the window for requests that end after it, and less for
	// those that began before: only many requests make up for that. A short
	// window may even be over before the first large answer is.
	enough := int64(4 * o.connections)
	for late := time.Now().Add(exchangeTimeout); done.Load() < enough && time.Now().Before(late); {
		time.Sleep(time.Millisecond)
	}
	window, cpu, err := m.stop()
	after, countErr := o.count()
	phase.Store(ending)
	wg.Wait()
	if err := cmp.Or(err, countErr); err != nil {
		return nil, err
	}
	var sum tally
	for i := range tallies {
		sum.merge(&tallies[i])
	}
	result := sum.result(window, cpu)
	result.Asked, result.Upstream = after.since(before)
	return result, nil
}
