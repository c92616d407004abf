package group

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/devchain"
)

// Conformance with viem's fallback transport: without rank (strategy fallback) and
// with it (ranked), its retries, and its errors that are thrown at once.

const pingMethod = "net_version" // of the tests, so that calls are told from pings

func rankedGroup(rank Rank, change ...func(*Options)) setting {
	if rank.Method == "" {
		rank.Method = pingMethod
	}
	return setting{group: func(o *Options) {
		o.Strategy, o.Rank = "ranked", rank
		for _, f := range change {
			f(o)
		}
	}}
}

// ranking runs a test of a ranked group that pings.
func ranking(t *testing.T, n int, s setting, test func(t *testing.T, w *world)) {
	t.Helper()
	inBubble(t, n, s, func(t *testing.T, w *world) {
		t.Cleanup(func() { w.Close(context.Background()) })
		test(t, w)
	})
}

// inRank is the order in which a read would be asked now, as "012".
func (w *world) inRank() string {
	out := ""
	for _, p := range w.Explain(callsOf(read())) {
		if p.Skipped == "" {
			out += strings.TrimPrefix(p.Member.Name(), "b")
		}
	}
	return out
}

// pings are the times of the pings that a node got.
func (w *world) pings(node int) []time.Duration {
	var at []time.Duration
	for _, a := range w.asks() {
		if a.node == node && strings.Contains(a.body, pingMethod) {
			at = append(at, a.at)
		}
	}
	return at
}

func (w *world) pinged(node int, want ...time.Duration) {
	w.t.Helper()
	if got := w.pings(node); !slices.Equal(got, want) {
		w.t.Fatalf("node %d was pinged at %v, want %v", node, got, want)
	}
}

func seconds(n ...int) []time.Duration {
	out := make([]time.Duration, len(n))
	for i, s := range n {
		out[i] = time.Duration(s) * time.Second
	}
	return out
}

// until sleeps until d after the world began, on the clock of the bubble.
func (w *world) until(d time.Duration) {
	time.Sleep(d - time.Since(w.begun))
	synctest.Wait()
}

// busy makes one call a second until d after the world began.
func (w *world) busy(d time.Duration) {
	w.t.Helper()
	for time.Since(w.begun) < d {
		if c := w.get(); c.Err != nil {
			w.t.Fatal(c.Err)
		}
		time.Sleep(min(time.Second, d-time.Since(w.begun)))
	}
	synctest.Wait()
}

func (n *node) slow(d time.Duration) {
	n.SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: d, Method: pingMethod})
}

func (n *node) failsPings() {
	n.SetFault(devchain.Fault{Kind: devchain.FaultStatus, Method: pingMethod})
}

// viemScores is the formula of the documentation, worked out anew: took is in
// milliseconds, below 0 for a ping without an answer.
func viemScores(samples [][]float64, timeout, latencyWeight, stabilityWeight float64) []float64 {
	longest := 0.0
	clean := make([][]float64, len(samples))
	for i, s := range samples {
		for _, took := range s {
			if took < 0 {
				took = timeout
			}
			clean[i] = append(clean[i], took)
			longest = math.Max(longest, took)
		}
	}
	scores := make([]float64, len(samples))
	for i, s := range samples {
		sum, answered := 0.0, 0.0
		for k := range s {
			sum += clean[i][k]
			if s[k] >= 0 {
				answered++
			}
		}
		if answered == 0 {
			continue
		}
		n := float64(len(s))
		speed := 1.0
		if longest > 0 {
			speed -= sum / n / longest
		}
		scores[i] = (latencyWeight*speed + stabilityWeight*answered/n) / (latencyWeight + stabilityWeight)
	}
	return scores
}

// rankOf is the order by score, equals in the order of the list.
func rankOf(scores []float64) string {
	left := slices.Clone(scores)
	out := ""
	for range left {
		best := 0
		for i, s := range left {
			if s > left[best] {
				best = i
			}
		}
		left[best] = -1
		out += fmt.Sprint(best)
	}
	return out
}

// rankedWith is a strategy with the given samples.
func rankedWith(t *testing.T, rank Rank, samples [][]float64) *ranked {
	t.Helper()
	r := newRanked(Options{Rank: rank, Members: make([]*Member, len(samples))}).(*ranked)
	for i, s := range samples {
		for _, took := range s {
			x := sample{took: time.Duration(took * float64(time.Millisecond)), ok: true}
			if took < 0 {
				x = sample{took: r.rank.Timeout}
			}
			r.samples[i] = append(r.samples[i], x)
		}
	}
	return r
}

func sameScores(t *testing.T, got, want []float64) {
	t.Helper()
	for i := range want {
		if math.Abs(got[i]-want[i]) > 1e-9 {
			t.Fatalf("scores %v, want %v", got, want)
		}
	}
}

func TestViemScores(t *testing.T) {
	for name, c := range map[string]struct {
		samples [][]float64
		scores  []float64 // by hand, with 0.3 and 0.7; nil where only the formula says
		rank    string
	}{
		"equal":                         {[][]float64{{50, 50}, {50, 50}, {50, 50}}, []float64{.7, .7, .7}, "012"},
		"fastest first":                 {[][]float64{{100}, {50}, {25}}, []float64{.7, .85, .925}, "210"},
		"against the longest of all":    {[][]float64{{100, 300}, {100, 100}}, []float64{.8, .9}, "10"},
		"one failure is not forgiven":   {[][]float64{{10, 10, 10, -1}, {200, 200, 200, 200}}, nil, "10"},
		"a failure took the timeout":    {[][]float64{{10, -1}, {10, 10}}, []float64{.35 + .3*(1-.505), .7 + .3*.99}, "10"},
		"never answered is 0":           {[][]float64{{-1, -1}, {1000, 1000}}, []float64{0, .7}, "10"},
		"all failed":                    {[][]float64{{-1}, {-1}, {-1}}, []float64{0, 0, 0}, "012"},
		"slow but steady":               {[][]float64{{1, 1, -1, -1}, {900, 900, 900, 900}}, nil, "10"},
		"ties in the order of the list": {[][]float64{{80}, {40}, {80}, {40}}, nil, "1302"},
		"not yet pinged is last":        {[][]float64{{}, {900}, {}}, nil, "102"},
		"all at once":                   {[][]float64{{0}, {0}}, []float64{1, 1}, "01"},
		"fewer samples":                 {[][]float64{{30, 40, 50, 60}, {20}}, nil, "10"},
	} {
		t.Run(name, func(t *testing.T) {
			got := rankedWith(t, Rank{}, c.samples).scores()
			sameScores(t, got, viemScores(c.samples, 1000, .3, .7))
			if c.scores != nil {
				sameScores(t, got, c.scores)
			}
			if r := rankOf(got); r != c.rank {
				t.Errorf("ranked %s, want %s: %v", r, c.rank, got)
			}
		})
	}
}

func TestViemScoresOfRandomSamples(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		samples := make([][]float64, 1+random.IntN(5))
		for i := range samples {
			for range random.IntN(12) {
				took := math.Round(random.Float64() * 500)
				if random.IntN(4) == 0 {
					took = -1
				}
				samples[i] = append(samples[i], took)
			}
		}
		a, b := random.Float64(), 0.01+random.Float64()
		got := rankedWith(t, Rank{Timeout: 500 * time.Millisecond, Latency: a, Stability: b}, samples).scores()
		sameScores(t, got, viemScores(samples, 500, a, b))
		for _, s := range got {
			if s < 0 || s > 1 {
				t.Fatalf("score %v of %v", s, samples)
			}
		}
	}
}

func TestViemWeightsAreProportional(t *testing.T) {
	samples := [][]float64{{10, -1, 10}, {300, 300, 300}, {20, 20, 20}}
	want := rankedWith(t, Rank{}, samples).scores()
	for _, w := range [][2]float64{{.3, .7}, {3, 7}, {30, 70}, {.003, .007}} {
		sameScores(t, rankedWith(t, Rank{Latency: w[0], Stability: w[1]}, samples).scores(), want)
	}
	fast := rankedWith(t, Rank{Latency: 1}, [][]float64{{10}, {300}, {-1}}).scores()
	sameScores(t, fast, []float64{.99, .7, 0})
	steady := rankedWith(t, Rank{Stability: 5}, [][]float64{{10, -1}, {900, 900}}).scores()
	sameScores(t, steady, []float64{.5, 1})
}

// A ping that fails at once must not look fast, whatever the weights.
func TestViemFailedPingsAreNotFast(t *testing.T) {
	for _, weights := range [][2]float64{{0, 0}, {1, 0}, {0, 1}, {99, 1}} {
		ranking(t, 3, rankedGroup(Rank{Latency: weights[0], Stability: weights[1]}), func(t *testing.T, w *world) {
			w.nodes[0].failsPings()
			w.nodes[1].slow(900 * time.Millisecond)
			w.nodes[2].slow(800 * time.Millisecond)
			w.Start()
			w.until(2 * time.Second)
			if got := w.inRank(); !strings.HasSuffix(got, "0") {
				t.Errorf("weights %v: ranked %s", weights, got)
			}
			if s := w.metric("group_score", "backend_name", "b0"); s != 0 {
				t.Errorf("score %v", s)
			}
		})
	}
}

func TestViemErrorsAreFailedPings(t *testing.T) {
	for name, fault := range map[string]func(*node){
		"JSON-RPC error": func(n *node) {
			n.SetFault(devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32601, RPCMessage: "method not found", Method: pingMethod})
		},
		"garbage": func(n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultGarbage, Method: pingMethod}) },
		"hangs":   func(n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultHang, Method: pingMethod}) },
		"reset":   func(n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultClose, Method: pingMethod}) },
		"429": func(n *node) {
			n.SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "1", Method: pingMethod})
		},
	} {
		t.Run(name, func(t *testing.T) {
			ranking(t, 2, rankedGroup(Rank{}), func(t *testing.T, w *world) {
				fault(w.nodes[0])
				w.nodes[1].slow(900 * time.Millisecond)
				w.Start()
				w.until(3 * time.Second)
				if got := w.inRank(); got != "10" {
					t.Errorf("ranked %s", got)
				}
				w.well("b1")
			})
		})
	}
}

func TestViemWithoutRankTheListIsTheOrder(t *testing.T) {
	inBubble(t, 3, setting{group: func(o *Options) {
		n := 3
		o.Strategy, o.MaxRetries, o.RetryDelay = "fallback", &n, after(150*time.Millisecond)
	}}, func(t *testing.T, w *world) {
		w.Start()
		defer w.Close(context.Background())
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 100 * time.Millisecond})
		for range 5 {
			time.Sleep(time.Minute)
			w.well("b0")
		}
		wantOrder(t, w, "00000") // and no pings
		w.nodes[0].is(devchain.FaultGarbage)
		w.well("b1")
		w.nodes[1].is(devchain.FaultGarbage)
		w.well("b2")
		wantOrder(t, w, "01"+"012")
		w.nodes[2].is(devchain.FaultGarbage)
		started := time.Since(w.begun)
		w.get()
		asks := w.asks()
		for i, a := range asks {
			round := i / 3
			if want := started + []time.Duration{0, 150, 450, 1050}[round]*time.Millisecond; a.node != i%3 || a.at != want {
				t.Errorf("attempt %d: node %d at %s, want %s", i, a.node, a.at, want)
			}
		}
		if len(asks) != 12 {
			t.Errorf("%d attempts", len(asks))
		}
	})
}

func TestViemListUntilTheFirstPings(t *testing.T) {
	ranking(t, 3, rankedGroup(Rank{}), func(t *testing.T, w *world) {
		w.nodes[0].slow(300 * time.Millisecond)
		w.Start()
		w.until(200 * time.Millisecond)
		w.well("b0")
		if got := w.inRank(); got != "012" {
			t.Errorf("ranked %s", got)
		}
		w.until(400 * time.Millisecond)
		w.well("b1")
		if got := w.inRank(); got != "120" {
			t.Errorf("ranked %s", got)
		}
	})
}

func TestViemBestFirstAfterOneRoundOfPings(t *testing.T) {
	ranking(t, 4, rankedGroup(Rank{}), func(t *testing.T, w *world) {
		for i, ms := range []time.Duration{400, 100, 300, 200} {
			w.nodes[i].slow(ms * time.Millisecond)
		}
		w.Start()
		w.until(500 * time.Millisecond)
		if got := w.inRank(); got != "1320" {
			t.Fatalf("ranked %s", got)
		}
		for i, want := range viemScores([][]float64{{400}, {100}, {300}, {200}}, 1000, .3, .7) {
			if got := w.metric("group_score", "backend_name", fmt.Sprint("b", i)); math.Abs(got-want) > 1e-9 {
				t.Errorf("score of b%d is %v, want %v", i, got, want)
			}
		}
		w.order()
		w.nodes[1].is(devchain.FaultGarbage)
		w.nodes[3].is(devchain.FaultGarbage)
		w.well("b2")
		wantOrder(t, w, "132")
	})
}

func TestViemInterval(t *testing.T) {
	for _, interval := range []time.Duration{0, 4 * time.Second, 10 * time.Second, 25 * time.Second} {
		ranking(t, 2, rankedGroup(Rank{Interval: interval}), func(t *testing.T, w *world) {
			w.nodes[1].slow(700 * time.Millisecond)
			w.Start()
			w.busy(102 * time.Second)
			if interval == 0 {
				interval = 10 * time.Second
			}
			var want []time.Duration
			for at := time.Duration(0); at < 102*time.Second; at += interval {
				want = append(want, at)
			}
			w.pinged(0, want...)
			w.pinged(1, want...) // all at once
		})
	}
}

func TestViemPingMethod(t *testing.T) {
	for _, method := range []string{"", "net_listening", "eth_chainId"} {
		s := rankedGroup(Rank{Method: "-"})
		s.group = func(o *Options) { o.Strategy, o.Rank.Method = "ranked", method }
		ranking(t, 2, s, func(t *testing.T, w *world) {
			w.Start()
			synctest.Wait()
			want := `"method":"` + method + `","params":[]`
			if method == "" {
				want = `"method":"eth_blockNumber","params":[]`
			}
			asks := w.asks()
			if len(asks) != 2 || !strings.Contains(asks[0].body, want) || !strings.Contains(asks[1].body, want) {
				t.Errorf("asked %v, want %s", asks, want)
			}
		})
	}
}

func TestViemTimeoutOfPings(t *testing.T) {
	for timeout, want := range map[time.Duration]string{0: "01", 300 * time.Millisecond: "10", 2 * time.Second: "01"} {
		ranking(t, 2, rankedGroup(Rank{Timeout: timeout, Interval: 5 * time.Second}), func(t *testing.T, w *world) {
			// The first is the faster one, unless it is over the time-out that the
			// second keeps.
			w.nodes[0].slow(500 * time.Millisecond)
			w.nodes[1].slow(550 * time.Millisecond)
			if timeout == 300*time.Millisecond {
				w.nodes[1].slow(250 * time.Millisecond)
			}
			w.Start()
			if timeout == 300*time.Millisecond { // with which the round ends
				w.until(299 * time.Millisecond)
				if got := w.inRank(); got != "01" {
					t.Errorf("ranked %s before the end of the round", got)
				}
				w.until(300 * time.Millisecond)
				if s := w.metric("group_score", "backend_name", "b0"); s != 0 {
					t.Errorf("score %v", s)
				}
			}
			w.until(time.Second)
			if got := w.inRank(); got != want {
				t.Errorf("timeout %s: ranked %s, want %s", timeout, got, want)
			}
		})
	}
}

func TestViemOldSamplesFallOut(t *testing.T) {
	for _, count := range []int{0, 1, 3, 20} {
		ranking(t, 2, rankedGroup(Rank{Samples: count, Interval: 5 * time.Second}), func(t *testing.T, w *world) {
			if count == 0 {
				count = 10
			}
			// The first fails for as long as the window, and is well then.
			w.nodes[0].failsPings()
			w.nodes[1].slow(500 * time.Millisecond)
			w.Start()
			window := time.Duration(count) * 5 * time.Second
			w.busy(window - 2*time.Second)
			if got := w.inRank(); got != "10" {
				t.Fatalf("%d samples: ranked %s", count, got)
			}
			w.nodes[0].is(devchain.FaultNone)
			for k := 1; k <= count; k++ {
				w.busy(window + time.Duration(k-1)*5*time.Second + time.Second)
				failed := slices.Repeat([]float64{-1}, count-k)
				samples := [][]float64{append(failed, slices.Repeat([]float64{0}, k)...), slices.Repeat([]float64{500}, count)}
				want := viemScores(samples, 1000, .3, .7)
				for i := range samples {
					if got := w.metric("group_score", "backend_name", fmt.Sprint("b", i)); math.Abs(got-want[i]) > 1e-9 {
						t.Fatalf("%d samples, %d of them well: score of b%d is %v, want %v", count, k, i, got, want[i])
					}
				}
			}
			if got := w.inRank(); got != "01" {
				t.Errorf("%d samples: ranked %s when no failure is left", count, got)
			}
		})
	}
}

// Members change over 60 intervals; after every round the order is what the
// formula says of the last ten pings.
func TestViemConverges(t *testing.T) {
	const rounds, window = 60, 10
	// took is what a ping of a member takes in a round, -1 for a failure.
	took := func(member, round int) float64 {
		switch phase := round / 15; {
		case member == 0 && phase == 1:
			return -1 // the fastest goes away
		case member == 0:
			return 20
		case member == 1 && phase >= 3:
			return 10 // the second gets better than it
		case member == 1:
			return 60
		case member == 2 && round%7 == 3:
			return -1 // fast, but not steady
		case member == 2:
			return 30
		}
		return 400 - 5*float64(round)
	}
	ranking(t, 4, rankedGroup(Rank{Interval: 5 * time.Second}), func(t *testing.T, w *world) {
		set := func(round int) {
			for i, n := range w.nodes {
				if ms := took(i, round); ms < 0 {
					n.failsPings()
				} else {
					n.slow(time.Duration(ms) * time.Millisecond)
				}
			}
		}
		samples := make([][]float64, len(w.nodes))
		set(0)
		w.Start()
		firsts := ""
		for round := range rounds {
			w.busy(time.Duration(round)*5*time.Second + 2*time.Second)
			for i := range samples {
				samples[i] = append(samples[i], took(i, round))
				samples[i] = samples[i][max(0, len(samples[i])-window):]
			}
			want := rankOf(viemScores(samples, 1000, .3, .7))
			if got := w.inRank(); got != want {
				t.Fatalf("round %d: ranked %s, want %s", round, got, want)
			}
			w.well("b" + want[:1])
			if round%15 == 14 {
				firsts += want[:1]
			}
			set(round + 1)
		}
		if firsts != "0101" {
			t.Errorf("first at the end of the phases were %s", firsts)
		}
	})
}

func TestViemAllMembersAreTriedBeforeARetry(t *testing.T) {
	for _, retries := range []int{0, 1, 3, 5} {
		n := retries
		s := rankedGroup(Rank{Interval: time.Hour}, func(o *Options) { o.MaxRetries, o.RetryDelay = &n, after(150*time.Millisecond) })
		ranking(t, 3, s, func(t *testing.T, w *world) {
			w.nodes[0].slow(200 * time.Millisecond)
			w.nodes[1].slow(100 * time.Millisecond)
			w.Start()
			w.until(time.Second)
			w.order()
			w.all(func(n *node) { n.is(devchain.FaultGarbage) })
			c := read()
			w.do(time.Minute, c)
			var nobody *Unserviceable
			if !errors.As(c.Err, &nobody) {
				t.Fatal(c.Err)
			}
			asks := w.asks()
			wantOrder(t, w, strings.Repeat("210", retries+1))
			at := time.Second
			for round := range retries + 1 {
				for k := range 3 {
					if a := asks[3*round+k]; a.at != at {
						t.Errorf("round %d: asked at %s, want %s", round, a.at, at)
					}
				}
				at += 150 * time.Millisecond << round
			}
		})
	}
}

func TestViemRetryEndsWithTheFirstAnswer(t *testing.T) {
	n := 3
	inBubble(t, 2, rankedGroup(Rank{}, func(o *Options) { o.MaxRetries, o.RetryDelay = &n, after(150*time.Millisecond) }), func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultGarbage)
		w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultGarbage, Times: 2})
		w.well("b1")
		wantOrder(t, w, "01"+"01"+"01")
		if took := time.Since(w.begun); took != 450*time.Millisecond {
			t.Errorf("took %s", took)
		}
	})
}

func TestViemRetryAfterIsTheLeastDelay(t *testing.T) {
	n := 3
	s := rankedGroup(Rank{}, func(o *Options) { o.MaxRetries, o.RetryDelay = &n, after(150*time.Millisecond) })
	limited := func(w *world, after ...string) {
		for i, a := range after {
			w.nodes[i].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: a, Times: 1})
		}
	}
	t.Run("of all members", func(t *testing.T) {
		inBubble(t, 2, s, func(t *testing.T, w *world) {
			limited(w, "2", "2")
			w.well("b0")
			asks := w.asks()
			if len(asks) != 3 || asks[2].at != 2*time.Second {
				t.Errorf("asked %v", asks)
			}
		})
	})
	t.Run("of the one that may be asked first", func(t *testing.T) {
		inBubble(t, 3, s, func(t *testing.T, w *world) {
			limited(w, "9", "2", "5")
			w.well("b1")
			asks := w.asks()
			if len(asks) != 4 || asks[3].at != 2*time.Second {
				t.Errorf("asked %v", asks)
			}
		})
	})
	t.Run("not when another may be asked", func(t *testing.T) {
		inBubble(t, 2, s, func(t *testing.T, w *world) {
			limited(w, "2")
			w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultStatus, Times: 1})
			w.well("b1")
			asks := w.asks()
			if len(asks) != 3 || asks[2].at != 150*time.Millisecond || asks[2].node != 1 {
				t.Errorf("asked %v", asks)
			}
		})
	})
	t.Run("shorter than the delay", func(t *testing.T) {
		long := rankedGroup(Rank{}, func(o *Options) { o.MaxRetries, o.RetryDelay = &n, after(5*time.Second) })
		inBubble(t, 2, long, func(t *testing.T, w *world) {
			limited(w, "2", "2")
			w.well("b0")
			if asks := w.asks(); len(asks) != 3 || asks[2].at != 5*time.Second {
				t.Errorf("asked %v", asks)
			}
		})
	})
	t.Run("no round that the deadline forbids", func(t *testing.T) {
		inBubble(t, 2, s, func(t *testing.T, w *world) {
			limited(w, "2", "2")
			c := read()
			w.do(1900*time.Millisecond, c)
			var nobody *Unserviceable
			if !errors.As(c.Err, &nobody) || nobody.RetryAfter != 2*time.Second || time.Since(w.begun) != 0 {
				t.Errorf("after %s: %v", time.Since(w.begun), c.Err)
			}
			wantOrder(t, w, "01")
		})
	})
}

// final_errors is shouldThrow: which errors are the client's at once.
func TestViemFinalErrors(t *testing.T) {
	for name, c := range map[string]struct {
		final Final
		code  int
		text  string
		order string
	}{
		"a code":                    {Final{Codes: []int64{-32099, 4001}}, 4001, "the user said no", "0"},
		"another code":              {Final{Codes: []int64{-32099}}, 4001, "the user said no", "01"},
		"a class":                   {Final{Classes: []string{"unknown"}}, -32000, "who knows", "0"},
		"a class of sick backends":  {Final{Classes: []string{"server"}}, -32603, "internal error", "0"},
		"another class":             {Final{Classes: []string{"server"}}, -32000, "header not found", "01"},
		"a text":                    {Final{Texts: must(classify.NewTexts([]string{"sad times"}))}, -32000, "these are Sad Times indeed", "0"},
		"another text":              {Final{Texts: must(classify.NewTexts([]string{"sad times"}))}, -32000, "good times", "01"},
		"a text of a class":         {Final{Texts: must(classify.NewTexts([]string{"data_missing"}))}, -32000, "header not found", "01"},
		"one of many":               {Final{Codes: []int64{1}, Classes: []string{"range"}, Texts: must(classify.NewTexts([]string{"x", "not found"}))}, -32000, "header not found", "0"},
		"none":                      {Final{}, -32000, "who knows", "01"},
		"none, and a final class":   {Final{}, 3, "execution reverted", "0"},
		"none, and the transaction": {Final{}, -32000, "insufficient funds", "0"},
	} {
		for _, strategy := range []string{"fallback", "ranked"} {
			t.Run(name+", "+strategy, func(t *testing.T) {
				w := newWorld(t, 3, setting{group: func(o *Options) { o.Strategy, o.Final = strategy, c.final }})
				w.nodes[0].errs(c.code, c.text)
				got := w.get()
				wantOrder(t, w, c.order)
				if c.order == "0" {
					wantRPCError(t, got, fmt.Sprintf(`{"code":%d,"message":"%s"}`, c.code, c.text))
				} else if got.Err != nil || got.Answer.Result == nil {
					t.Errorf("%+v, %v", got.Answer, got.Err)
				}
			})
		}
	}
}

func TestViemPingsPauseWithoutCalls(t *testing.T) {
	for interval, idle := range map[time.Duration]time.Duration{
		10 * time.Second: 30 * time.Second, 4 * time.Second: 30 * time.Second, 20 * time.Second: 60 * time.Second, 15 * time.Second: 45 * time.Second,
	} {
		ranking(t, 2, rankedGroup(Rank{Interval: interval}), func(t *testing.T, w *world) {
			w.Start()
			w.until(10 * time.Minute)
			var want []time.Duration
			for at := time.Duration(0); at < idle; at += interval {
				want = append(want, at)
			}
			w.pinged(0, want...)
			w.pinged(1, want...)

			// The next call is not kept waiting, and wakes them at once; then they
			// come at their interval until nobody calls again.
			w.nodes[0].slow(900 * time.Millisecond)
			w.until(10*time.Minute + 123*time.Millisecond)
			woken := time.Since(w.begun)
			w.well("b0")
			if took := time.Since(w.begun) - woken; took != 0 {
				t.Errorf("the call took %s", took)
			}
			for at := time.Duration(0); at < idle; at += interval {
				want = append(want, woken+at)
			}
			w.until(woken + time.Second)
			if got := w.inRank(); got != "10" { // the newest sample is slow
				t.Errorf("ranked %s", got)
			}
			w.until(20 * time.Minute)
			w.pinged(0, want...)
			w.pinged(1, want...)
		})
	}
}

func TestViemPingsGoOnWhileCallsFail(t *testing.T) {
	ranking(t, 2, rankedGroup(Rank{Interval: 10 * time.Second}), func(t *testing.T, w *world) {
		w.all(func(n *node) {
			n.does(func(rw http.ResponseWriter, r *http.Request) {
				if n.index == 0 {
					panic(http.ErrAbortHandler)
				}
				rw.WriteHeader(500)
			})
		})
		for _, b := range w.backends { // out of service, for as long as the test
			b.Unfit("test", "sick")
		}
		w.Start()
		for time.Since(w.begun) < 100*time.Second {
			w.get()
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if got := w.pings(1); len(got) != 10 && len(got) != 11 {
			t.Errorf("pinged at %v", got)
		}
	})
}

func TestViemToLookAtTheOrderIsNoCall(t *testing.T) {
	ranking(t, 2, rankedGroup(Rank{Interval: 10 * time.Second}), func(t *testing.T, w *world) {
		w.Start()
		for time.Since(w.begun) < 100*time.Second {
			w.Explain(callsOf(read()))
			time.Sleep(time.Second)
		}
		w.pinged(0, seconds(0, 10, 20)...)
	})
}

func TestViemPingsStopWithClose(t *testing.T) {
	for name, test := range map[string]func(*world){
		"never started":     func(*world) {},
		"at once":           func(w *world) { w.Start() },
		"between two pings": func(w *world) { w.Start(); w.until(5 * time.Second) },
		"during a ping": func(w *world) {
			w.all(func(n *node) { n.is(devchain.FaultHang) })
			w.Start()
			w.until(500 * time.Millisecond)
		},
		"while they pause": func(w *world) { w.Start(); w.until(5 * time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, rankedGroup(Rank{}), func(t *testing.T, w *world) {
				test(w)
				begun := time.Now()
				w.Close(context.Background())
				if took := time.Since(begun); took != 0 {
					t.Errorf("it took %s", took)
				}
				n := len(w.asks())
				time.Sleep(10 * time.Minute)
				if len(w.asks()) != n {
					t.Error("pinged after it was closed")
				}
			})
		})
	}
	// On the clock of the world: goleak finds what would be left.
	w := newWorld(t, 2, rankedGroup(Rank{Interval: time.Millisecond}))
	w.Start()
	eventually(t, "pings", func() bool { return len(w.asks()) > 10 })
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			for range 10 {
				w.get()
			}
		})
	}
	calls.Wait()
	w.Close(context.Background())
}

func TestViemPingsCountInNoMetricOfClients(t *testing.T) {
	ranking(t, 3, rankedGroup(Rank{}), func(t *testing.T, w *world) {
		w.nodes[1].failsPings()
		w.nodes[2].SetFault(devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32603, RPCMessage: "internal error"})
		w.Start()
		w.until(25 * time.Second)
		if len(w.pings(1)) != 3 {
			t.Fatal(w.asks())
		}
		for _, name := range []string{
			"rpc_requests_total", "rpc_forwards_total", "rpc_backend_http_response_codes_total", "rpc_errors_total", "rpc_special_errors_total", "provider_errors_total",
			"rpc_backend_request_duration_seconds", "group_calls_total", "group_successes_total", "group_failures_total", "group_failovers_total", "group_retries_total",
			"unserviceable_requests_total", "backend_error_rate", "backend_avg_latency", "backend_unanswered_in_row",
		} {
			if v := w.metric(name); v != 0 {
				t.Errorf("%s is %v", name, v)
			}
		}
		for i := range w.backends {
			w.state(i, backend.Well)
		}
	})
}

func TestViemHeldMemberIsNotPinged(t *testing.T) {
	for name, hold := range map[string]func(*world){
		"held by a ping": func(w *world) {
			w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "25", Times: 1})
			w.Start()
		},
		"held by a call": func(w *world) {
			w.Start()
			synctest.Wait()
			w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "25", Times: 1})
			w.well("b1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			ranking(t, 2, rankedGroup(Rank{}), func(t *testing.T, w *world) {
				hold(w)
				synctest.Wait()
				w.state(0, backend.Held)
				w.busy(45 * time.Second)
				w.pinged(0, seconds(0, 30, 40)...)
				w.pinged(1, seconds(0, 10, 20, 30, 40)...)
			})
		})
	}
}

func TestViemMemberOfAnotherChainIsNotPinged(t *testing.T) {
	s := rankedGroup(Rank{})
	s.backend = func(i int, o *backend.Options) { o.ChainID = 77 }
	ranking(t, 2, s, func(t *testing.T, w *world) {
		for i, id := range []string{"0x1", "0x4d"} {
			w.nodes[i].does(func(rw http.ResponseWriter, r *http.Request) {
				in, _ := io.ReadAll(r.Body)
				io.WriteString(rw, replaceID(`{"jsonrpc":"2.0","id":$id,"result":"`+id+`"}`, in))
			})
			done := make(chan *backend.Attempt, 1)
			w.backends[i].Begin(callsOf(call("eth_chainId", "")), backend.Try{Timeout: time.Second}, done)
			(<-done).Settle(false)
		}
		w.state(0, backend.Foreign)
		w.Start()
		w.busy(25 * time.Second)
		w.pinged(0)
		w.pinged(1, seconds(0, 10, 20)...)
	})
}
