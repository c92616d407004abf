package main

import (
	"sync"
	"time"

	"gateway.internal/bench/internal/measure"
)

// openLoop sends requests when they are due, whether earlier ones are answered
// or not, each on an idle connection or a new one. All requests that were due in
// the window are waited for.
func openLoop(o *options, pids []int) (*measure.Result, error) {
	var sum tally
	var wg sync.WaitGroup
	var mu sync.Mutex
	var idle []*conn
	send := func(due time.Time, t *tally) {
		mu.Lock()
		var c *conn
		if n := len(idle); n > 0 {
			c, idle = idle[n-1], idle[:n-1]
		} else {
			c = &conn{target: o.target, ws: o.ws}
		}
		mu.Unlock()
		wg.Go(func() {
			err := c.do(&o.calls, true)
			t.add(c, time.Since(due), err)
			mu.Lock()
			idle = append(idle, c)
			mu.Unlock()
		})
	}
	pace := func(length time.Duration, t *tally) {
		started := time.Now()
		for n := 0; ; n++ {
			after := time.Duration(float64(n) / o.rate * float64(time.Second))
			if after >= length {
				return
			}
			due := started.Add(after)
			time.Sleep(time.Until(due))
			send(due, t)
		}
	}
	var warming tally
	pace(o.warmup, &warming)
	m, err := startMeter(pids)
	if err != nil {
		return nil, err
	}
	pace(o.window, &sum)
	window, cpu, err := m.stop()
	wg.Wait()
	for _, c := range idle {
		c.close()
	}
	if err != nil {
		return nil, err
	}
	sum.merge(&tally{failed: warming.failed, wrong: warming.wrong})
	return sum.result(window, cpu), nil
}
