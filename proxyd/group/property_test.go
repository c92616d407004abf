package group

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

// echo is a read whose answer is its own input.
func echo(n uint64) *jsonrpc.Call {
	return call("eth_call", fmt.Sprintf(`[{"to":"%s","input":"0x%016x"},"latest"]`, devchain.EchoAddress, n))
}

func echoed(c *jsonrpc.Call, n uint64) error {
	switch want := fmt.Sprintf(`"0x%016x"`, n); {
	case c.Err != nil:
		return c.Err
	case c.Answer == nil:
		return fmt.Errorf("no answer")
	case string(c.Answer.Result) != want:
		return fmt.Errorf("got %s%s of %s, want %s", c.Answer.Result, c.Answer.Error, c.Answer.Backend, want)
	}
	return nil
}

// shaken answers batches in a random order and re-spells ids.
func shaken(n *devchain.Backend) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		n.ServeHTTP(rec, r)
		var parts []map[string]json.RawMessage
		if json.Unmarshal(rec.Body.Bytes(), &parts) != nil {
			w.WriteHeader(rec.Code)
			w.Write(rec.Body.Bytes())
			return
		}
		rand.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		for _, p := range parts {
			if rand.IntN(2) == 0 && len(p["id"]) > 0 && p["id"][0] != '"' {
				p["id"] = json.RawMessage(`"` + string(p["id"]) + `"`)
			}
		}
		json.NewEncoder(w).Encode(parts)
	}
}

var transportFaults = []devchain.Fault{
	{Kind: devchain.FaultNone}, {Kind: devchain.FaultStatus, Status: 500}, {Kind: devchain.FaultStatus, Status: 403}, {Kind: devchain.FaultHang},
	{Kind: devchain.FaultGarbage}, {Kind: devchain.FaultRateLimited}, {Kind: devchain.FaultRateLimited, RetryAfter: "2"},
	{Kind: devchain.FaultSlow, Delay: 400 * time.Millisecond}, {Kind: devchain.FaultWrongID}, {Kind: devchain.FaultClose}, {Kind: devchain.FaultTruncate},
}

var answeredFaults = []devchain.Fault{
	{Kind: devchain.FaultRPCError, RPCCode: -32603, RPCMessage: "internal error"},
	{Kind: devchain.FaultRPCError, RPCCode: -32005, RPCMessage: "rate limit"},
	{Kind: devchain.FaultRPCError, RPCCode: -32000, RPCMessage: "header not found"},
	{Kind: devchain.FaultRPCError, RPCCode: -32601, RPCMessage: "method not found"},
	{Kind: devchain.FaultRPCError, RPCCode: -32098, RPCMessage: "who knows"},
}

func TestNoClientSeesAFailureWhileOneBackendIsWell(t *testing.T) {
	for _, c := range []struct {
		members  int
		weighted bool
		faults   []devchain.Fault
	}{
		{4, false, transportFaults},
		{4, true, transportFaults},
		{2, false, append(answeredFaults, transportFaults...)}, // an error is asked about at one other
		{2, true, append(answeredFaults, transportFaults...)},
	} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprint(c.members, " members, weighted ", c.weighted, ", seed ", seed), func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 1))
				always := random.IntN(c.members)
				s := setting{
					group: func(o *Options) {
						o.Weighted = c.weighted
						for _, m := range o.Members {
							m.Weight = 1 + random.IntN(3)
						}
					},
					backend: func(_ int, o *backend.Options) { o.ResponseTimeout = time.Second },
				}
				inBubble(t, c.members, s, func(t *testing.T, w *world) {
					stop := make(chan struct{})
					var flapping, clients sync.WaitGroup
					for i, n := range w.nodes {
						if i == always {
							continue
						}
						random := rand.New(rand.NewPCG(seed, uint64(i)+2))
						flapping.Go(func() {
							for {
								n.SetFault(c.faults[random.IntN(len(c.faults))])
								select {
								case <-stop:
									n.is(devchain.FaultNone)
									return
								case <-time.After(time.Duration(1+random.IntN(3000)) * time.Millisecond):
								}
							}
						})
					}
					for client := range uint64(8) {
						random := rand.New(rand.NewPCG(seed, client+100))
						clients.Go(func() {
							for k := range uint64(120) {
								calls := make([]*jsonrpc.Call, 1+random.IntN(3)*random.IntN(6))
								first := client<<32 | k<<8
								for i := range calls {
									calls[i] = echo(first + uint64(i))
								}
								w.do(20*time.Second, calls...)
								for i, c := range calls {
									if err := echoed(c, first+uint64(i)); err != nil {
										t.Errorf("client %d, call %d.%d, with backend %d well: %v", client, k, i, always, err)
									}
								}
								time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
							}
						})
					}
					clients.Wait()
					close(stop)
					flapping.Wait()
				})
			})
		}
	}
}

func TestEveryResultBelongsToItsCallUnderConcurrency(t *testing.T) {
	w := newWorld(t, 3, setting{group: func(o *Options) {
		o.Weighted, o.MaxBatch = true, 7
		for _, m := range o.Members {
			m.Weight = 1
		}
	}})
	for _, n := range w.nodes {
		n.does(shaken(n.Backend))
	}
	w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 2 * time.Millisecond})
	var clients sync.WaitGroup
	for client := range uint64(12) {
		random := rand.New(rand.NewPCG(1, client))
		clients.Go(func() {
			for k := range uint64(25) {
				if k == 12 && client == 0 {
					w.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultWrongID, Times: 20})
				}
				calls := make([]*jsonrpc.Call, 1+random.IntN(25))
				first := client<<32 | k<<8
				for i := range calls {
					calls[i] = echo(first + uint64(i))
				}
				w.do(20*time.Second, calls...)
				for i, c := range calls {
					if err := echoed(c, first+uint64(i)); err != nil {
						t.Errorf("client %d, call %d.%d: %v", client, k, i, err)
					}
				}
			}
		})
	}
	clients.Wait()
}

func TestEqualCallsOfABatchAreIndependent(t *testing.T) {
	w := newWorld(t, 1, setting{})
	calls := callsOf(echo(7), echo(7), echo(8), echo(7))
	w.do(time.Second, calls...)
	for i, n := range []uint64{7, 7, 8, 7} {
		if err := echoed(calls[i], n); err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func TestPanicOfAStrategyFailsTheCallsOfABatch(t *testing.T) {
	w := newWorld(t, 2, setting{})
	w.strategy = panics{}
	w.do(time.Second, read(), read())
}

type panics struct{}

func (panics) Arrange([]*Member, Ask) { panic("strategy") }
func (panics) Spreads() bool          { return false }

func BenchmarkSingleCall(b *testing.B) {
	for _, members := range []int{1, 3} {
		b.Run(fmt.Sprint(members, " members"), func(b *testing.B) {
			w := newWorld(b, members, setting{listen: listenConstant})
			b.ReportAllocs()
			for b.Loop() {
				if c := w.get(); c.Err != nil {
					b.Fatal(c.Err)
				}
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		w := newWorld(b, 2, setting{listen: listenConstant})
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if c := w.get(); c.Err != nil {
					b.Fatal(c.Err)
				}
			}
		})
	})
}

func BenchmarkBatchOf100(b *testing.B) {
	w := newWorld(b, 1, setting{group: func(o *Options) { o.MaxBatch = 100 }, listen: listenConstant})
	b.ReportAllocs()
	for b.Loop() {
		calls := make([]*jsonrpc.Call, 100)
		for i := range calls {
			calls[i] = read()
		}
		w.do(10*time.Second, calls...)
		if calls[99].Err != nil {
			b.Fatal(calls[99].Err)
		}
	}
}

// BenchmarkListener is what the listener and net/http's client cost without the
// gateway.
func BenchmarkListener(b *testing.B) {
	url, _ := listenConstant(b, nil)
	client := &http.Transport{DisableCompression: true}
	defer client.CloseIdleConnections()
	b.ReportAllocs()
	for b.Loop() {
		req, _ := http.NewRequest("POST", url, http.NoBody)
		res, err := client.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}
