package group

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
)

// turnMembers are members by their weights, for strategies alone.
func turnMembers(weights ...int) []*Member {
	members := make([]*Member, len(weights))
	for i, w := range weights {
		members[i] = &Member{Weight: w, index: i}
	}
	return members
}

// turns are the first picks of n calls, as "012".
func turns(s Strategy, members []*Member, n int) string {
	out := ""
	for range n {
		order := slices.Clone(members)
		s.Arrange(order, Ask{Reads: true})
		out += fmt.Sprint(order[0].index)
	}
	return out
}

// evenly checks that counts are those of n draws with the given shares, by a
// chi-square test that a right one fails once in a million times.
func evenly(t *testing.T, what string, counts []int, shares []float64) {
	t.Helper()
	n, total := 0, 0.0
	for i, c := range counts {
		n += c
		total += shares[i]
	}
	chi, free := 0.0, -1.0
	for i, c := range counts {
		want := float64(n) * shares[i] / total
		if want == 0 {
			if c > 0 {
				t.Errorf("%s: %v, want shares %v", what, counts, shares)
			}
			continue
		}
		free++
		chi += (float64(c) - want) * (float64(c) - want) / want
	}
	// Wilson and Hilferty's approximation.
	if z := (math.Cbrt(chi/free) - (1 - 2/(9*free))) / math.Sqrt(2/(9*free)); z > 4.8 {
		t.Errorf("%s: %v, want shares %v", what, counts, shares)
	}
}

func strategyIs(name string, weighted bool, change ...func(*Options)) setting {
	return setting{group: func(o *Options) {
		o.Strategy, o.Weighted = name, weighted
		for _, m := range o.Members {
			m.Weight = 1
		}
		for _, f := range change {
			f(o)
		}
	}}
}

// firstPicks makes n reads and counts who answered.
func (w *world) firstPicks(n int) []int {
	w.t.Helper()
	counts := make([]int, len(w.nodes))
	for range n {
		c := w.get()
		if c.Err != nil {
			w.t.Fatal(c.Err)
		}
		var i int
		fmt.Sscanf(c.Answer.Backend, "b%d", &i)
		counts[i]++
	}
	return counts
}

func TestRoundRobinTakesTurns(t *testing.T) {
	w := newWorld(t, 3, strategyIs("round_robin", false))
	for range 9 {
		w.get()
	}
	wantOrder(t, w, "012012012")
	// Who is next is asked when the first fails, and so on in the circle.
	w.nodes[0].says(500, "")
	w.nodes[1].says(500, "")
	w.well("b2")
	wantOrder(t, w, "012")
	w.well("b2")
	wantOrder(t, w, "12")
	w.nodes[2].says(500, "")
	w.nodes[1].serve.Store(nil)
	w.well("b1")
	wantOrder(t, w, "201")
}

func TestRoundRobinSharesEvenlyAlsoWhenOneIsOut(t *testing.T) {
	for _, weighted := range []bool{false, true} {
		for out := range 4 {
			w := newWorld(t, 4, strategyIs("round_robin", weighted))
			if got := w.firstPicks(40); !slices.Equal(got, []int{10, 10, 10, 10}) {
				t.Errorf("weighted %t: all well: %v", weighted, got)
			}
			w.backends[out].Unfit("test", "sick")
			want := []int{20, 20, 20, 20}
			want[out] = 0
			if got := w.firstPicks(60); !slices.Equal(got, want) {
				t.Errorf("weighted %t: without %d: %v", weighted, out, got)
			}
			w.backends[out].Unfit("test", "")
			got := w.firstPicks(40)
			for _, n := range got {
				if n < 9 || n > 11 {
					t.Errorf("weighted %t: with %d again: %v", weighted, out, got)
				}
			}
		}
	}
}

func TestRoundRobinSharesEvenlyWhileManyAsk(t *testing.T) {
	for _, weighted := range []bool{false, true} {
		w := newWorld(t, 3, strategyIs("round_robin", weighted))
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				for range 30 {
					w.get()
				}
			})
		}
		all.Wait()
		asked := w.order()
		for i := range 3 {
			if n := strings.Count(asked, fmt.Sprint(i)); n != 100 {
				t.Errorf("weighted %t: member %d was asked %d times", weighted, i, n)
			}
		}
	}
}

// Members behind the first ones, in another tier or strained, take no turns from
// them.
func TestRoundRobinOnlyTheFirstTierTakesTurns(t *testing.T) {
	for _, weighted := range []bool{false, true} {
		for behind := 1; behind <= 3; behind++ {
			t.Run(fmt.Sprint("weighted ", weighted, ", tier of ", behind), func(t *testing.T) {
				w := newWorld(t, 2+behind, strategyIs("round_robin", weighted, func(o *Options) {
					for _, m := range o.Members[2:] {
						m.Tier = 1
					}
				}))
				if got := w.firstPicks(40); got[0] != 20 || got[1] != 20 {
					t.Errorf("first picks %v", got)
				}
				// The second tier is asked when the first cannot serve, in turn too.
				w.backends[0].Unfit("test", "sick")
				if got := w.firstPicks(10); got[1] != 10 {
					t.Errorf("first picks %v", got)
				}
				w.backends[1].Unfit("test", "sick")
				for i, n := range w.firstPicks(30 * behind) {
					if want := map[bool]int{true: 0, false: 30}[i < 2]; n != want {
						t.Errorf("member %d of the second tier: %d of %d", i, n, 30*behind)
					}
				}
				w.backends[0].Unfit("test", "")
				if got := w.firstPicks(10); got[0] != 10 {
					t.Errorf("first picks %v", got)
				}
			})
		}
	}
}

func TestRoundRobinStrainedMemberTakesNoTurns(t *testing.T) {
	for _, weighted := range []bool{false, true} {
		s := strategyIs("round_robin", weighted)
		s.backend = func(_ int, o *backend.Options) { o.MaxLatency = time.Hour }
		w := newWorld(t, 3, s)
		strain(t, w, 1)
		if got := w.firstPicks(40); !slices.Equal(got, []int{20, 0, 20}) {
			t.Errorf("weighted %t: first picks %v", weighted, got)
		}
	}
}

// Calls that only some members can serve take no turns from the others' shares.
func TestRoundRobinOfMembersThatLackAMethod(t *testing.T) {
	for _, weighted := range []bool{false, true} {
		w := newWorld(t, 3, strategyIs("round_robin", weighted))
		w.nodes[2].SetFault(devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32601, RPCMessage: "method not found", Method: "eth_gasPrice"})
		for range 9 {
			w.do(time.Second, call("eth_gasPrice", ""))
		}
		some, all := make([]int, 3), make([]int, 3)
		for range 60 {
			w.order()
			w.do(time.Second, call("eth_gasPrice", ""))
			some[w.asks()[0].node]++
			w.order()
			w.get()
			all[w.asks()[0].node]++
		}
		if some[2] > 0 || !weighted && (some[0] < 20 || some[1] < 20) {
			t.Errorf("weighted %t: of the method %v", weighted, some)
		}
		for i := range 3 {
			// By weight each call counts alone, else the third makes up for what it
			// cannot serve.
			least, most := 30, 50
			if weighted {
				least, most = 18, 65
			}
			if n := some[i] + all[i]; n < least || n > most {
				t.Errorf("weighted %t: member %d was asked %d times of 120: %v and %v", weighted, i, n, some, all)
			}
		}
	}
}

// To look at the order, as the log does at debug, takes no turn.
func TestRoundRobinToLookTakesNoTurn(t *testing.T) {
	for _, weighted := range []bool{false, true} {
		w := newWorld(t, 2, strategyIs("round_robin", weighted))
		for range 10 {
			w.Explain(callsOf(read()))
			w.get()
		}
		wantOrder(t, w, "0101010101")
	}
}

func TestRoundRobinByWeightIsSmooth(t *testing.T) {
	for _, c := range []struct {
		weights []int
		turns   string
	}{
		{[]int{5, 1, 1}, "0010200"},
		{[]int{1, 1, 1}, "012"},
		{[]int{2, 1}, "010"},
		{[]int{4, 2, 1}, "0102010"},
		{[]int{3, 3, 1}, "-------"}, // which of the equals is first, is open
	} {
		members := turnMembers(c.weights...)
		total := len(c.turns)
		got := turns(newRoundRobin(Options{Members: members, Weighted: true}), members, 3*total)
		if got[:total] != got[total:2*total] || got[:total] != got[2*total:] {
			t.Errorf("weights %v: %s does not repeat", c.weights, got)
		}
		if c.turns[0] != '-' && got[:total] != c.turns {
			t.Errorf("weights %v: %s, want %s", c.weights, got[:total], c.turns)
		}
		for i, weight := range c.weights {
			if n := strings.Count(got, fmt.Sprint(i)); n != 3*weight {
				t.Errorf("weights %v: member %d has %d turns in %s", c.weights, i, n, got)
			}
			// Two turns of one member are apart by its share, give or take one and a
			// bit, so that no other waits long.
			last := -1
			for at, who := range got {
				if who != rune('0'+i) {
					continue
				}
				if gap := float64(at - last); last >= 0 && gap > 2*float64(total)/float64(weight) {
					t.Errorf("weights %v: member %d waits for %v turns in %s", c.weights, i, gap, got)
				}
				last = at
			}
		}
		if longest := strings.Repeat("0", c.weights[0]); c.weights[0] > 2 && strings.Contains(got[:total], longest) {
			t.Errorf("weights %v: all turns of the heaviest at once: %s", c.weights, got)
		}
	}
}

func TestRoundRobinByWeightWithoutAWeight(t *testing.T) {
	for _, weights := range [][]int{{0, 0, 0}, {3, 0, 1}, {0, 2}} {
		members := turnMembers(weights...)
		s := newRoundRobin(Options{Members: members, Weighted: true})
		total := 0
		for _, w := range weights {
			total += w
		}
		got := turns(s, members, 12)
		for i, w := range weights {
			if n := strings.Count(got, fmt.Sprint(i)); total > 0 && n != 12*w/total {
				t.Errorf("weights %v: member %d has %d of 12 turns", weights, i, n)
			}
		}
		order := slices.Clone(members)
		s.Arrange(order, Ask{})
		for _, m := range members {
			if !slices.Contains(order, m) {
				t.Errorf("weights %v: %d is lost", weights, m.index)
			}
		}
	}
}

func TestRoundRobinByWeightInAGroup(t *testing.T) {
	w := newWorld(t, 3, strategyIs("round_robin", true, func(o *Options) {
		for i, weight := range []int{5, 1, 1} {
			o.Members[i].Weight = weight
		}
	}))
	for range 14 {
		w.get()
	}
	wantOrder(t, w, "00102000010200")
	w.backends[0].Unfit("test", "sick")
	if got := w.firstPicks(20); got[1] < 9 || got[2] < 9 {
		t.Errorf("first picks %v", got)
	}
	w.backends[0].Unfit("test", "")
	if got := w.firstPicks(70); got[0] < 48 || got[0] > 52 {
		t.Errorf("first picks %v", got)
	}
}

func TestRandomOrders(t *testing.T) {
	const n = 24_000
	members := turnMembers(1, 1, 1, 1)
	s := newRandom(Options{Members: members})
	orders := make(map[string]int)
	for range n {
		order := slices.Clone(members)
		s.Arrange(order, Ask{})
		key := ""
		for _, m := range order {
			key += fmt.Sprint(m.index)
		}
		orders[key]++
	}
	if len(orders) != 24 {
		t.Fatalf("%d orders of four members", len(orders))
	}
	var counts []int
	var shares []float64
	for _, c := range orders {
		counts, shares = append(counts, c), append(shares, 1)
	}
	evenly(t, "orders", counts, shares)
}

func TestRandomByWeight(t *testing.T) {
	const n = 20_000
	for _, weights := range [][]int{{6, 3, 1, 0, -5}, {1, 1}, {1, 1000}, {0, 0, 0}} {
		members := turnMembers(weights...)
		s := newRandom(Options{Members: members, Weighted: true})
		first, second := make([]int, len(weights)), make([]int, len(weights))
		total := 0
		for _, w := range weights {
			total += max(0, w)
		}
		for range n {
			order := slices.Clone(members)
			s.Arrange(order, Ask{})
			first[order[0].index]++
			if order[0].index == 0 {
				second[order[1].index]++
			}
			for i, m := range order[1:] {
				if m.Weight > 0 && order[i].Weight <= 0 {
					t.Fatal("a member without weight stands before one with weight")
				}
			}
		}
		shares := make([]float64, len(weights))
		for i, w := range weights {
			if shares[i] = float64(max(0, w)); total == 0 {
				shares[i] = 1
			}
		}
		evenly(t, fmt.Sprint("first of ", weights), first, shares)
		if len(weights) == 5 {
			evenly(t, "second behind the heaviest", second, []float64{0, 3, 1, 0, 0})
		}
	}
}

func TestRandomInAGroup(t *testing.T) {
	for _, weighted := range []bool{false, true} {
		w := newWorld(t, 4, strategyIs("random", weighted, func(o *Options) {
			o.Members[1].Weight = 3
			o.Members[3].Tier = 1
		}))
		shares := map[bool][]float64{false: {1, 1, 1, 0}, true: {1, 3, 1, 0}}[weighted]
		evenly(t, fmt.Sprint("weighted ", weighted), w.firstPicks(1000), shares)
		w.backends[1].Unfit("test", "sick")
		evenly(t, fmt.Sprint("without the second, weighted ", weighted), w.firstPicks(1000), []float64{1, 0, 1, 0})
		w.backends[0].Unfit("test", "sick")
		w.backends[2].Unfit("test", "sick")
		if got := w.firstPicks(10); got[3] != 10 {
			t.Errorf("first picks %v", got)
		}
	}
}

// Random and round robin spread load: soft signs do not count when less than half
// is well, so that the last well one does not get everything.
func TestTurnsIgnoreSoftSignsWhenMostAreStrained(t *testing.T) {
	for _, strategy := range []string{"random", "round_robin"} {
		s := strategyIs(strategy, false)
		s.backend = func(_ int, o *backend.Options) { o.MaxLatency = time.Hour }
		w := newWorld(t, 3, s)
		strain(t, w, 0)
		strain(t, w, 1)
		if strategy == "round_robin" {
			if got := w.firstPicks(6); !slices.Equal(got, []int{2, 2, 2}) {
				t.Errorf("first picks %v", got)
			}
			continue
		}
		first := make([]int, 3)
		for range 300 {
			first[w.Explain(callsOf(read()))[0].Member.index]++
		}
		evenly(t, "first", first, []float64{1, 1, 1})
	}
}

// A member that comes back from a rate limit gets its share slowly, and the others
// still share evenly.
func TestRoundRobinWithAMemberThatComesBackSlowly(t *testing.T) {
	s := strategyIs("round_robin", false)
	s.backend = func(_ int, o *backend.Options) {
		o.Recovery = &backend.Recovery{Multiplier: 2, Initial: 5 * time.Second, Max: time.Minute, MaxRetries: 5, RequiredSuccesses: 1, ResetAfter: time.Hour}
	}
	inBubble(t, 3, s, func(t *testing.T, w *world) {
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, Times: 1})
		w.get()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for range 3 {
			w.get()
		}
		got := w.firstPicks(300)
		if got[0] == 0 || got[0] > 70 || math.Abs(float64(got[1]-got[2])) > 30 {
			t.Errorf("first picks %v", got)
		}
		time.Sleep(30 * time.Second)
		if got := w.firstPicks(300); !slices.Equal(got, []int{100, 100, 100}) {
			t.Errorf("first picks %v", got)
		}
	})
}
