package backend

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/jsonrpc"
)

// stage is a backend in a bubble, over connections in memory whose other side the
// test plays.
type stage struct {
	*Backend
	t *testing.T
	// play answers a request; it may wait. Nil answers with "0x1".
	play func(w *wire, request []byte) (keep bool)

	mu    sync.Mutex
	wires []*wire
}

// wire is the gateway's end of a connection. It notes who used it.
type wire struct {
	net.Conn
	far net.Conn

	mu       sync.Mutex
	by       map[string]bool // goroutines that read or wrote
	requests [][]byte        // that came to the other end
	closed   bool
	hold     chan struct{} // writes wait for it, unless it is nil
}

// goroutine is the number of the calling goroutine.
func goroutine() string {
	var b [64]byte
	text := string(b[:runtime.Stack(b[:], false)])
	return strings.Fields(text)[1]
}

func (w *wire) note() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil {
		w.by = map[string]bool{}
	}
	w.by[goroutine()] = true
}

func (w *wire) Read(p []byte) (int, error) { w.note(); return w.Conn.Read(p) }

func (w *wire) Write(p []byte) (int, error) {
	w.note()
	if w.hold != nil {
		<-w.hold
	}
	return w.Conn.Write(p)
}

func (w *wire) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	return w.Conn.Close()
}

func (w *wire) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// users are the goroutines that used the wire since the last time.
func (w *wire) users() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	by := w.by
	w.by = nil
	return by
}

// onStage runs a test with a backend whose connections are wires.
func onStage(t *testing.T, change func(*Options), test func(t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{t: t}
		s.Backend = newBackend(t, "http://node.memory", func(o *Options) {
			o.Dial = s.dial
			if change != nil {
				change(o)
			}
		})
		test(t, s)
	})
}

func (s *stage) dial(context.Context, string, string) (net.Conn, error) {
	w := new(wire)
	w.Conn, w.far = net.Pipe()
	s.mu.Lock()
	s.wires = append(s.wires, w)
	s.mu.Unlock()
	go func() {
		defer w.far.Close()
		for {
			request := readRequest(w.far)
			if len(request) == 0 {
				return
			}
			w.mu.Lock()
			w.requests = append(w.requests, request)
			w.mu.Unlock()
			if s.play == nil {
				reply1(w.far, request, "")
			} else if !s.play(w, request) {
				return
			}
		}
	}()
	return w, nil
}

// warm makes n idle connections.
func (s *stage) warm(n int) {
	s.t.Helper()
	play := s.play
	turn := make(chan struct{})
	s.play = func(w *wire, request []byte) bool { <-turn; reply1(w.far, request, ""); return true }
	done := make(chan *Attempt, n)
	for range n {
		s.Begin(callsOf(blockNumber()), Try{Timeout: time.Minute}, done)
		synctest.Wait() // each takes a connection of its own
	}
	close(turn)
	for range n {
		a := <-done
		result(s.t, a.Results[0], `"0x1"`)
		a.Settle(false)
	}
	time.Sleep(time.Millisecond) // what comes now is later than what was heard
	s.play = play
	if len(s.wires) != n || s.idle() != n {
		s.t.Fatalf("%d connections, %d idle, want %d", len(s.wires), s.idle(), n)
	}
	for _, w := range s.wires {
		w.users()
		w.requests = nil
	}
}

func (s *stage) idle() int {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	return len(s.pool.idle)
}

// requests are how many came over all wires.
func (s *stage) requests() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.wires {
		w.mu.Lock()
		n += len(w.requests)
		w.mu.Unlock()
	}
	return n
}

// goes lets an attempt that has not ended go on, and waits for its end.
func goes(t *testing.T, a *Attempt) []Result {
	t.Helper()
	done := make(chan *Attempt, 1)
	a.Go(done)
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the attempt did not end")
	}
	a.Settle(false)
	return a.Results
}

var anHour = Try{Timeout: time.Hour}

// silent says nothing as long as there is a connection.
func silent(w *wire, _ []byte) bool {
	_, _ = io.Copy(io.Discard, w.far)
	return false
}

// silence is a play that says nothing until it is told to answer.
func silence() (play func(*wire, []byte) bool, speak func()) {
	spoken := make(chan struct{})
	return func(w *wire, request []byte) bool {
		<-spoken
		reply1(w.far, request, "")
		return true
	}, func() { close(spoken) }
}

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

// sameConnection checks that one request was written on one connection.
func (s *stage) sameConnection(conns int) {
	s.t.Helper()
	if s.requests() != conns || len(s.wires) != conns {
		s.t.Errorf("%d requests on %d connections, want %d", s.requests(), len(s.wires), conns)
	}
}

func TestSilenceLetsTheCallerGoAndLosesNothing(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.used(10 * time.Millisecond)
		s.warm(3)
		var speak func()
		s.play, speak = silence()
		var attempts [3]*Attempt
		var wg sync.WaitGroup
		begun := time.Now()
		for i := range attempts {
			wg.Go(func() {
				a, ended := s.Ask(t.Context(), callsOf(call("eth_call", "[]")), Try{Timeout: time.Hour, Watched: true})
				if took := time.Since(begun); ended || took < leastOverdue || took > leastOverdue+2*watchEvery {
					t.Errorf("ended %v after %v", ended, took)
				}
				attempts[i] = a
			})
		}
		wg.Wait()
		state(t, s.Backend, Suspect)
		for _, a := range attempts {
			select {
			case <-a.Suspected():
			default:
				t.Error("it was not told")
			}
		}
		done := make(chan *Attempt, 3)
		for _, a := range attempts {
			a.Go(done)
		}
		time.Sleep(4 * time.Second) // the time is the response timeout's, as before
		if len(done) != 0 {
			t.Errorf("%d ended before the answer came", len(done))
		}
		speak()
		for range attempts {
			a := <-done
			result(t, a.Results[0], `"0x1"`)
			a.Settle(false)
		}
		s.sameConnection(3)
		if state(t, s.Backend, Well); s.idle() != 3 {
			t.Errorf("%d connections are idle", s.idle())
		}
	})
}

func TestTrialLetsItsCallerGoAsSoonAsItIsOverdue(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.warm(1)
		var speak func()
		s.play, speak = silence()
		begun := time.Now()
		a, ended := s.Ask(t.Context(), callsOf(blockNumber()), Try{Timeout: time.Hour, Watched: true, Trial: true})
		if took := time.Since(begun); ended || took > time.Second+2*watchEvery {
			t.Errorf("ended %v after %v", ended, took)
		}
		time.AfterFunc(time.Second, speak)
		result(t, goes(t, a)[0], `"0x1"`)
		s.sameConnection(1)
	})
}

func TestUnwatchedAttemptIsNotLetGoForSilence(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.used(10 * time.Millisecond)
		s.warm(4)
		var speak func()
		s.play, speak = silence()
		time.AfterFunc(4*time.Second, speak)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				a, ended := s.Ask(t.Context(), callsOf(call("eth_call", "[]")), anHour)
				if !ended {
					t.Error("it was let go")
					goes(t, a)
				}
				a.Settle(false)
			})
		}
		wg.Wait()
	})
}

func TestCallerWhoseCallIsOverIsLetGoAtTheNextLook(t *testing.T) {
	for _, abandoned := range []bool{false, true} {
		onStage(t, nil, func(t *testing.T, s *stage) {
			s.warm(1)
			w := s.wires[0]
			var speak func()
			s.play, speak = silence()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			begun := time.Now()
			time.AfterFunc(10*time.Millisecond, cancel)
			a, ended := s.Ask(ctx, callsOf(blockNumber()), anHour)
			if took := time.Since(begun); ended || took < 10*time.Millisecond || took > 10*time.Millisecond+watchEvery {
				t.Errorf("ended %v after %v", ended, took)
			}
			done := make(chan *Attempt, 1)
			if a.Go(done); abandoned {
				a.Abandon()
				<-done
				if failure(t, a.Results[0], Canceled, "another attempt was quicker"); time.Since(begun) > 10*time.Millisecond+watchEvery || !w.isClosed() {
					t.Errorf("ended after %v, the connection is closed: %v", time.Since(begun), w.isClosed())
				}
				speak()
				return
			}
			time.Sleep(time.Second)
			speak() // whoever takes it up has the answer all the same
			<-done
			result(t, a.Results[0], `"0x1"`)
			a.Settle(false)
			s.sameConnection(1)
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

func TestWithoutASlotTheAttemptWaitsOutsideOfAsk(t *testing.T) {
	slots := func(n int) func(*Options) {
		return func(o *Options) { o.Slots = NewSlots(n, 2*time.Second) }
	}
	onStage(t, slots(1), func(t *testing.T, s *stage) {
		s.warm(1)
		s.opts.Slots.free <- struct{}{} // another attempt's
		begun := time.Now()
		a, ended := s.Ask(t.Context(), callsOf(blockNumber()), anHour)
		if ended || time.Since(begun) != 0 {
			t.Fatalf("ended %v after %v", ended, time.Since(begun))
		}
		failure(t, goes(t, a)[0], Overloaded, ErrOverloaded.Error())
		if took := time.Since(begun); took != 2*time.Second || s.requests() != 0 || s.idle() != 1 {
			t.Errorf("refused after %v, %d requests", took, s.requests())
		}
	})
	onStage(t, slots(1), func(t *testing.T, s *stage) {
		s.warm(1)
		s.opts.Slots.free <- struct{}{}
		a, _ := s.Ask(t.Context(), callsOf(blockNumber()), anHour)
		time.AfterFunc(time.Second, s.opts.Slots.release)
		result(t, goes(t, a)[0], `"0x1"`)
		if len(s.opts.Slots.free) != 0 || s.requests() != 1 {
			t.Errorf("%d slots are held, %d requests", len(s.opts.Slots.free), s.requests())
		}
	})
}

func TestSlotIsGivenBackHoweverAnAttemptEnds(t *testing.T) {
	large := `"` + strings.Repeat("a", 2*streamFrom) + `"`
	say := func(text string) func(*wire, []byte) bool {
		return func(w *wire, request []byte) bool {
			body := fill(text, idIn(request))
			_, err := fmt.Fprintf(w.far, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			return err == nil
		}
	}
	status := func(code string) func(*wire, []byte) bool {
		return func(w *wire, _ []byte) bool {
			_, err := io.WriteString(w.far, "HTTP/1.1 "+code+"\r\nContent-Length: 0\r\n\r\n")
			return err == nil
		}
	}
	for name, c := range map[string]struct {
		play func(*wire, []byte) bool
		ask  func(t *testing.T, s *stage) // nil asks and waits
	}{
		"result":                {play: nil},
		"error":                 {play: say(`{"id":$0,"error":{"code":3,"message":"reverted"}}`)},
		"garbage":               {play: say(`garbage`)},
		"status":                {play: status("503 Unavailable")},
		"no HTTP":               {play: func(w *wire, _ []byte) bool { _, _ = io.WriteString(w.far, "hello\r\n\r\n"); return false }},
		"cut":                   {play: func(*wire, []byte) bool { return false }},
		"too large":             {play: say(`{"id":$0,"result":` + large + `}`)},
		"silence until the end": {play: silent},
		"panic":                 {play: say(`{"id":$0,"error":{"code":3,"message":"reverted"}}`), ask: func(t *testing.T, s *stage) { s.opts.Classify = nil; s.askOnce(t, nil) }},
		"stream, read":          {play: say(`{"id":$0,"result":` + large + `}`), ask: func(t *testing.T, s *stage) { s.askOnce(t, func(st jsonrpc.Stream) { drain(st); st.Close() }) }},
		"stream, unread":        {play: say(`{"id":$0,"result":` + large + `}`), ask: func(t *testing.T, s *stage) { s.askOnce(t, func(st jsonrpc.Stream) { st.Close() }) }},
		"caller gone": {play: silent, ask: func(t *testing.T, s *stage) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			a, ended := s.Ask(ctx, callsOf(blockNumber()), anHour)
			if ended {
				t.Error("ended")
			}
			done := make(chan *Attempt, 1)
			a.Go(done)
			a.Abandon()
			<-done
		}},
		"backend closed before": {play: silent, ask: func(t *testing.T, s *stage) {
			s.Close()
			if a, ended := s.Ask(t.Context(), callsOf(blockNumber()), anHour); !ended || a.Results[0].Err == nil {
				t.Errorf("ended %v, %+v", ended, a.Results[0])
			}
		}},
		"backend closed within": {play: silent, ask: func(t *testing.T, s *stage) {
			go func() { time.Sleep(time.Second); s.Close() }()
			s.askOnce(t, nil)
		}},
	} {
		for _, warm := range []int{0, 1} {
			t.Run(fmt.Sprint(name, ", ", warm, " idle"), func(t *testing.T) {
				onStage(t, func(o *Options) {
					o.Slots = NewSlots(1, time.Second)
					if name == "too large" {
						o.MaxResponseSize = streamFrom
					}
				}, func(t *testing.T, s *stage) {
					if warm > 0 {
						s.warm(warm)
					}
					s.play = c.play
					if c.ask == nil {
						s.askOnce(t, nil)
					} else {
						c.ask(t, s)
					}
					if synctest.Wait(); len(s.opts.Slots.free) != 0 || s.flights.len() != 0 {
						t.Errorf("%d slots are held, %d attempts in flight", len(s.opts.Slots.free), s.flights.len())
					}
				})
			})
		}
	}
}

// askOnce asks for one call, whose stream, if it comes as one, goes to read.
func (s *stage) askOnce(t *testing.T, read func(jsonrpc.Stream)) {
	t.Helper()
	c := blockNumber()
	c.MayStream = read != nil
	a, ended := s.Ask(t.Context(), callsOf(c), anHour)
	if !ended {
		done := make(chan *Attempt, 1)
		a.Go(done)
		<-done
	}
	if r := a.Results[0]; r.Answer != nil && r.Answer.Stream != nil {
		a.Keep()
		read(r.Answer.Stream)
	} else if read != nil {
		t.Errorf("no stream: %+v", r)
	}
	a.Settle(false)
}

// bin takes what a stream writes.
type bin struct{ bytes.Buffer }

func (*bin) Kernel() io.ReaderFrom { return nil }
func (*bin) Renew() time.Time      { return time.Time{} }

// drain reads a stream to its end.
func drain(s jsonrpc.Stream) (string, error) {
	var to bin
	for {
		if _, err := s.Next(&to); err != nil {
			return to.String(), err
		}
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

// The caller is let go while the first byte comes: nothing may be lost, written
// twice or given to another call.
func TestBeingLetGoNeverLosesAnAnswer(t *testing.T) {
	var conns, asked atomic.Int64
	url := rawServer(t, func(c net.Conn) {
		conns.Add(1)
		buf := make([]byte, 4<<10)
		for {
			n, err := c.Read(buf) // each request is written at once
			if err != nil {
				return
			}
			asked.Add(1)
			_, params, _ := bytes.Cut(buf[:n], []byte(`"params":[`))
			params, _, _ = bytes.Cut(params, []byte("]"))
			for range rand.IntN(3) {
				runtime.Gosched()
			}
			body := fmt.Sprintf(`{"id":%d,"result":%s}`, idIn(buf[:n]), params)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	})
	b := newBackend(t, url, nil)
	result(t, ask(t, b, call("eth_call", "[0]"))[0], "0")
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // as watch does, but all the time
		for {
			select {
			case <-over:
				return
			default:
			}
			time.Sleep(time.Duration(rand.IntN(60)) * time.Microsecond) // about what a call takes
			b.flights.mu.Lock()
			for x := b.flights.first; x != nil; x = x.next {
				if x.waiter != nil {
					x.waiter.letGo()
				}
			}
			b.flights.mu.Unlock()
		}
	})
	const calls = 2000
	here := 0
	done := make(chan *Attempt, 1)
	for i := range calls {
		a, ended := b.Ask(t.Context(), callsOf(call("eth_call", fmt.Sprintf("[%d]", i))), anHour)
		if ended {
			here++
		} else {
			a.Go(done)
			<-done
		}
		result(t, a.Results[0], fmt.Sprint(i))
		a.Settle(false)
	}
	close(over)
	wg.Wait()
	if t.Logf("%d of %d ended in the caller's goroutine", here, calls); here == 0 || here == calls {
		t.Error("nobody was let go, or all were")
	}
	if asked.Load() != calls+1 || conns.Load() != 1 {
		t.Errorf("%d requests for %d calls, on %d connections", asked.Load(), calls+1, conns.Load())
	}
}

func TestBeingLetGoLosesNothingOverTLS(t *testing.T) {
	release, asked := make(chan struct{}), make(chan struct{}, 10)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := firstID(r)
		if asked <- struct{}{}; id > 1 {
			<-release
		}
		fmt.Fprintf(w, `{"id":%d,"result":"0x%d"}`, id, id)
	}))
	t.Cleanup(s.Close)
	b := newBackend(t, s.URL, func(o *Options) {
		o.TLS = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		o.TLS.RootCAs = x509.NewCertPool()
		o.TLS.RootCAs.AddCert(s.Certificate())
	})
	result(t, ask(t, b, blockNumber())[0], `"0x1"`)
	for id := 2; id < 5; id++ { // the connection is as good as before
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		a, ended := b.Ask(ctx, callsOf(blockNumber()), anHour)
		if ended {
			t.Fatal("ended without an answer")
		}
		done := make(chan *Attempt, 1)
		a.Go(done)
		release <- struct{}{}
		<-done
		result(t, a.Results[0], fmt.Sprintf(`"0x%d"`, id))
		a.Settle(false)
	}
	if n := len(asked); n != 4 {
		t.Errorf("%d requests came, want 4", n)
	}
}

// aStream answers with a result that streams.
func aStream(w *wire, request []byte) bool {
	body := fill(`{"id":$0,"result":"`+strings.Repeat("a", 4*streamFrom)+`"}`, idIn(request))
	_, err := fmt.Fprintf(w.far, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return err == nil
}

// streamed asks for a call that streams.
func (s *stage) streamed(t *testing.T) (*Attempt, jsonrpc.Stream) {
	t.Helper()
	s.play = aStream
	c := blockNumber()
	c.MayStream = true
	a, ended := s.Ask(t.Context(), callsOf(c), anHour)
	if !ended {
		goesUnsettled(a)
	}
	if r := a.Results[0]; r.Answer == nil || r.Answer.Stream == nil {
		t.Fatalf("no stream: %+v", r)
	}
	return a, a.Results[0].Answer.Stream
}

func goesUnsettled(a *Attempt) {
	done := make(chan *Attempt, 1)
	a.Go(done)
	<-done
}

func TestStreamKeepsItsConnectionUntilItIsOver(t *testing.T) {
	for _, warm := range []int{0, 1} {
		onStage(t, nil, func(t *testing.T, s *stage) {
			if warm > 0 {
				s.warm(1)
			}
			a, st := s.streamed(t)
			a.Keep()
			a.Settle(false)
			if s.flights.len() != 1 || !s.flights.none() || s.idle() != 0 || s.wires[0].isClosed() {
				t.Errorf("in flight %d, answers owed: %v, idle %d, closed %v", s.flights.len(), !s.flights.none(), s.idle(), s.wires[0].isClosed())
			}
			text, err := drain(st)
			if err != io.EOF || len(text) != 4*streamFrom+2 {
				t.Errorf("%d bytes, %v", len(text), err)
			}
			if n, err := st.Next(new(bin)); n != 0 || err != io.EOF {
				t.Errorf("behind the end: %d bytes, %v", n, err)
			}
			st.Close()
			st.Close()
			if s.flights.len() != 0 || s.idle() != 1 || s.wires[0].isClosed() {
				t.Errorf("behind the end: in flight %d, idle %d, closed %v", s.flights.len(), s.idle(), s.wires[0].isClosed())
			}
		})
	}
}

func TestStreamThatNobodyKeepsIsClosedAndItsConnectionToo(t *testing.T) {
	for name, drop := range map[string]func(a *Attempt, st jsonrpc.Stream){
		"settled":               func(a *Attempt, _ jsonrpc.Stream) { a.Settle(false); a.Settle(false) },
		"settled with blame":    func(a *Attempt, _ jsonrpc.Stream) { a.Settle(true) },
		"kept, and closed":      func(a *Attempt, st jsonrpc.Stream) { a.Keep(); a.Settle(false); st.Close() },
		"kept, closed, settled": func(a *Attempt, st jsonrpc.Stream) { a.Keep(); st.Close(); a.Settle(false) },
		"read in part": func(a *Attempt, st jsonrpc.Stream) {
			a.Keep()
			a.Settle(false)
			_, _ = st.Next(new(bin))
			st.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, nil, func(t *testing.T, s *stage) {
				s.warm(1)
				a, st := s.streamed(t)
				drop(a, st)
				if s.flights.len() != 0 || s.idle() != 0 || !s.wires[0].isClosed() {
					t.Errorf("in flight %d, idle %d, closed %v", s.flights.len(), s.idle(), s.wires[0].isClosed())
				}
				state(t, s.Backend, Well)
			})
		})
	}
}

func TestCloseEndsAStreamAndWaitsForItsReader(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.warm(1)
		a, st := s.streamed(t)
		s.play = nil
		a.Keep()
		a.Settle(false)
		if _, err := st.Next(new(bin)); err != nil {
			t.Fatal(err)
		}
		closed := make(chan struct{})
		go func() { defer close(closed); s.Close() }()
		synctest.Wait()
		_, err := drain(st)
		var e *Error
		if !errors.As(err, &e) || e.Kind != Canceled {
			t.Errorf("the reader sees %v", err)
		}
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close did not wait for the reader")
		default:
		}
		st.Close()
		<-closed
		if !s.wires[0].isClosed() || s.flights.len() != 0 {
			t.Errorf("closed %v, in flight %d", s.wires[0].isClosed(), s.flights.len())
		}
	})
}

func TestInterruptEndsAWaitForMoreOfAStream(t *testing.T) {
	reg := prometheus.NewRegistry()
	onStage(t, func(o *Options) { o.Metrics = NewMetrics(reg) }, func(t *testing.T, s *stage) {
		s.warm(1)
		a, st := s.streamed(t)
		a.Keep()
		a.Settle(false)
		cause := errors.New("the client left")
		time.AfterFunc(time.Second, func() { st.Interrupt(cause) })
		begun := time.Now()
		_, err := drain(slowly{st})
		if !errors.Is(err, cause) || time.Since(begun) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		st.Close()
		st.Interrupt(cause) // may come late
		if state(t, s.Backend, Well); s.Trouble().InRow != 0 {
			t.Errorf("the backend is blamed: %+v", s.Trouble())
		}
		const left = `proxyd_streamed_answers_total{backend_name="b",end="client_left"} 1` + "\n"
		if got := shownLines(reg, "proxyd_streamed_answers_total", "proxyd_rpc_errors_total", "proxyd_provider_errors_total"); got != left {
			t.Errorf("counted as\n%s", got)
		}
	})
}

// slowly waits after each piece, so that a stream is not over at once.
type slowly struct{ jsonrpc.Stream }

func (s slowly) Next(w jsonrpc.Sink) (int64, error) {
	time.Sleep(400 * time.Millisecond)
	return s.Stream.Next(w)
}
