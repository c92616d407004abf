package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"gateway.internal/bench/internal/frame"
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
	poller *poller
	rest   [][]byte // what was read of a message that is not complete, for each
	buf    []byte
	latest head
}

// newReader has all subscribe. Heads that come meanwhile wait in the kernel.
func newReader(o *options) (*reader, error) {
	poller, err := newPoller(o.subscribers)
	if err != nil {
		return nil, err
	}
	r := &reader{poller: poller, rest: make([][]byte, o.subscribers), buf: make([]byte, 64<<10)}
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
	if err := s.ask(c, i); err != nil {
		_ = c.conn.Close()
		return err
	}
	r.rest[i] = append(r.rest[i], c.in[c.used:]...)
	return r.poller.add(i, c.conn)
}

// ask asks for a subscription.
func (s *subscriber) ask(c *socket, i int) error {
	id := strconv.Itoa(i)
	if err := c.send([]byte(`{"jsonrpc":"2.0","id":` + id + `,"method":"eth_subscribe","params":["newHeads"]}`)); err != nil {
		return err
	}
	text, err := c.next()
	if err != nil {
		return err
	}
	var a answer
	switch err := json.Unmarshal(text, &a); {
	case err != nil:
		return wrong("answer to eth_subscribe is no JSON")
	case a.Error != nil:
		return a.failure()
	case a.Version != "2.0" || string(a.ID) != id || len(a.Result) < 3 || a.Result[0] != '"':
		return wrong("answer to eth_subscribe without its id or with none of a subscription")
	}
	s.id = a.Result
	return nil
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
	// What came with the answers to eth_subscribe is read first.
	for i := range r.subscribers {
		if s := &r.subscribers[i]; !s.gone {
			left := r.rest[i]
			r.rest[i] = nil
			r.messages(i, left, complete)
		}
	}
	for !over && err == nil && r.gone < len(r.subscribers) {
		err = r.poller.wait(50*time.Millisecond, func(i int) bool {
			r.read(i, complete)
			return !over
		})
		if !over && time.Since(last) > o.patience {
			r.sum.fault(failure(fmt.Sprintf("no head that came to all of %d subscribers within %v", o.subscribers, o.patience)))
			over = true
		}
	}
	return window, cpu, cmp.Or(err, meterErr)
}

// read reads what has come for a subscriber.
func (r *reader) read(i int, complete func()) {
	kept := copy(r.buf, r.rest[i])
	n, err := r.poller.read(i, r.buf[kept:])
	if err != nil {
		r.lost(i, failure("subscriber: "+reason(err)))
		return
	}
	r.messages(i, r.buf[:kept+n], complete)
}

// messages takes what was read for a subscriber, and keeps what is not complete.
func (r *reader) messages(i int, in []byte, complete func()) {
	s := &r.subscribers[i]
	for !s.gone {
		op, payload, size, err := frame.First(in)
		switch {
		case err != nil:
			r.lost(i, wrong(err.Error()))
			return
		case size == 0 && len(in) > len(r.buf)/2:
			r.lost(i, wrong(fmt.Sprintf("message of more than %d bytes to a subscriber", len(r.buf)/2)))
			return
		case size == 0:
			r.rest[i] = append(r.rest[i][:0], in...)
			return
		case op == frame.Ping:
			r.poller.write(i, frame.AppendMasked(nil, frame.Pong, payload))
		case op == frame.Close:
			r.lost(i, closedFailure(payload))
		case op == frame.Text:
			if err := r.latest.read(payload, s.id); err != nil {
				r.sum.fault(err)
				break
			}
			r.sum.received += len(payload)
			if r.got(s, r.latest.number, r.latest.published, time.Now()) {
				complete()
			}
		}
		in = in[size:]
	}
}

// lost gives a subscriber up.
func (r *reader) lost(i int, why error) {
	r.lose(&r.subscribers[i], why)
	r.poller.remove(i)
}
