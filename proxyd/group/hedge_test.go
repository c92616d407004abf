package group

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

// hedging is a world in a bubble, with connections and streams counted, whose group
// hedges.
func hedging(t *testing.T, n int, h Hedge, also func(*Options), test func(t *testing.T, s *streams)) {
	t.Helper()
	s := &streams{reg: prometheus.NewRegistry(), open: map[*line]int{}}
	metrics := backend.NewMetrics(s.reg)
	inBubble(t, n, setting{
		group: func(o *Options) {
			if o.Hedge = &h; also != nil {
				also(o)
			}
		},
		backend: func(i int, o *backend.Options) {
			o.Metrics = metrics
			dial := o.Dial
			o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dial(ctx, network, address)
				if err != nil {
					return nil, err
				}
				l := &line{c, s}
				s.mu.Lock()
				s.open[l] = i
				s.mu.Unlock()
				return l, nil
			}
		},
	}, func(t *testing.T, w *world) {
		s.world = w
		test(t, s)
	})
}

// afterTenth hedges once, after 100 ms.
var afterTenth = Hedge{Delay: time.Second / 10, Max: time.Second, MaxExtra: 1}

// hedgedAt is who was asked, and when after the first, since the last time.
func (w *world) hedgedAt() string {
	asks := w.asks()
	w.order()
	out := ""
	for i, a := range asks {
		if out += fmt.Sprint(a.node); i > 0 {
			out += fmt.Sprint("@", a.at-asks[0].at)
		}
		out += " "
	}
	return strings.TrimSpace(out)
}

// late answers a result after a time.
func (n *node) late(d time.Duration, result string) {
	n.does(func(w http.ResponseWriter, r *http.Request) {
		in, _ := io.ReadAll(r.Body)
		select {
		case <-time.After(d):
			io.WriteString(w, replaceID(`{"jsonrpc":"2.0","id":$id,`+result+`}`, in))
		case <-r.Context().Done():
		}
	})
}

func TestHedgeStartsExactlyAtItsDelay(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name string
		h    Hedge
		want string
	}{
		{"fixed", Hedge{Delay: 100 * ms, Max: time.Second, MaxExtra: 1}, "0 1@100ms"},
		{"not under the least", Hedge{Delay: 10 * ms, Min: 50 * ms, Max: time.Second, MaxExtra: 1}, "0 1@50ms"},
		{"not over the most", Hedge{Delay: 4 * time.Second, Max: 300 * ms, MaxExtra: 1}, "0 1@300ms"},
		{"the most while nothing is known", Hedge{Quantile: 0.9, Min: ms, Max: 700 * ms, MaxExtra: 1}, "0 1@700ms"},
		{"two", Hedge{Delay: 100 * ms, Max: time.Second, MaxExtra: 2}, "0 1@100ms 2@200ms"},
		{"more than there are members", Hedge{Delay: 100 * ms, Max: time.Second, MaxExtra: 9}, "0 1@100ms 2@200ms"},
		{"none", Hedge{Delay: 100 * ms, Max: time.Second}, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			hedging(t, 3, c.h, nil, func(t *testing.T, s *streams) {
				for range 3 { // with new connections, and with idle ones
					s.all(func(n *node) { n.is(devchain.FaultHang) })
					time.AfterFunc(900*ms, func() { s.nodes[0].is(devchain.FaultNone) })
					s.well("b0")
					if got := s.hedgedAt(); got != c.want {
						t.Errorf("asked %s, want %s", got, c.want)
					}
					s.all(func(n *node) { n.is(devchain.FaultNone) })
					time.Sleep(time.Second)
				}
				s.nothingLeft()
			})
		})
	}
}

func TestHedgeDelayFollowsTheMethodsOwnLatency(t *testing.T) {
	ms := time.Millisecond
	hedging(t, 2, Hedge{Quantile: 0.9, Min: 20 * ms, Max: 700 * ms, MaxExtra: 1}, nil, func(t *testing.T, s *streams) {
		chain := func() { s.do(10*time.Second, call("eth_chainId", "")) }
		learn := func(d time.Duration, n int) {
			s.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: d})
			for range n {
				s.get()
			}
			s.hedgedAt()
		}
		delay := func(ask func()) time.Duration {
			s.nodes[0].is(devchain.FaultHang)
			ask()
			asks := s.asks()
			if s.order(); len(asks) != 2 {
				t.Fatalf("%d attempts", len(asks))
			}
			return asks[1].at - asks[0].at
		}
		learn(200*ms, hedgeLeast-1)
		if got := delay(func() { s.get() }); got != 700*ms {
			t.Errorf("with %d samples the hedge came after %v", hedgeLeast-1, got)
		}
		time.Sleep(5 * time.Minute) // what was known is forgotten
		learn(200*ms, hedgeLeast)
		if got := delay(func() { s.get() }); got < 192*ms || got > 208*ms {
			t.Errorf("with %d samples of 200 ms the hedge came after %v", hedgeLeast, got)
		}
		if got := delay(chain); got != 700*ms {
			t.Errorf("of another method it came after %v", got)
		}
		time.Sleep(5 * time.Minute)
		learn(ms, 50)
		if got := delay(func() { s.get() }); got != 20*ms {
			t.Errorf("of a quick method it came after %v", got)
		}
		time.Sleep(5 * time.Minute)
		s.backends[1].Unfit("test", "left alone")
		learn(900*ms, 50)
		s.backends[1].Unfit("test", "")
		if got := delay(func() { s.get() }); got != 700*ms {
			t.Errorf("of a slow method it came after %v", got)
		}
		s.all(func(n *node) { n.is(devchain.FaultNone) })
		s.nothingLeft()
	})
}

func TestOnlyHedgeableReadsAreHedged(t *testing.T) {
	no := false
	own := must(jsonrpc.NewTable(map[string]jsonrpc.RowSpec{"eth_gasPrice": {Class: "read", Hedge: &no}}))
	unhedged := func() *jsonrpc.Call {
		c := call("eth_gasPrice", "")
		c.Row, _ = own.Lookup("eth_gasPrice")
		return c
	}
	for name, c := range map[string]struct {
		calls []*jsonrpc.Call
		want  string
	}{
		"a read":                         {callsOf(read()), "0 1@100ms"},
		"a batch of reads":               {callsOf(read(), read(), call("eth_chainId", "")), "0 1@100ms"},
		"a read that must not be hedged": {callsOf(unhedged()), "0"},
		"a batch with one that must not be hedged": {callsOf(read(), unhedged()), "0"},
		"a send":         {callsOf(send()), "0"},
		"another call":   {callsOf(call("eth_sendTransaction", "[{}]")), "0"},
		"an unknown one": {callsOf(call("foo_bar", "[]")), "0"},
		"a filter":       {callsOf(call("eth_newBlockFilter", "[]")), "0"},
		"sends":          {callsOf(send(), send()), "0"},
	} {
		t.Run(name, func(t *testing.T) {
			hedging(t, 2, afterTenth, nil, func(t *testing.T, s *streams) {
				if len(c.calls) == 1 {
					s.all(func(n *node) { n.late(900*time.Millisecond, `"result":"0x7"`) })
				} else {
					s.all(func(n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 900 * time.Millisecond}) })
				}
				s.do(4*time.Second, c.calls...)
				if got := s.hedgedAt(); got != c.want {
					t.Errorf("asked %s, want %s", got, c.want)
				}
				s.nothingLeft()
			})
		})
	}
	t.Run("a batch of reads and sends", func(t *testing.T) {
		hedging(t, 2, afterTenth, nil, func(t *testing.T, s *streams) {
			s.all(func(n *node) { n.is(devchain.FaultHang) })
			time.AfterFunc(900*time.Millisecond, func() { s.all(func(n *node) { n.is(devchain.FaultNone) }) })
			s.do(4*time.Second, read(), send(), read())
			for _, a := range s.asks() {
				if a.node == 1 && strings.Contains(a.body, "eth_send") {
					t.Errorf("the send was hedged")
				}
			}
			if got := s.order(); len(got) != 3 {
				t.Errorf("asked %s", got)
			}
			s.nothingLeft()
		})
	})
}

// The first success wins, and the loser is ended without a trace: its connection is
// closed, the provider sees it, and nothing speaks against the backend.
func TestLoserOfAHedgeIsEndedAndNotBlamed(t *testing.T) {
	for _, warm := range []bool{false, true} {
		for loser := range 2 {
			t.Run(fmt.Sprint("loser ", loser, ", warm ", warm), func(t *testing.T) {
				hedging(t, 2, afterTenth, nil, func(t *testing.T, s *streams) {
					winner := 1 - loser
					if warm {
						for _, b := range s.backends {
							done := make(chan *backend.Attempt, 1)
							b.Begin(callsOf(read()), backend.Try{Timeout: time.Minute}, done)
							(<-done).Settle(false)
						}
						s.order()
					}
					for range 20 {
						left := make(chan time.Duration, 1)
						begun := time.Now()
						s.nodes[loser].does(func(_ http.ResponseWriter, r *http.Request) {
							io.Copy(io.Discard, r.Body)
							<-r.Context().Done()
							left <- time.Since(begun)
						})
						s.nodes[winner].late(150*time.Millisecond, `"result":"0x7"`)
						s.well(fmt.Sprint("b", winner))
						want := map[int]time.Duration{1: 150 * time.Millisecond, 0: 250 * time.Millisecond}[loser]
						if took := time.Since(begun); took != want {
							t.Errorf("answered after %v, want %v", took, want)
						}
						if gone := <-left; gone != want {
							t.Errorf("the provider saw the connection end after %v, want %v", gone, want)
						}
						if n := s.connections(loser); n != 0 {
							t.Errorf("%d connections to the loser are open", n)
						}
						if got := s.hedgedAt(); got != "0 1@100ms" {
							t.Errorf("asked %s", got)
						}
						time.Sleep(time.Second)
					}
					name := fmt.Sprint("b", loser)
					s.state(loser, backend.Well)
					if got := s.backends[loser].Trouble(); got != (backend.Trouble{}) {
						t.Errorf("trouble %+v", got)
					}
					if n := s.backends[loser].Blamed(); n != 0 {
						t.Errorf("blamed %d times", n)
					}
					for _, metric := range []string{"proxyd_rpc_errors_total", "proxyd_provider_errors_total", "proxyd_backend_error_rate", "proxyd_backend_unanswered_in_row", "proxyd_backend_out_of_service_total"} {
						if n := s.sum(metric, name); n != 0 {
							t.Errorf("%s of the loser is %v", metric, n)
						}
					}
					if hedges, won := s.metric("group_hedges_total"), s.metric("group_hedges_won_total"); hedges != 20 || won != float64(20*winner) {
						t.Errorf("%v hedges, %v won", hedges, won)
					}
					if n := s.metric("group_failovers_total") + s.metric("group_retries_total"); n != 0 {
						t.Errorf("%v failovers or retries", n)
					}
					s.nothingLeft()
				})
			})
		}
	}
}

// An error or a null of a hedge may be what a node says that has not seen yet what
// the first one has.
func TestHedgesErrorOrNullWaitsForTheFirst(t *testing.T) {
	ms := time.Millisecond
	for name, said := range map[string]string{
		"null":        `"result":null`,
		"revert":      `"error":{"code":3,"message":"execution reverted"}`,
		"missing":     `"error":{"code":-32000,"message":"header not found"}`,
		"unknown":     `"error":{"code":-32098,"message":"who knows"}`,
		"unsupported": `"error":{"code":-32601,"message":"method not found"}`,
	} {
		said := said
		text := said[strings.Index(said, ":")+1:]
		ask := func(s *streams, limit time.Duration) (*jsonrpc.Call, time.Duration) {
			c := call("eth_getTransactionByHash", `["`+legacyHash+`"]`)
			begun := time.Now()
			s.do(limit, c)
			return c, time.Since(begun)
		}
		hedge := func(t *testing.T, extra int, test func(t *testing.T, s *streams)) {
			t.Helper()
			h := afterTenth
			h.MaxExtra = extra
			hedging(t, 1+extra, h, nil, func(t *testing.T, s *streams) {
				s.nodes[1].late(10*ms, said)
				test(t, s)
				s.nothingLeft()
			})
		}
		want := func(t *testing.T, c *jsonrpc.Call, result, by string, took, wantTook time.Duration) {
			t.Helper()
			if c.Err != nil || string(c.Answer.Result)+string(c.Answer.Error) != result || c.Answer.Backend != by || took != wantTook {
				t.Errorf("after %v: %+v, %v", took, c.Answer, c.Err)
			}
		}
		t.Run(name+" does not win", func(t *testing.T) {
			hedge(t, 1, func(t *testing.T, s *streams) {
				s.nodes[0].late(800*ms, `"result":{"hash":"0x7"}`)
				c, took := ask(s, 10*time.Second)
				want(t, c, `{"hash":"0x7"}`, "b0", took, 800*ms)
				if n := s.metric("group_hedges_won_total"); n != 0 {
					t.Errorf("%v hedges won", n)
				}
			})
		})
		t.Run(name+" does not win over another hedge", func(t *testing.T) {
			hedge(t, 2, func(t *testing.T, s *streams) {
				s.nodes[0].late(800*ms, `"result":{"hash":"0x7"}`)
				s.nodes[2].late(50*ms, `"result":{"hash":"0x8"}`)
				c, took := ask(s, 10*time.Second)
				want(t, c, `{"hash":"0x8"}`, "b2", took, 250*ms)
			})
		})
		t.Run(name+" is used when the first fails", func(t *testing.T) {
			hedge(t, 1, func(t *testing.T, s *streams) {
				s.nodes[0].does(func(w http.ResponseWriter, _ *http.Request) { time.Sleep(500 * ms); w.WriteHeader(500) })
				c, took := ask(s, 10*time.Second)
				want(t, c, text, "b1", took, 500*ms)
			})
		})
		t.Run(name+" is used when the first's time is over", func(t *testing.T) {
			hedge(t, 1, func(t *testing.T, s *streams) {
				s.nodes[0].is(devchain.FaultHang)
				c, took := ask(s, 700*ms)
				want(t, c, text, "b1", took, 525*ms) // it leaves the other a share
			})
		})
		t.Run(name+" is used when both say so", func(t *testing.T) {
			hedge(t, 1, func(t *testing.T, s *streams) {
				s.nodes[0].late(300*ms, said)
				c, took := ask(s, 10*time.Second)
				if c.Err != nil || string(c.Answer.Result)+string(c.Answer.Error) != text || took != 300*ms {
					t.Errorf("after %v: %+v, %v", took, c.Answer, c.Err)
				}
			})
		})
		t.Run(name+" of the first lets the hedge decide", func(t *testing.T) {
			hedge(t, 1, func(t *testing.T, s *streams) {
				if name == "null" || name == "revert" {
					return // those are the answer
				}
				s.nodes[0].late(200*ms, said)
				s.nodes[1].late(300*ms, `"result":{"hash":"0x9"}`)
				c, took := ask(s, 10*time.Second)
				want(t, c, `{"hash":"0x9"}`, "b1", took, 400*ms)
			})
		})
	}
}

func TestHedgesOfABatchDecideCallByCall(t *testing.T) {
	hedging(t, 2, afterTenth, nil, func(t *testing.T, s *streams) {
		answer := func(d time.Duration, results ...string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				in, _ := io.ReadAll(r.Body)
				time.Sleep(d)
				var first int
				fmt.Sscan(replaceID("$id", in), &first)
				for i, result := range results {
					results[i] = fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":%s}`, first+i, result)
				}
				io.WriteString(w, "["+strings.Join(results, ",")+"]")
			}
		}
		s.nodes[0].does(answer(500*time.Millisecond, `"0xa"`, `"0xb"`, "null"))
		s.nodes[1].does(answer(100*time.Millisecond, `"0x1"`, "null", "null"))
		calls := make([]*jsonrpc.Call, 3)
		for i := range calls {
			calls[i] = call("eth_getTransactionByHash", `["`+legacyHash+`"]`)
		}
		s.do(10*time.Second, calls...)
		got := ""
		for _, c := range calls {
			got += fmt.Sprint(string(c.Answer.Result), " of ", c.Answer.Backend, ", ")
		}
		if want := `"0x1" of b1, "0xb" of b0, null of b0, `; got != want {
			t.Errorf("got %s want %s", got, want)
		}
		s.nothingLeft()
	})
}

func TestNoHedgeWhenNobodyElseIsWell(t *testing.T) {
	for name, harm := range map[string]func(s *streams){
		"unfit": func(s *streams) { s.backends[1].Unfit("check", "it syncs") },
		"held": func(s *streams) {
			s.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: "60"})
		},
		"out":     func(s *streams) { s.nodes[1].is(devchain.FaultStatus) },
		"lagging": func(s *streams) { s.backends[0].NoteHead(100); s.backends[1].NoteHead(50) },
		"another tier": func(s *streams) {
			s.opts.Members[1].Tier = 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			most := uint64(5)
			hedging(t, 2, afterTenth, func(o *Options) { o.MaxBlockLag, o.HeadMaxAge = &most, time.Hour }, func(t *testing.T, s *streams) {
				harm(s)
				for range 3 { // the second shows how it is
					done := make(chan *backend.Attempt, 1)
					s.backends[1].Begin(callsOf(read()), backend.Try{Timeout: time.Minute}, done)
					(<-done).Settle(true)
				}
				s.order()
				s.nodes[0].late(500*time.Millisecond, `"result":"0x7"`)
				s.well("b0")
				wantOrder(t, s.world, "0")
				if n, k := s.metric("group_hedges_total"), s.metric("group_budget_spent_total"); n != 0 || k != 0 {
					t.Errorf("%v hedges, %v that the budget did not allow", n, k)
				}
				s.nothingLeft()
			})
		})
	}
	t.Run("a group of one", func(t *testing.T) {
		hedging(t, 1, afterTenth, nil, func(t *testing.T, s *streams) {
			s.nodes[0].late(500*time.Millisecond, `"result":"0x7"`)
			s.well("b0")
			wantOrder(t, s.world, "0")
			s.nothingLeft()
		})
	})
}

// A member that is not well does not keep the hedge from one that is.
func TestHedgeGoesToTheNextWellMember(t *testing.T) {
	hedging(t, 3, afterTenth, nil, func(t *testing.T, s *streams) {
		s.nodes[1].is(devchain.FaultStatus)
		done := make(chan *backend.Attempt, 1)
		for range 3 {
			s.backends[1].Begin(callsOf(read()), backend.Try{Timeout: time.Minute}, done)
			(<-done).Settle(true)
		}
		time.Sleep(31 * time.Second)
		s.state(1, backend.Trial)
		s.order()
		s.nodes[0].late(500*time.Millisecond, `"result":"0x7"`)
		s.well("b2")
		if got := s.hedgedAt(); got != "0 2@100ms" {
			t.Errorf("asked %s", got)
		}
		s.nothingLeft()
	})
}

// A hedge is a call that nobody needs: it is no reason to exceed max_rps.
func TestHedgesStayWithinMaxRPS(t *testing.T) {
	for _, strict := range []bool{false, true} {
		s := setting{
			group: func(o *Options) { o.Hedge = &afterTenth },
			backend: func(i int, o *backend.Options) {
				if i == 1 {
					o.MaxRPS, o.MaxRPSStrict = 1, strict
				}
			},
		}
		inBubble(t, 2, s, func(t *testing.T, w *world) {
			w.nodes[0].late(500*time.Millisecond, `"result":"0x7"`)
			w.nodes[1].late(500*time.Millisecond, `"result":"0x7"`)
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() { w.well("b0") })
			}
			all.Wait()
			if n := strings.Count(w.order(), "1"); n != 1 {
				t.Errorf("strict %t: %d hedges", strict, n)
			}
		})
	}
}

// Whatever streams, exactly one is delivered and the other is closed.
func TestHedgedCallThatStreamsLosesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		delays  [2]time.Duration
		results [2]string
		by      string // "" for either
	}{
		"the first streams while the hedge runs":    {[2]time.Duration{300, 5000}, [2]string{big(0), small}, "b0"},
		"the hedge streams while the first runs":    {[2]time.Duration{5000, 300}, [2]string{small, big(1)}, "b1"},
		"both stream, the first sooner":             {[2]time.Duration{300, 250}, [2]string{big(0), big(1)}, "b0"},
		"both stream, the hedge sooner":             {[2]time.Duration{400, 250}, [2]string{big(0), big(1)}, "b1"},
		"both stream in the same moment":            {[2]time.Duration{350, 250}, [2]string{big(0), big(1)}, ""},
		"the first streams when the hedge is small": {[2]time.Duration{350, 250}, [2]string{big(0), small}, ""},
		"the hedge streams when the first is small": {[2]time.Duration{350, 250}, [2]string{small, big(1)}, ""},
		"the first streams when the hedge begins":   {[2]time.Duration{100, 250}, [2]string{big(0), big(1)}, "b0"},
		"the hedge's error, then the first streams": {[2]time.Duration{350, 100}, [2]string{big(0), `null,"error":{"code":3,"message":"execution reverted"}`}, "b0"},
	} {
		for _, warm := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", warm ", warm), func(t *testing.T) {
				for range 5 {
					hedging(t, 2, afterTenth, nil, func(t *testing.T, s *streams) {
						if warm {
							done := make(chan *backend.Attempt, 1)
							for _, b := range s.backends {
								b.Begin(callsOf(read()), backend.Try{Timeout: time.Minute}, done)
								(<-done).Settle(false)
							}
						}
						for i, n := range s.nodes {
							n.late(c.delays[i]*time.Millisecond, `"result":`+c.results[i])
						}
						q := streamable("eth_call", "[]")
						s.do(10*time.Second, q)
						if q.Err != nil || c.by != "" && q.Answer.Backend != c.by {
							t.Fatalf("%v, %v", q.Answer, q.Err)
						}
						time.Sleep(time.Second) // while nobody reads it, the other ends
						streams := 0.0
						if q.Answer.Stream != nil {
							streams = 1
						}
						if got := read1(t, q); got != c.results[q.Answer.Backend[1]-'0'] {
							t.Errorf("%d bytes: %.20s", len(got), got)
						}
						time.Sleep(5 * time.Second)
						if n := s.sum("proxyd_streamed_answers_total", "whole"); n != streams {
							t.Errorf("%v streams were read", n)
						}
						s.nothingLeft()
					})
				}
			})
		}
	}
}

// Backends can be closed while hedges run: no attempt stays.
func TestCloseDuringHedgesEnds(t *testing.T) {
	hedging(t, 3, Hedge{Delay: time.Second / 10, Max: time.Second, MaxExtra: 2}, nil, func(t *testing.T, s *streams) {
		s.all(func(n *node) { n.is(devchain.FaultHang) })
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { s.do(3*time.Second, streamable("eth_call", "[]")) })
		}
		time.Sleep(250 * time.Millisecond)
		for _, b := range s.backends {
			b.Close()
		}
		all.Wait()
		s.nothingLeft()
	})
}

// A client that leaves says nothing about how long the method takes.
func TestClientsThatLeaveDoNotHastenHedges(t *testing.T) {
	hedging(t, 2, Hedge{Quantile: 0.9, Max: time.Second, MaxExtra: 1}, nil, func(t *testing.T, s *streams) {
		s.nodes[0].late(400*time.Millisecond, `"result":"0x7"`)
		for range 2 * hedgeLeast {
			ctx, leave := context.WithCancel(t.Context())
			time.AfterFunc(time.Millisecond, leave)
			s.ServeRPC(ctx, callsOf(read()))
			leave()
		}
		s.order()
		s.well("b0")
		wantOrder(t, s.world, "0")
		s.nothingLeft()
	})
}

// The attempt after a failed first one is hedged alike, whether its connection is
// new or idle.
func TestAttemptAfterAFailureIsHedgedAlike(t *testing.T) {
	got := map[bool]string{}
	for _, warm := range []bool{false, true} {
		hedging(t, 3, afterTenth, nil, func(t *testing.T, s *streams) {
			if warm {
				done := make(chan *backend.Attempt, 1)
				for _, b := range s.backends {
					b.Begin(callsOf(read()), backend.Try{Timeout: time.Minute}, done)
					(<-done).Settle(false)
				}
				s.order()
			}
			s.nodes[0].does(func(w http.ResponseWriter, _ *http.Request) { time.Sleep(50 * time.Millisecond); w.WriteHeader(500) })
			s.nodes[1].late(800*time.Millisecond, `"result":"0x7"`)
			s.get()
			got[warm] = s.hedgedAt()
			s.nothingLeft()
		})
	}
	if got[false] != got[true] {
		t.Errorf("with new connections %s, with idle ones %s", got[false], got[true])
	}
}

func TestHedgesUnderConcurrency(t *testing.T) {
	hedging(t, 3, Hedge{Quantile: 0.5, Min: time.Millisecond, Max: 20 * time.Millisecond, MaxExtra: 2}, func(o *Options) {
		o.Strategy = "round_robin"
		o.Budget = &Budget{Ratio: 2, MinPerSecond: 1000}
	}, func(t *testing.T, s *streams) {
		s.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 30 * time.Millisecond})
		s.nodes[1].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 5 * time.Millisecond})
		var all sync.WaitGroup
		for client := range uint64(16) {
			all.Go(func() {
				for k := range uint64(60) {
					calls := make([]*jsonrpc.Call, 1+k%4)
					for i := range calls {
						calls[i] = echo(client<<32 | k<<8 | uint64(i))
					}
					s.do(5*time.Second, calls...)
					for i, c := range calls {
						if err := echoed(c, client<<32|k<<8|uint64(i)); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		all.Wait()
		if s.metric("group_hedges_total") == 0 {
			t.Error("nothing was hedged")
		}
		for i := range s.backends {
			s.state(i, backend.Well)
		}
		synctest.Wait()
		s.nothingLeft()
	})
}
