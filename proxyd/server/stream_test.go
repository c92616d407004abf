package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// tap is a stream whose pieces come when a test sends them.
type tap struct {
	t      testing.TB
	atMost int64
	pieces chan string // closed at the end of the result
	broken error       // what comes instead of the end
	panics bool        // instead of anything

	cut   chan struct{}
	once  sync.Once
	cause error

	reading atomic.Bool
	reads   atomic.Int64
	ended   atomic.Bool
	closed  atomic.Bool
}

func newTap(t testing.TB) *tap {
	return &tap{t: t, atMost: -1, pieces: make(chan string, 10), cut: make(chan struct{})}
}

// whole is a tap whose pieces have come already.
func whole(t testing.TB, pieces ...string) *tap {
	s := newTap(t)
	for _, p := range pieces {
		s.pieces <- p
	}
	close(s.pieces)
	return s
}

func (s *tap) AtMost() int64 { return s.atMost }

func (s *tap) Next(w jsonrpc.Sink) (int64, error) {
	s.reads.Add(1)
	if s.reading.Swap(true) || s.ended.Load() || s.closed.Load() {
		s.t.Error("read by two, or behind its end, or when it was closed")
	}
	defer s.reading.Store(false)
	if s.panics {
		panic("boom")
	}
	end := func(err error) (int64, error) { s.ended.Store(true); return 0, err }
	select {
	case <-s.cut:
		return end(s.cause)
	default:
	}
	select {
	case <-s.cut:
		return end(s.cause)
	case piece, ok := <-s.pieces:
		switch {
		case ok:
			w.Renew()
			n, err := io.WriteString(w, piece)
			s.ended.Store(err != nil)
			return int64(n), err
		case s.broken != nil:
			return end(s.broken)
		}
		return end(io.EOF)
	}
}

func (s *tap) Interrupt(cause error) { s.once.Do(func() { s.cause = cause; close(s.cut) }) }

func (s *tap) Close() { s.closed.Store(true) }

// streaming is a front whose calls are answered with what next returns.
func streaming(t testing.TB, change func(*Options), next func(*jsonrpc.Call) jsonrpc.Stream) *front {
	return newFront(t, change, func(_ context.Context, c *jsonrpc.Call) {
		if !c.MayStream {
			t.Error("a lone call may not stream")
		}
		c.Answer = &jsonrpc.Answer{Stream: next(c), Backend: "b1", Group: "main"}
	})
}

// answer is what a client saw of a request that was served directly.
type answer struct {
	*httptest.ResponseRecorder
	leave   context.CancelFunc
	aborted bool // the connection was broken off
	done    chan struct{}
}

// ask serves one call in a goroutine of its own.
func (f *front) ask(id int, headers ...string) *answer {
	a := &answer{ResponseRecorder: httptest.NewRecorder(), done: make(chan struct{})}
	r := httptest.NewRequest("POST", "http://gateway/", strings.NewReader(fmt.Sprintf(`{"jsonrpc":"2.0","method":"eth_call","params":[],"id":%d}`, id)))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	ctx, leave := context.WithCancel(r.Context())
	a.leave = leave
	go func() {
		defer close(a.done)
		defer leave()
		defer func() {
			if v := recover(); v != nil {
				if a.aborted = v == http.ErrAbortHandler; !a.aborted {
					panic(v)
				}
			}
		}()
		f.ServeHTTP(a, r.WithContext(ctx))
	}()
	return a
}

func TestStreamIsWrittenBetweenTheClientsEnvelope(t *testing.T) {
	for name, c := range map[string]struct {
		atMost int64
		length string
		blanks int
	}{
		"size unknown":          {-1, "", 0},
		"size known":            {5, "", 0},
		"a little more is said": {9, "", 4},
	} {
		var s *tap
		f := streaming(t, nil, func(*jsonrpc.Call) jsonrpc.Stream {
			s = whole(t, `["`, `a`, ``, `"]`)
			s.atMost = c.atMost
			return s
		})
		a := f.ask(7)
		<-a.done
		want := `{"jsonrpc":"2.0","result":["a"],"id":7}` + strings.Repeat(" ", c.blanks) + "\n"
		is(t, a.ResponseRecorder, 200, want)
		length := fmt.Sprint(len(want))
		if c.atMost < 0 {
			length = ""
		}
		if got := a.Header().Get("Content-Length"); got != length || a.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: header %v, want length %q", name, a.Header(), length)
		}
		if !s.closed.Load() || f.underWay() != 0 {
			t.Errorf("%s: closed %v, %d under way", name, s.closed.Load(), f.underWay())
		}
	}
}

func TestStreamThatBreaksIsBrokenOff(t *testing.T) {
	var s *tap
	f := streaming(t, nil, func(*jsonrpc.Call) jsonrpc.Stream {
		s = whole(t, `["a`)
		s.broken = errors.New("the backend broke")
		return s
	})
	a := f.ask(7)
	if <-a.done; !a.aborted || a.Body.String() != `{"jsonrpc":"2.0","result":["a` || !s.closed.Load() {
		t.Errorf("aborted %v, closed %v, body %s", a.aborted, s.closed.Load(), a.Body)
	}
}

// failing is a client that takes so many bytes and no more.
type failing struct {
	http.ResponseWriter
	room int
}

func (w *failing) Write(p []byte) (int, error) {
	if n := min(w.room, len(p)); n < len(p) {
		w.room = 0
		return n, errors.New("the client is gone")
	}
	w.room -= len(p)
	return len(p), nil
}

func TestClientThatTakesNothingMoreEndsItsStream(t *testing.T) {
	for room := range 45 { // each byte of the answer may be the last
		s := whole(t, `["`, `a`, `"]`)
		f := streaming(t, nil, func(*jsonrpc.Call) jsonrpc.Stream { return s })
		r := httptest.NewRequest("POST", "/", strings.NewReader(chainID))
		func() {
			defer func() { _ = recover() }()
			f.ServeHTTP(&failing{httptest.NewRecorder(), room}, r)
		}()
		if !s.closed.Load() || f.underWay() != 0 {
			t.Errorf("after %d bytes: closed %v, %d under way", room, s.closed.Load(), f.underWay())
		}
	}
}

func TestPanicBehindAnAnswerThatStreamsLosesNothing(t *testing.T) {
	s := whole(t, `["a"]`)
	f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
		c.Answer = &jsonrpc.Answer{Stream: s, Backend: "b1"}
		panic("boom")
	})
	a := f.ask(7)
	<-a.done
	is(t, a.ResponseRecorder, 200, `{"jsonrpc":"2.0","result":["a"],"id":7}`+"\n")
	if !s.closed.Load() {
		t.Error("the stream stays open")
	}
}

func TestPanicBeforeAStreamIsReadClosesIt(t *testing.T) {
	s := whole(t, `["a"]`)
	f := streaming(t, nil, func(*jsonrpc.Call) jsonrpc.Stream { return s })
	func() {
		defer func() {
			if v := recover(); v != http.ErrAbortHandler {
				t.Errorf("recovered %v", v)
			}
		}()
		w := &hooked{ResponseRecorder: httptest.NewRecorder(), before: func() { panic("boom") }}
		f.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(chainID)))
	}()
	if !s.closed.Load() || s.reads.Load() != 0 || f.underWay() != 0 {
		t.Errorf("closed %v, read %d times, %d under way", s.closed.Load(), s.reads.Load(), f.underWay())
	}
}

// hooked calls before once, when the head is written.
type hooked struct {
	*httptest.ResponseRecorder
	before func()
}

func (w *hooked) WriteHeader(status int) {
	if before := w.before; before != nil {
		w.before = nil
		before()
	}
	w.ResponseRecorder.WriteHeader(status)
}

func TestCallsOfABatchAndOfOldClientsMayNotStream(t *testing.T) {
	f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
		if c.MayStream {
			t.Errorf("call %s may stream", c.ID)
		}
		c.Answer = &jsonrpc.Answer{Result: []byte(`1`)}
	})
	for n := 1; n <= 3; n++ {
		f.post("[" + strings.TrimSuffix(strings.Repeat(chainID+",", n), ",") + "]")
	}
	old := httptest.NewRequest("POST", "/", strings.NewReader(chainID))
	old.ProtoMajor, old.ProtoMinor = 1, 0 // where the end of the connection is an end like any other
	f.ServeHTTP(httptest.NewRecorder(), old)
	if len(f.asked) != 7 {
		t.Errorf("%d calls came through", len(f.asked))
	}
}

// A client must not take what came for the whole.
func TestPanicWithinAStreamBreaksTheAnswerOffAndGivesItsPlaceBack(t *testing.T) {
	f := streaming(t, func(o *Options) { o.MaxStreams = 1 }, func(*jsonrpc.Call) jsonrpc.Stream {
		s := newTap(t)
		s.panics = true
		t.Cleanup(func() {
			if !s.closed.Load() {
				t.Error("the stream stays open")
			}
		})
		return s
	})
	for range 3 {
		a := f.ask(7)
		if <-a.done; !a.aborted || len(f.streams.to) != 0 {
			t.Errorf("aborted %v, under way %v, answered %s", a.aborted, f.streams.to, a.Body)
		}
	}
	if n := strings.Count(f.log.String(), `"msg":"panic while serving"`); n != 3 {
		t.Errorf("%d lines about three panics", n)
	}
}

// A client whose context is over already must not wait for a backend.
func TestClientThatLeftBeforeTheStreamIsReadEndsItAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTap(t) // nothing ever comes
		var a *answer
		ready := make(chan struct{})
		f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
			<-ready
			a.leave()
			c.Answer = &jsonrpc.Answer{Stream: s, Backend: "b1"}
		})
		begun := time.Now()
		a = f.ask(7)
		close(ready)
		<-a.done
		if !a.aborted || !s.closed.Load() || s.cause != context.Canceled || time.Since(begun) != 0 {
			t.Errorf("aborted %v, closed %v, interrupted by %v, after %v", a.aborted, s.closed.Load(), s.cause, time.Since(begun))
		}
	})
}

// The call's deadline ends with the head of the answer.
func TestStreamMayOutliveTheTimeoutOfItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTap(t)
		f := streaming(t, func(o *Options) { o.Timeout = time.Second }, func(*jsonrpc.Call) jsonrpc.Stream { return s })
		a := f.ask(7)
		for range 100 {
			time.Sleep(time.Second)
			s.pieces <- "[]"
			synctest.Wait()
		}
		close(s.pieces)
		if <-a.done; a.aborted || !strings.HasSuffix(a.Body.String(), `[],"id":7}`+"\n") {
			t.Errorf("aborted %v after %d bytes", a.aborted, a.Body.Len())
		}
	})
}
