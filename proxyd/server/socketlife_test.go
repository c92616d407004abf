package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// openSmall opens a socket whose client has little room for what it does not read, in bytes.
func (f *socketFront) openSmall(t testing.TB, room int) *rawSocket {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, room) })
	}}
	conn, err := dialer.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	k, resp := handshakeOn(t, conn, upgradeRequest("/"))
	if resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	return k
}

const subscribeCall = `{"jsonrpc":"2.0","id":"s","method":"eth_subscribe","params":["newHeads"]}`

func (f *socketFront) subscribe(t testing.TB, k *rawSocket) jsonrpc.Session {
	t.Helper()
	k.write(textFrame(subscribeCall))
	k.gets(`{"jsonrpc":"2.0","result":"0x1","id":"s"}`)
	return f.subscribed()
}

func (f *socketFront) hasMetric(t testing.TB, line string) {
	t.Helper()
	eventually(t, 10*time.Second, line, func() error {
		if strings.Contains(f.metrics(), line+"\n") {
			return nil
		}
		name, _, _ := strings.Cut(line, "{")
		var now []string
		for l := range strings.Lines(f.metrics()) {
			if strings.HasPrefix(l, name) {
				now = append(now, l)
			}
		}
		return fmt.Errorf("%q", now)
	})
}

// pinging makes pings quick.
func pinging(o *Options) {
	o.Sockets.PingInterval, o.Sockets.PongTimeout = 200*time.Millisecond, 200*time.Millisecond
}

func TestClientThatAnswersNoPingIsDead(t *testing.T) {
	f := newSocketFront(t, pinging, nil)
	k := f.open(t, "/")
	k.lives()
	since := time.Now()
	pings := 0
	for {
		op, payload, err := k.next()
		if err != nil {
			break
		}
		if op == opPing {
			pings++
		} else {
			t.Errorf("frame %d %q", op, payload)
		}
	}
	if took := time.Since(since); pings != 1 || took < 350*time.Millisecond || took > 5*time.Second {
		t.Errorf("dead after %s and %d pings, want one and a little more than 400ms", took, pings)
	}
	f.empties(t)
	f.hasMetric(t, `proxyd_client_ws_closes_total{code="1006"} 1`)
	f.hasMetric(t, `proxyd_active_client_ws_conns{auth="none"} 0`)
}

func TestClientThatVanishesIsDead(t *testing.T) {
	f := newSocketFront(t, pinging, nil)
	listener := f.servePipes(t)
	k, _ := handshakeOn(t, listener.dial(), upgradeRequest("/"))
	k.lives()
	f.empties(t) // although its connection takes not a byte of the ping, nor of the end
	f.hasMetric(t, `proxyd_client_ws_closes_total{code="1006"} 1`)
}

func TestClientThatVanishesWithAnswersUnderWayIsDead(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { pinging(o); o.Sockets.WriteTimeout = 300 * time.Millisecond }, nil)
	listener := f.servePipes(t)
	for range 3 {
		k, _ := handshakeOn(t, listener.dial(), upgradeRequest("/"))
		session := f.subscribe(t, k)
		k.write(textFrame(chainID), textFrame("["+chainID+"]"))
		session.Notify("0x1", []byte("1"))
		session.Notify("0x1", make([]byte, 1<<20))
	}
	f.empties(t)
}

func TestClientThatAnswersPingsLives(t *testing.T) {
	f := newSocketFront(t, pinging, nil)
	for name, answer := range map[string]func(k *rawSocket, payload []byte){
		"pong":                   func(k *rawSocket, payload []byte) { k.write(frame(fin|opPong, payload)) },
		"a ping of its own":      func(k *rawSocket, payload []byte) { k.write(frame(fin|opPing, nil), frame(fin|opPong, payload)) },
		"a call before the pong": func(k *rawSocket, payload []byte) { k.write(textFrame("{"), frame(fin|opPong, payload)) },
	} {
		k := f.open(t, "/")
		since := time.Now()
		for pings := 0; pings < 5; {
			op, payload, err := k.next()
			if err != nil {
				t.Fatalf("%s: %v after %s and %d pings", name, err, time.Since(since), pings)
			}
			if op == opPing {
				pings++
				answer(k, payload)
			}
		}
		k.reset()
	}
	f.empties(t)
}

func TestClientThatSaysSomethingIsNotPinged(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.Sockets.PingInterval = 300 * time.Millisecond }, nil)
	k := f.open(t, "/")
	for range 20 {
		k.write(textFrame(chainID), frame(fin|opPong, nil))
		op, payload, err := k.next()
		if op != opText || err != nil {
			t.Fatalf("frame %d %q %v", op, payload, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// TestSlowReaderIsClosed has one client of three not read.
func TestSlowReaderIsClosed(t *testing.T) {
	f := newSocketFront(t, nil, nil)
	const size, most = 10_000, 20_000
	slow := f.openSmall(t, 4096)
	slowSession := f.subscribe(t, slow)
	type reader struct {
		*rawSocket
		session jsonrpc.Session
		got     atomic.Int64
	}
	var readers [2]reader
	var wg sync.WaitGroup
	for i := range readers {
		r := &readers[i]
		r.rawSocket = f.open(t, "/")
		r.session = f.subscribe(t, r.rawSocket)
		wg.Go(func() {
			for {
				op, payload, err := r.next()
				if err != nil || op == opClose {
					return
				}
				if want := fmt.Sprintf(`"result":"%08d`, r.got.Load()); !strings.Contains(string(payload), want) {
					t.Errorf("%.100s, want %s", payload, want)
					return
				}
				r.got.Add(1)
			}
		})
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	closed := func() bool { return strings.Contains(f.metrics(), "proxyd_client_ws_slow_readers_total 1\n") }
	n := 0
	for ; n < most && (n%100 > 0 || !closed()); n++ {
		result := fmt.Appendf(nil, `"%08d%s"`, n, strings.Repeat("x", size-10))
		slowSession.Notify("0x1", result)
		for i := range readers {
			readers[i].session.Notify("0x1", result)
			eventually(t, 20*time.Second, "a reader", func() error {
				if got := int(readers[i].got.Load()); got < n-100 {
					return fmt.Errorf("%d of %d", got, n)
				}
				return nil
			})
		}
	}
	if !closed() {
		t.Fatalf("%d MB were queued", n*size/1e6)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 24<<20 {
		t.Errorf("%d MiB were held", grown>>20)
	}
	f.hasMetric(t, `proxyd_client_ws_closes_total{code="1008"} 1`)
	for range 3000 {
		slowSession.Notify("0x1", make([]byte, size)) // goes nowhere
	}
	// Now it reads: what was being written comes whole, and then the reason.
	code, reason := slow.ending()
	if code != 1008 || !strings.HasPrefix(reason, "too slow") {
		t.Errorf("closed with %d %q", code, reason)
	}
	eventually(t, 20*time.Second, "the others", func() error {
		for i := range readers {
			if got := int(readers[i].got.Load()); got != n {
				return fmt.Errorf("%d of %d", got, n)
			}
		}
		return nil
	})
	for i := range readers {
		readers[i].reset()
	}
	wg.Wait()
	f.empties(t)
	f.hasMetric(t, `proxyd_client_ws_slow_readers_total 1`)
}

func TestManySmallNotificationsAreBoundedToo(t *testing.T) {
	f := newSocketFront(t, nil, nil)
	k := f.openSmall(t, 4096)
	session := f.subscribe(t, k)
	n := 0
	for ; n < 1_000_000 && (n%1000 > 0 || !strings.Contains(f.metrics(), "proxyd_client_ws_slow_readers_total 1\n")); n++ {
		session.Notify("0x1", []byte(`"x"`))
	}
	f.hasMetric(t, "proxyd_client_ws_slow_readers_total 1")
	if code, _ := k.ending(); code != 1008 {
		t.Errorf("closed with %d", code)
	}
	f.empties(t)
}

func TestClientThatReadsNothingOfItsAnswersIsGivenUp(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.Sockets.WriteTimeout, o.Sockets.MaxCalls = 200*time.Millisecond, 50 }, func(_ context.Context, c *jsonrpc.Call) {
		c.Answer = &jsonrpc.Answer{Result: []byte(`"` + strings.Repeat("x", 1<<20) + `"`), Backend: "b1"}
	})
	k := f.openSmall(t, 4096)
	for range 40 {
		k.write(textFrame(chainID))
	}
	f.empties(t)
	f.hasMetric(t, `proxyd_client_ws_closes_total{code="1006"} 1`)
	f.hasMetric(t, `proxyd_client_ws_slow_readers_total 0`) // those are of notifications
}

// steadily reads a message a piece at a time.
func (k *rawSocket) steadily(size, piece int, pause time.Duration) (got int64, err error) {
	for tick := time.NewTicker(pause); got < int64(size); <-tick.C {
		n, err := io.CopyN(io.Discard, k.r, min(int64(piece), int64(size)-got))
		if got += n; err != nil {
			return got, err
		}
	}
	return got, nil
}

const large = 16 << 20

func largeAnswer(_ context.Context, c *jsonrpc.Call) {
	c.Answer = &jsonrpc.Answer{Result: []byte(`"` + strings.Repeat("x", large-2) + `"`), Backend: "b1"}
}

// largeFrame is how long the frame of a large answer is.
const largeFrame = 10 + len(`{"jsonrpc":"2.0","result":`) + large + len(`,"id":1}`)

func TestLargeAnswerReachesASlowButSteadyClient(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.Sockets.WriteTimeout = time.Second }, largeAnswer)
	k := f.openSmall(t, 128<<10)
	k.write(textFrame(chainID))
	since := time.Now()
	got, err := k.steadily(largeFrame, 64<<10, 12*time.Millisecond)
	if err != nil || got != int64(largeFrame) {
		t.Fatalf("%d of %d bytes: %v", got, largeFrame, err)
	}
	if took := time.Since(since); took < 2*time.Second {
		t.Errorf("took only %s", took)
	}
	k.lives()
}

func TestSlowButSteadyClientOfALargeAnswerIsNotDead(t *testing.T) {
	// What the kernel holds, up to 4 MiB, takes the client most of a second when all is written.
	f := newSocketFront(t, func(o *Options) {
		o.Sockets.PingInterval, o.Sockets.PongTimeout = 300*time.Millisecond, 1700*time.Millisecond
	}, largeAnswer)
	k := f.openSmall(t, 128<<10)
	k.write(textFrame(chainID))
	got, err := k.steadily(largeFrame, 64<<10, 12*time.Millisecond)
	if err != nil || got != int64(largeFrame) {
		t.Fatalf("%d of %d bytes: %v", got, largeFrame, err)
	}
	k.lives()
}

func TestSlowButSteadySenderOfALargeCallIsNotDead(t *testing.T) {
	f := newSocketFront(t, pinging, nil)
	k := f.open(t, "/")
	message := textFrame(callOf(60_000))
	for len(message) > 0 { // in a second and a half; between the bytes of a frame no ping can be answered
		n := min(len(message), 2000)
		if _, err := k.Write(message[:n]); err != nil {
			t.Fatalf("with %d bytes to go: %v", len(message), err)
		}
		message = message[n:]
		<-time.After(50 * time.Millisecond)
	}
	k.gets(okOverSocket)
}

func TestPanicOfAHandlerIsAnInternalErrorAndTheSocketLives(t *testing.T) {
	f := newSocketFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
		if c.Method == "eth_panics" {
			panic("boom")
		}
		c.Answer = &jsonrpc.Answer{Result: []byte(`"ok"`)}
	})
	k := f.open(t, "/")
	k.write(textFrame(`{"jsonrpc":"2.0","method":"eth_panics","id":7}`))
	k.gets(`{"jsonrpc":"2.0","error":{"code":-32000,"message":"internal error"},"id":7}`)
	k.write(textFrame(`[{"jsonrpc":"2.0","method":"eth_panics","id":7}]`))
	k.gets(`[{"jsonrpc":"2.0","error":{"code":-32000,"message":"internal error"},"id":7}]`)
	k.lives()
	if got := strings.Count(f.log.String(), `"msg":"panic while serving"`); got != 2 {
		t.Errorf("%d lines about panics, want 2", got)
	}
}

func TestPanicBehindAnAnswerEndsTheSocketAlone(t *testing.T) {
	f := newSocketFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
		c.Answer, c.Then = &jsonrpc.Answer{Result: []byte(`"ok"`)}, func() { panic("boom") }
	})
	other := f.open(t, "/")
	k := f.open(t, "/")
	k.write(textFrame(chainID))
	k.closedWith(1011)
	other.lives()
	other.reset()
	f.empties(t)
}

func TestSocketCostsOneGoroutine(t *testing.T) {
	const sockets = 200
	f := newSocketFront(t, nil, nil)
	f.open(t, "/").reset() // what the gateway runs for all
	f.empties(t)
	before := runtime.NumGoroutine()
	for range sockets {
		f.open(t, "/").lives()
	}
	eventually(t, 10*time.Second, "one goroutine per socket", func() error {
		if grown := runtime.NumGoroutine() - before; grown > sockets+2 || grown < sockets {
			return fmt.Errorf("%d goroutines for %d sockets", grown, sockets)
		}
		return nil
	})
}

func TestCallsEndWithTheirSocket(t *testing.T) {
	began, ended := make(chan struct{}, 10), make(chan error, 10)
	f := newSocketFront(t, nil, func(ctx context.Context, c *jsonrpc.Call) {
		began <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		c.Err = ctx.Err()
	})
	for name, leave := range map[string]func(*rawSocket){
		"reset":          (*rawSocket).reset,
		"close":          func(k *rawSocket) { _ = k.Close() },
		"half close":     func(k *rawSocket) { _ = k.Conn.(*net.TCPConn).CloseWrite() },
		"close frame":    func(k *rawSocket) { k.write(closeFrame(1000, "")) },
		"protocol error": func(k *rawSocket) { k.write(frame(fin|3, nil)) },
		"not UTF-8":      func(k *rawSocket) { k.write(textFrame("\xff")) },
	} {
		k := f.open(t, "/")
		k.write(textFrame(chainID), textFrame("["+chainID+","+chainID+"]"))
		for range 2 {
			<-began
		}
		leave(k)
		for range 2 {
			select {
			case err := <-ended:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", name, err)
				}
				if len(began) > 0 { // the second of the batch
					<-began
					<-ended
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("%s: a call still runs", name)
			}
		}
		k.reset()
	}
	f.empties(t)
}

func TestCallsOfASocketHaveTheirTime(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.Timeout = 50 * time.Millisecond }, func(ctx context.Context, c *jsonrpc.Call) {
		<-ctx.Done()
		c.Err = ctx.Err()
	})
	k := f.open(t, "/")
	k.write(textFrame(chainID))
	k.gets(`{"jsonrpc":"2.0","error":{"code":-32015,"message":"gateway timeout"},"id":1}`)
	k.lives()
}

func TestAnswersOvertakeEachOther(t *testing.T) {
	release := make(chan struct{})
	f := newSocketFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
		if c.Method == "eth_slow" {
			<-release
		}
		c.Answer = &jsonrpc.Answer{Result: []byte(`"ok"`)}
	})
	k := f.open(t, "/")
	k.write(textFrame(`{"jsonrpc":"2.0","method":"eth_slow","id":"slow"}`), textFrame(chainID))
	k.gets(okOverSocket)
	close(release)
	k.gets(`{"jsonrpc":"2.0","result":"ok","id":"slow"}`)
}

func TestCallsInFlightOnASocketAreBounded(t *testing.T) {
	release := make(chan struct{})
	f := newSocketFront(t, func(o *Options) { o.Sockets.MaxCalls = 3 }, func(_ context.Context, c *jsonrpc.Call) {
		<-release
		c.Answer = &jsonrpc.Answer{Result: []byte(`"ok"`)}
	})
	k, other := f.open(t, "/"), f.open(t, "/")
	k.write(textFrame(chainID), textFrame("["+chainID+"]"), textFrame(chainID), textFrame(chainID))
	busy := `{"jsonrpc":"2.0","error":{"code":-32024,"message":"too many calls in flight on this socket"},"id":1}`
	k.gets(busy)
	k.write(textFrame("[" + chainID + "," + chainID + "]"))
	k.gets("[" + busy + "," + busy + "]")
	other.lives()
	close(release)
	want := map[string]int{okOverSocket: 2, "[" + okOverSocket + "]": 1}
	for range 3 {
		_, text := k.message()
		want[text]--
	}
	for text, n := range want {
		if n != 0 {
			t.Errorf("%d more of %s", n, text)
		}
	}
	k.lives()
	k.write(textFrame("[" + strings.Repeat(chainID+",", 4) + chainID + "]")) // alone it may be larger
	k.gets("[" + strings.Repeat(okOverSocket+",", 4) + okOverSocket + "]")
}

func TestDrainTellsEverySocketInTime(t *testing.T) {
	const sockets, busy, over = 1000, 100, time.Second
	var began sync.WaitGroup
	began.Add(busy)
	release := make(chan struct{})
	f := newSocketFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
		began.Done()
		<-release
		c.Answer = &jsonrpc.Answer{Result: []byte(`"ok"`)}
	})
	type end struct {
		code     int
		reason   string
		at       time.Time
		answered bool
	}
	ends := make([]end, sockets)
	var clients sync.WaitGroup
	for i := range sockets {
		k := f.open(t, "/")
		if i%(sockets/busy) == 0 {
			k.write(textFrame(chainID))
		}
		clients.Go(func() {
			for {
				op, payload, err := k.next()
				if err != nil {
					ends[i].code = 1006
					return
				}
				switch op {
				case opText:
					ends[i].answered = string(payload) == okOverSocket
				case opClose:
					ends[i].code, ends[i].reason, ends[i].at = int(payload[0])<<8|int(payload[1]), string(payload[2:]), time.Now()
					_, _ = k.Write(frame(fin|opClose, payload))
					_, _ = io.Copy(io.Discard, k.r)
					_ = k.Close()
					return
				}
			}
		})
	}
	began.Wait()
	since := time.Now()
	time.AfterFunc(over/4, func() { close(release) })
	f.Drain(t.Context(), over)
	drained := time.Since(since)
	clients.Wait()
	var last time.Duration
	early := 0
	for i, e := range ends {
		took := e.at.Sub(since)
		last = max(last, took)
		if took < over/4 {
			early++
		}
		if e.code != 1001 || e.reason != goingAway {
			t.Errorf("socket %d: closed with %d %q", i, e.code, e.reason)
		}
		if busy := i%(sockets/busy) == 0; busy != e.answered {
			t.Errorf("socket %d: answered: %v", i, e.answered)
		} else if busy && took < over/4 {
			t.Errorf("socket %d: closed after %s, before its call was answered", i, took)
		}
	}
	if drained > over || last > over+over/2 { // the client's side of it is for the machine to be quick
		t.Errorf("drained within %s, the last client was told after %s, want %s", drained, last, over)
	}
	if early > sockets/2 {
		t.Errorf("%d of %d sockets were told in the first quarter of the time", early, sockets)
	}
	f.empties(t)
	f.hasMetric(t, fmt.Sprintf(`proxyd_client_ws_closes_total{code="1001"} %d`, sockets))
}

func TestDrainEndsWithItsContext(t *testing.T) {
	f := newSocketFront(t, nil, nil)
	for range 10 {
		f.open(t, "/")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	endsWithin(t, 5*time.Second, "Drain", func() { f.Drain(ctx, time.Hour) })
}

func TestCloseSocketsWaitsForCalls(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	f := newSocketFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
		close(began)
		<-release
		c.Answer = &jsonrpc.Answer{Result: []byte(`"ok"`)}
	})
	k, idle := f.open(t, "/"), f.open(t, "/")
	k.write(textFrame(chainID))
	<-began
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.CloseSockets(context.Background())
	}()
	idle.write(closeFrame(1000, "")) // crosses the gateway's
	if code, _ := idle.ending(); code != 1001 && code != 1000 {
		t.Errorf("closed with %d", code)
	}
	close(release)
	k.gets(okOverSocket)
	op, payload, err := k.next()
	if op != opClose || err != nil || !strings.HasSuffix(string(payload), goingAway) {
		t.Errorf("%d %q %v", op, payload, err)
	}
	k.write(frame(fin|opClose, payload))
	<-done
}

func TestCloseSocketsCutsOffWhatIsLeft(t *testing.T) {
	ended := make(chan struct{})
	began := make(chan struct{})
	f := newSocketFront(t, nil, func(ctx context.Context, c *jsonrpc.Call) {
		close(began)
		<-ctx.Done()
		c.Err = ctx.Err()
		close(ended)
	})
	k := f.open(t, "/")
	k.write(textFrame(chainID))
	<-began
	for range 50 {
		f.open(t, "/") // none of these answers the close frame
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	endsWithin(t, 8*time.Second, "CloseSockets", func() { f.CloseSockets(ctx) })
	<-ended
	f.empties(t)
}

func TestLostEventsEndTheSocket(t *testing.T) {
	f := newSocketFront(t, nil, nil)
	k := f.open(t, "/")
	session := f.subscribe(t, k)
	var ended atomic.Int32
	session.OnEnd(func() { ended.Add(1) })
	session.Lose("events were lost")
	session.Lose("again")
	if code, reason := k.ending(); code != 1013 || reason != "events were lost" {
		t.Errorf("closed with %d %q", code, reason)
	}
	session.OnEnd(func() { ended.Add(1) }) // at once
	session.Notify("0x1", []byte("1"))
	if n := ended.Load(); n != 2 {
		t.Errorf("told of the end %d times, want 2", n)
	}
	f.empties(t)
}

func TestNotificationsAreTextAndInOrder(t *testing.T) {
	f := newSocketFront(t, nil, nil)
	k := f.open(t, "/")
	k.write(frame(fin|opBinary, []byte(subscribeCall)))
	k.message()
	session := f.subscribed()
	for i := range 500 {
		session.Notify("0xab", fmt.Append(nil, i))
	}
	for i := range 500 {
		k.gets(fmt.Sprintf(`{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"0xab","result":%d}}`, i))
	}
}

func TestTooManySmallNotificationsCloseASlowReader(t *testing.T) {
	f := newSocketFront(t, nil, nil)
	slow := f.openSmall(t, 4096)
	session := f.subscribe(t, slow)
	closed := func() bool { return strings.Contains(f.metrics(), "proxyd_client_ws_slow_readers_total 1\n") }
	// The kernel takes some MiB first. What waits then is far below the bound in bytes.
	const most = 300_000
	n := 0
	for ; n < most && (n%1000 > 0 || !closed()); n++ {
		session.Notify("0x1", []byte("1"))
		if n%100 == 0 {
			time.Sleep(time.Millisecond) // for what writes them
		}
	}
	if !closed() {
		t.Errorf("%d notifications were queued for a client that reads nothing", n)
	}
}
