package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"gateway.internal/bench/internal/content"
	"gateway.internal/bench/internal/measure"
)

// The subscriptions of a listener, and what each is to.
const (
	ofHeads = iota
	ofLogs
)

var (
	names        = [...]string{"head", "log"}
	subscribedTo = [...]string{headsOnly, `["logs",{"address":"` + content.LogAddress + `"}]`}
)

// listener is a client that listens to the heads and the logs of a chain.
type listener struct {
	accounts [2]account
	early    [][]byte // notifications that came before both subscriptions were there
	gone     bool
}

// watch reads what comes to all listeners.
type watch struct {
	streams
	outages
	listeners []listener
	gone      int // how many listeners are
	closed    int // and how many of them were closed once they listened
	begun     time.Time
	head      head
	log       logged
	known     bool // a head has come
	calm      time.Duration
	// What was wrong with when events came, or whether.
	missed, twice, disordered int
	sum                       tally // counts notifications as requests
}

// listen has as many WebSockets as wanted listen to heads and logs, while the upstream
// that is followed is killed again and again, and checks client by client that each
// event comes once and in order. That heads are linked follows from their bytes: the
// hashes of the chain follow from its numbers.
func listen(o *options, pids []int) (*measure.Result, error) {
	streams, err := newStreams(o.listeners)
	if err != nil {
		return nil, err
	}
	defer streams.poller.close()
	w := &watch{streams: streams, listeners: make([]listener, o.listeners)}
	w.control, w.interval, w.outages.patience = o.outages, o.heads, o.patience
	each(w.listeners, func(i int, l *listener) {
		if err := w.subscribe(o, i, l); err != nil {
			if !errors.As(err, new(wrong)) {
				err = failure("subscribe: " + reason(err))
			}
			w.sum.mu.Lock()
			defer w.sum.mu.Unlock()
			w.sum.fault(err)
			l.gone = true
			w.gone++
		}
	})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m, err := startMeter(pids)
	if err != nil {
		return nil, err
	}
	w.begun = m.started
	if err := w.run(o); err != nil {
		return nil, err
	}
	window, cpu, err := m.stop()
	if err != nil {
		return nil, err
	}
	return w.result(window, cpu), nil
}

func (w *watch) subscribe(o *options, i int, l *listener) error {
	c, err := dialSocket(o.target)
	if err != nil {
		return err
	}
	for kind := range l.accounts {
		l.accounts[kind].id, err = ask(c, i, subscribedTo[kind], func(text []byte) { l.early = append(l.early, bytes.Clone(text)) })
		if err != nil {
			_ = c.conn.Close()
			return err
		}
	}
	return w.add(i, c)
}

// run reads until the last outage is over and all that came until then is here.
func (w *watch) run(o *options) (err error) {
	for i := range w.listeners {
		l := &w.listeners[i]
		if l.gone {
			continue
		}
		for _, text := range l.early {
			w.take(i, text)
		}
		l.early = nil
		w.lost(i, w.leftover(i, w.take))
	}
	over := make(chan error, 1)
	started := false
	var ended time.Time // when all outages were over
	var final uint64    // what has to come after that
	for err == nil && w.gone < len(w.listeners) {
		err = w.poller.wait(min(50*time.Millisecond, w.interval/4), func(i int) bool {
			if !w.listeners[i].gone {
				w.lost(i, w.read(i, w.take))
			}
			return true
		})
		switch {
		case !w.known && time.Since(w.begun) > o.patience+w.interval:
			w.sum.fault(failure(fmt.Sprintf("no head within %v", o.patience+w.interval)))
			return err
		case w.known && !started:
			started = true
			first := w.due(max(w.next(w.begun)+calmBlocks, w.next(time.Now())+1))
			go func() { over <- w.outages.run(first, w.cycle(o.window)) }()
		case ended.IsZero():
		case time.Since(ended) > w.interval/2 && w.complete(final), time.Since(ended) > o.patience:
			w.settle(final)
			return err
		}
		select {
		case failed := <-over:
			if failed != nil {
				w.sum.fault(failure(failed.Error()))
			}
			// The one that is due now is on its way.
			ended = time.Now()
			final = w.next(ended) - 1
		default:
		}
	}
	return err
}

// due is when a block is, by what heads say about themselves.
func (w *watch) due(number uint64) time.Time {
	return w.head.published.Add(time.Duration(int64(number)-int64(w.head.number)) * w.interval)
}

// next is the first block that is due after some moment.
func (w *watch) next(after time.Time) uint64 {
	blocks := math.Floor(float64(after.Sub(w.head.published)) / float64(w.interval))
	return uint64(int64(w.head.number) + int64(blocks) + 1)
}

// complete reports whether all listeners have what comes with a block.
func (w *watch) complete(final uint64) bool {
	for i := range w.listeners {
		l := &w.listeners[i]
		for kind := range l.accounts {
			if !l.gone && l.accounts[kind].last < final {
				return false
			}
		}
	}
	return true
}

// take takes a message to a listener.
func (w *watch) take(i int, text []byte) {
	kind, number, err := w.event(&w.listeners[i], text)
	if err != nil {
		w.sum.fault(err)
		return
	}
	now := time.Now()
	a := &w.listeners[i].accounts[kind]
	before, at := a.last, a.at
	switch fault := a.got(number, now); fault {
	case "":
		w.sum.requests++
		w.sum.received += len(text)
	case twice:
		w.twice++
		w.sum.fault(wrong(names[kind] + " that " + fault))
		return
	default:
		w.disordered++
		w.sum.fault(wrong(names[kind] + " that " + fault))
		return
	}
	if before == 0 {
		return
	}
	beyond := now.Sub(at) - time.Duration(number-before)*w.interval
	if !w.felt(at, now, beyond) {
		w.calm = max(w.calm, beyond)
	}
}

// event reads of which subscription of a listener a message is, and of which block.
func (w *watch) event(l *listener, text []byte) (kind int, number uint64, err error) {
	subscription, result, err := parted(text)
	switch {
	case err != nil:
		return 0, 0, err
	case bytes.Equal(subscription, l.accounts[ofHeads].id):
		if !bytes.Equal(result, w.head.text) {
			err = w.head.set(result)
			w.known = w.known || err == nil
		}
		return ofHeads, w.head.number, err
	case bytes.Equal(subscription, l.accounts[ofLogs].id):
		if !bytes.Equal(result, w.log.text) {
			err = w.log.set(result)
		}
		return ofLogs, w.log.number, err
	}
	return 0, 0, wrong("notification to another subscription")
}

// lost gives a listener up, if there is a reason.
func (w *watch) lost(i int, why error) {
	if why == nil {
		return
	}
	w.sum.fault(why)
	w.listeners[i].gone = true
	w.gone++
	w.closed++
	w.poller.remove(i)
}

// settle counts what has not come to those who still listen: of all blocks since the
// last of them had subscribed, up to the final one.
func (w *watch) settle(final uint64) {
	demanded := w.next(w.begun)
	for i := range w.listeners {
		l := &w.listeners[i]
		if l.gone {
			continue
		}
		for kind := range l.accounts {
			a := &l.accounts[kind]
			from := demanded
			if a.first != 0 {
				from = min(from, a.first)
			}
			for range a.missed(from, final) {
				w.missed++
				w.sum.fault(wrong(names[kind] + " that did not come"))
			}
		}
	}
}

// result sums up what came.
func (w *watch) result(window, cpu time.Duration) *measure.Result {
	r := w.sum.result(window, cpu)
	r.Listeners, r.Closed, r.Missed, r.Twice, r.Disordered = len(w.listeners), w.closed, w.missed, w.twice, w.disordered
	r.Calm = micro(w.calm)
	for _, one := range w.all {
		r.Felt = append(r.Felt, micro(one.longest))
	}
	return r
}

func micro(d time.Duration) float64 { return float64(max(d, 0).Microseconds()) }
