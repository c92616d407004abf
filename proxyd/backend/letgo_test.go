package backend

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

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

// A look that comes while the request is still written must not be the last one:
// the wait that follows would only end with the response timeout.
func TestCallerIsLetGoThoughTheLookCameBeforeItsWait(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *stage) {
		s.warm(1)
		w := s.wires[0]
		w.hold = make(chan struct{})
		s.play = silent
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begun := time.Now()
		time.AfterFunc(time.Millisecond, cancel)
		time.AfterFunc(watchEvery+time.Millisecond, func() { close(w.hold) }) // behind the first look
		a, ended := s.Ask(ctx, callsOf(blockNumber()), anHour)
		if took := time.Since(begun); ended || took > 3*watchEvery {
			t.Errorf("ended %v after %v, want within %v", ended, took, 3*watchEvery)
		}
		done := make(chan *Attempt, 1)
		a.Go(done)
		a.Abandon()
		<-done
	})
}

func TestCallerWhoseCallEndsWithinTheAnswerIsLetGoToo(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n"
	for _, begun := range []string{head, head + "\r\n", head + "\r\n" + `{"id":`} {
		onStage(t, nil, func(t *testing.T, s *stage) {
			s.warm(1)
			s.play = func(w *wire, _ []byte) bool {
				_, _ = io.WriteString(w.far, begun)
				return silent(w, nil)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			from := time.Now()
			time.AfterFunc(10*time.Millisecond, cancel)
			a, ended := s.Ask(ctx, callsOf(blockNumber()), anHour)
			if took := time.Since(from); took > 10*time.Millisecond+watchEvery {
				t.Errorf("%q: ended %v after %v", begun, ended, took)
			}
			done := make(chan *Attempt, 1)
			if !ended {
				a.Go(done)
				a.Abandon()
				<-done
			}
			failure(t, a.Results[0], Canceled, "")
			a.Settle(false)
		})
	}
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
