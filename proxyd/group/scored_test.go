package group

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

func byScore(o *Options) { o.Strategy = "scored" }

// fed is a member's record of one method.
type fed struct {
	answered, failed, limited int
	took                      time.Duration
	cost                      float64
	head                      uint64
}

// feed tells the strategy what became of n calls of a member.
func (w *world) feed(i int, label string, how how, took time.Duration, n int) {
	for range n {
		w.outcomes.ended(w.opts.Members[i], ending{label: label, how: how, took: took, timed: how == wasAnswered || how == wasOutrun, at: time.Now()})
	}
}

// ranking is the order for a method, as for calls that are no reads: those are not
// part of the trickle.
func (w *world) ranking(label string) string {
	members := append([]*Member(nil), w.opts.Members...)
	w.strategy.Arrange(members, Ask{Label: label})
	out := ""
	for _, m := range members {
		out += fmt.Sprint(m.index)
	}
	return out
}

func wantRanking(t *testing.T, w *world, label, want string) {
	t.Helper()
	if got := w.ranking(label); got != want {
		t.Fatalf("after %v the order for %s is %s, want %s", time.Since(w.begun), label, got, want)
	}
}

func TestScoredBeginsInTheOrderOfTheList(t *testing.T) {
	inBubble(t, 3, setting{group: byScore}, func(t *testing.T, w *world) {
		wantRanking(t, w, "eth_call", "012")
		for range 15 {
			w.well("b0")
		}
		wantOrder(t, w, strings.Repeat("0", 15))
	})
}

func TestScoredDemotesTheFirstMemberForWhatIsWorseAboutIt(t *testing.T) {
	ms := time.Millisecond
	good := fed{answered: 100, took: 100 * ms, head: 1000}
	for _, c := range []struct {
		name   string
		bad    fed
		demote bool
	}{
		{"nothing", good, false},
		{"error rate of 20 %", fed{answered: 80, failed: 20, took: 100 * ms, head: 1000}, true},
		{"error rate of 5 %", fed{answered: 95, failed: 5, took: 100 * ms, head: 1000}, false},
		{"few calls that all fail", fed{failed: 5, head: 1000}, false},
		{"429 to 20 %", fed{answered: 80, limited: 20, took: 100 * ms, head: 1000}, true},
		{"429 to 5 %", fed{answered: 95, limited: 5, took: 100 * ms, head: 1000}, false},
		{"200 ms slower", fed{answered: 100, took: 300 * ms, head: 1000}, true},
		{"20 ms slower", fed{answered: 100, took: 120 * ms, head: 1000}, false},
		{"5 blocks behind", fed{answered: 100, took: 100 * ms, head: 995}, true},
		{"a block behind", fed{answered: 100, took: 100 * ms, head: 999}, false},
		{"price", fed{answered: 100, took: 100 * ms, head: 1000, cost: 10}, true},
		{"price, by a little", fed{answered: 100, took: 100 * ms, head: 1000, cost: 1.2}, false},
		{"errors and 429", fed{answered: 90, failed: 5, limited: 5, took: 100 * ms, head: 1000}, true},
		{"errors and latency", fed{answered: 95, failed: 5, took: 130 * ms, head: 1000}, true},
		{"latency and lag", fed{answered: 100, took: 120 * ms, head: 998}, true},
		{"429 and lag", fed{answered: 95, limited: 5, took: 100 * ms, head: 999}, true},
		{"everything, a little", fed{answered: 97, failed: 2, limited: 1, took: 110 * ms, head: 999, cost: 1.2}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := setting{group: func(o *Options) {
				byScore(o)
				for _, m := range o.Members {
					m.Cost = 1
				}
				if c.bad.cost > 0 {
					o.Members[0].Cost = c.bad.cost
				}
			}}
			inBubble(t, 2, s, func(t *testing.T, w *world) {
				for i, f := range []fed{c.bad, good} {
					w.backends[i].NoteHead(f.head)
					w.feed(i, "eth_call", wasAnswered, f.took, f.answered)
					w.feed(i, "eth_call", hasFailed, f.took, f.failed)
					w.feed(i, "eth_call", wasLimited, f.took, f.limited)
				}
				want := "01"
				if c.demote {
					want = "10"
				}
				wantRanking(t, w, "eth_call", want)
				if got := w.metric("group_score", "backend_name", "b0", "method_name", "eth_call"); got <= 0 || got > 1 || (got < 1/1.3) != c.demote {
					t.Errorf("the metric says %v", got)
				}
			})
		})
	}
}

func TestScoredHeadsThatAreOldSayNothing(t *testing.T) {
	inBubble(t, 2, setting{group: byScore}, func(t *testing.T, w *world) {
		w.backends[0].NoteHead(100)
		time.Sleep(2 * time.Minute)
		w.backends[1].NoteHead(500)
		wantRanking(t, w, "eth_call", "01")
		w.backends[0].NoteHead(101)
		time.Sleep(time.Second)
		wantRanking(t, w, "eth_call", "10")
	})
}

func TestScoredKeepsItsFirstThroughNoise(t *testing.T) {
	for seed := range uint64(5) {
		inBubble(t, 3, setting{group: byScore}, func(t *testing.T, w *world) {
			random := rand.New(rand.NewPCG(seed, 1))
			for range 1800 {
				for i := range 3 {
					w.backends[i].NoteHead(1000 + uint64(time.Since(w.begun).Seconds()))
					w.feed(i, "eth_call", wasAnswered, time.Duration(80+random.IntN(40))*time.Millisecond, 1+random.IntN(3))
					if random.IntN(200) == 0 {
						w.feed(i, "eth_call", hasFailed, 0, 1)
					}
				}
				if got := w.ranking("eth_call"); got[0] != '0' {
					t.Fatalf("after %v the order is %s", time.Since(w.begun), got)
				}
				time.Sleep(time.Second)
			}
		})
	}
}

func TestScoredChangesItsFirstAtMostEveryHalfMinute(t *testing.T) {
	inBubble(t, 2, setting{group: byScore}, func(t *testing.T, w *world) {
		w.feed(0, "eth_call", wasAnswered, 100*time.Millisecond, 20)
		w.feed(1, "eth_call", wasAnswered, 100*time.Millisecond, 20)
		w.feed(0, "eth_call", hasFailed, 0, 20)
		wantRanking(t, w, "eth_call", "10")
		changed := time.Now()
		w.feed(1, "eth_call", hasFailed, 0, 2000)
		for time.Since(changed) < scoreStay {
			wantRanking(t, w, "eth_call", "10")
			time.Sleep(100 * time.Millisecond)
		}
		wantRanking(t, w, "eth_call", "01")
	})
}

// A member of another tier does not disturb the first of this one.
func TestScoredKeepsTheFirstOfEachTier(t *testing.T) {
	s := setting{group: func(o *Options) {
		byScore(o)
		o.Members[0].Tier = 1
		for i, m := range o.Members {
			m.Cost = []float64{0, 10, 10}[i]
		}
	}}
	inBubble(t, 3, s, func(t *testing.T, w *world) {
		random := rand.New(rand.NewPCG(1, 1))
		for range 600 {
			for i := 1; i < 3; i++ {
				w.feed(i, "eth_call", wasAnswered, time.Duration(80+random.IntN(40))*time.Millisecond, 5)
				if random.IntN(20) == 0 {
					w.feed(i, "eth_call", hasFailed, 0, 1)
				}
			}
			members, _ := w.Group.order([]*jsonrpc.Call{call("eth_call", "[]")})
			if got := members[2].index; got != 0 {
				t.Fatalf("member %d is last", got)
			}
			wantRanking(t, w, "eth_call", w.ranking("eth_call"))
			tier := append([]*Member(nil), w.opts.Members[1:]...)
			w.strategy.Arrange(tier, Ask{Label: "eth_call"})
			if tier[0].index != 1 {
				t.Fatalf("after %v the first of its tier is %d", time.Since(w.begun), tier[0].index)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestScoredLogsWhomItMovesToTheFront(t *testing.T) {
	var log bytes.Buffer
	s := setting{group: func(o *Options) {
		byScore(o)
		o.Members[0].Tier = 2
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	}}
	inBubble(t, 3, s, func(t *testing.T, w *world) {
		w.feed(1, "eth_call", wasAnswered, time.Millisecond, 20)
		w.feed(2, "eth_call", wasAnswered, time.Millisecond, 20)
		w.feed(1, "eth_call", hasFailed, 0, 20)
		w.do(time.Second, call("eth_call", "[{}]"))
		wantOrder(t, w, "2")
		if !strings.Contains(log.String(), "backend=b2") || !strings.Contains(log.String(), "before=b1") {
			t.Errorf("the log says %s", log.String())
		}
	})
}

// While too little is known of the second, it gets one read in sixteen; then one
// in sixty-four.
func TestScoredGivesOthersATrickleOfReads(t *testing.T) {
	inBubble(t, 2, setting{group: byScore}, func(t *testing.T, w *world) {
		first := w.firstAsks(16*scoreLeast, time.Second/10)
		about(t, "while little is known", first[1], scoreLeast, 1)
		first = w.firstAsks(64*20, time.Second/10)
		about(t, "later", first[1], 20, 2)
	})
	inBubble(t, 4, setting{group: byScore}, func(t *testing.T, w *world) {
		first := w.firstAsks(16*3*scoreLeast, time.Second/10)
		for i, n := range first[1:] {
			about(t, fmt.Sprint("while little is known, member ", i+1), n, scoreLeast, 2)
		}
		first = w.firstAsks(64*30, time.Second/20)
		for i, n := range first[1:] {
			about(t, fmt.Sprint("later, member ", i+1), n, 10, 3)
		}
	})
}

// Two methods that take turns strictly both have their trickle.
func TestScoredTrickleIsOfEachMethod(t *testing.T) {
	inBubble(t, 2, setting{group: byScore}, func(t *testing.T, w *world) {
		for range 320 {
			w.get()
			w.do(time.Second, call("eth_chainId", ""))
			time.Sleep(time.Second / 10)
		}
		asked := map[string]int{"eth_blockNumber": 0, "eth_chainId": 0}
		for _, a := range w.asks() {
			if a.node == 1 {
				asked["eth_blockNumber"] += strings.Count(a.body, "eth_blockNumber")
				asked["eth_chainId"] += strings.Count(a.body, "eth_chainId")
			}
		}
		for method, n := range asked {
			about(t, method, n, 13, 5)
		}
	})
}

func TestScoredSendsNeverGoToTheTrickleFirst(t *testing.T) {
	inBubble(t, 2, setting{group: byScore}, func(t *testing.T, w *world) {
		w.all(func(n *node) { n.says(200, `{"jsonrpc":"2.0","id":$id,"result":"`+legacyHash+`"}`) })
		for range 640 {
			w.get()
			w.do(time.Second, send())
			w.do(time.Second, call("eth_sendTransaction", "[{}]"))
		}
		reads := 0
		for _, a := range w.asks() {
			if a.node == 1 && strings.Contains(a.body, "eth_send") {
				t.Fatalf("member 1 was asked %s", a.body)
			}
			if a.node == 1 {
				reads++
			}
		}
		if reads == 0 {
			t.Error("there was no trickle")
		}
	})
}

// The first is slow: it is demoted by real calls, gets a trickle, and is first
// again when it is well and the other costs more.
func TestScoredDemotedMemberComesBack(t *testing.T) {
	fine := devchain.Fault{Kind: devchain.FaultSlow, Delay: 50 * time.Millisecond}
	limited := devchain.Fault{Kind: devchain.FaultRateLimited}
	for name, ill := range map[string]func(n *node, request int){
		"slow": func(n *node, _ int) {
			n.SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 700 * time.Millisecond})
		},
		"fails every third":     func(n *node, k int) { n.SetFault([]devchain.Fault{fine, fine, {Kind: devchain.FaultStatus}}[k%3]) },
		"is limited each third": func(n *node, k int) { n.SetFault([]devchain.Fault{fine, fine, limited}[k%3]) },
	} {
		for _, dearer := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", the other is dearer: ", dearer), func(t *testing.T) {
				s := setting{group: func(o *Options) {
					byScore(o)
					o.Members[0].Cost, o.Members[1].Cost = 1, 1
					if dearer {
						o.Members[1].Cost = 10
					}
				}}
				inBubble(t, 2, s, func(t *testing.T, w *world) {
					w.all(func(n *node) { n.SetFault(fine) })
					w.firstAsks(400, time.Second/10)
					wantRanking(t, w, "eth_blockNumber", "01")
					requests := 0
					w.nodes[0].does(func(rw http.ResponseWriter, r *http.Request) {
						ill(w.nodes[0], requests)
						requests++
						w.nodes[0].ServeHTTP(rw, r)
					})
					w.firstAsks(2400, time.Second/4) // ten minutes
					wantRanking(t, w, "eth_blockNumber", "10")
					w.nodes[0].serve.Store(nil)
					w.nodes[0].SetFault(fine)
					first := w.firstAsks(3000, time.Second/4) // more than ten minutes
					if !dearer {
						if first[0] < 3000/64*8/10 || first[0] > 3000/16 {
							t.Errorf("the demoted member was asked first %d times", first[0])
						}
						w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: time.Second})
						w.firstAsks(600, time.Second/4)
					}
					wantRanking(t, w, "eth_blockNumber", "01")
				})
			})
		}
	}
}

func TestScoredLatencyIsOfEachMethod(t *testing.T) {
	inBubble(t, 2, setting{group: byScore}, func(t *testing.T, w *world) {
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: time.Second, Method: "eth_chainId"})
		w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: time.Second, Method: "eth_blockNumber"})
		for range 400 {
			w.get()
			w.do(10*time.Second, call("eth_chainId", ""))
		}
		wantRanking(t, w, "eth_blockNumber", "01")
		wantRanking(t, w, "eth_chainId", "10")
		wantRanking(t, w, "eth_gasPrice", "01")
	})
}

func TestScoredTakesA429ForNoSampleOfLatencyOrErrors(t *testing.T) {
	for name, fault := range map[string]devchain.Fault{
		"status": {Kind: devchain.FaultRateLimited, Times: 1},
		"code":   {Kind: devchain.FaultRPCError, RPCCode: -32005, RPCMessage: "rate limit", Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, setting{group: byScore}, func(t *testing.T, w *world) {
				w.nodes[0].SetFault(fault)
				w.well("b1")
				s := w.strategy.(*scored)
				if got := s.counts[0].now; got != (tally{limited: 1}) {
					t.Errorf("counted %+v", got)
				}
				if got := s.counts[1].now; got != (tally{answered: 1}) {
					t.Errorf("of the other, counted %+v", got)
				}
				if x := s.latency["eth_blockNumber"][0]; x != nil {
					t.Error("it has a latency")
				}
			})
		})
	}
}

// What a member failed at counts for at least five minutes and for at most ten.
func TestScoredForgetsAfterItsWindow(t *testing.T) {
	for _, first := range []time.Duration{0, time.Minute, 4 * time.Minute} {
		for _, pause := range []time.Duration{time.Second, time.Minute, 7 * time.Minute} {
			inBubble(t, 2, setting{group: byScore}, func(t *testing.T, w *world) {
				w.feed(0, "eth_call", wasAnswered, time.Millisecond, 10)
				time.Sleep(first)
				w.feed(0, "eth_call", hasFailed, 0, 200)
				failed := time.Now()
				for {
					w.ranking("eth_call")
					age := time.Since(failed)
					score := w.strategy.(*scored).tables["eth_call"].scores[0]
					if age < scoreWindow/2 && score > 0.3 {
						t.Fatalf("forgotten after %v", age)
					}
					if age >= scoreWindow+time.Second {
						if score != 1 {
							t.Fatalf("after %v, looking every %v, its score is %v", age, pause, score)
						}
						return
					}
					time.Sleep(pause)
				}
			})
		}
	}
}

func TestScoredCountsAttemptsByWhatBecameOfThem(t *testing.T) {
	for name, c := range map[string]struct {
		fault devchain.Fault
		want  tally
	}{
		"status":          {devchain.Fault{Kind: devchain.FaultStatus}, tally{failed: 1}},
		"time-out":        {devchain.Fault{Kind: devchain.FaultHang}, tally{failed: 1}},
		"garbage":         {devchain.Fault{Kind: devchain.FaultGarbage}, tally{failed: 1}},
		"internal error":  {devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32603, RPCMessage: "internal error"}, tally{failed: 1}},
		"revert":          {devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: 3, RPCMessage: "execution reverted"}, tally{answered: 1}},
		"data is missing": {devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32000, RPCMessage: "header not found"}, tally{failed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, setting{group: byScore}, func(t *testing.T, w *world) {
				w.nodes[0].SetFault(c.fault)
				w.do(20*time.Second, read())
				if got := w.strategy.(*scored).counts[0].now; got != c.want {
					t.Errorf("counted %+v, want %+v", got, c.want)
				}
			})
		})
	}
}

// A first member for which hedges have to answer is not first for long, although
// none of its own attempts comes to its end.
func TestScoredDemotesAMemberThatLosesItsHedges(t *testing.T) {
	s := setting{group: func(o *Options) {
		byScore(o)
		o.Hedge = &Hedge{Delay: 100 * time.Millisecond, Max: time.Second, MaxExtra: 1}
		o.Budget = &Budget{Ratio: 1, MinPerSecond: 100}
	}}
	inBubble(t, 2, s, func(t *testing.T, w *world) {
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 800 * time.Millisecond})
		w.firstAsks(300, time.Second/10)
		wantRanking(t, w, "eth_blockNumber", "10")
	})
}

func TestScoredWithWeightsPrefersTheHeavierOne(t *testing.T) {
	s := setting{group: func(o *Options) {
		byScore(o)
		o.Weighted = true
		o.Members[0].Weight, o.Members[1].Weight = 1, 3
	}}
	inBubble(t, 2, s, func(t *testing.T, w *world) { wantRanking(t, w, "eth_call", "10") })
}

func FuzzScoresAreFiniteWhateverIsFed(f *testing.F) {
	f.Add(uint64(1))
	f.Add(uint64(99))
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 1))
		inBubble(t, 3, setting{group: byScore}, func(t *testing.T, w *world) {
			for _, m := range w.opts.Members {
				m.Cost = []float64{0, 1, 1e300, random.Float64()}[random.IntN(4)]
			}
			for range random.IntN(200) {
				w.feed(random.IntN(3), "m", how(random.IntN(4)), time.Duration(random.Int64()>>random.IntN(64)), 1+random.IntN(9))
				if random.IntN(5) == 0 {
					time.Sleep(time.Duration(random.Int64N(int64(4 * time.Minute))))
				}
				if random.IntN(5) == 0 {
					w.backends[random.IntN(3)].NoteHead(random.Uint64() >> random.IntN(64))
				}
				w.ranking("m")
				for i, score := range w.strategy.(*scored).tables["m"].scores {
					if !(score > 0 && score <= 1) || math.IsNaN(score) {
						t.Fatalf("member %d has score %v", i, score)
					}
				}
			}
		})
	})
}

func TestScoredUnderConcurrency(t *testing.T) {
	w := newWorld(t, 3, setting{group: byScore})
	w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32000, RPCMessage: "header not found", Times: 100})
	var all sync.WaitGroup
	for client := range 16 {
		all.Go(func() {
			for n := range 40 {
				c := call([]string{"eth_blockNumber", "eth_chainId", "eth_gasPrice"}[(client+n)%3], "")
				w.do(10*time.Second, c)
				if c.Err != nil {
					t.Error(c.Err)
				}
				w.backends[n%3].NoteHead(uint64(n))
			}
		})
	}
	all.Wait()
	for i := range w.backends {
		w.state(i, backend.Well)
	}
}

// reads lets the strategy order n reads, whose ends it is told by ends, and returns
// how many went to each member first.
func (w *world) reads(n int, ends func(first int)) []int {
	firsts := make([]int, len(w.nodes))
	for range n {
		members := slices.Clone(w.opts.Members)
		w.strategy.Arrange(members, Ask{Label: "eth_call", Reads: true})
		firsts[members[0].index]++
		ends(members[0].index)
	}
	return firsts
}

// A member whose reads always lose to a hedge has been seen, though none of its
// answers has: the trickle to it does not become that to an unknown one.
func TestScoredTrickleToAMemberThatLosesItsHedgesStaysThin(t *testing.T) {
	inBubble(t, 3, setting{group: byScore}, func(t *testing.T, w *world) {
		for i, d := range []time.Duration{100, 5, 5} {
			w.feed(i, "eth_call", wasAnswered, d*time.Millisecond, 320)
		}
		for minute := range 25 {
			time.Sleep(time.Minute)
			firsts := w.reads(1280, func(first int) {
				if first == 0 {
					w.feed(0, "eth_call", wasOutrun, 15*time.Millisecond, 1)
				} else {
					w.feed(first, "eth_call", wasAnswered, 5*time.Millisecond, 1)
				}
			})
			if minute > 0 { // by then it is not first any more
				about(t, fmt.Sprint("reads of 1280 to the slow one in minute ", minute+1), firsts[0], 10, 2)
			}
		}
	})
}

// A member that never answers is known for that: nothing would be learnt from more.
func TestScoredTrickleToAMemberThatAlwaysFailsBecomesThin(t *testing.T) {
	for name, how := range map[string]how{"fails": hasFailed, "is limited": wasLimited} {
		inBubble(t, 2, setting{group: byScore}, func(t *testing.T, w *world) {
			for minute := range 25 {
				time.Sleep(time.Minute)
				firsts := w.reads(1280, func(first int) {
					if first == 1 {
						w.feed(1, "eth_call", how, time.Millisecond, 1)
					} else {
						w.feed(0, "eth_call", wasAnswered, 5*time.Millisecond, 1)
					}
				})
				if minute > 0 { // in which little is known
					about(t, fmt.Sprint(name, ": reads of 1280 in minute ", minute+1), firsts[1], 20, 2)
				}
			}
		})
	}
}
