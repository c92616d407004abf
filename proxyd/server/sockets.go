package server

import (
	"context"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Sockets configures WebSocket connections. Zero values mean the stated default.
type Sockets struct {
	// MaxCalls bounds the calls in flight on one socket; 0 is no bound.
	MaxCalls int
	// Max bounds the sockets of all clients, MaxPerClient those of one; 0 is no
	// bound.
	Max, MaxPerClient int
	// PingInterval is after how much silence a client is pinged. Default 30 s. One
	// that does not answer within PongTimeout, default 10 s, is dead.
	PingInterval, PongTimeout time.Duration
	// WriteTimeout bounds the writing of each piece of a message. Default 10 s.
	WriteTimeout time.Duration
	// AllowAllOrigins lets pages of every site connect; else only those that the
	// host itself serves, and those of CORS.Origins.
	AllowAllOrigins bool
}

func (o *Sockets) setDefaults() {
	for _, d := range []struct {
		value     *time.Duration
		otherwise time.Duration
	}{{&o.PingInterval, 30 * time.Second}, {&o.PongTimeout, 10 * time.Second}, {&o.WriteTimeout, 10 * time.Second}} {
		if *d.value <= 0 {
			*d.value = d.otherwise
		}
	}
}

// sockets are the open sockets of all clients.
type sockets struct {
	opts *Sockets
	base context.Context // of all sockets
	stop context.CancelFunc

	mu       sync.Mutex
	open     map[*socket]struct{}
	byClient map[string]int
	count    int  // those that are being opened, too
	over     bool // no more are let in
	watching bool

	reading sync.WaitGroup
	serving sync.WaitGroup
}

func (k *sockets) init(o *Sockets) {
	o.setDefaults()
	k.opts = o
	k.open, k.byClient = make(map[*socket]struct{}), make(map[string]int)
	k.base, k.stop = context.WithCancel(context.Background())
}

// admit takes a place for one more socket of a client.
func (k *sockets) admit(client string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.over:
		return errDraining
	case k.opts.Max > 0 && k.count >= k.opts.Max:
		return errSockets
	case k.opts.MaxPerClient > 0 && k.byClient[client] >= k.opts.MaxPerClient:
		return errClientSockets
	}
	k.count++
	k.byClient[client]++
	return nil
}

// release gives the place back.
func (k *sockets) release(client string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.releaseLocked(client)
}

func (k *sockets) releaseLocked(client string) {
	k.count--
	if k.byClient[client]--; k.byClient[client] == 0 {
		delete(k.byClient, client)
	}
}

// add begins to read a socket that was admitted.
func (k *sockets) add(one *socket) {
	k.mu.Lock()
	if k.over { // it came too late to be closed with the others
		k.releaseLocked(one.alone.Key)
		k.mu.Unlock()
		one.end(websocket.StatusGoingAway, nil)
		_ = one.conn.Close(websocket.StatusGoingAway, goingAway)
		return
	}
	defer k.mu.Unlock()
	k.open[one] = struct{}{}
	if !k.watching {
		k.watching = true
		k.serving.Go(k.watch)
	}
	k.reading.Go(one.read)
}

func (k *sockets) remove(one *socket) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.open, one)
	k.releaseLocked(one.alone.Key)
}

// watch pings sockets of which nothing was heard.
func (k *sockets) watch() {
	tick := time.NewTicker(min(k.opts.PingInterval/4, 5*time.Second))
	defer tick.Stop()
	for {
		var now time.Time
		select {
		case now = <-tick.C:
		case <-k.base.Done():
			return
		}
		for _, one := range k.all() {
			silent := now.Sub(time.Unix(0, one.under.moved.Load()))
			if silent >= k.opts.PingInterval && !one.pinging.Swap(true) {
				k.serving.Go(func() { one.ping(k.opts.PongTimeout) })
			}
		}
	}
}

func (k *sockets) all() []*socket {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]*socket, 0, len(k.open))
	for one := range k.open {
		list = append(list, one)
	}
	return list
}

// farewell is how long clients have for the closing handshake when all other time is
// over.
const farewell = 250 * time.Millisecond

// goingAway is the reason that clients are told when the gateway stops.
const goingAway = "the gateway is going away: connect again"

// drain closes sockets within a time. In the first third of it nothing happens, so that
// load balancers notice first: who is closed then comes back somewhere else. Then no more
// are let in, and those that are there are closed one after another, so that not all
// clients come at once.
func (k *sockets) drain(ctx context.Context, over time.Duration) {
	notice := time.NewTimer(over / 3)
	defer notice.Stop()
	select {
	case <-notice.C:
	case <-ctx.Done():
		return
	}
	k.mu.Lock()
	k.over = true
	k.mu.Unlock()
	list := k.all()
	if len(list) == 0 || over <= 0 {
		return
	}
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	for i, began := 0, time.Now(); i < len(list); {
		due := min(len(list), 1+int(float64(len(list))*float64(time.Since(began))/float64(over/2)))
		for ; i < due; i++ {
			one := list[i]
			k.serving.Go(func() { one.goAway(websocket.StatusGoingAway, goingAway) })
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// drainTick is how often sockets are closed that are due.
const drainTick = 5 * time.Millisecond

// close closes all sockets and waits for what they run, until ctx ends: then what is
// left is cut off.
func (k *sockets) close(ctx context.Context) {
	k.mu.Lock()
	k.over = true
	k.mu.Unlock()
	for _, one := range k.all() {
		k.serving.Go(func() { one.goAway(websocket.StatusGoingAway, goingAway) })
	}
	done := make(chan struct{})
	go func() {
		k.reading.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		for _, one := range k.all() {
			one.close(websocket.StatusGoingAway, goingAway) // without its calls
		}
		select {
		case <-done:
		case <-time.After(farewell):
		}
	}
	k.stop()
	for _, one := range k.all() {
		one.end(websocket.StatusGoingAway, nil)
		one.cut()
	}
	<-done
	k.serving.Wait()
}
