package group

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

// The budget by a list that forgets nothing.
func TestBudgetIsAShareOfTheCallsOfTenSeconds(t *testing.T) {
	for _, o := range []Budget{{Ratio: 0.2, MinPerSecond: 10}, {Ratio: 0.5}, {MinPerSecond: 0.3}, {Ratio: 3, MinPerSecond: 1}, {}} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 1))
			b := &budget{Budget: o}
			now := time.Unix(1_700_000_000, 0)
			var called, taken []int64
			within := func(of []int64) (n float64) {
				for _, second := range of {
					if now.Unix()-second < budgetSeconds {
						n++
					}
				}
				return n
			}
			for range 5000 {
				if random.IntN(3) == 0 {
					now = now.Add(time.Duration(random.Int64N(int64(500 * time.Millisecond))))
				}
				if random.IntN(300) == 0 {
					now = now.Add(time.Duration(random.Int64N(int64(time.Minute))))
				}
				if random.IntN(2) == 0 {
					n := random.IntN(4)
					b.called(n, now)
					called = append(called, slices.Repeat([]int64{now.Unix()}, n)...)
					continue
				}
				may := within(taken)+1 <= o.Ratio*within(called)+10*o.MinPerSecond
				if got := b.take(1, now); got != may {
					t.Fatalf("after %v calls and %v taken: %t", within(called), within(taken), got)
				}
				if may {
					taken = append(taken, now.Unix())
				}
			}
		})
	}
}

func TestBudgetUnderConcurrency(t *testing.T) {
	b := &budget{Budget: Budget{Ratio: 0.1}}
	now := time.Unix(1_700_000_000, 0)
	var all sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for range 10 {
		all.Go(func() {
			for range 1000 {
				b.called(1, now)
			}
			for range 1000 {
				if b.take(1, now) {
					mu.Lock()
					taken++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if taken > 1000 || taken < 100 {
		t.Errorf("%d taken", taken)
	}
}

func budgeted(retries int, b *Budget) setting {
	return setting{group: func(o *Options) { o.MaxRetries, o.Budget = &retries, b }}
}

func TestSpentBudgetStopsNoFirstAttemptAndNoFailover(t *testing.T) {
	inBubble(t, 4, budgeted(3, &Budget{}), func(t *testing.T, w *world) {
		for i := range 3 {
			w.nodes[i].is(devchain.FaultClose)
		}
		for range 2 { // then they are out of service
			w.well("b3")
			wantOrder(t, w, "0123")
		}
		w.well("b3")
		w.order()
		if n := w.metric("group_budget_spent_total"); n != 0 {
			t.Errorf("the budget refused %v", n)
		}
		w.nodes[3].is(devchain.FaultClose)
		c := w.get()
		if c.Err == nil {
			t.Fatal("answered")
		}
		if got := w.order(); got != "30" { // the last resort is no retry either
			t.Errorf("asked %s", got)
		}
		if n := w.metric("group_budget_spent_total", "kind", "retry"); n != 1 {
			t.Errorf("the budget refused %v retries", n)
		}
		if n := w.metric("group_retries_total"); n != 0 {
			t.Errorf("%v retries", n)
		}
	})
}

func TestRetriesEndWithTheBudget(t *testing.T) {
	fails := func(w *world, calls int) (attempts int) {
		w.all(func(n *node) { n.is(devchain.FaultGarbage) })
		for range calls {
			w.get()
		}
		return len(w.order())
	}
	const calls, members, retries = 100, 2, 5
	for _, c := range []struct {
		budget *Budget
		extra  int // attempts beyond those of the first rounds
	}{
		{nil, calls * retries * members},
		{&Budget{Ratio: 0.5}, 50},
		{&Budget{MinPerSecond: 2}, 20},
		{&Budget{Ratio: 0.5, MinPerSecond: 2}, 70},
		{&Budget{Ratio: 100}, calls * retries * members},
		{&Budget{}, 0},
	} {
		t.Run(fmt.Sprintf("%+v", c.budget), func(t *testing.T) {
			inBubble(t, members, budgeted(retries, c.budget), func(t *testing.T, w *world) {
				if got, want := fails(w, calls), members*calls+c.extra; got != want {
					t.Errorf("%d attempts, want %d", got, want)
				}
				refused := 0.0
				if c.extra < calls*retries*members {
					refused = w.metric("group_budget_spent_total", "kind", "retry")
					if refused < float64(calls-c.extra) || refused > calls {
						t.Errorf("%v retries were refused", refused)
					}
				}
				if n := w.metric("group_budget_spent_total"); n != refused {
					t.Errorf("the budget refused %v, of which %v retries", n, refused)
				}
				if c.budget == nil {
					return
				}
				time.Sleep(budgetSeconds * time.Second) // what was spent is forgotten
				want := members + min(retries*members, int(c.budget.Ratio+10*c.budget.MinPerSecond))
				if got := fails(w, 1); got != want {
					t.Errorf("later %d attempts, want %d", got, want)
				}
			})
		})
	}
}

func TestHedgesAreBoundedByTheirBudget(t *testing.T) {
	const calls = 500
	for _, c := range []struct {
		budget *Budget
		most   int
	}{
		{nil, calls/5 + 100}, // 20 % and ten a second
		{&Budget{Ratio: 0.1}, calls / 10},
		{&Budget{MinPerSecond: 1}, 10},
		{&Budget{Ratio: 2}, calls},
		{&Budget{}, 0},
	} {
		t.Run(fmt.Sprintf("%+v", c.budget), func(t *testing.T) {
			s := setting{group: func(o *Options) { o.Hedge, o.Budget = &afterTenth, c.budget }}
			inBubble(t, 2, s, func(t *testing.T, w *world) {
				w.all(func(n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 300 * time.Millisecond}) })
				time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
				var all sync.WaitGroup
				for range calls {
					all.Go(func() {
						if c := w.get(); c.Err != nil {
							t.Error(c.Err)
						}
					})
				}
				all.Wait()
				hedges, spent := w.metric("group_hedges_total"), w.metric("group_budget_spent_total", "kind", "hedge")
				if hedges != float64(c.most) || spent != float64(calls-c.most) {
					t.Errorf("%v hedges, %v refused, want %d", hedges, spent, c.most)
				}
				if n := w.metric("group_budget_spent_total", "kind", "retry"); n != 0 {
					t.Errorf("%v retries refused", n)
				}
			})
		})
	}
}

// Hedges and retries share what is configured.
func TestHedgesAndRetriesShareABudget(t *testing.T) {
	one := 1
	s := setting{group: func(o *Options) {
		o.Hedge, o.Budget, o.MaxRetries = &afterTenth, &Budget{MinPerSecond: 0.2}, &one
	}}
	inBubble(t, 2, s, func(t *testing.T, w *world) {
		slow := func() {
			w.all(func(n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 300 * time.Millisecond}) })
			w.get()
		}
		fail := func() *jsonrpc.Call {
			w.all(func(n *node) { n.is(devchain.FaultGarbage) })
			return w.get()
		}
		slow()
		wantOrder(t, w, "01")
		fail()
		wantOrder(t, w, "010")
		slow()
		wantOrder(t, w, "0")
		fail()
		wantOrder(t, w, "01")
	})
}

func TestBatchCountsItsCallsForTheBudget(t *testing.T) {
	inBubble(t, 1, budgeted(5, &Budget{Ratio: 1}), func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultStatus)
		w.do(10*time.Second, read(), read(), read())
		wantOrder(t, w, "00") // three calls, three retries
	})
}
