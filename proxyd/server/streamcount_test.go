package server

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

func (f *front) underWay() int {
	f.streams.mu.Lock()
	defer f.streams.mu.Unlock()
	n := 0
	for _, k := range f.streams.to {
		n += k
	}
	return n
}

const tooManyStreams = `{"jsonrpc":"2.0","error":{"code":-32024,"message":"too many large answers at once"},"id":%d}` + "\n"

// refused checks that an answer says that there are too many, and that its stream
// was closed unread.
func (a *answer) refused(t *testing.T, id int, s *tap) {
	t.Helper()
	select {
	case <-a.done:
	case <-time.After(10 * time.Second):
		t.Fatal("it was not refused")
	}
	if want := fmt.Sprintf(tooManyStreams, id); a.Code != 429 || a.Body.String() != want || a.aborted {
		t.Errorf("HTTP %d %s, want 429 %s", a.Code, a.Body, want)
	}
	if a.Header().Get("Retry-After") != "1" || a.Header().Get("Content-Length") != fmt.Sprint(a.Body.Len()) {
		t.Errorf("header %v", a.Header())
	}
	if !s.closed.Load() || s.reads.Load() != 0 {
		t.Errorf("its stream is closed: %v, was read %d times", s.closed.Load(), s.reads.Load())
	}
}

func TestStreamsOfAClientAreBoundedUntilTheyEnd(t *testing.T) {
	for name, end := range map[string]func(s *tap, a *answer){
		"whole":           func(s *tap, _ *answer) { close(s.pieces) },
		"broken":          func(s *tap, _ *answer) { s.broken = errors.New("broken"); close(s.pieces) },
		"the client left": func(_ *tap, a *answer) { a.leave() },
		"the write fails": func(s *tap, a *answer) { s.Interrupt(errors.New("a write failed")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var last *tap
				f := streaming(t, func(o *Options) { o.MaxStreams = 2 }, func(*jsonrpc.Call) jsonrpc.Stream { last = newTap(t); return last })
				var held [2]*tap
				var to [2]*answer
				for i := range held {
					to[i] = f.ask(i)
					synctest.Wait()
					held[i] = last
				}
				for round := range 3 {
					for range 3 { // those that are refused take no place
						a := f.ask(5)
						synctest.Wait()
						a.refused(t, 5, last)
					}
					if n := f.underWay(); n != 2 {
						t.Fatalf("round %d: %d streams under way", round, n)
					}
					i := round % 2
					end(held[i], to[i])
					<-to[i].done
					if synctest.Wait(); !held[i].closed.Load() || f.underWay() != 1 {
						t.Fatalf("round %d: closed %v, %d under way", round, held[i].closed.Load(), f.underWay())
					}
					to[i] = f.ask(6)
					synctest.Wait()
					if held[i] = last; f.underWay() != 2 || held[i].closed.Load() {
						t.Fatalf("round %d: no room again", round)
					}
				}
				for i := range held {
					end(held[i], to[i])
					<-to[i].done
				}
				if len(f.streams.to) != 0 {
					t.Errorf("clients without streams are kept: %v", f.streams.to)
				}
			})
		})
	}
}

// The client sees an error of the gateway's own: it must not count as a result of
// the backend.
func TestRefusedStreamIsCountedAsWhatTheClientSaw(t *testing.T) {
	s := newTap(t)
	f := streaming(t, func(o *Options) { o.MaxStreams = 1 }, func(*jsonrpc.Call) jsonrpc.Stream { return s })
	f.streams.to = map[string]int{"192.0.2.1": 1} // another answer is under way
	a := f.ask(1)
	a.refused(t, 1, s)
	if got := f.metrics(); !strings.Contains(got, `proxyd_rpc_calls_total{backend_name="proxyd",method_name="eth_call",status_code="429",transport="http"} 1`) ||
		strings.Contains(got, `backend_name="b1"`) {
		for line := range strings.Lines(got) {
			if strings.HasPrefix(line, "proxyd_rpc_calls_total{") || strings.HasPrefix(line, "proxyd_http_response_codes_total{") {
				t.Errorf("counted as %s", line)
			}
		}
	}
	if !strings.Contains(f.log.String(), `"msg":"call failed"`) {
		t.Error("the log says nothing of it")
	}
}

func TestStreamsAreCountedByClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var last *tap
		var all []*answer
		f := streaming(t, func(o *Options) { o.MaxStreams, o.APIKeys = 1, []string{"secret"} }, func(*jsonrpc.Call) jsonrpc.Stream {
			last = newTap(t)
			return last
		})
		for _, row := range []struct {
			headers string
			refused bool
		}{
			{"X-Forwarded-For 1.2.3.4", false},
			{"X-Forwarded-For 1.2.3.4", true},
			{"X-Forwarded-For 1.2.3.5", false},
			{"X-Forwarded-For 2001:db8:1:2::1", false},
			{"X-Forwarded-For 2001:db8:1:2::1", true},
			{"X-Forwarded-For 2001:db8:1:2:ffff:ffff:ffff:ffff", true},
			{"X-Forwarded-For 2001:db8:1:3::1", false},
			{"X-Forwarded-For ::ffff:1.2.3.4", true},
			{"", false}, // the connection's own address
			{"", true},
			{"X-Forwarded-For 1.2.3.4 X-Api-Key secret", false},
			{"X-Forwarded-For 1.2.3.4 X-Api-Key secret", false},
			{"X-Forwarded-For 1.2.3.4 X-Api-Key wrong", true},
			{"X-Forwarded-For 7.7.7.7 X-Api-Key secret", false},
		} {
			a := f.ask(1, strings.Fields(row.headers)...)
			all = append(all, a)
			if synctest.Wait(); row.refused {
				a.refused(t, 1, last)
			} else if last.closed.Load() || last.reads.Load() != 1 {
				t.Errorf("%s: closed %v, read %d times", row.headers, last.closed.Load(), last.reads.Load())
			}
		}
		for _, a := range all {
			a.leave()
			<-a.done
		}
		if len(f.streams.to) != 0 {
			t.Errorf("left: %v", f.streams.to)
		}
	})
}

func TestZeroIsAnyNumberOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := streaming(t, nil, func(*jsonrpc.Call) jsonrpc.Stream { return newTap(t) })
		var all []*answer
		for i := range 500 {
			all = append(all, f.ask(i))
		}
		if synctest.Wait(); f.underWay() != 500 {
			t.Errorf("%d of 500 are under way", f.underWay())
		}
		for _, a := range all {
			a.leave()
			<-a.done
		}
	})
}

func TestBoundOfStreamsHoldsWhenManyBeginAndEndAtOnce(t *testing.T) {
	s := streams{most: 3}
	client := &jsonrpc.Client{Key: "k"}
	var now, refused atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 500 {
				if !s.enter(client) {
					refused.Add(1)
					continue
				}
				if n := now.Add(1); n > 3 {
					t.Errorf("%d at once", n)
				}
				now.Add(-1)
				s.leave(client)
			}
		})
	}
	wg.Wait()
	if len(s.to) != 0 {
		t.Errorf("left: %v", s.to)
	}
}
