package group

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
)

// follows is the order of the followable members: "10|2" with the usable ones first.
func (w *world) follows() string {
	members, usable := w.Followable()
	out := ""
	for i, m := range members {
		if i == usable {
			out += "|"
		}
		out += fmt.Sprint(m.index)
	}
	if usable == len(members) {
		out += "|"
	}
	return out
}

func TestFollowableMembersAreInTheOrderOfTiers(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 5, inTiers(name, 2, 0, 1, 0, 1), func(t *testing.T, w *world) {
			for range 20 {
				got := w.follows()
				if len(got) != 6 || sorted(got[:2]) != "13" || sorted(got[2:4]) != "24" || got[4:] != "0|" {
					t.Fatalf("followed %s", got)
				}
			}
			wantOrder(t, w, "") // nobody was asked
		})
	})
}

func TestFollowableMembersThatCannotServeAreLast(t *testing.T) {
	for _, state := range []backend.State{backend.Held, backend.Out, backend.Suspect} {
		t.Run(state.String(), func(t *testing.T) {
			everyStrategy(t, func(t *testing.T, name string) {
				inBubble(t, 4, inTiers(name, 0, 0, 1, 1), func(t *testing.T, w *world) {
					putAway(t, w, 0, state)
					got := w.follows()
					if len(got) != 5 || got[0] != '1' || sorted(got[1:3]) != "23" || got[3:] != "|0" {
						t.Errorf("followed %s", got)
					}
				})
			})
		})
	}
}

func TestFollowableWithoutAnyUsableMember(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 3, inTiers(name, 1, 0, 0), func(t *testing.T, w *world) {
			putAway(t, w, 0, backend.Held)
			putAway(t, w, 1, backend.Out)
			putAway(t, w, 2, backend.Unfit)
			if got := w.follows(); got != "|10" {
				t.Errorf("followed %s", got)
			}
			if w.Usable() {
				t.Error("usable")
			}
		})
	})
}

func TestUnfitAndForeignMembersAreNeverFollowed(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 3, foreign(name, 1), func(t *testing.T, w *world) {
			makeForeign(t, w, 1)
			putAway(t, w, 0, backend.Unfit)
			if got := w.follows(); got != "2|" {
				t.Errorf("followed %s", got)
			}
			putAway(t, w, 2, backend.Unfit)
			if got := w.follows(); got != "|" {
				t.Errorf("followed %s", got)
			}
			w.backends[0].Unfit("check", "")
			if got := w.follows(); got != "0|" {
				t.Errorf("followed %s", got)
			}
		})
	})
}

func TestLaggardIsFollowedLast(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 3, lagging(name, 5), func(t *testing.T, w *world) {
			w.heads(50, 100, 100)
			if got := w.follows(); len(got) != 4 || sorted(got[:2]) != "12" || got[2:] != "|0" {
				t.Errorf("followed %s", got)
			}
			w.backends[1].Unfit("check", "it syncs")
			w.backends[2].Unfit("check", "it syncs")
			if got := w.follows(); got != "0|" { // better late ones than none
				t.Errorf("followed %s", got)
			}
		})
	})
}

func TestStrainedMemberIsFollowedBehindItsTier(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 3, inTiers(name, 0, 0, 1), func(t *testing.T, w *world) {
			strain(t, w, 0)
			time.Sleep(time.Second)
			if got := w.follows(); got != "102|" {
				t.Errorf("followed %s", got)
			}
		})
	})
}

// To look whom to follow takes no turn of those who ask, and what is returned
// belongs to the caller.
func TestFollowableTakesNoTurn(t *testing.T) {
	inBubble(t, 3, inTiers("round_robin", 0, 0, 0), func(t *testing.T, w *world) {
		for range 9 {
			for range 5 {
				members, _ := w.Followable()
				slices.Reverse(members)
			}
			w.get()
		}
		if asked := w.order(); asked != strings.Repeat("012", 3) {
			t.Errorf("asked %s", asked)
		}
	})
	inBubble(t, 3, inTiers("fallback", 0, 0, 0), func(t *testing.T, w *world) {
		members, _ := w.Followable()
		slices.Reverse(members)
		w.get()
		wantOrder(t, w, "0")
		for i, m := range w.Members() {
			if m.index != i {
				t.Errorf("member %d is %d", i, m.index)
			}
		}
	})
}

func TestSuspectMemberIsFollowable(t *testing.T) {
	inBubble(t, 1, inTiers("fallback", 0), func(t *testing.T, w *world) {
		putAway(t, w, 0, backend.Suspect)
		if got := w.follows(); got != "|0" {
			t.Errorf("followed %s", got)
		}
	})
}

// overSockets gives the members no HTTP.
func overSockets(strategy string) setting {
	s := inTiers(strategy, 0, 0, 0)
	s.backend = func(_ int, o *backend.Options) {
		o.WSURL, o.URL = strings.Replace(o.URL, "http", "ws", 1), ""
	}
	return s
}

func TestGroupOfSocketsFailsOver(t *testing.T) {
	for _, fault := range []devchain.FaultKind{devchain.FaultGarbage, devchain.FaultClose, devchain.FaultDrop, devchain.FaultHang, devchain.FaultRateLimited, devchain.FaultWrongID, devchain.FaultTruncate} {
		t.Run(string(fault), func(t *testing.T) {
			everyStrategy(t, func(t *testing.T, name string) {
				inBubble(t, 3, overSockets(name), func(t *testing.T, w *world) {
					for range 10 {
						if c := w.get(); c.Err != nil || c.Answer.Result == nil {
							t.Fatalf("%+v, %v", c.Answer, c.Err)
						}
					}
					w.nodes[0].is(fault)
					for range 20 {
						c := read()
						w.do(20*time.Second, c)
						if c.Err != nil || c.Answer.Result == nil || c.Answer.Backend == "b0" {
							t.Fatalf("%+v, %v", c.Answer, c.Err)
						}
					}
					batch := callsOf(read(), call("eth_chainId", ""), read())
					w.do(20*time.Second, batch...)
					for _, c := range batch {
						if c.Err != nil || c.Answer.Result == nil {
							t.Errorf("%+v, %v", c.Answer, c.Err)
						}
					}
					w.nodes[0].is(devchain.FaultNone)
					back := false
					for range 40 {
						time.Sleep(15 * time.Second)
						if c := w.get(); c.Err != nil {
							t.Fatal(c.Err)
						} else if c.Answer.Backend == "b0" {
							back = true
						}
					}
					if !back && name != "sticky" && name != "scored" && name != "ranked" {
						t.Error("it did not come back")
					}
				})
			})
		})
	}
}

// A transaction whose end is unknown must not go out again by chance.
func TestSendOverASocketThatDiesIsNotRepeated(t *testing.T) {
	inBubble(t, 3, overSockets("fallback"), func(t *testing.T, w *world) {
		w.get()
		w.nodes[0].is(devchain.FaultClose)
		calls := []int64{w.nodes[0].Calls(), w.nodes[1].Calls(), w.nodes[2].Calls()}
		c := call("eth_sendTransaction", "[{}]") // of no class that may run twice
		w.do(10*time.Second, c)
		if c.Err == nil {
			t.Errorf("%+v", c.Answer)
		}
		for i, want := range []int64{1, 0, 0} {
			if got := w.nodes[i].Calls() - calls[i]; got != want {
				t.Errorf("node %d was asked %d times", i, got)
			}
		}
		c = read()
		w.do(10*time.Second, c)
		if c.Err != nil || c.Answer.Backend == "b0" {
			t.Errorf("%+v, %v", c.Answer, c.Err)
		}
	})
}
