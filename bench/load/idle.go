package main

import (
	"fmt"
	"sync"
	"time"

	"gateway.internal/bench/internal/measure"
	"gateway.internal/bench/internal/proc"
)

// settle is how long the gateway is left alone before its memory is read.
const settle = time.Second

// idle opens connections, has one call answered on each, leaves them alone and
// measures by how much the gateway's memory has grown. Then all are used again,
// to see that none was lost.
func idle(o *options, pids []int) (*measure.Result, error) {
	var sum tally
	first := conn{target: o.target}
	for range 1000 { // what the first calls take once is not for connections
		if err := first.do(&o.calls, false); err != nil {
			return nil, fmt.Errorf("warm up: %w", err)
		}
	}
	time.Sleep(settle)
	before, err := proc.Memory(pids)
	if err != nil {
		return nil, err
	}
	conns := make([]conn, o.idle)
	m, err := startMeter(pids)
	if err != nil {
		return nil, err
	}
	each(conns, func(c *conn) {
		c.target = o.target
		from := time.Now()
		err := c.do(&o.calls, true)
		sum.add(c, time.Since(from), err)
	})
	window, cpu, err := m.stop()
	if err != nil {
		return nil, err
	}
	time.Sleep(settle)
	after, err := proc.Memory(pids)
	if err != nil {
		return nil, err
	}
	each(conns, func(c *conn) {
		var err error = failure("idle connection closed by the gateway")
		if c.net != nil {
			err = c.do(&o.calls, true)
		}
		if err != nil {
			sum.mu.Lock()
			sum.fault(err)
			sum.mu.Unlock()
		}
		c.close()
	})
	first.close()
	result := sum.result(window, cpu)
	result.PerConnection = float64(after-before) / float64(o.idle)
	return result, nil
}

// each does something with all connections, a few at a time.
func each(conns []conn, do func(*conn)) {
	const atOnce = 16
	var wg sync.WaitGroup
	for first := range atOnce {
		wg.Go(func() {
			for i := first; i < len(conns); i += atOnce {
				do(&conns[i])
			}
		})
	}
	wg.Wait()
}
