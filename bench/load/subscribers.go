package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"gateway.internal/bench/internal/measure"
)

// subscribe has as many WebSockets as wanted subscribe to heads, and measures from
// one complete head to another what notifications cost the gateway and how long
// it is from the upstream's write until all have it.
func subscribe(o *options, pids []int) (*measure.Result, error) {
	before, err := o.subscriptions()
	if err != nil {
		return nil, err
	}
	r, err := newReader(o)
	if err != nil {
		return nil, err
	}
	defer r.poller.close()
	window, cpu, err := r.run(o, pids)
	if err != nil {
		return nil, err
	}
	after, err := o.subscriptions()
	if err != nil {
		return nil, err
	}
	result := r.sum.result(window, cpu)
	result.Heads, result.Subscriptions = len(r.sum.took), after-before
	return result, nil
}

// subscriptions is how many the upstream says that were made there, 0 when it is
// not to be asked.
func (o *options) subscriptions() (n int, err error) {
	if o.counts == "" {
		return 0, nil
	}
	text, err := fetch("http://" + o.counts + "/subscriptions")
	if err == nil {
		n, err = strconv.Atoi(string(text))
	}
	if err != nil {
		return 0, fmt.Errorf("subscriptions at the upstream: %w", err)
	}
	return n, nil
}

// reader reads the notifications to all subscribers.
type reader struct {
	fanout
	streams
	latest head
}

// newReader has all subscribe. Heads that come meanwhile wait in the kernel.
func newReader(o *options) (*reader, error) {
	streams, err := newStreams(o.subscribers)
	if err != nil {
		return nil, err
	}
	r := &reader{streams: streams}
	r.subscribers = make([]subscriber, o.subscribers)
	each(r.subscribers, func(i int, s *subscriber) {
		if err := r.subscribe(o, i, s); err != nil {
			if !errors.As(err, new(wrong)) {
				err = failure("subscribe: " + reason(err))
			}
			r.sum.mu.Lock()
			r.lose(s, err)
			r.sum.mu.Unlock()
		}
	})
	return r, nil
}

func (r *reader) subscribe(o *options, i int, s *subscriber) error {
	c, err := dialSocket(o.target)
	if err != nil {
		return err
	}
	if s.id, err = ask(c, i, headsOnly, nil); err != nil {
		_ = c.conn.Close()
		return err
	}
	return r.add(i, c)
}

// headsOnly are the params of a subscription to heads.
const headsOnly = `["newHeads"]`

// ask asks for a subscription and returns its id with its quotes. Notifications that
// come before are for early, nil when there cannot be any.
func ask(c *socket, i int, params string, early func(text []byte)) (subscription []byte, err error) {
	id := strconv.Itoa(i)
	if err := c.send([]byte(`{"jsonrpc":"2.0","id":` + id + `,"method":"eth_subscribe","params":` + params + `}`)); err != nil {
		return nil, err
	}
	text, err := c.next()
	for ; err == nil && early != nil && bytes.HasPrefix(text, []byte(opening)); text, err = c.next() {
		early(text)
	}
	if err != nil {
		return nil, err
	}
	var a answer
	switch err := json.Unmarshal(text, &a); {
	case err != nil:
		return nil, wrong("answer to eth_subscribe is no JSON")
	case a.Error != nil:
		return nil, a.failure()
	case a.Version != "2.0" || string(a.ID) != id || len(a.Result) < 3 || a.Result[0] != '"':
		return nil, wrong("answer to eth_subscribe without its id or with none of a subscription")
	}
	return a.Result, nil
}

// run reads until the window is over. It begins and ends when a head is complete,
// so that all notifications of some heads are in it and none of others.
func (r *reader) run(o *options, pids []int) (window, cpu time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var m *meter
	var meterErr error
	begun := time.Now()
	last := begun // when a head was complete
	over := false
	complete := func() {
		last = time.Now()
		switch {
		case over: // it is read with the one that ended the window
		case m == nil && last.Sub(begun) >= o.warmup:
			m, meterErr = startMeter(pids)
			r.restart()
		case m != nil && last.Sub(m.started) >= o.window:
			window, cpu, meterErr = m.stop()
			over = true
		}
		over = over || meterErr != nil
	}
	take := func(i int, text []byte) { r.take(&r.subscribers[i], text, complete) }
	// What came with the answers to eth_subscribe is read first.
	for i := range r.subscribers {
		if !r.subscribers[i].gone {
			r.lost(i, r.leftover(i, take))
		}
	}
	for !over && err == nil && r.gone < len(r.subscribers) {
		err = r.poller.wait(50*time.Millisecond, func(i int) bool {
			r.lost(i, r.read(i, take))
			return !over
		})
		if !over && time.Since(last) > o.patience {
			r.sum.fault(failure(fmt.Sprintf("no head that came to all of %d subscribers within %v", o.subscribers, o.patience)))
			over = true
		}
	}
	return window, cpu, cmp.Or(err, meterErr)
}

// take takes a message to a subscriber.
func (r *reader) take(s *subscriber, text []byte, complete func()) {
	if err := r.latest.read(text, s.id); err != nil {
		r.sum.fault(err)
		return
	}
	r.sum.received += len(text)
	if r.got(s, r.latest.number, r.latest.published, time.Now()) {
		complete()
	}
}

// lost gives a subscriber up, if there is a reason.
func (r *reader) lost(i int, why error) {
	if why == nil {
		return
	}
	r.lose(&r.subscribers[i], why)
	r.poller.remove(i)
}
