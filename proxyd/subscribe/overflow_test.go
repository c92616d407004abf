package subscribe

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gateway.internal/proxyd/devchain"
)

func TestMoreEventsThanCanWaitAreFetched(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	w := newWorld(t, 1, setting{relays: true, hub: func(o *Options) {
		o.ReplayBlocks, o.CallTimeout, o.ReplayTimeout, o.HeadStall = 3500, 30*time.Second, 30*time.Second, 10*time.Second
	}})
	s := w.session()
	all := []*sub{s.subscribe(`["newHeads"]`), s.subscribe(everyLog), s.subscribe(`["logs",{"address":"` + devchain.TokenAddress + `"}]`)}
	w.mine(2, all...)
	// While a gap is closed, the follower takes nothing.
	left := false
	var passed atomic.Int64
	w.nodes[0].relay.changes(func(m string) ([]string, bool) {
		passed.Add(1)
		if !left && strings.Contains(m, `"parentHash"`) {
			left = true
			return nil, false
		}
		return []string{m}, false
	})
	w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultHang, Method: "eth_getLogs"})
	w.chain.Mine(2)
	eventually(t, "it fetches logs", func() error {
		if w.nodes[0].CallsOf("eth_getLogs") < 2 {
			return fmt.Errorf("it does not")
		}
		return nil
	})
	for passed.Load() < maxWaiting+400 {
		w.chain.Mine(5)
		behind := int64(w.chain.Head()-18)*3 - 1000
		eventually(t, "the socket is read", func() error {
			if passed.Load() < behind {
				return fmt.Errorf("%d of %d", passed.Load(), behind)
			}
			return nil
		})
	}
	w.nodes[0].is(devchain.FaultNone)
	for range 100 {
		w.chain.Mine(3)
		time.Sleep(2 * time.Millisecond)
	}
	w.heal(w.chain, all...)
	w.mine(3, all...)
	if n := w.metric("subscription_gaps_total"); n != 0 {
		t.Errorf("%v gaps", n)
	}
	if n := w.metric("subscription_moves_total", "reason", "overflow"); n == 0 {
		t.Error("nothing was too much")
	}
}

func TestManyFeeds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const n = 1000
	w := newWorld(t, 2, setting{hub: func(o *Options) {
		o.MaxPerSession, o.CallTimeout, o.ReplayTimeout, o.HeadStall = n, 5*time.Second, 10*time.Second, 10*time.Second
	}})
	s := w.session()
	begun := time.Now()
	var all []*sub
	for i := range n {
		all = append(all, s.subscribe(`["logs",{"address":["`+devchain.TokenAddress+`","0x`+address(i)+`"]}]`))
	}
	t.Logf("%d feeds in %v", n, time.Since(begun))
	w.mine(2, all[0], all[n-1])
	begun = time.Now()
	w.nodes[0].is(devchain.FaultDrop)
	w.chain.Mine(2)
	w.heal(w.chain, all[0], all[n/2], all[n-1])
	t.Logf("moved in %v", time.Since(begun))
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the move took %v", took)
	}
}

func address(i int) string { return fmt.Sprintf("%040x", i) }
