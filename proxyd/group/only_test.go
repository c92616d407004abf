package group

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

// pinned is a read that one member must answer.
func pinned(only string) *jsonrpc.Call {
	c := read()
	c.Only = only
	return c
}

// putAway brings a member into a state in which it is not asked in its turn.
func putAway(t *testing.T, w *world, i int, into backend.State) {
	t.Helper()
	b := w.backends[i]
	ask := func(fault devchain.FaultKind) {
		w.nodes[i].is(fault)
		done := make(chan *backend.Attempt, 1)
		b.Begin(callsOf(read()), backend.Try{Timeout: time.Minute}, done)
		(<-done).Settle(true)
		w.nodes[i].is(devchain.FaultNone)
	}
	switch into {
	case backend.Held:
		ask(devchain.FaultRateLimited)
	case backend.Out:
		for range 3 {
			ask(devchain.FaultGarbage)
		}
	case backend.Unfit:
		b.Unfit("check", "it syncs")
	case backend.Suspect:
		w.nodes[i].is(devchain.FaultHang)
		done := make(chan *backend.Attempt, 3)
		for range 3 {
			b.Begin(callsOf(read()), backend.Try{Timeout: time.Minute, Watched: true}, done)
		}
		time.Sleep(2 * time.Second)
		t.Cleanup(func() { w.nodes[i].is(devchain.FaultNone) })
	}
	w.state(i, into)
	w.order()
}

func TestPinnedCallGoesToItsMemberOnly(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 4, inTiers(name, 0, 0, 1, 1), func(t *testing.T, w *world) {
			for i := range 4 {
				only := w.backends[i].Name()
				for range 5 {
					c := pinned(only)
					w.do(time.Second, c)
					if c.Err != nil || c.Answer.Backend != only {
						t.Fatalf("%s: %+v, %v", only, c.Answer, c.Err)
					}
				}
				if asked := w.order(); strings.Trim(asked, only[1:]) != "" || len(asked) != 5 {
					t.Fatalf("%s: asked %s", only, asked)
				}
			}
		})
	})
}

func TestPinnedCallDoesNotFailOver(t *testing.T) {
	for _, fault := range []devchain.FaultKind{devchain.FaultGarbage, devchain.FaultClose, devchain.FaultStatus, devchain.FaultRateLimited, devchain.FaultHang, devchain.FaultWrongID, devchain.FaultRPCError} {
		t.Run(string(fault), func(t *testing.T) {
			everyStrategy(t, func(t *testing.T, name string) {
				s := inTiers(name, 0, 0, 0)
				tiers := s.group
				s.group = func(o *Options) {
					tiers(o)
					two := 2
					o.MaxRetries = &two
					o.Hedge = &Hedge{Delay: time.Millisecond, Max: time.Second, MaxExtra: 2}
				}
				inBubble(t, 3, s, func(t *testing.T, w *world) {
					w.nodes[1].is(fault)
					for range 6 { // until it is out or held off, and beyond
						c := pinned("b1")
						w.do(8*time.Second, c)
						if c.Err == nil && (fault != devchain.FaultRPCError && fault != devchain.FaultRateLimited || c.Answer.Error == nil || c.Answer.Backend != "b1") {
							t.Fatalf("%+v", c.Answer)
						}
					}
					if asked := w.order(); len(asked) < 6 || strings.Trim(asked, "1") != "" {
						t.Errorf("asked %s", asked)
					}
					w.nodes[1].is(devchain.FaultNone)
				})
			})
		})
	}
}

func TestPinnedMemberIsAskedAlsoWhenItWouldNotBe(t *testing.T) {
	for _, state := range []backend.State{backend.Held, backend.Out, backend.Unfit} {
		t.Run(state.String(), func(t *testing.T) {
			everyStrategy(t, func(t *testing.T, name string) {
				inBubble(t, 3, inTiers(name, 0, 0, 0), func(t *testing.T, w *world) {
					putAway(t, w, 1, state)
					c := pinned("b1")
					w.do(time.Second, c)
					if c.Err != nil || c.Answer.Backend != "b1" {
						t.Fatalf("%+v, %v", c.Answer, c.Err)
					}
					wantOrder(t, w, "1")
				})
			})
		})
	}
	t.Run("suspect", func(t *testing.T) {
		everyStrategy(t, func(t *testing.T, name string) {
			inBubble(t, 3, inTiers(name, 0, 0, 0), func(t *testing.T, w *world) {
				putAway(t, w, 1, backend.Suspect)
				w.nodes[1].is(devchain.FaultNone)
				c := pinned("b1")
				w.do(time.Second, c)
				if c.Err != nil || c.Answer.Backend != "b1" {
					t.Fatalf("%+v, %v", c.Answer, c.Err)
				}
				wantOrder(t, w, "1")
			})
		})
	})
	t.Run("lagging", func(t *testing.T) {
		everyStrategy(t, func(t *testing.T, name string) {
			inBubble(t, 3, lagging(name, 5), func(t *testing.T, w *world) {
				w.heads(100, 50, 100)
				c := pinned("b1")
				w.do(time.Second, c)
				if c.Err != nil || c.Answer.Backend != "b1" {
					t.Fatalf("%+v, %v", c.Answer, c.Err)
				}
				wantOrder(t, w, "1")
			})
		})
	})
}

func TestPinnedCallIsNeverForAForeignOrUnknownMember(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 3, foreign(name, 1), func(t *testing.T, w *world) {
			makeForeign(t, w, 1)
			for _, only := range []string{"b1", "b7"} {
				c := pinned(only)
				w.do(time.Second, c)
				var nobody *Unserviceable
				if !errors.As(c.Err, &nobody) || strings.Count(c.Err.Error(), "another backend must answer") < 2 {
					t.Errorf("%s: %+v, %v", only, c.Answer, c.Err)
				}
			}
			wantOrder(t, w, "")
		})
	})
}

func TestPinnedTransactionIsNotBroadcast(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 3, inTiers(name, 0, 0, 0), func(t *testing.T, w *world) {
			c := send()
			c.Only = "b2"
			w.do(time.Second, c)
			if c.Err != nil || c.Answer.Backend != "b2" {
				t.Errorf("%+v, %v", c.Answer, c.Err)
			}
			wantOrder(t, w, "2")
		})
	})
}

// What one client's filter is pinned to says nothing about whom others prefer.
func TestPinnedCallMovesNoPreference(t *testing.T) {
	inBubble(t, 3, stickyGroup(), func(t *testing.T, w *world) {
		w.well("b0")
		c := pinned("b1")
		w.do(time.Second, c)
		if c.Err != nil || c.Answer.Backend != "b1" {
			t.Fatalf("%+v, %v", c.Answer, c.Err)
		}
		w.well("b0")
	})
}

func TestPinnedCallsLeaveTheTurnsOfOthersEven(t *testing.T) {
	inBubble(t, 2, inTiers("round_robin", 0, 0), func(t *testing.T, w *world) {
		counts := map[string]int{}
		for range 100 {
			w.do(time.Second, pinned("b0"))
			c := w.get()
			counts[c.Answer.Backend]++
		}
		if counts["b0"]+counts["b1"] != 100 || counts["b1"] < 50 {
			t.Errorf("%v", counts)
		}
	})
}

func TestExplanationOfAPinnedCall(t *testing.T) {
	inBubble(t, 3, inTiers("fallback", 0, 0, 0), func(t *testing.T, w *world) {
		for _, p := range w.Explain(callsOf(pinned("b1"))) {
			want := "another backend must answer"
			if p.Member.Name() == "b1" {
				want = ""
			}
			if p.Skipped != want {
				t.Errorf("%s: %q", p.Member.Name(), p.Skipped)
			}
		}
	})
}
