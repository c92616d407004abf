package subscribe

import (
	"fmt"
	"testing"
	"time"

	"gateway.internal/proxyd/devchain"
)

func TestPolledBackends(t *testing.T) {
	w := newWorld(t, 2, setting{noWS: func(int) bool { return true }})
	all := w.begin()
	for range 5 {
		w.mine(3, all...)
	}
	w.nodes[0].goDown()
	w.mine(5, all...)
	w.follows("b1")
	w.nodes[0].comeBack()
	w.nodes[1].is(devchain.FaultHang)
	w.mine(5, all...)
	w.follows("b0")
	w.nodes[1].is(devchain.FaultNone)
	w.chain.Reorg(2, 4)
	w.heal(w.chain, all...)
	if n := w.metric("subscription_gaps_total"); n != 0 {
		t.Errorf("%v gaps", n)
	}
}

func TestPolledBackendThatFallsBehind(t *testing.T) {
	w := newWorld(t, 2, setting{noWS: func(int) bool { return true }})
	all := w.begin()
	w.nodes[0].SetLag(2)
	w.nodes[0].SetLag(0)
	w.mine(2, all...)
	w.nodes[0].SetLag(100)
	for range 10 {
		w.chain.Mine(1)
		time.Sleep(20 * time.Millisecond)
	}
	w.heal(w.chain, all...)
	w.follows("b1")
	w.mine(2, all...)
}

func TestSocketFailsAndPollingTakesOver(t *testing.T) {
	w := newWorld(t, 1, setting{relays: true})
	all := w.begin()
	w.nodes[0].is(devchain.FaultDrop) // POST is not met
	w.mine(5, all...)
	w.chain.Reorg(3, 4)
	w.heal(w.chain, all...)
	w.mine(2, all...)
	if n := w.metric("subscription_gaps_total"); n != 0 {
		t.Errorf("%v gaps", n)
	}
}

func TestPollingYieldsToASocketOnceItHasSettled(t *testing.T) {
	w := newWorld(t, 2, setting{noWS: func(i int) bool { return i == 1 }})
	w.nodes[0].goDown()
	s := w.session()
	u := s.subscribe(`["newHeads"]`)
	w.mine(2, u)
	w.Hub.Close() // the follower's state is looked at from here
	w.nodes[0].comeBack()
	f := newFollower(w.Hub)
	src := &source{member: w.members[1], opts: &w.Hub.opts, began: time.Now(), joined: true}
	f.pace.heard(1, time.Now())
	f.opts.HeadStall = time.Minute
	if why := f.inspect(src); why != nil {
		t.Errorf("it is left at once: %+v", why)
	}
	src.began = time.Now().Add(-settleFor - time.Second)
	eventually(t, "the socket may be opened again", func() error {
		status := w.members[0].SocketStatus()
		failures, retryAt := status.Failures, status.RetryAt
		if failures > 0 && time.Now().Before(retryAt) {
			return is(0, failures)
		}
		return nil
	})
	why := f.inspect(src)
	if why == nil || why.label != "better" || why.avoid || why.abandon {
		t.Errorf("%+v", why)
	}
	src.joined = false
	if why := f.inspect(src); why != nil {
		t.Errorf("it is left before it has caught up: %+v", why)
	}
	src.joined = true
	f.avoid(w.members[0], false)
	f.avoid(w.members[0], true)
	if why := f.inspect(src); why != nil && why.label != "better" {
		t.Errorf("%+v", why)
	}
}

func TestOlderHeadThanTheFirstIsNotTold(t *testing.T) {
	for _, polled := range []bool{true, false} {
		t.Run(fmt.Sprint("polled=", polled), func(t *testing.T) {
			w := newWorld(t, 1, setting{noWS: func(int) bool { return polled }})
			all := w.clients(1)
			for range 5 { // as of several nodes behind one address
				asked := w.nodes[0].CallsOf("eth_getBlockByNumber")
				w.nodes[0].SetLag(3)
				if polled {
					eventually(t, "it is asked", func() error {
						if w.nodes[0].CallsOf("eth_getBlockByNumber") < asked+3 {
							return fmt.Errorf("it is not")
						}
						return nil
					})
				}
				w.nodes[0].SetLag(0) // over WebSocket, publishes the three again
			}
			w.mine(3, all...)
			if n := all[0].seen; n != 3 {
				t.Errorf("%d heads told, want 3", n)
			}
			for range 3 {
				w.nodes[0].SetLag(2)
				w.nodes[0].SetLag(0)
			}
			w.mine(3, all...)
		})
	}
}
