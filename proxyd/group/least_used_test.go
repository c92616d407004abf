package group

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

func usesLeast(o *Options) { o.Strategy = "least_used" }

// firstAsks makes n reads, one every pause, and returns how many of them each
// member was asked first.
func (w *world) firstAsks(n int, pause time.Duration) []int {
	w.t.Helper()
	first := make([]int, len(w.nodes))
	for range n {
		w.order()
		if c := w.get(); c.Err != nil {
			w.t.Fatal(c.Err)
		}
		first[w.asks()[0].node]++
		time.Sleep(pause)
	}
	w.order()
	return first
}

// total is how many calls the strategy counts for a member.
func (w *world) total(i int) float64 {
	l := w.strategy.(*leastUsed)
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.get(w.opts.Members[i])
	u.advance(time.Now())
	return u.total
}

func TestLeastUsedAsksEqualsInTurn(t *testing.T) {
	inBubble(t, 3, setting{group: usesLeast}, func(t *testing.T, w *world) {
		for n := range 40 {
			for range 3 {
				w.get()
			}
			asked := []byte(w.order())
			slices.Sort(asked)
			if string(asked) != "012" {
				t.Fatalf("calls %d to %d were asked of %s", 3*n, 3*n+2, asked)
			}
		}
	})
}

// Two days with the calls of others among them: whoever is asked has the fewest
// calls of the last 24 hours, by a list that forgets nothing.
func TestLeastUsedCountsARollingDay(t *testing.T) {
	for seed := range uint64(2) {
		inBubble(t, 3, setting{group: usesLeast}, func(t *testing.T, w *world) {
			random := rand.New(rand.NewPCG(seed, 1))
			type batch struct {
				at    int64
				calls int
			}
			made := make([][]batch, 3)
			used := func(i int, now int64) (n int) {
				for _, b := range made[i] {
					if now-b.at < 288 {
						n += b.calls
					}
				}
				return n
			}
			bucket := func() int64 { return time.Now().UnixNano() / int64(5*time.Minute) }
			favourite := random.IntN(3)
			for range 48 * 60 {
				time.Sleep(time.Minute)
				if w.begun.Add(24*time.Hour).After(time.Now()) && random.IntN(20) == 0 {
					n := 1 + random.IntN(40) // calls that the group was made to ask one member
					w.usage.asked(w.opts.Members[favourite], n)
					made[favourite] = append(made[favourite], batch{bucket(), n})
				}
				w.order()
				w.get()
				i := w.asks()[0].node
				for other := range made {
					if a, b := used(i, bucket()), used(other, bucket()); a > b {
						t.Fatalf("after %v member %d with %d calls was asked before member %d with %d", time.Since(w.begun), i, a, other, b)
					}
				}
				made[i] = append(made[i], batch{bucket(), 1})
				for i := range made {
					if got, want := w.total(i), used(i, bucket()); got != float64(want) {
						t.Fatalf("after %v member %d counts %v calls, want %d", time.Since(w.begun), i, got, want)
					}
				}
			}
		})
	}
}

func TestLeastUsedForgetsADayBucketByBucket(t *testing.T) {
	inBubble(t, 2, setting{group: usesLeast}, func(t *testing.T, w *world) {
		time.Sleep(time.Until(time.Now().Truncate(5 * time.Minute).Add(5 * time.Minute)))
		for range 288 {
			w.usage.asked(w.opts.Members[0], 10)
			time.Sleep(5 * time.Minute)
		}
		for left := 287; left >= 0; left-- {
			if got := w.total(0); got != float64(10*left) {
				t.Fatalf("%v calls are counted, want %d", got, 10*left)
			}
			time.Sleep(5 * time.Minute)
		}
	})
}

func about(t *testing.T, what string, got, want, slack int) {
	t.Helper()
	if got < want-slack || got > want+slack {
		t.Errorf("%s: %d, want about %d", what, got, want)
	}
}

// A member that was away for whatever reason gets an equal share when it returns.
func TestLeastUsedDoesNotGiveEverythingToAMemberThatReturns(t *testing.T) {
	for name, c := range map[string]struct {
		leave, come func(w *world)
		recovery    *backend.Recovery
	}{
		"out of service": {leave: func(w *world) { w.nodes[0].is(devchain.FaultStatus) }, come: func(w *world) { w.nodes[0].is(devchain.FaultNone) }},
		"rate limited": {leave: func(w *world) {
			w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "3600", Times: 1})
		}},
		"recovering slowly from a rate limit": {
			leave: func(w *world) {
				w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, Times: 1})
			},
			recovery: &backend.Recovery{Multiplier: 2, Initial: time.Hour, Max: time.Hour, MaxRetries: 5, RequiredSuccesses: 1, ResetAfter: 24 * time.Hour},
		},
		"unfit": {leave: func(w *world) { w.backends[0].Unfit("check", "it syncs") }, come: func(w *world) { w.backends[0].Unfit("check", "") }},
		"lagging": {
			leave: func(w *world) { w.backends[0].NoteHead(50); w.backends[1].NoteHead(100); w.backends[2].NoteHead(100) },
			come:  func(w *world) { w.backends[0].NoteHead(100) },
		},
	} {
		for _, pause := range []time.Duration{time.Second, 15 * time.Second} {
			t.Run(fmt.Sprint(name, ", a call every ", pause), func(t *testing.T) {
				s := setting{
					group: func(o *Options) {
						usesLeast(o)
						most := uint64(5)
						o.MaxBlockLag, o.HeadMaxAge = &most, 24*time.Hour
					},
					backend: func(_ int, o *backend.Options) { o.Recovery = c.recovery },
				}
				inBubble(t, 3, s, func(t *testing.T, w *world) {
					w.firstAsks(30, pause)
					c.leave(w)
					first := w.firstAsks(int(time.Hour/pause), pause)
					if first[0] > 60 {
						t.Fatalf("it was not away: asked first %v", first)
					}
					if c.come != nil {
						c.come(w)
					}
					time.Sleep(6 * time.Minute) // and no call: the longest time out of service is over
					w.firstAsks(60, time.Second)
					for i, n := range w.firstAsks(300, pause) {
						about(t, fmt.Sprint("first asks of member ", i), n, 100, 20)
					}
				})
			})
		}
	}
}

// A member that stands behind the others, as one does that is strained, is as good
// as away.
func TestLeastUsedDoesNotGiveEverythingToAMemberThatWasStrained(t *testing.T) {
	s := setting{
		group:   usesLeast,
		backend: func(_ int, o *backend.Options) { o.OutAfter = 1000 },
	}
	inBubble(t, 3, s, func(t *testing.T, w *world) {
		w.firstAsks(30, time.Second)
		w.nodes[0].is(devchain.FaultStatus)
		for w.backends[0].Standing().State != backend.Strained {
			w.get()
		}
		w.nodes[0].is(devchain.FaultNone)
		if first := w.firstAsks(280, time.Second); first[0] != 0 {
			t.Fatalf("asked first %v", first)
		}
		for w.backends[0].Standing().State == backend.Strained {
			time.Sleep(time.Second)
			w.get()
		}
		for i, n := range w.firstAsks(90, time.Second) {
			about(t, fmt.Sprint("first asks of member ", i), n, 30, 4)
		}
	})
}

func TestLeastUsedDoesNotGiveEverythingToANewMember(t *testing.T) {
	inBubble(t, 3, setting{group: usesLeast}, func(t *testing.T, w *world) {
		w.backends[2].Unfit("check", "not yet seen")
		if first := w.firstAsks(1000, time.Second); first[2] != 0 {
			t.Fatalf("asked first %v", first)
		}
		w.backends[2].Unfit("check", "")
		for i, n := range w.firstAsks(300, time.Second) {
			about(t, fmt.Sprint("first asks of member ", i), n, 100, 2)
		}
	})
}

func TestLeastUsedSharesByWeight(t *testing.T) {
	s := setting{group: func(o *Options) {
		usesLeast(o)
		o.Weighted = true
		for i, m := range o.Members {
			m.Weight = []int{6, 3, 1}[i]
		}
	}}
	inBubble(t, 3, s, func(t *testing.T, w *world) {
		shares := func(what string) {
			t.Helper()
			for i, n := range w.firstAsks(1000, time.Second) {
				about(t, fmt.Sprint(what, ", member ", i), n, []int{600, 300, 100}[i], 12)
			}
		}
		shares("from the start")
		w.backends[0].Unfit("check", "it syncs")
		first := w.firstAsks(1000, time.Second)
		about(t, "while the first is away, member 1", first[1], 750, 12)
		w.backends[0].Unfit("check", "")
		shares("since it is back")
	})
}

func TestLeastUsedWithoutAnyWeightServes(t *testing.T) {
	s := setting{group: func(o *Options) { usesLeast(o); o.Weighted = true }}
	inBubble(t, 2, s, func(t *testing.T, w *world) {
		for i, n := range w.firstAsks(100, time.Second) {
			about(t, fmt.Sprint("member ", i), n, 50, 1)
		}
	})
}

// Every attempt counts that is sent, by the calls in it, whatever comes of it.
func TestLeastUsedCountsAttemptsByTheirCalls(t *testing.T) {
	inBubble(t, 3, setting{group: usesLeast}, func(t *testing.T, w *world) {
		w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32000, RPCMessage: "header not found"})
		w.nodes[2].SetFault(devchain.Fault{Kind: devchain.FaultStatus, Times: 2})
		random := rand.New(rand.NewPCG(1, 1))
		calls := make([]float64, 3)
		for range 200 {
			batch := make([]*jsonrpc.Call, 1+random.IntN(8))
			for i := range batch {
				batch[i] = read()
			}
			w.do(10*time.Second, batch...)
			for _, a := range w.asks() {
				calls[a.node] += float64(strings.Count(a.body, `"method"`))
			}
			w.order()
			for i, want := range calls {
				if got := w.total(i); got != want {
					t.Fatalf("member %d counts %v calls, it got %v", i, got, want)
				}
			}
			time.Sleep(time.Second)
		}
		slices.Sort(calls)
		if calls[0] < calls[2]*8/10 {
			t.Errorf("calls sent: %v", calls)
		}
	})
}

func TestLeastUsedBalancesABatchWithSingleCalls(t *testing.T) {
	inBubble(t, 2, setting{group: usesLeast}, func(t *testing.T, w *world) {
		w.do(time.Second, read(), read(), read(), read(), read())
		one := w.order()
		for range 5 {
			w.get()
		}
		other := strings.Repeat(map[string]string{"0": "1", "1": "0"}[one], 5)
		wantOrder(t, w, other)
	})
}

func TestLeastUsedUnderConcurrency(t *testing.T) {
	w := newWorld(t, 4, setting{group: usesLeast})
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 50 {
				if c := w.get(); c.Err != nil {
					t.Error(c.Err)
				}
			}
		})
	}
	all.Wait()
	asked := w.order()
	for i := range 4 {
		about(t, fmt.Sprint("member ", i), strings.Count(asked, fmt.Sprint(i)), 200, 40)
	}
}
