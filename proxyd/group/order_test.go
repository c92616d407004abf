package group

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

// everyStrategy runs a test for each strategy.
func everyStrategy(t *testing.T, test func(t *testing.T, name string)) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(strategies)) {
		if name != "" {
			t.Run(name, func(t *testing.T) { test(t, name) })
		}
	}
}

// inTiers gives the members a strategy, weights, and their tiers.
func inTiers(strategy string, tiers ...int) setting {
	return setting{group: func(o *Options) {
		o.Strategy = strategy
		for i, m := range o.Members {
			m.Weight, m.Tier = 1, tiers[i]
		}
	}}
}

func archived() *jsonrpc.Call {
	c := read()
	client := *c.Client
	client.Archive = true
	c.Client = &client
	return c
}

// sorted is an order without what the strategy chose among equals.
func sorted(asked string) string {
	of := []byte(asked)
	slices.Sort(of)
	return string(of)
}

func wantAsked(t *testing.T, w *world, tiers ...string) {
	t.Helper()
	asked := w.order()
	got, rest := []string{}, asked
	for _, tier := range tiers {
		n := min(len(tier), len(rest))
		got, rest = append(got, sorted(rest[:n])), rest[n:]
	}
	if rest != "" || !slices.Equal(got, tiers) {
		t.Fatalf("asked %s, want %v", asked, tiers)
	}
}

func TestTierIsAskedOnlyWhenNoneBeforeItCanServe(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 5, inTiers(name, 2, 0, 1, 0, 1), func(t *testing.T, w *world) {
			for range 100 {
				w.get()
			}
			if asked := w.order(); strings.Trim(asked, "13") != "" {
				t.Fatalf("asked %s", asked)
			}
			w.nodes[1].is(devchain.FaultGarbage)
			w.nodes[3].is(devchain.FaultGarbage)
			w.get()
			if asked := w.order(); len(asked) != 3 || sorted(asked[:2]) != "13" || !strings.Contains("24", asked[2:]) {
				t.Fatalf("asked %s", asked)
			}
			w.nodes[2].is(devchain.FaultGarbage)
			w.nodes[4].is(devchain.FaultGarbage)
			w.well("b0")
			wantAsked(t, w, "13", "24", "0")
			for range 5 { // until the first two tiers are out
				w.well("b0")
			}
			w.order()
			w.well("b0")
			wantOrder(t, w, "0")
			w.all(func(n *node) { n.is(devchain.FaultNone) })
			time.Sleep(6 * time.Minute)
			for range 50 {
				w.get()
				time.Sleep(time.Second)
			}
			w.order()
			for range 50 {
				w.get()
			}
			if asked := w.order(); strings.Trim(asked, "13") != "" {
				t.Fatalf("after their return asked %s", asked)
			}
		})
	})
}

func TestStrainedMembersOfATierComeBeforeTheNextTier(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 4, inTiers(name, 0, 0, 1, 1), func(t *testing.T, w *world) {
			strain(t, w, 0)
			time.Sleep(time.Second)
			w.order()
			w.well("b1")
			w.nodes[1].is(devchain.FaultGarbage)
			w.well("b0")
			wantOrder(t, w, "110")
		})
	})
}

// Four public members first, but only two of them; then the primary one, then the
// fallback, then the other public ones.
func TestPublicMembersComeFirstButOnlySomeOfThem(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		for _, most := range []int{0, 1, 2, 4, 9} {
			s := inTiers(name, 1, 0, 0, 2, 0, 0)
			tiers := s.group
			s.group = func(o *Options) {
				tiers(o)
				o.PublicAttempts = most
				for _, i := range []int{1, 2, 4, 5} {
					o.Members[i].Public = true
				}
			}
			inBubble(t, 6, s, func(t *testing.T, w *world) {
				w.all(func(n *node) { n.is(devchain.FaultGarbage) })
				w.get()
				asked := w.order()
				first := most
				if most == 0 || most > 4 {
					first = 4
				}
				if len(asked) != 6 || asked[first:first+2] != "03" || sorted(asked[:first]+asked[first+2:]) != "1245" {
					t.Errorf("with %d attempts at public members asked %s", most, asked)
				}
			})
		}
	})
}

func TestPublicMembersThatCannotServeAreNoAttempts(t *testing.T) {
	s := inTiers("fallback", 0, 0, 0, 1)
	tiers := s.group
	s.group = func(o *Options) {
		tiers(o)
		o.PublicAttempts = 1
		for _, m := range o.Members[:3] {
			m.Public = true
		}
	}
	inBubble(t, 4, s, func(t *testing.T, w *world) {
		w.backends[0].Unfit("check", "it syncs")
		w.all(func(n *node) { n.is(devchain.FaultGarbage) })
		w.get()
		wantOrder(t, w, "132"+"0") // the unfit one in the last resort
	})
}

func TestOnlyArchivesAreAskedForWhatWantsOne(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		s := inTiers(name, 0, 0, 1, 1)
		tiers := s.group
		s.group = func(o *Options) {
			tiers(o)
			o.Members[1].Archive, o.Members[3].Archive = true, true
			two := 2
			o.MaxRetries = &two
		}
		inBubble(t, 4, s, func(t *testing.T, w *world) {
			for range 20 {
				c := archived()
				w.do(time.Second, c)
				if c.Err != nil || c.Answer.Backend != "b1" {
					t.Fatalf("%+v, %v", c.Answer, c.Err)
				}
			}
			wantOrder(t, w, strings.Repeat("1", 20))
			batch := callsOf(archived(), archived(), archived())
			w.do(time.Second, batch...)
			wantOrder(t, w, "1")
			w.nodes[1].is(devchain.FaultGarbage)
			w.nodes[3].is(devchain.FaultGarbage)
			c := archived()
			w.do(10*time.Second, c)
			wantOrder(t, w, "131313")
			if c.Err == nil || !strings.Contains(c.Err.Error(), "b0") && name != "sticky" {
				t.Errorf("%+v, %v", c.Answer, c.Err)
			}
			if err := fmt.Sprint(c.Err); name != "sticky" && strings.Count(err, "no archive") != 2 {
				t.Errorf("the error says %v", err)
			}
			time.Sleep(time.Minute)
			w.order()
			if c := w.get(); c.Err != nil {
				t.Error(c.Err)
			}
		})
	})
}

func TestWithoutAnyArchiveNobodyIsAsked(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 2, inTiers(name, 0, 0), func(t *testing.T, w *world) {
			for _, c := range []*jsonrpc.Call{archived(), {Method: "eth_sendRawTransaction", Params: send().Params, Row: send().Row, Label: "eth_sendRawTransaction", Client: archived().Client}} {
				w.do(time.Second, c)
				var nobody *Unserviceable
				if !errors.As(c.Err, &nobody) || !errors.Is(c.Err, ErrNoArchive) || strings.Count(c.Err.Error(), "not asked: no archive") != 2 {
					t.Errorf("%s: %+v, %v", c.Method, c.Answer, c.Err)
				}
			}
			wantOrder(t, w, "")
			w.get()
		})
	})
}

// makeForeign lets a member answer eth_chainId with another chain's.
func makeForeign(t *testing.T, w *world, i int) {
	t.Helper()
	for range 20 { // until the strategy comes to it
		if w.backends[i].Standing().State == backend.Foreign {
			w.order()
			return
		}
		done := make(chan *backend.Attempt, 1)
		w.backends[i].Begin(callsOf(call("eth_chainId", "")), backend.Try{Timeout: time.Minute}, done)
		(<-done).Settle(false)
	}
	w.state(i, backend.Foreign)
}

func foreign(strategy string, members ...int) setting {
	s := setting{group: func(o *Options) {
		o.Strategy = strategy
		two := 2
		o.MaxRetries = &two
		for _, m := range o.Members {
			m.Weight = 1
		}
	}}
	s.backend = func(i int, o *backend.Options) {
		if slices.Contains(members, i) {
			o.ChainID = 77777
		}
	}
	return s
}

func TestForeignMemberIsNeverAsked(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 2, foreign(name, 0), func(t *testing.T, w *world) {
			makeForeign(t, w, 0)
			for range 10 {
				w.well("b1")
			}
			w.do(time.Second, send())
			for _, fault := range []devchain.FaultKind{devchain.FaultGarbage, devchain.FaultHang, devchain.FaultRateLimited} {
				w.nodes[1].is(fault)
				for range 5 {
					w.get()
					w.do(10*time.Second, send(), read())
				}
			}
			if asked := w.order(); strings.Contains(asked, "0") {
				t.Errorf("asked %s", asked)
			}
			w.nodes[1].is(devchain.FaultNone)
		})
		inBubble(t, 2, foreign(name, 0, 1), func(t *testing.T, w *world) {
			makeForeign(t, w, 0)
			makeForeign(t, w, 1)
			for _, c := range []*jsonrpc.Call{read(), send(), call("eth_sendTransaction", "[{}]"), archived()} {
				w.do(time.Second, c)
				var nobody *Unserviceable
				if !errors.As(c.Err, &nobody) {
					t.Errorf("%s: %+v, %v", c.Method, c.Answer, c.Err)
				} else if !c.Client.Archive && strings.Count(c.Err.Error(), "chain id") != 2 {
					t.Errorf("the error says %v", c.Err)
				}
			}
			wantOrder(t, w, "")
			if w.Usable() {
				t.Error("usable")
			}
		})
		inBubble(t, 1, foreign(name, 0), func(t *testing.T, w *world) {
			makeForeign(t, w, 0)
			if c := w.get(); c.Err == nil {
				t.Errorf("answered %+v", c.Answer)
			}
			wantOrder(t, w, "")
		})
	})
}

// The answer that shows it is not delivered, and the call is asked elsewhere.
func TestMemberIsFoundForeignByAClientsCall(t *testing.T) {
	inBubble(t, 2, foreign("fallback", 0), func(t *testing.T, w *world) {
		c := call("eth_chainId", "")
		w.do(time.Second, c)
		if c.Err != nil || c.Answer.Backend != "b1" {
			t.Errorf("%+v, %v", c.Answer, c.Err)
		}
		wantOrder(t, w, "01")
		w.state(0, backend.Foreign)
	})
}

func TestUnfitMemberIsALastResortOnly(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 3, inTiers(name, 0, 0, 0), func(t *testing.T, w *world) {
			w.backends[0].Unfit("check", "it syncs")
			for range 20 {
				w.get()
			}
			if asked := w.order(); strings.Contains(asked, "0") {
				t.Errorf("asked %s", asked)
			}
			w.nodes[1].is(devchain.FaultGarbage)
			w.nodes[2].is(devchain.FaultGarbage)
			w.well("b0")
			wantAsked(t, w, "12", "0")
			// One that is out is tried before one that is unfit.
			for range 3 {
				w.get()
			}
			w.state(1, backend.Out)
			w.state(2, backend.Out)
			w.nodes[1].is(devchain.FaultNone)
			w.nodes[2].is(devchain.FaultNone)
			w.order()
			if c := w.get(); c.Err != nil || c.Answer.Backend == "b0" {
				t.Errorf("%+v, %v", c.Answer, c.Err)
			}
		})
		inBubble(t, 1, inTiers(name, 0), func(t *testing.T, w *world) {
			w.backends[0].Unfit("check", "it syncs")
			w.well("b0")
		})
	})
}

// heads sets the heads of the members, 0 for none.
func (w *world) heads(numbers ...uint64) {
	for i, n := range numbers {
		if n > 0 {
			w.backends[i].NoteHead(n)
		}
	}
}

func lagging(strategy string, most uint64) setting {
	return setting{group: func(o *Options) {
		o.Strategy, o.MaxBlockLag = strategy, &most
		for _, m := range o.Members {
			m.Weight = 1
		}
	}}
}

func TestHeadsAreComparedAsOfOneMoment(t *testing.T) {
	most := func(o *Options) { o.HeadMaxAge = time.Minute }
	set := lagging("fallback", 5)
	inBubble(t, 2, setting{group: func(o *Options) { set.group(o); most(o) }}, func(t *testing.T, w *world) {
		lag := func(want uint64) {
			t.Helper()
			if got := w.lag(w.Members()[1], time.Now()); got != want {
				t.Errorf("%d blocks behind, want %d", got, want)
			}
		}
		w.heads(100, 100)
		for n := range uint64(20) { // the first is followed, the second checked now and then
			time.Sleep(time.Second)
			w.backends[0].NoteHead(101 + n)
			lag(0)
		}
		w.heads(0, 120)
		lag(0)
		time.Sleep(20 * time.Second)
		w.heads(0, 130) // ten seconds late: between 120 and 140 of the first
		time.Sleep(10 * time.Millisecond)
		w.heads(140, 0)
		lag(9)
	})
}

func TestWhoLagsIsMeasuredAgainstTheGroup(t *testing.T) {
	for _, c := range []struct {
		name  string
		heads []uint64
		want  string // who does not lag
	}{
		{"nothing is known", []uint64{0, 0, 0}, "012"},
		{"all at one head", []uint64{100, 100, 100}, "012"},
		{"one behind", []uint64{90, 100, 100}, "12"},
		{"within the limit", []uint64{95, 100, 100}, "012"},
		{"just over", []uint64{94, 100, 100}, "12"},
		{"one far ahead does not take out the rest", []uint64{100, 100, 100_000}, "012"},
		{"one far ahead, one behind", []uint64{90, 100, 100_000}, "12"},
		{"two ahead", []uint64{100, 1000, 1000}, "12"},
		{"of two the lower one", []uint64{90, 100}, "1"},
		{"of two known ones the lower one", []uint64{0, 90, 100}, "02"},
		{"one is known", []uint64{0, 100, 0}, "012"},
		{"one alone", []uint64{100}, "0"},
		{"five, two ahead", []uint64{100, 100, 100, 200, 200}, "34"},
		{"five, one ahead", []uint64{100, 100, 100, 100, 200}, "01234"},
		{"the highest number there is", []uint64{1<<64 - 1, 100, 100}, "012"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, len(c.heads), lagging("fallback", 5), func(t *testing.T, w *world) {
				w.heads(c.heads...)
				got := ""
				for _, p := range w.Explain(callsOf(read())) {
					if p.Skipped == "" {
						got += fmt.Sprint(p.Member.index)
					} else if p.State != backend.Lagging || p.Skipped != "lagging" {
						t.Errorf("%s is %s: %s", p.Member.Name(), p.State, p.Skipped)
					}
				}
				if sorted(got) != c.want {
					t.Errorf("in their turn: %s, want %s", got, c.want)
				}
				time.Sleep(time.Minute + time.Second)
				for _, p := range w.Explain(callsOf(read())) {
					if p.Skipped != "" {
						t.Errorf("by heads of a minute ago %s is %s", p.Member.Name(), p.Skipped)
					}
				}
			})
		})
	}
}

func TestLaggardIsLeftAloneAndIsALastResort(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 3, lagging(name, 5), func(t *testing.T, w *world) {
			w.heads(90, 100, 100)
			for range 20 {
				w.get()
			}
			if asked := w.order(); strings.Contains(asked, "0") {
				t.Errorf("asked %s", asked)
			}
			w.nodes[1].is(devchain.FaultGarbage)
			w.nodes[2].is(devchain.FaultGarbage)
			w.well("b0")
			wantAsked(t, w, "12", "0")
			w.nodes[1].is(devchain.FaultNone)
			w.nodes[2].is(devchain.FaultNone)
			w.heads(99)
			for range 200 {
				w.get()
				time.Sleep(time.Second / 10)
			}
			if asked := w.order(); !strings.Contains(asked, "0") && name != "sticky" {
				t.Error("it did not come back")
			}
		})
	})
}

// Less than half is well: where load is spread all share it, elsewhere who lags
// stays last.
func TestLagIsIgnoredWhenLessThanHalfIsWellAndLoadIsSpread(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 5, lagging(name, 5), func(t *testing.T, w *world) {
			w.heads(80, 80, 80, 100, 100)
			asked := map[int]bool{}
			for range 200 {
				w.order()
				w.get()
				asked[w.asks()[0].node] = true
			}
			spreads := w.strategy.Spreads()
			if (asked[0] && asked[1] && asked[2]) != spreads || asked[0] != spreads {
				t.Errorf("it spreads: %t, asked %v", spreads, asked)
			}
		})
		inBubble(t, 4, lagging(name, 5), func(t *testing.T, w *world) { // just half
			w.heads(80, 80, 100, 100)
			for range 100 {
				w.get()
			}
			if asked := w.order(); strings.Trim(asked, "23") != "" {
				t.Errorf("asked %s", asked)
			}
		})
	})
}

// After its rate limit a member begins with a tenth of its calls and has all of
// them after half a minute.
func TestMemberStartsSlowlyAfterARateLimit(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		s := inTiers(name, 0, 0)
		s.backend = func(_ int, o *backend.Options) {
			o.Recovery = &backend.Recovery{Multiplier: 2, Initial: 10 * time.Second, Max: time.Minute, MaxRetries: 3, RequiredSuccesses: 2, ResetAfter: time.Hour}
		}
		inBubble(t, 2, s, func(t *testing.T, w *world) {
			for range 3 {
				w.get()
			}
			usual := 1.0
			if w.strategy.Spreads() {
				usual = 0.5
			}
			w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, Times: 1})
			for w.backends[0].Standing().State != backend.Held {
				w.get()
			}
			w.order()
			for range 9 {
				time.Sleep(time.Second)
				w.well("b1")
			}
			wantOrder(t, w, strings.Repeat("1", 9))
			time.Sleep(time.Second)
			w.state(0, backend.Trial)
			if name == "sticky" {
				return // the other is preferred now
			}
			for w.backends[0].Standing().State != backend.Well {
				w.get()
			}
			back := time.Now()
			shares := make([]float64, 4)
			for i := range shares {
				const calls = 600
				for range calls {
					w.order()
					w.get()
					if w.asks()[0].node == 0 {
						shares[i] += 1.0 / calls
					}
					time.Sleep(10 * time.Second / calls)
				}
			}
			t.Logf("in %v its shares were %.2f", time.Since(back), shares)
			for i, want := range []float64{0.25, 0.55, 0.85, 1} {
				if want *= usual; shares[i] < want-0.1 || shares[i] > want+0.1 {
					t.Errorf("in the %d. ten seconds its share was %.2f, want about %.2f", i+1, shares[i], want)
				}
			}
		})
	})
}

func TestExplainSaysWhereEachMemberStandsAndWhy(t *testing.T) {
	explained := func(w *world, calls ...*jsonrpc.Call) string {
		var lines []string
		for _, p := range w.Explain(calls) {
			text := fmt.Sprint(p.Member.index, " ", p.State)
			if p.Skipped != "" {
				text += " (" + p.Skipped + ")"
			}
			lines = append(lines, text)
		}
		return strings.Join(lines, ", ")
	}
	most := uint64(5)
	s := setting{
		group: func(o *Options) {
			o.MaxBlockLag, o.HeadMaxAge = &most, time.Hour
			for i, m := range o.Members {
				m.Archive = i != 2
			}
		},
		backend: func(i int, o *backend.Options) {
			if i == 7 {
				o.ChainID = 77777
			}
		},
	}
	inBubble(t, 8, s, func(t *testing.T, w *world) {
		want := func(want string, calls ...*jsonrpc.Call) {
			t.Helper()
			if got := explained(w, calls...); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
		want("0 well, 1 well, 2 well, 3 well, 4 well, 5 well, 6 well, 7 well", read())
		ask := func(i int) {
			done := make(chan *backend.Attempt, 1)
			w.backends[i].Begin(callsOf(call("eth_chainId", "")), backend.Try{Timeout: time.Minute}, done)
			(<-done).Settle(true)
		}
		strain(t, w, 1)
		w.nodes[3].is(devchain.FaultStatus)
		for range 3 {
			ask(3)
		}
		w.nodes[4].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "45"})
		ask(4)
		w.backends[5].Unfit("check", "eth_syncing is not false")
		w.heads(100, 100, 100, 0, 0, 0, 90, 0)
		ask(7)
		want("0 well, 2 well, 1 strained, 3 out (out for 30s), 4 held (held for 45s), 5 unfit (unfit: eth_syncing is not false), 6 lagging (lagging), 7 foreign (serves chain id 31337, not 77777)", read())
		want("0 well, 1 strained, 2 well (no archive), 3 out (out for 30s), 4 held (held for 45s), 5 unfit (unfit: eth_syncing is not false), 6 lagging (lagging), 7 foreign (serves chain id 31337, not 77777)", archived())
		time.Sleep(30 * time.Second)
		want("0 well, 2 well, 3 trial, 1 strained, 4 held (held for 15s), 5 unfit (unfit: eth_syncing is not false), 6 lagging (lagging), 7 foreign (serves chain id 31337, not 77777)", read())
		// Nobody is usable: the least bad one is tried.
		for i := range 4 {
			w.backends[i].Unfit("check", "no")
		}
		want("6 well, 0 unfit (unfit: no), 1 unfit (unfit: no), 2 unfit (unfit: no), 3 unfit (unfit: no), 4 held (held for 15s), 5 unfit (unfit: eth_syncing is not false), 7 foreign (serves chain id 31337, not 77777)", read())
	})
}

func TestFailedCallTellsOfLaggards(t *testing.T) {
	s := lagging("fallback", 5)
	plain := s.group
	s.group = func(o *Options) { plain(o); o.MaxAttempts = 1 }
	inBubble(t, 2, s, func(t *testing.T, w *world) {
		w.heads(90, 100)
		w.nodes[1].is(devchain.FaultGarbage)
		if c := w.get(); c.Err == nil || !strings.Contains(c.Err.Error(), "backend b0: not asked: lagging") {
			t.Errorf("error %v", c.Err)
		}
	})
}

func TestExplainOfASilentMember(t *testing.T) {
	inBubble(t, 2, setting{backend: func(_ int, o *backend.Options) { o.ResponseTimeout = 2 * time.Second }}, func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultHang)
		for range 4 {
			go w.get()
		}
		time.Sleep(1100 * time.Millisecond)
		places := w.Explain(callsOf(read()))
		if len(places) != 2 || places[0].Member.index != 1 || places[1].State != backend.Suspect || places[1].Skipped != "suspect" {
			t.Errorf("%+v %+v", *places[0].Member, places[1])
		}
		time.Sleep(10 * time.Second)
	})
}

// Asking how a call would go, as the log at level debug does, changes nothing, and
// says what is so.
func TestExplainingDoesNotChangeWhoIsAsked(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		asked := map[bool]string{}
		for _, explain := range []bool{false, true} {
			s := inTiers(name, 0, 0, 0)
			tiers := s.group
			s.group = func(o *Options) {
				tiers(o)
				if explain {
					o.Log = slog.New(slog.NewTextHandler(discard{}, &slog.HandlerOptions{Level: slog.LevelDebug}))
				}
			}
			inBubble(t, 3, s, func(t *testing.T, w *world) {
				for range 200 {
					places := []Place{{Member: w.opts.Members[0]}}
					if explain {
						places = w.Explain(callsOf(read()))
						w.Explain(callsOf(read(), read()))
					}
					before := len(w.asks())
					w.get()
					if got := w.asks()[before].node; explain && got != places[0].Member.index && name != "random" && name != "scored" {
						t.Fatalf("asked %d, explained %d", got, places[0].Member.index)
					}
				}
				asked[explain] = w.order()
			})
		}
		if name != "random" && asked[false] != asked[true] {
			t.Errorf("asked\n%s, when explained\n%s", asked[false], asked[true])
		}
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestRetryAfterIsOfThoseThatMayServeAgain(t *testing.T) {
	inBubble(t, 2, foreign("fallback", 0), func(t *testing.T, w *world) {
		makeForeign(t, w, 0)
		w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "20"})
		c := w.get()
		var nobody *Unserviceable
		if !errors.As(c.Err, &nobody) || nobody.RetryAfter != 20*time.Second {
			t.Errorf("%v, %+v", c.Err, nobody)
		}
	})
}
