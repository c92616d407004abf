package group

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

// ofStrategy configures a group with everything on that may be on beside the
// strategy.
func ofStrategy(name string, seed uint64) setting {
	random := rand.New(rand.NewPCG(seed, 9))
	return setting{
		group: func(o *Options) {
			o.Strategy = name
			o.Weighted = random.IntN(2) == 0
			if random.IntN(2) == 0 {
				o.Hedge = &Hedge{Quantile: 0.9, Min: 10 * time.Millisecond, Max: 500 * time.Millisecond, MaxExtra: 1 + random.IntN(2)}
			}
			if random.IntN(2) == 0 {
				o.Budget = &Budget{Ratio: 0.2, MinPerSecond: 1}
			}
			o.FailBack = 30 * time.Second
			for _, m := range o.Members {
				m.Weight, m.Cost = 1+random.IntN(3), random.Float64()
			}
		},
		backend: func(_ int, o *backend.Options) { o.ResponseTimeout = time.Second },
	}
}

// No call of a client is lost while one member works, whatever the others do.
func TestNoStrategyLosesACallWhileOneMemberIsWell(t *testing.T) {
	limited := []devchain.Fault{{Kind: devchain.FaultRPCError, RPCCode: -32005, RPCMessage: "rate limit"}}
	everyStrategy(t, func(t *testing.T, name string) {
		for seed := range uint64(4) {
			members, faults := 4, transportFaults
			if seed%2 == 1 { // one other is asked about an error
				members, faults = 2, append(answeredFaults[:len(answeredFaults):len(answeredFaults)], transportFaults...)
				if name == "sticky" { // where errors are the client's at once
					faults = append(limited, transportFaults...)
				}
			}
			random := rand.New(rand.NewPCG(seed, 1))
			always := random.IntN(members)
			inBubble(t, members, ofStrategy(name, seed), func(t *testing.T, w *world) {
				w.Start()
				defer w.Group.Close(context.Background())
				stop := make(chan struct{})
				var flapping, clients sync.WaitGroup
				for i, n := range w.nodes {
					if i == always {
						continue
					}
					random := rand.New(rand.NewPCG(seed, uint64(i)+2))
					flapping.Go(func() {
						for {
							f := faults[random.IntN(len(faults))]
							if random.IntN(3) == 0 && f.Kind != devchain.FaultNone {
								f.Times = 1 + random.IntN(10)
							}
							n.SetFault(f)
							select {
							case <-stop:
								n.is(devchain.FaultNone)
								return
							case <-time.After(time.Duration(1+random.IntN(3000)) * time.Millisecond):
							}
						}
					})
				}
				made := make([]int, 8)
				for client := range uint64(8) {
					random := rand.New(rand.NewPCG(seed, client+100))
					clients.Go(func() {
						for k := range uint64(100) {
							calls := make([]*jsonrpc.Call, 1+random.IntN(3)*random.IntN(6))
							first := client<<32 | k<<8
							for i := range calls {
								calls[i] = echo(first + uint64(i))
							}
							w.do(30*time.Second, calls...)
							for i, c := range calls {
								if err := echoed(c, first+uint64(i)); err != nil {
									t.Errorf("seed %d, client %d, call %d.%d after %v, with backend %d well: %v", seed, client, k, i, time.Since(w.begun), always, err)
								}
							}
							made[client] += len(calls)
							time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
						}
					})
				}
				clients.Wait()
				close(stop)
				flapping.Wait()
				for i, n := range w.nodes {
					n.is(devchain.FaultNone)
					if got := w.metric("backend_in_flight", "backend_name", w.backends[i].Name()); got != 0 {
						time.Sleep(time.Minute) // attempts at a suspect member run on
					}
				}
			})
		}
	})
}

// Once all faults are over, every member of a strategy that spreads is asked again
// before long, and of the others the first one is.
func TestNoStrategyStarvesAMemberForEver(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		for seed := range uint64(2) {
			s := ofStrategy(name, seed)
			plain := s.group
			s.group = func(o *Options) {
				plain(o)
				for _, m := range o.Members {
					m.Cost = 1
				}
			}
			inBubble(t, 4, s, func(t *testing.T, w *world) {
				w.Start()
				defer w.Group.Close(context.Background())
				random := rand.New(rand.NewPCG(seed, 1))
				faults := append(answeredFaults[:len(answeredFaults):len(answeredFaults)], transportFaults...)
				for range 60 {
					for _, n := range w.nodes {
						if random.IntN(2) == 0 {
							n.SetFault(faults[random.IntN(len(faults))])
						}
					}
					for range 10 {
						w.do(10*time.Second, echo(1))
						time.Sleep(100 * time.Millisecond)
					}
				}
				w.all(func(n *node) { n.is(devchain.FaultNone) })
				over := time.Now()
				missing := map[int]bool{0: true}
				if w.strategy.Spreads() {
					missing = map[int]bool{0: true, 1: true, 2: true, 3: true}
				}
				w.order()
				for len(missing) > 0 {
					if time.Since(over) > 12*time.Minute {
						t.Fatalf("seed %d: %v were not asked within %v", seed, missing, time.Since(over))
					}
					w.do(10*time.Second, echo(1))
					for _, a := range w.asks() {
						if strings.Contains(a.body, "eth_call") {
							delete(missing, a.node)
						}
					}
					w.order()
					time.Sleep(500 * time.Millisecond)
				}
				time.Sleep(time.Minute)
			})
		}
	})
}

// After a 429 with Retry-After no request reaches the member before that time, to
// the nanosecond, as long as another can serve; and then one does.
func TestEveryStrategyObeysRetryAfter(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		all := 0 // hold-offs
		for seed := range uint64(3) {
			inBubble(t, 3, ofStrategy(name, seed), func(t *testing.T, w *world) {
				w.Start()
				defer w.Group.Close(context.Background())
				random, ofNodes := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
				var mu sync.Mutex // for what follows and ofNodes
				until, said := make([]time.Time, 3), make([]time.Time, 3)
				limits, early, soon := 0, 0, make([]int, 3)
				for i, n := range w.nodes {
					n.does(func(rw http.ResponseWriter, r *http.Request) {
						mu.Lock()
						if time.Now().Before(until[i]) {
							if time.Now().After(said[i]) { // else it was under way already
								early++
							}
						} else if !until[i].IsZero() && time.Since(until[i]) < 15*time.Second {
							soon[i]++
						}
						asks := 0
						if i != 2 && ofNodes.IntN(20) == 0 {
							asks = 1 + ofNodes.IntN(40)
							said[i] = time.Now()
							if t := said[i].Add(time.Duration(asks) * time.Second); t.After(until[i]) {
								until[i] = t
							}
							limits++
						}
						mu.Unlock()
						if asks == 0 {
							n.ServeHTTP(rw, r)
							return
						}
						io.Copy(io.Discard, r.Body)
						rw.Header().Set("Retry-After", fmt.Sprint(asks))
						rw.WriteHeader(429)
					})
				}
				for range 1500 {
					calls := callsOf(echo(1))
					if random.IntN(10) == 0 {
						calls = callsOf(echo(1), read(), send())
					}
					w.do(10*time.Second, calls...)
					for _, c := range calls {
						if c.Err != nil {
							t.Fatalf("seed %d: %v", seed, c.Err)
						}
					}
					time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
				}
				mu.Lock()
				defer mu.Unlock()
				if all += limits; early != 0 {
					t.Errorf("seed %d: of %d hold-offs %d were broken", seed, limits, early)
				}
				if w.strategy.Spreads() && (soon[0] == 0 || soon[1] == 0) {
					t.Errorf("seed %d: asked again within 15 s of a hold-off: %v", seed, soon)
				}
			})
		}
		if all == 0 {
			t.Error("nobody was held off")
		}
	})
}

// The very first call after the hold-off may go to the member, not one before.
func TestHoldOffsEndOnTime(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		inBubble(t, 2, inTiers(name, 0, 0), func(t *testing.T, w *world) {
			w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "17", Times: 1})
			for w.backends[0].Standing().State != backend.Held {
				w.get()
			}
			time.Sleep(17*time.Second - time.Nanosecond)
			w.order()
			for range 20 {
				w.well("b1")
			}
			time.Sleep(time.Nanosecond)
			w.state(0, backend.Well)
			w.order()
			for range 64 {
				w.get()
			}
			if asked := w.order(); !strings.Contains(asked, "0") && name != "sticky" {
				t.Errorf("asked %s", asked)
			}
		})
	})
}

func TestEveryStrategyUnderConcurrency(t *testing.T) {
	everyStrategy(t, func(t *testing.T, name string) {
		s := ofStrategy(name, 1)
		plain := s.group
		s.group = func(o *Options) {
			plain(o)
			o.Hedge = &Hedge{Quantile: 0.5, Max: 5 * time.Millisecond, MaxExtra: 2}
			o.Rank.Interval = 5 * time.Millisecond
			o.Members[2].Tier, o.Members[0].Public, o.PublicAttempts = 1, true, 1
			most := uint64(3)
			o.MaxBlockLag = &most
		}
		w := newWorld(t, 4, s)
		w.Start()
		defer w.Group.Close(context.Background())
		stop := make(chan struct{})
		var others, clients sync.WaitGroup
		others.Go(func() {
			random := rand.New(rand.NewPCG(1, 1))
			for k := uint64(100); ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				i := random.IntN(4)
				w.backends[i].NoteHead(k / 50)
				w.Explain(callsOf(read()))
				w.Usable()
				if i == 1 { // the others are well
					w.nodes[1].SetFault(transportFaults[[]int{0, 1, 4, 9}[random.IntN(4)]])
					w.backends[1].Unfit("check", []string{"", "it syncs"}[random.IntN(2)])
				}
			}
		})
		for client := range uint64(12) {
			clients.Go(func() {
				for k := range uint64(20) {
					calls := make([]*jsonrpc.Call, 1+k%5)
					for i := range calls {
						calls[i] = echo(client<<32 | k<<8 | uint64(i))
					}
					w.do(20*time.Second, calls...)
					for i, c := range calls {
						if err := echoed(c, client<<32|k<<8|uint64(i)); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		clients.Wait()
		close(stop)
		others.Wait()
	})
}
