package subscribe

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gateway.internal/proxyd/devchain"
)

func TestReorganisationOfTheFollowedBackend(t *testing.T) {
	for _, polled := range []bool{false, true} {
		for depth := 1; depth <= 3; depth++ {
			for _, longer := range []int{-1, 0, 1, 3} {
				n := depth + longer
				if n < 1 {
					continue
				}
				t.Run(fmt.Sprint("polled=", polled, " depth=", depth, " by=", n), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, 1, setting{noWS: func(int) bool { return polled }})
					all := w.begin()
					w.chain.Reorg(depth, n)
					w.heal(w.chain, all...)
					w.chain.Reorg(1, 1)
					w.chain.Reorg(2, 3)
					w.mine(3, all...)
					if all[1].gone == 0 {
						t.Error("no log was removed")
					}
					if n := w.metric("subscription_gaps_total") + w.metric("subscription_moves_total"); n != 0 {
						t.Errorf("%v gaps and moves", n)
					}
				})
			}
		}
	}
}

func TestReorganisationToNothingAndOn(t *testing.T) {
	for _, polled := range []bool{false, true} {
		t.Run(fmt.Sprint("polled=", polled), func(t *testing.T) {
			w := newWorld(t, 1, setting{noWS: func(int) bool { return polled }})
			all := w.begin()
			w.chain.Reorg(3, 0)
			w.mine(1, all...)
			w.mine(4, all...)
		})
	}
}

func TestReorganisationBelowTheFirstBlockThatWasTold(t *testing.T) {
	for _, polled := range []bool{false, true} {
		for depth := 1; depth <= 3; depth++ {
			t.Run(fmt.Sprint("polled=", polled, " depth=", depth), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, 1, setting{noWS: func(int) bool { return polled }})
				all := w.clients(2)
				w.chain.Reorg(depth, depth+1)
				w.heal(w.chain, all...)
				w.mine(3, all...)
				if n := w.metric("subscription_gaps_total"); n != 0 {
					t.Errorf("%v gaps", n)
				}
			})
		}
	}
}

// branch makes a chain that has the same blocks as another up to some before its
// head, and then others.
func branch(head uint64, depth, n int) *devchain.Chain {
	c := devchain.New(devchain.Options{Blocks: int(head)})
	c.Reorg(depth, n)
	return c
}

func TestMoveToABackendOnAnotherBranch(t *testing.T) {
	for _, polled := range []bool{false, true} {
		for depth := 1; depth <= 3; depth++ {
			for _, longer := range []int{0, 1, 4} {
				t.Run(fmt.Sprint("polled=", polled, " depth=", depth, " longer=", longer), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, 2, setting{noWS: func(i int) bool { return polled && i == 1 }})
					all := w.begin()
					other := branch(w.chain.Head(), depth, depth+longer)
					w.nodes[1].SetChain(other)
					w.nodes[0].goDown()
					other.Mine(2)
					w.heal(other, all...)
					other.Mine(3)
					w.heal(other, all...)
					for _, u := range all {
						if u.params == everyLog && u.gone != depth {
							t.Errorf("%d logs removed, want %d", u.gone, depth)
						}
					}
					// And back to the first one, whose branch is the longer one by then.
					w.chain.Mine(10)
					w.nodes[0].comeBack()
					w.nodes[1].goDown()
					w.heal(w.chain, all...)
					if n := w.metric("subscription_gaps_total"); n != 0 {
						t.Errorf("%v gaps", n)
					}
				})
			}
		}
	}
}

func TestMoveToAShorterBranchThatStays(t *testing.T) {
	w := newWorld(t, 2, setting{})
	all := w.begin()
	other := branch(w.chain.Head(), 3, 1)
	w.nodes[1].SetChain(other)
	w.nodes[0].goDown()
	for range 60 {
		time.Sleep(20 * time.Millisecond)
	}
	other.Mine(1)
	w.heal(other, all...)
	other.Mine(5)
	w.heal(other, all...)
}

func TestReorganisationDuringTheMove(t *testing.T) {
	for depth := 1; depth <= 3; depth++ {
		t.Run(fmt.Sprint("depth=", depth), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, setting{})
			all := w.begin()
			w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 100 * time.Millisecond, Method: "eth_getLogs"})
			calls := w.nodes[1].CallsOf("eth_getLogs")
			w.nodes[0].goDown()
			w.chain.Mine(4)
			eventually(t, "it fetches logs", func() error {
				if w.nodes[1].CallsOf("eth_getLogs") == calls {
					return fmt.Errorf("it does not")
				}
				return nil
			})
			w.chain.Reorg(depth, depth+1)
			w.nodes[1].is(devchain.FaultNone)
			w.heal(w.chain, all...)
			w.mine(4, all...)
		})
	}
}

func TestReorganisationWhileNobodyIsFollowed(t *testing.T) {
	for depth := 1; depth <= 3; depth++ {
		t.Run(fmt.Sprint("depth=", depth), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1, setting{})
			all := w.begin()
			w.nodes[0].goDown()
			w.chain.Reorg(depth, depth)
			w.chain.Mine(3)
			w.nodes[0].comeBack()
			w.heal(w.chain, all...)
			w.mine(3, all...)
		})
	}
}

// Some nodes tell of heads and of logs without an order between the two.
func TestRemovedLogsThatNeverCameAreMade(t *testing.T) {
	w := newWorld(t, 2, setting{relays: true})
	all := w.begin()
	w.nodes[0].relay.changes(func(m string) ([]string, bool) {
		if strings.Contains(m, `"logIndex"`) {
			return nil, false // they would come behind the heads
		}
		return []string{m}, false
	})
	w.chain.Reorg(2, 2)
	w.heal(w.chain, all[0], all[3])
	w.nodes[0].goDown()
	w.heal(w.chain, all...)
	w.mine(4, all...)
}

func TestLogsThatCameBeforeTheirHeadAreTakenBack(t *testing.T) {
	w := newWorld(t, 2, setting{relays: true})
	all := w.begin()
	w.nodes[0].relay.changes(func(m string) ([]string, bool) {
		if strings.Contains(m, `"parentHash"`) || strings.Contains(m, `"removed":true`) {
			return nil, false // they would come behind the logs
		}
		return []string{m}, false
	})
	other := branch(w.chain.Head(), 0, 1) // the same head for now
	w.nodes[1].SetChain(other)
	w.chain.Reorg(1, 1) // of which the first backend tells logs only
	u := all[1]
	counts(t, "logs", 6, func() int { return len(u.session.told(u.id)) })
	w.nodes[0].goDown()
	other.Mine(3)
	w.heal(other, all...)
}

func TestHeadsThatAreLeftOutAreFetched(t *testing.T) {
	w := newWorld(t, 1, setting{relays: true})
	all := w.begin()
	n := 0
	w.nodes[0].relay.changes(func(m string) ([]string, bool) {
		if strings.Contains(m, `"parentHash"`) {
			if n++; n%3 != 0 {
				return nil, false
			}
		}
		return []string{m}, false
	})
	w.chain.Mine(9)
	w.heal(w.chain, all...)
	w.chain.Reorg(3, 6) // three of which are told
	w.heal(w.chain, all...)
	if n := w.metric("subscription_gaps_total"); n != 0 {
		t.Errorf("%v gaps", n)
	}
}

func TestEventsThatComeTwiceAreToldOnce(t *testing.T) {
	w := newWorld(t, 1, setting{relays: true})
	all := w.begin()
	w.nodes[0].relay.changes(func(m string) ([]string, bool) {
		if strings.Contains(m, "eth_subscription") {
			return []string{m, m, m}, false
		}
		return []string{m}, false
	})
	w.mine(5, all...)
	w.chain.Reorg(3, 5)
	w.mine(2, all...)
}

func TestLogsBehindTheirHeadsAreNotLostInAMove(t *testing.T) {
	w := newWorld(t, 2, setting{relays: true})
	all := w.begin()
	w.nodes[0].relay.changes(func(m string) ([]string, bool) {
		if strings.Contains(m, `"logIndex"`) {
			return nil, false
		}
		return []string{m}, false
	})
	w.chain.Mine(3)
	w.heal(w.chain, all[0], all[3])
	w.nodes[0].goDown()
	w.mine(2, all...)
}

func TestLogsThatWereTakenBackTooSoonAreToldAgain(t *testing.T) {
	w := newWorld(t, 2, setting{relays: true})
	all := w.begin()
	w.mine(5, all...)
	w.nodes[0].relay.changes(func(m string) ([]string, bool) {
		if strings.Contains(m, `"parentHash"`) {
			return nil, false // they would come behind the logs
		}
		return []string{m}, false
	})
	other := branch(w.chain.Head(), 0, 1) // the same head for now
	w.nodes[1].SetChain(other)
	w.chain.Reorg(8, 1) // of which the first backend tells logs only
	u := all[1]
	counts(t, "logs", 10+8+1, func() int { return len(u.session.told(u.id)) })
	w.nodes[0].goDown()
	other.Mine(3)
	w.heal(other, all...)
}

func TestReorganisationThatTheSocketSwallowed(t *testing.T) {
	for depth := 1; depth <= 3; depth++ {
		t.Run(fmt.Sprint("depth=", depth), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1, setting{hub: func(o *Options) { o.HeadStall = time.Minute }})
			all := w.begin()
			w.nodes[0].is(devchain.FaultMute)
			w.chain.Reorg(depth, depth+1)
			w.nodes[0].is(devchain.FaultNone)
			w.mine(1, all...)
			w.mine(2, all...)
		})
	}
}
