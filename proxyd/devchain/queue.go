package devchain

import (
	"context"
	"sync"
)

const (
	maxNotices = 8192    // notifications that wait for one WebSocket
	maxAnswers = 1 << 20 // bytes of answers that wait for one WebSocket, before its next message is read
)

// item is one message to be sent. A notice is one that nobody asked for. With cut, only half of it is, and then the connection is reset.
type item struct {
	text   []byte
	notice bool
	cut    bool
}

// queue holds what waits for one WebSocket. Putting something in never blocks; whoever does it sees to the bounds.
type queue struct {
	mu      sync.Mutex
	items   []item
	notices int
	answers int           // bytes
	ready   chan struct{} // one place: something was put in
	room    chan struct{} // one place: something was taken out
}

func newQueue() *queue {
	return &queue{ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func (q *queue) put(it item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = append(q.items, it)
	if it.notice {
		q.notices++
	} else {
		q.answers += len(it.text)
	}
	signal(q.ready)
}

// full reports whether another notice would be too much.
func (q *queue) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.notices >= maxNotices
}

// take waits for the next item. It reports false when ctx is at an end.
func (q *queue) take(ctx context.Context) (item, bool) {
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			it := q.items[0]
			q.items[0] = item{} // the array behind the slice lives on until append moves it
			q.items = q.items[1:]
			if it.notice {
				q.notices--
			} else {
				q.answers -= len(it.text)
			}
			signal(q.room)
			q.mu.Unlock()
			return it, true
		}
		q.mu.Unlock()
		select {
		case <-q.ready:
		case <-ctx.Done():
			return item{}, false
		}
	}
}

// waitForRoom waits until few enough answers are left. It reports false when ctx is at an end.
func (q *queue) waitForRoom(ctx context.Context) bool {
	for {
		q.mu.Lock()
		few := q.answers <= maxAnswers
		q.mu.Unlock()
		if few {
			return true
		}
		select {
		case <-q.room:
		case <-ctx.Done():
			return false
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
