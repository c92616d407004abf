package subscribe

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"gateway.internal/proxyd/devchain"
)

// TestRandomHistories does what chains and providers do, in random order, with at
// least one backend well at any time. In the end all clients must know what the chain
// has, and nothing may be told on the way that does not fit to what was told before.
// PROXYD_SEED repeats a history, as far as time lets it.
func TestRandomHistories(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("PROXYD_SEED"); text != "" {
		seed = must(strconv.ParseUint(text, 10, 64))
	}
	for i := range uint64(2) {
		seed := seed + i
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			history(t, seed)
		})
	}
}

func history(t *testing.T, seed uint64) {
	t.Logf("PROXYD_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	n := 2 + r.IntN(2)
	polled := r.IntN(n + 2) // the first of them have no WebSocket: often none
	w := newWorld(t, n, setting{relays: r.IntN(2) == 0, noWS: func(i int) bool { return polled < n && i == polled }, hub: func(o *Options) { o.Grace, o.ReplayBlocks = 20*time.Millisecond, 1000 }})
	var did []string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%d backends, polled %d: %v", n, polled, did)
		}
	})
	all := w.clients(2)
	w.mine(6, all...)
	well := r.IntN(n)
	until := make([]time.Time, n)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		for i := range n {
			if !until[i].IsZero() && time.Now().After(until[i]) {
				until[i] = time.Time{}
				w.nodes[i].is(devchain.FaultNone)
				w.nodes[i].comeBack()
				w.nodes[i].SetLag(0)
				did = append(did, fmt.Sprint("well", i))
			}
		}
		i := r.IntN(n)
		bad := func(what string, do func()) {
			if i == well || !until[i].IsZero() {
				return
			}
			until[i] = time.Now().Add(time.Duration(20+r.IntN(600)) * time.Millisecond)
			did = append(did, fmt.Sprint(what, i))
			do()
		}
		switch what := r.IntN(40); what {
		case 0:
			bad("drop", func() { w.nodes[i].is(devchain.FaultDrop) })
		case 1:
			bad("mute", func() { w.nodes[i].is(devchain.FaultMute) })
		case 2:
			bad("hang", func() { w.nodes[i].is(devchain.FaultHang) })
		case 3:
			bad("lag", func() {
				w.nodes[i].SetLag(1 + r.IntN(4))
				w.nodes[i].DropSockets() // to another node behind the same address
			})
		case 4:
			bad("down", func() { w.nodes[i].goDown() })
		case 5:
			bad("trash", func() { w.nodes[i].is(devchain.FaultGarbage) })
		case 6:
			bad("close", func() { w.nodes[i].is(devchain.FaultClose) })
		case 7:
			bad("slow", func() {
				w.nodes[i].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 50 * time.Millisecond})
			})
		case 8:
			did = append(did, fmt.Sprint("sockets", i))
			w.nodes[i].DropSockets()
		case 9: // another one is the one that stays well
			if until[i].IsZero() {
				well = i
			}
		case 10, 11, 12:
			depth := 1 + r.IntN(3)
			more := depth + r.IntN(3)
			did = append(did, fmt.Sprint("reorg", depth, "by", more))
			w.chain.Reorg(depth, more)
		case 13:
			did = append(did, "subscribe")
			s := w.session()
			params := []string{`["newHeads"]`, everyLog, fmt.Sprintf(`["logs",{"address":["%s","0x%040x"]}]`, devchain.TokenAddress, r.IntN(3))}[r.IntN(3)]
			head := w.chain.Head()
			if u, err := s.trySubscribe(params); err == nil {
				u.since = max(head, u.since)
				if r.IntN(2) == 0 {
					s.unsubscribe(u.id)
				}
			}
			s.end()
		default:
			m := 1 + r.IntN(3)/2
			did = append(did, fmt.Sprint("mine", m))
			w.chain.Mine(m)
		}
		for _, u := range all {
			u.take()
			if u.broken {
				t.FailNow()
			}
		}
		time.Sleep(time.Duration(r.IntN(15)) * time.Millisecond)
	}
	did = append(did, "end")
	for _, nd := range w.nodes {
		nd.is(devchain.FaultNone)
		nd.comeBack()
		nd.SetLag(0)
	}
	w.mine(4, all...) // longer than what a reorganisation has left
	w.heal(w.chain, all...)
	if n := w.metric("subscription_gaps_total"); n != 0 {
		t.Errorf("%v gaps", n)
	}
}
