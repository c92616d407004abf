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

// idle opens connections, has one call answered on each unless they are to be
// silent, leaves them alone and measures by how much the gateway's memory has
// grown; where it is told, its goroutines too, and the processor's time that it
// takes to do nothing. Then all are used again, to see that none was lost.
func idle(o *options, pids []int) (*measure.Result, error) {
	var sum tally
	first := conn{target: o.target, ws: o.ws}
	for range 1000 { // what the first calls take once is not for connections
		if err := first.do(&o.calls, false); err != nil {
			return nil, fmt.Errorf("warm up: %w", err)
		}
	}
	fewer, err := o.goroutines()
	if err != nil {
		return nil, err
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
	each(conns, func(_ int, c *conn) {
		c.target, c.ws = o.target, o.ws
		from := time.Now()
		var err error
		if o.silent {
			if err = c.dial(); err != nil {
				err = failure(reason(err))
			}
		} else {
			err = c.do(&o.calls, true)
		}
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
	more, idleCPU, err := o.restful(pids)
	if err != nil {
		return nil, err
	}
	each(conns, func(_ int, c *conn) {
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
	result.Goroutines, result.IdleCPU = float64(more-fewer)/float64(o.idle), idleCPU
	return result, nil
}

// restful returns what the gateway has and takes while nobody asks anything: its
// goroutines and the percentage of a core, both 0 where it does not say the first.
func (o *options) restful(pids []int) (goroutines int, percent float64, err error) {
	if o.metrics == "" {
		return 0, 0, nil
	}
	m, err := startMeter(pids)
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(o.window)
	window, cpu, err := m.stop()
	if err != nil {
		return 0, 0, err
	}
	goroutines, err = o.goroutines()
	return goroutines, 100 * cpu.Seconds() / window.Seconds(), err
}

// each does something with all of a slice, a few at a time.
func each[T any](all []T, do func(i int, one *T)) {
	const atOnce = 16
	var wg sync.WaitGroup
	for first := range atOnce {
		wg.Go(func() {
			for i := first; i < len(all); i += atOnce {
				do(i, &all[i])
			}
		})
	}
	wg.Wait()
}
