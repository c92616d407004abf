package backend

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

func TestAnswerOnAnIdleConnectionIsMadeInTheCallersGoroutine(t *testing.T) {
	for name, calls := range map[string][]*jsonrpc.Call{
		"read":  {blockNumber()},
		"send":  {call("eth_sendRawTransaction", sendParams)},
		"other": {call("eth_sendTransaction", sendParams)},
		"batch": {blockNumber(), blockNumber(), blockNumber()},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, nil, func(t *testing.T, s *stage) {
				s.warm(1)
				w := s.wires[0]
				before, during := runtime.NumGoroutine(), 0
				s.play = func(w *wire, request []byte) bool {
					during = runtime.NumGoroutine()
					if len(calls) > 1 {
						body := fill(`[{"id":$0,"result":"0x1"},{"id":$2,"result":"0x1"},{"id":$1,"result":"0x1"}]`, idIn(request))
						fmt.Fprintf(w.far, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
					} else {
						reply1(w.far, request, "")
					}
					return true
				}
				for range 3 {
					a, ended := s.Ask(t.Context(), calls, anHour)
					if !ended {
						t.Fatal("not ended")
					}
					for _, r := range a.Results {
						result(t, r, `"0x1"`)
					}
					a.Settle(false)
					if by := w.users(); len(by) != 1 || !by[goroutine()] {
						t.Errorf("goroutine %s asked, the connection was used by %v", goroutine(), by)
					}
					if during != before {
						t.Errorf("%d goroutines while it asked, %d before", during, before)
					}
				}
				if s.requests() != 3 || len(s.wires) != 1 || s.idle() != 1 || s.flights.len() != 0 {
					t.Errorf("%d requests, %d connections, %d idle, %d in flight", s.requests(), len(s.wires), s.idle(), s.flights.len())
				}
			})
		})
	}
}

func TestWithoutAnIdleConnectionNothingIsAskedBeforeGo(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		a, ended := s.Ask(t.Context(), callsOf(blockNumber()), anHour)
		if synctest.Wait(); ended || len(s.wires) != 0 {
			t.Fatalf("ended %v, %d connections", ended, len(s.wires))
		}
		result(t, goes(t, a)[0], `"0x1"`)
		if w := s.wires[0]; w.users()[goroutine()] || s.requests() != 1 || s.idle() != 1 {
			t.Errorf("%d requests, %d idle", s.requests(), s.idle())
		}
	})
}

// An answer's head is waited for as a whole, however it comes.
func TestAnswerIsTheSameHoweverItsHeadComes(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 24\r\n"
	for name, said := range map[string][]string{
		"at once":                 {head + "\r\n" + `{"id":2,"result":"0x1"}` + "\n"},
		"apart from its body":     {head + "\r\n", `{"id":2,"result":"0x1"}` + "\n"},
		"cut in its end":          {head + "\r", "\n" + `{"id":2,"result":"0x1"}` + "\n"},
		"byte by byte":            strings.SplitAfter(head+"\r\n"+`{"id":2,"result":"0x1"}`+"\n", ""),
		"larger than any buffer":  {head, "X-A: " + strings.Repeat("a", 20<<10), "\r\n\r\n" + `{"id":2,"result":"0x1"}` + "\n"},
		"behind an interim one":   {"HTTP/1.1 100 Continue\r\n\r\n", head + "\r\n" + `{"id":2,"result":"0x1"}` + "\n"},
		"with an interim one":     {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + head + "\r\n" + `{"id":2,"result":"0x1"}` + "\n"},
		"an interim one in parts": strings.SplitAfter("HTTP/1.1 100 Continue\r\n\r\n"+head+"\r\n"+`{"id":2,"result":"0x1"}`+"\n", ""),
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, nil, func(t *testing.T, s *stage) {
				s.warm(1)
				s.play = func(w *wire, request []byte) bool {
					for _, piece := range said {
						time.Sleep(5 * time.Millisecond)
						if _, err := io.WriteString(w.far, piece); err != nil {
							return false
						}
					}
					return true
				}
				begun := time.Now()
				a, ended := s.Ask(t.Context(), callsOf(blockNumber()), anHour)
				if ended == strings.Contains(name, "interim") { // behind which there is more to wait for
					t.Errorf("ended %v", ended)
				}
				if !ended {
					goes(t, a)
				}
				result(t, a.Results[0], `"0x1"`)
				if took, want := time.Since(begun), time.Duration(len(said))*5*time.Millisecond; took != want {
					t.Errorf("answered after %v, all was said after %v", took, want)
				}
				a.Settle(false)
				s.sameConnection(1)
			})
		})
	}
}

// What becomes of an attempt on a connection that the other side gives up.
func TestIdleConnectionThatDiedIsReplacedWhereNothingCanHaveRun(t *testing.T) {
	read, send := blockNumber(), call("eth_sendRawTransaction", sendParams)
	for _, row := range []struct {
		name     string
		c        *jsonrpc.Call
		die      func(w *wire)
		repeated bool
	}{
		{"closed while it lay idle, read", read, func(w *wire) { _ = w.far.Close() }, true},
		{"closed while it lay idle, send", send, func(w *wire) { _ = w.far.Close() }, true},
		{"closed within the request, read", read, nil, true},
		{"closed within the request, send", send, nil, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			onStage(t, nil, func(t *testing.T, s *stage) {
				s.warm(1)
				old := s.wires[0]
				if row.die != nil {
					row.die(old)
				}
				s.play = func(w *wire, request []byte) bool {
					if w == old {
						return false
					}
					reply1(w.far, request, "")
					return true
				}
				a, ended := s.Ask(t.Context(), callsOf(row.c), anHour)
				if ended {
					t.Fatalf("ended with %+v", a.Results[0])
				}
				results := goes(t, a)
				if row.repeated {
					result(t, results[0], `"0x1"`)
				} else if e := failure(t, results[0], Network, ""); !e.Wrote {
					t.Error("the request was written")
				}
				if conns := map[bool]int{true: 2, false: 1}[row.repeated]; len(s.wires) != conns || !old.isClosed() {
					t.Errorf("%d connections, the old one closed: %v", len(s.wires), old.isClosed())
				}
			})
		})
	}
}

func TestReadIsRepeatedOnceWhenAnIdleTCPConnectionDies(t *testing.T) {
	var asked atomic.Int64
	b := newBackend(t, dyingAfter(t, 1, &asked), nil)
	result(t, ask(t, b, blockNumber())[0], `"0x1"`)
	a, ended := b.Ask(t.Context(), callsOf(blockNumber()), anHour)
	if ended {
		t.Fatal("ended on a dead connection")
	}
	if result(t, goes(t, a)[0], `"0x1"`); asked.Load() != 3 {
		t.Errorf("%d requests came, want 3", asked.Load())
	}
}

func TestCloseEndsTheWaitOfAskAtOnce(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.warm(1)
		var speak func()
		s.play, speak = silence()
		closed := make(chan time.Time, 1)
		begun := time.Now()
		go func() {
			time.Sleep(10 * time.Millisecond)
			s.Close()
			closed <- time.Now()
		}()
		a, ended := s.Ask(t.Context(), callsOf(blockNumber()), anHour)
		if took := time.Since(begun); ended || took != 10*time.Millisecond {
			t.Errorf("ended %v after %v", ended, took)
		}
		if synctest.Wait(); len(closed) != 0 {
			t.Error("Close did not wait for the attempt")
		}
		failure(t, goes(t, a)[0], Canceled, errClosed.Error())
		if at := <-closed; at.Sub(begun) != 10*time.Millisecond || !s.wires[0].isClosed() {
			t.Errorf("closed after %v", at.Sub(begun))
		}
		speak()
		a, ended = s.Ask(t.Context(), callsOf(blockNumber()), anHour)
		if failure(t, a.Results[0], Canceled, errClosed.Error()); !ended || len(s.wires) != 1 {
			t.Errorf("asked a closed backend: ended %v, %d connections", ended, len(s.wires))
		}
	})
}

// Close waits for attempts under way before it closes idle connections.
func TestAskWhileABackendClosesTakesNoConnectionAway(t *testing.T) {
	onStage(t, func(o *Options) { o.Slots = NewSlots(3, time.Second) }, func(t *testing.T, s *stage) {
		s.warm(2)
		a, st := s.streamed(t)
		a.Keep()
		a.Settle(false)
		closed := make(chan struct{})
		go func() { defer close(closed); s.Close() }()
		synctest.Wait()
		if s.idle() != 1 {
			t.Fatalf("%d connections are idle", s.idle())
		}
		late, ended := s.Ask(t.Context(), callsOf(blockNumber()), anHour)
		failure(t, late.Results[0], Canceled, errClosed.Error())
		st.Close()
		<-closed
		for i, w := range s.wires {
			if !w.isClosed() {
				t.Errorf("connection %d is open", i)
			}
		}
		if !ended || len(s.opts.Slots.free) != 0 || s.requests() != 1 {
			t.Errorf("ended %v, %d slots are held, %d requests", ended, len(s.opts.Slots.free), s.requests())
		}
	})
}

func TestResponseTimeoutIsExactInAsk(t *testing.T) {
	line := func(w *wire, _ []byte) bool {
		_, _ = io.WriteString(w.far, "HTTP/1.1 200 OK\r\n")
		return silent(w, nil)
	}
	head := func(w *wire, _ []byte) bool {
		_, _ = io.WriteString(w.far, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
		return silent(w, nil)
	}
	for name, c := range map[string]struct {
		play    func(*wire, []byte) bool
		timeout time.Duration
		took    time.Duration
		whole   bool
	}{
		"silence, the backend's time":            {silent, time.Hour, 5 * time.Second, true},
		"silence, the call's time":               {silent, 3 * time.Second, 3 * time.Second, false},
		"a first line and no more":               {line, time.Hour, 5 * time.Second, true},
		"a head and no more":                     {head, time.Hour, 5 * time.Second, true},
		"a head and no more, in the call's time": {head, 3 * time.Second, 3 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, nil, func(t *testing.T, s *stage) {
				s.warm(1)
				s.play = c.play
				begun := time.Now()
				a, ended := s.Ask(t.Context(), callsOf(blockNumber()), Try{Timeout: c.timeout})
				if !ended {
					goes(t, a)
				}
				e := failure(t, a.Results[0], Timeout, "")
				if took := time.Since(begun); took != c.took || e.Whole != c.whole || !e.Wrote || !s.wires[0].isClosed() {
					t.Errorf("took %v, whole %v, wrote %v", took, e.Whole, e.Wrote)
				}
				a.Settle(false)
				s.sameConnection(1)
			})
		})
	}
}

func TestLargeRequestIsNotWrittenInTheCallersGoroutine(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.warm(1)
		w := s.wires[0]
		size := func(c *jsonrpc.Call) int {
			return len(s.appendRequest(nil, c.Client, appendBody(nil, callsOf(c), s.ids.Load()+1)))
		}
		params := func(n int) string { return `["` + strings.Repeat("x", n) + `"]` }
		over := 0
		for n := maxHere - 500; over == 0; n++ {
			if size(call("eth_call", params(n))) == maxHere {
				over = n + 1
			}
		}
		for _, n := range []int{over - 1, over, over + 1, 2 * maxHere, 3 * maxHere} {
			c := call("eth_call", params(n))
			large := size(c) > maxHere
			a, ended := s.Ask(t.Context(), callsOf(c), anHour)
			if ended == large {
				t.Fatalf("%d bytes: ended %v", size(c), ended)
			}
			if large {
				if s.idle() != 1 || len(w.users()) != 0 {
					t.Errorf("%d bytes: the connection was used", size(c))
				}
				goes(t, a)
			}
			result(t, a.Results[0], `"0x1"`)
			if by := w.users(); by[goroutine()] == large {
				t.Errorf("%d bytes: written by %v", size(c), by)
			}
			a.Settle(false)
		}
		if s.requests() != 5 || len(s.wires) != 1 {
			t.Errorf("%d requests on %d connections", s.requests(), len(s.wires))
		}
	})
}

func TestPartsOfABatchHaveItsTimeTogether(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.warm(1)
		s.play = func(w *wire, request []byte) bool {
			if !bytes.Contains(request, []byte(`[{"jsonrpc"`)) {
				return silent(w, nil)
			}
			time.Sleep(2 * time.Second)
			_, err := io.WriteString(w.far, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
			return err == nil
		}
		begun := time.Now()
		a, ended := s.Ask(t.Context(), callsOf(blockNumber(), blockNumber()), Try{Timeout: 3 * time.Second})
		if !ended {
			goes(t, a)
		}
		for _, r := range a.Results {
			failure(t, r, Timeout, "")
		}
		if a.Settle(false); time.Since(begun) != 3*time.Second {
			t.Errorf("ended after %v", time.Since(begun))
		}
	})
}

func TestBatchOverWhatABackendTakesIsNotBegunInAsk(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.warm(1)
		s.batchCap.refused(3) // so that two are the most
		s.play = func(w *wire, request []byte) bool {
			n := bytes.Count(request, []byte(`"method"`))
			if n > 2 {
				t.Errorf("%d calls at once", n)
			}
			body := fill(map[int]string{1: `{"id":$0,"result":"0x1"}`, 2: `[{"id":$0,"result":"0x1"},{"id":$1,"result":"0x1"}]`}[n], idIn(request))
			fmt.Fprintf(w.far, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			return true
		}
		a, ended := s.Ask(t.Context(), callsOf(blockNumber(), blockNumber(), blockNumber()), anHour)
		if ended {
			t.Fatal("a batch was sent that is known to be refused")
		}
		for _, r := range goes(t, a) {
			result(t, r, `"0x1"`)
		}
	})
}
