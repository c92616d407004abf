package subscribe

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

// clients subscribes a few sessions to heads and logs.
func (w *world) clients(n int) []*sub {
	w.t.Helper()
	var all []*sub
	for range n {
		s := w.session()
		all = append(all, s.subscribe(`["newHeads"]`), s.subscribe(everyLog),
			s.subscribe(`["logs",{"topics":["`+devchain.TransferTopic+`",null,"0x000000000000000000000000de00000000000000000000000000000000000011"]}]`))
	}
	return all
}

// begin makes clients that know some blocks already.
func (w *world) begin() []*sub {
	w.t.Helper()
	all := w.clients(2)
	w.mine(5, all...)
	w.follows("b0")
	return all
}

func TestSubscriptionsMoveWhenTheirBackendFails(t *testing.T) {
	for name, fail := range map[string]func(w *world, n *node){
		"drop":      func(w *world, n *node) { n.is(devchain.FaultDrop) },
		"sockets":   func(w *world, n *node) { n.DropSockets() },
		"down":      func(w *world, n *node) { n.goDown() },
		"mute":      func(w *world, n *node) { n.is(devchain.FaultMute) },
		"hang":      func(w *world, n *node) { n.is(devchain.FaultHang) },
		"frame cut": func(w *world, n *node) { n.relay.changes(func(m string) ([]string, bool) { return []string{m}, true }) },
		"frame trash": func(w *world, n *node) {
			n.relay.changes(func(m string) ([]string, bool) { return []string{"<html>"}, false })
		},
		"no head": func(w *world, n *node) {
			n.relay.changes(func(m string) ([]string, bool) {
				return []string{strings.Replace(m, "parentHash", "parent", 1)}, false
			})
		},
		"unfit": func(w *world, n *node) { w.members[0].Unfit("test", "it is to be"); n.is(devchain.FaultMute) },
		"unfit alone": func(w *world, n *node) {
			w.members[0].Unfit("test", "it is to be")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, setting{relays: true})
			all := w.begin()
			fail(w, w.nodes[0])
			for range 10 {
				w.chain.Mine(1)
				time.Sleep(10 * time.Millisecond)
			}
			w.heal(w.chain, all...)
			w.follows("b1")
			w.mine(5, all...)
			if n := w.metric("subscription_gaps_total"); n != 0 {
				t.Errorf("%v gaps", n)
			}
		})
	}
}

func TestSubscriptionsLeaveABackendOfAnotherChain(t *testing.T) {
	w := newWorld(t, 2, setting{backend: func(i int, o *backend.Options) { o.ChainID = 31337 }})
	all := w.begin()
	w.nodes[0].is(devchain.FaultMute) // or it would tell that all logs are gone
	w.nodes[0].SetChain(devchain.New(devchain.Options{ChainID: 5, Blocks: 10}))
	w.members[0].Own(context.Background(), "eth_chainId", "[]", time.Second)
	w.follows("b1")
	w.mine(5, all...)
}

func TestSubscriptionsLeaveABackendThatIsOut(t *testing.T) {
	w := newWorld(t, 2, setting{})
	all := w.begin()
	w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultStatus, Status: 500, Method: "eth_gasPrice"})
	row, label := must(jsonrpc.NewTable(nil)).Lookup("eth_gasPrice")
	for range 3 {
		c := &jsonrpc.Call{Method: "eth_gasPrice", Row: row, Label: label, Client: &jsonrpc.Client{Auth: "none"}}
		w.group.ServeRPC(context.Background(), []*jsonrpc.Call{c})
	}
	if s := w.members[0].Standing().State; s != backend.Out {
		t.Fatalf("it is %s", s)
	}
	w.follows("b1")
	w.mine(5, all...)
	counts(t, "upstream subscriptions", 0, w.nodes[0].Subscriptions)
}

func TestOnlyBackendComesBack(t *testing.T) {
	for name, fail := range map[string][2]func(n *node){
		"restart": {func(n *node) { n.goDown() }, func(n *node) { n.comeBack() }},
		"sockets": {func(n *node) { n.is(devchain.FaultDrop) }, func(n *node) { n.is(devchain.FaultNone) }},
		"hang":    {func(n *node) { n.is(devchain.FaultHang) }, func(n *node) { n.is(devchain.FaultNone) }},
		"mute":    {func(n *node) { n.is(devchain.FaultMute) }, func(n *node) { n.is(devchain.FaultNone) }},
	} {
		for _, noHTTP := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " noHTTP=", noHTTP), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, 1, setting{noHTTP: noHTTP})
				all := w.begin()
				fail[0](w.nodes[0])
				for range 8 {
					w.chain.Mine(1)
					time.Sleep(20 * time.Millisecond)
				}
				fail[1](w.nodes[0])
				w.heal(w.chain, all...)
				w.mine(5, all...)
			})
		}
	}
}

func TestAllBackendsGoneForAWhile(t *testing.T) {
	w := newWorld(t, 3, setting{})
	all := w.begin()
	for _, n := range w.nodes {
		n.goDown()
	}
	for range 20 {
		w.chain.Mine(1)
		time.Sleep(20 * time.Millisecond)
	}
	for _, n := range w.nodes {
		n.comeBack()
	}
	w.heal(w.chain, all...)
	w.mine(5, all...)
}

func TestNewerBackendThatIsBehindIsWaitedFor(t *testing.T) {
	w := newWorld(t, 2, setting{hub: func(o *Options) { o.HeadStall = 2 * time.Second }})
	all := w.begin()
	w.nodes[1].SetLag(3)
	w.nodes[0].goDown()
	w.chain.Mine(1)
	w.nodes[1].SetLag(1)
	time.Sleep(50 * time.Millisecond)
	w.nodes[1].SetLag(0)
	w.heal(w.chain, all...)
	w.mine(4, all...)
}

func TestBackendThatStaysBehindIsLeftForOneThatIsNot(t *testing.T) {
	w := newWorld(t, 2, setting{})
	all := w.begin()
	w.nodes[1].SetLag(50)
	w.nodes[0].DropSockets()
	for range 20 {
		w.chain.Mine(1)
		time.Sleep(10 * time.Millisecond)
	}
	w.heal(w.chain, all...)
	w.mine(3, all...)
}

func TestNewSubscriptionWhileTheBackendFails(t *testing.T) {
	for name, fail := range map[string]func(w *world, n *node){
		"hang":  func(w *world, n *node) { n.is(devchain.FaultHang) },
		"drop":  func(w *world, n *node) { n.is(devchain.FaultDrop) },
		"close": func(w *world, n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultClose, Times: 1}) },
		"trash": func(w *world, n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultGarbage, Times: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, setting{})
			all := w.begin()
			fail(w, w.nodes[0])
			u, err := w.session().trySubscribe(`["logs",{"address":"` + devchain.TokenAddress + `"}]`)
			if err != nil {
				t.Errorf("another backend could serve it: %v", err)
				u = w.session().subscribe(everyLog)
			}
			w.mine(5, append(all, u)...)
		})
	}
}

func TestPendingAndSyncingGoOnAfterAMove(t *testing.T) {
	w := newWorld(t, 2, setting{})
	all := w.begin()
	s := w.session()
	pend, sync := s.subscribe(`["newPendingTransactions"]`), s.subscribe(`["syncing"]`)
	full := s.subscribe(`["newPendingTransactions",true]`)
	nonce := 0
	send := func() {
		nonce++
		ask(w.chain, "eth_sendRawTransaction", fmt.Sprintf(`["0x02%06x"]`, nonce))
	}
	seen := func(u *sub) func() int { return func() int { return len(s.told(u.id)) } }
	send()
	counts(t, "pending", 1, seen(pend))
	counts(t, "pending in full", 1, seen(full))
	counts(t, "syncing", 1, seen(sync))
	if late := w.session(); true {
		u := late.subscribe(`["syncing"]`)
		counts(t, "the state for one who comes later", 1, func() int { return len(late.told(u.id)) })
	}
	w.nodes[0].is(devchain.FaultDrop)
	w.follows("b1")
	send()
	counts(t, "pending", 2, seen(pend))
	counts(t, "pending in full", 2, seen(full))
	w.mine(2, all...)
	if lost := s.lostFor(); len(lost) > 0 {
		t.Errorf("lost: %q", lost)
	}
	var tx struct{ Hash string }
	if json.Unmarshal(s.told(full.id)[1], &tx) != nil || fmt.Sprintf("%q", tx.Hash) != string(s.told(pend.id)[1]) {
		t.Errorf("%s and %s", s.told(full.id)[1], s.told(pend.id)[1])
	}
}

func TestPendingWaitsForASocketWhereOnlyPollingIsLeft(t *testing.T) {
	w := newWorld(t, 2, setting{noWS: func(i int) bool { return i == 1 }, hub: func(o *Options) { o.Grace = 5 * time.Second }})
	s := w.session()
	u := s.subscribe(`["newPendingTransactions"]`)
	heads := w.session().subscribe(`["newHeads"]`)
	w.nodes[0].goDown()
	w.mine(2, heads)
	w.follows("b1")
	// Whoever subscribes now may be refused, but must not wait for events that never come.
	all := []*sub{u}
	if late, err := w.session().trySubscribe(`["newPendingTransactions"]`); err == nil {
		all = append(all, late)
	}
	if _, err := w.session().trySubscribe(`["newPendingTransactions",true]`); err == nil || !strings.Contains(err.Error(), "-32601") {
		t.Errorf("while polled: %v", err)
	}
	w.nodes[0].comeBack()
	nonce := 0
	eventually(t, "events come again", func() error {
		nonce++
		ask(w.chain, "eth_sendRawTransaction", fmt.Sprintf(`["0x02%06x"]`, nonce))
		if nonce%50 == 0 {
			w.chain.Mine(1)
		}
		for _, u := range all {
			if len(u.session.told(u.id)) == 0 && len(u.session.lostFor()) == 0 {
				return fmt.Errorf("none of %d", nonce)
			}
		}
		return nil
	})
}

// unknownKind lets the relay offer a subscription that the dev chain does not have.
func unknownKind(n *node) {
	n.relay.changes(func(m string) ([]string, bool) {
		if !strings.Contains(m, `no \"special\" subscription`) {
			return []string{m}, false
		}
		var in struct{ ID json.RawMessage }
		_ = json.Unmarshal([]byte(m), &in)
		return []string{
			fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":"0x5bec1a1"}`, in.ID),
			`{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"0x5bec1a1","result":{"x":1}}}`,
		}, false
	})
}

func TestUnknownKindIsLostWhenItMoves(t *testing.T) {
	for _, count := range []bool{false, true} {
		t.Run(fmt.Sprint("CountGaps=", count), func(t *testing.T) {
			w := newWorld(t, 2, setting{relays: true, hub: func(o *Options) { o.CountGaps = count }})
			unknownKind(w.nodes[0])
			unknownKind(w.nodes[1])
			heads := w.session().subscribe(`["newHeads"]`)
			s := w.session()
			u := s.subscribe(`["special",{"a":[1, 2]}]`)
			w.session().subscribe(`["special", {"a":[1,2]}]`)
			w.mine(1, heads)
			n := len(s.told(u.id)) // its first event may come before its client has the id
			w.nodes[0].is(devchain.FaultDrop)
			w.follows("b1")
			w.mine(2, heads)
			if count {
				eventually(t, "it goes on", func() error { return is(n+1, len(s.told(u.id))) })
				if lost := s.lostFor(); len(lost) > 0 {
					t.Errorf("lost: %q", lost)
				}
				return
			}
			eventually(t, "its socket is ended", func() error { return is(1, len(s.lostFor())) })
			if lost := heads.session.lostFor(); len(lost) > 0 {
				t.Errorf("heads are lost: %q", lost)
			}
		})
	}
}

func TestOneFilterThatIsRefusedDoesNotHoldUpOthers(t *testing.T) {
	w := newWorld(t, 2, setting{relays: true, noHTTP: true})
	heads := w.session().subscribe(`["newHeads"]`)
	filtered := w.session()
	filtered.subscribe(`["logs",{"address":"` + devchain.EchoAddress + `"}]`)
	w.mine(2, heads)
	// The other backend refuses every subscription but that of heads.
	var asked atomic.Int64
	w.nodes[1].relay.changes(func(m string) ([]string, bool) {
		var in struct {
			ID     json.RawMessage
			Result string
		}
		if json.Unmarshal([]byte(m), &in) == nil && len(in.Result) == 34 && asked.Add(1)%2 == 0 {
			m = fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32602,"message":"too many addresses"}}`, in.ID)
		}
		return []string{m}, false
	})
	w.nodes[0].goDown()
	w.mine(3, heads)
}

func TestGapThatIsTooWide(t *testing.T) {
	for _, count := range []bool{false, true} {
		t.Run(fmt.Sprint("CountGaps=", count), func(t *testing.T) {
			w := newWorld(t, 2, setting{hub: func(o *Options) { o.ReplayBlocks, o.CountGaps = 8, count }})
			all := w.begin()
			for _, n := range w.nodes {
				n.goDown()
			}
			w.chain.Mine(20)
			for _, n := range w.nodes {
				n.comeBack()
			}
			eventually(t, "the gap is counted", func() error { return is(1, w.metric("subscription_gaps_total")) })
			if !count {
				for _, u := range all {
					eventually(t, "its socket is ended", func() error { return is(1, len(u.session.lostFor())) })
				}
				eventually(t, "another may subscribe", func() error {
					_, err := w.session().trySubscribe(`["newHeads"]`)
					return err
				})
				return
			}
			w.chain.Mine(1)
			one, last := all[0], w.chain.Head()
			eventually(t, "events go on", func() error {
				list := one.session.told(one.id)
				h, _ := parseHead(list[len(list)-1])
				return is(last, h.number)
			})
			log := all[1]
			eventually(t, "logs go on", func() error {
				list := log.session.told(log.id)
				l, _ := parseLog(list[len(list)-1])
				return is(last, l.number)
			})
			for _, u := range all {
				if lost := u.session.lostFor(); len(lost) > 0 {
					t.Errorf("lost: %q", lost)
				}
			}
			if n := w.metric("subscription_gaps_total"); n != 1 {
				t.Errorf("%v gaps", n)
			}
			// From here on everything is told.
			fresh := w.clients(1)
			w.nodes[0].DropSockets()
			w.nodes[1].DropSockets()
			w.mine(5, fresh...)
		})
	}
}

func TestGapThatCannotBeFetchedIsAGapInTheEnd(t *testing.T) {
	w := newWorld(t, 1, setting{noHTTP: true, hub: func(o *Options) { o.CallTimeout, o.ReplayTimeout = 200*time.Millisecond, 400*time.Millisecond }})
	all := w.begin()
	w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRPCError, Method: "eth_getLogs"})
	w.nodes[0].DropSockets()
	w.chain.Mine(3)
	for _, u := range all {
		eventually(t, "its socket is ended", func() error { return is(1, len(u.session.lostFor())) })
	}
}

func TestReplayThatOneBackendRefusesIsMadeByAnother(t *testing.T) {
	w := newWorld(t, 3, setting{})
	all := w.begin()
	w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultRPCError, Method: "eth_getLogs"})
	w.nodes[0].goDown()
	w.mine(5, all...)
	w.follows("b2")
}

func TestSlowReplayDoesNotHoldUpForEver(t *testing.T) {
	w := newWorld(t, 3, setting{hub: func(o *Options) { o.CallTimeout, o.ReplayTimeout = 200*time.Millisecond, 400*time.Millisecond }})
	all := w.begin()
	w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultHang, Method: "eth_getLogs"})
	w.nodes[0].goDown()
	begun := time.Now()
	w.mine(5, all...)
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	w.nodes[1].is(devchain.FaultNone)
}

func TestHeadThatCameBeforeTheFirstLookIsNoGap(t *testing.T) {
	w := newWorld(t, 1, setting{})
	w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 200 * time.Millisecond, Method: "eth_getBlockByNumber"})
	s := w.session()
	done := make(chan *sub, 1)
	go func() {
		u, err := s.trySubscribe(`["newHeads"]`)
		if err != nil {
			t.Error(err)
		}
		done <- u
	}()
	counts(t, "upstream subscriptions", 1, w.nodes[0].Subscriptions)
	w.chain.Mine(3)
	u := <-done
	w.nodes[0].is(devchain.FaultNone)
	u.since = w.chain.Head()
	w.mine(5, u)
	if n := w.metric("subscription_moves_total"); n != 0 {
		t.Errorf("%v moves", n)
	}
}

func TestLateAnswerToASubscriptionIsFreed(t *testing.T) {
	w := newWorld(t, 1, setting{hub: func(o *Options) { o.CallTimeout = 100 * time.Millisecond }})
	heads := w.session().subscribe(`["newHeads"]`)
	w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 300 * time.Millisecond, Method: "eth_subscribe", Times: 1})
	if u, err := w.session().trySubscribe(everyLog); err == nil {
		u.session.end()
	}
	w.nodes[0].is(devchain.FaultNone)
	w.mine(2, heads)
	want := 1
	if w.metric("backend_subscriptions") == 0 { // polled by now
		want = 0
	}
	counts(t, "upstream subscriptions", want, w.nodes[0].Subscriptions)
}

func TestBackendWithoutSubscriptionsIsPolled(t *testing.T) {
	w := newWorld(t, 1, setting{})
	w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRPCError, Method: "eth_subscribe", RPCCode: -32601})
	var all []*sub
	s := w.session()
	all = append(all, s.subscribe(`["newHeads"]`), s.subscribe(everyLog))
	w.mine(5, all...)
}

func TestEarlyNotificationsAreNotLost(t *testing.T) {
	w := newWorld(t, 1, setting{relays: true})
	var held []string
	w.nodes[0].relay.changes(func(m string) ([]string, bool) {
		if id, ok := jsonrpc.Text([]byte(resultOf(m))); ok && len(id) == 34 {
			held = append(held, m) // the answer to eth_subscribe, behind what it tells
			return nil, false
		}
		if len(held) > 0 {
			out := append([]string{m}, held...)
			held = nil
			return out, false
		}
		return []string{m}, false
	})
	done := make(chan *sub, 1)
	s := w.session()
	go func() {
		u, err := s.trySubscribe(`["newHeads"]`)
		if err != nil {
			t.Error(err)
		}
		done <- u
	}()
	counts(t, "upstream subscriptions", 1, w.nodes[0].Subscriptions)
	w.chain.Mine(1)
	u := <-done
	w.nodes[0].relay.changes(nil)
	u.since = w.chain.Head()
	w.mine(2, u)
}

func resultOf(m string) string {
	var in struct{ Result json.RawMessage }
	_ = json.Unmarshal([]byte(m), &in)
	return string(in.Result)
}
