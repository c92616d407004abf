package main

import (
	"time"
)

// subscriber is one of those that are to get every head.
type subscriber struct {
	id          []byte // of the subscription, with its quotes
	first, last uint64 // numbers of the heads that it has got, 0 for none
	gone        bool
}

// underWay is a head that not all subscribers have got.
type underWay struct {
	missing int // how many have yet to get it
	early   bool
}

// fanout keeps the account of which subscriber has got which head: each one, once
// and in order, from the first on that it has got. A head is complete when all
// have it that are still there; it is early, and no measure for anything, when
// one of them had not subscribed yet.
type fanout struct {
	subscribers []subscriber
	underWay    map[uint64]*underWay
	gone        int // how many subscribers are
	// sum counts notifications as requests, and of the complete heads the time
	// until the last subscriber had them.
	sum tally
}

// got notes that a subscriber has got a head. It reports whether that completes
// it.
func (f *fanout) got(s *subscriber, number uint64, published, now time.Time) (complete bool) {
	if number <= s.last {
		f.sum.fault(wrong("head that came twice or late"))
		return false
	}
	for n, h := range f.underWay {
		if n > s.last && n < number {
			h.missing--
			h.early = h.early || s.last == 0
			f.drop(n, h)
		}
	}
	if s.last != 0 && number > s.last+1 {
		f.sum.fault(wrong("gap before a head"))
	}
	h := f.underWay[number]
	if h == nil {
		h = f.begin(number)
	}
	if s.last = number; s.first == 0 {
		s.first = number
	}
	f.sum.requests++
	h.missing--
	if h.missing > 0 {
		return false
	}
	delete(f.underWay, number)
	if h.early {
		return false
	}
	took := now.Sub(published)
	f.sum.took = append(f.sum.took, uint32(max(0, min(took.Microseconds(), 1<<32-1))))
	if took > slow {
		f.sum.slow++
	}
	return true
}

// begin makes the account of a head that nobody has got so far.
func (f *fanout) begin(number uint64) *underWay {
	h := new(underWay)
	for i := range f.subscribers {
		switch s := &f.subscribers[i]; {
		case s.gone:
		case s.last < number:
			h.missing++
		case s.first > number:
			h.early = true
		}
	}
	if f.underWay == nil {
		f.underWay = map[uint64]*underWay{}
	}
	f.underWay[number] = h
	return h
}

// lose notes that a subscriber is there no more, and why.
func (f *fanout) lose(s *subscriber, why error) {
	s.gone = true
	f.gone++
	f.sum.fault(why)
	for n, h := range f.underWay {
		if n > s.last {
			h.missing--
			f.drop(n, h)
		}
	}
}

// drop forgets a head that nobody is left to complete.
func (f *fanout) drop(number uint64, h *underWay) {
	if h.missing == 0 {
		delete(f.underWay, number)
	}
}

// restart begins to count anew. Faults are kept.
func (f *fanout) restart() {
	f.sum.requests, f.sum.received, f.sum.slow, f.sum.took = 0, 0, 0, nil
}
