package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// outages has the benchmark kill the upstream that is followed, and start it again
// some blocks later.
type outages struct {
	control  string        // address of the benchmark
	interval time.Duration // between blocks
	patience time.Duration // with the benchmark
	mu       sync.Mutex
	all      []outage
}

// outage is the time that an upstream was down.
type outage struct {
	killed, started time.Time     // started is zero until it is
	longest         time.Duration // that a client waited for an event beyond its time
}

const (
	// kills is how many outages a run has.
	kills = 3
	// calmBlocks is how many blocks of a run are before the first outage at least.
	calmBlocks = 2
	// leastCycle is how many blocks are at least from one kill to the next, and
	// uptime is how many of them nothing is down.
	leastCycle, uptime = 3, 1.25
)

// moments are when upstreams are killed by turns, in blocks after one is due: half
// way to the next, as it is published, and just before that.
var moments = [...]float64{0.5, 0, -0.01}

// cycle is how many blocks are from one kill to the next in a run of some length.
func (o *outages) cycle(window time.Duration) int {
	return max(leastCycle, (int(window/o.interval)-calmBlocks-1)/kills)
}

// run makes all outages, the first at a block due at some moment. It returns when
// there is one to come no more for as long as between two others.
func (o *outages) run(due time.Time, cycle int) error {
	for n := range kills {
		begins := due.Add(time.Duration(n*cycle) * o.interval)
		if err := o.kill(begins.Add(o.blocks(moments[n%len(moments)]))); err != nil {
			return err
		}
		time.Sleep(time.Until(begins.Add(o.blocks(float64(cycle) - uptime))))
		if err := o.start(); err != nil {
			return err
		}
	}
	time.Sleep(time.Until(due.Add(time.Duration(kills*cycle) * o.interval)))
	return nil
}

func (o *outages) blocks(n float64) time.Duration { return time.Duration(n * float64(o.interval)) }

// kill has the upstream that is followed killed at some moment.
func (o *outages) kill(at time.Time) error {
	time.Sleep(time.Until(at.Add(-o.interval / 4))) // so long to find out which it is
	o.mu.Lock()
	o.all = append(o.all, outage{killed: at})
	o.mu.Unlock()
	killed, err := o.ask(fmt.Sprintf("kill?at=%d", at.UnixNano()))
	o.mu.Lock()
	defer o.mu.Unlock()
	last := len(o.all) - 1
	if err != nil {
		o.all = o.all[:last]
		return err
	}
	o.all[last].killed = killed
	return nil
}

func (o *outages) start() error {
	started, err := o.ask("start")
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all[len(o.all)-1].started = started
	return nil
}

// ask has the benchmark do something and returns when it did.
func (o *outages) ask(what string) (time.Time, error) {
	fail := func(err error) (time.Time, error) { return time.Time{}, fmt.Errorf("outage: %w", err) }
	client := http.Client{Timeout: o.patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + o.control + "/" + what)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fail(err)
	}
	if resp.StatusCode != http.StatusOK {
		return fail(fmt.Errorf("%s", text))
	}
	ns, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return fail(err)
	}
	return time.Unix(0, ns), nil
}

// felt notes how much longer than between two blocks a client waited for an event.
// It reports whether that was during an outage.
func (o *outages) felt(from, to time.Time, beyond time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := len(o.all) - 1; i >= 0; i-- {
		one := &o.all[i]
		if !one.killed.After(to) && (one.started.IsZero() || !one.started.Before(from)) {
			one.longest = max(one.longest, beyond)
			return true
		}
	}
	return false
}
