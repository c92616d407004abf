package backend

import (
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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

// sameConnection checks that one request was written on one connection.
func (s *stage) sameConnection(conns int) {
	s.t.Helper()
	if s.requests() != conns || len(s.wires) != conns {
		s.t.Errorf("%d requests on %d connections, want %d", s.requests(), len(s.wires), conns)
	}
}
