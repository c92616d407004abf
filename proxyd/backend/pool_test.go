package backend

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

const sendParams = `["0x02c0"]`

// reply1 answers a request on a raw connection.
func reply1(c io.Writer, request []byte, more string) {
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":"0x1"}`, idIn(request))
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s", len(body), more, body)
}

func TestConnectionIsUsedAgain(t *testing.T) {
	var conns atomic.Int64
	url := rawServer(t, func(c net.Conn) {
		conns.Add(1)
		for request := readRequest(c); len(request) > 0; request = readRequest(c) {
			reply1(c, request, "")
		}
	})
	b := newBackend(t, url, nil)
	for range 5 {
		result(t, ask(t, b, blockNumber())[0], `"0x1"`)
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for five calls", n)
	}
}

func TestConnectionIsNotUsedAgain(t *testing.T) {
	for name, answer := range map[string]func(net.Conn, []byte){
		"when it was announced to close": func(c net.Conn, r []byte) { reply1(c, r, "Connection: close\r\n") },
		"with bytes behind the answer": func(c net.Conn, r []byte) {
			var both bytes.Buffer // at once, since bytes that come later cannot be seen in time
			reply1(&both, r, "")
			both.WriteString("GARBAGE")
			c.Write(both.Bytes())
		},
		"after HTTP/1.0": func(c net.Conn, r []byte) {
			fmt.Fprintf(c, "HTTP/1.0 200 OK\r\n\r\n{\"id\":%d,\"result\":\"0x1\"}", idIn(r))
			c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var conns atomic.Int64
			url := rawServer(t, func(c net.Conn) {
				conns.Add(1)
				if request := readRequest(c); len(request) > 0 {
					answer(c, request)
				}
				io.Copy(io.Discard, c)
			})
			b := newBackend(t, url, nil)
			for range 3 {
				// A send looks at an idle connection before it takes it.
				result(t, ask(t, b, call("eth_sendRawTransaction", sendParams))[0], `"0x1"`)
			}
			if n := conns.Load(); n != 3 {
				t.Errorf("%d connections for three calls", n)
			}
		})
	}
}

// dyingAfter answers n requests on its first connection and closes it when one
// more has come; further connections live.
func dyingAfter(t *testing.T, n int, asked *atomic.Int64) string {
	var conns atomic.Int64
	return rawServer(t, func(c net.Conn) {
		first := conns.Add(1) == 1
		for i := 0; ; i++ {
			request := readRequest(c)
			if len(request) == 0 {
				return
			}
			asked.Add(1)
			if first && i == n {
				return
			}
			reply1(c, request, "")
		}
	})
}

func TestReadIsRepeatedWhenAnIdleConnectionDies(t *testing.T) {
	var asked atomic.Int64
	b := newBackend(t, dyingAfter(t, 1, &asked), nil)
	result(t, ask(t, b, blockNumber())[0], `"0x1"`)
	result(t, ask(t, b, blockNumber())[0], `"0x1"`)
	if n := asked.Load(); n != 3 {
		t.Errorf("%d requests came, want 3", n)
	}
}

func TestSendIsNotRepeatedOnAConnectionThatDies(t *testing.T) {
	for _, method := range []string{"eth_sendRawTransaction", "eth_sendTransaction"} {
		var asked atomic.Int64
		b := newBackend(t, dyingAfter(t, 1, &asked), nil)
		result(t, ask(t, b, blockNumber())[0], `"0x1"`)
		e := failure(t, ask(t, b, call(method, sendParams))[0], Network, "")
		if !e.Wrote || asked.Load() != 2 {
			t.Errorf("%s: wrote %v, %d requests came", method, e.Wrote, asked.Load())
		}
	}
}

func TestInterimAnswersAreSkipped(t *testing.T) {
	url := rawServer(t, func(c net.Conn) {
		request := readRequest(c)
		io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
		reply1(c, request, "")
	})
	result(t, ask(t, newBackend(t, url, nil), blockNumber())[0], `"0x1"`)
}

func TestSwitchingProtocolsIsNoAnswerAndHoldsNothingUp(t *testing.T) {
	url := rawServer(t, func(c net.Conn) {
		readRequest(c)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	for _, http2 := range []bool{false, true} {
		b := newBackend(t, url, func(o *Options) { o.HTTP2 = http2 })
		failure(t, ask(t, b, blockNumber())[0], Invalid, "interim")
		b.Close()
	}
}

func TestHeadWithoutEndIsCutOff(t *testing.T) {
	url := rawServer(t, func(c net.Conn) {
		readRequest(c)
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for err := error(nil); err == nil; {
			_, err = io.WriteString(c, "X-A: "+strings.Repeat("a", 1000)+"\r\n")
		}
	})
	for _, http2 := range []bool{false, true} {
		failure(t, ask(t, newBackend(t, url, func(o *Options) { o.HTTP2 = http2 }), blockNumber())[0], Network, "")
	}
}

func TestAnswerThatComesBeforeTheRequestWasReadCounts(t *testing.T) {
	url := rawServer(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		_ = c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
	})
	e := failure(t, ask(t, newBackend(t, url, nil), call("eth_call", `["`+strings.Repeat("x", 4<<20)+`"]`))[0], Invalid, "")
	if e.HTTP != http.StatusRequestEntityTooLarge || e.blamable() {
		t.Errorf("HTTP %d, blamable %v", e.HTTP, e.blamable())
	}
}

func TestAbandonedAttemptEndsAtOnce(t *testing.T) {
	url := rawServer(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	for _, http2 := range []bool{false, true} {
		b := newBackend(t, url, func(o *Options) { o.HTTP2 = http2; o.ResponseTimeout = time.Hour })
		done := make(chan *Attempt, 1)
		a := b.Begin([]*jsonrpc.Call{blockNumber()}, Try{Timeout: time.Hour}, done)
		a.Abandon()
		select {
		case <-done:
			failure(t, a.Results[0], Canceled, "")
		case <-time.After(20 * time.Second):
			t.Fatal("the attempt goes on")
		}
	}
}

// piped serves HTTP over pipes on the clock of a bubble and counts connections.
func piped(conns *int) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		*conns++
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			for in := bufio.NewReader(there); ; {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				id := firstID(r)
				reply1(there, fmt.Appendf(nil, `"id":%d`, id), "")
			}
		}()
		return here, nil
	}
}

func TestConnectionsAreDialledAnewInTime(t *testing.T) {
	for name, c := range map[string]struct {
		every time.Duration
		calls int
		conns int
	}{
		"used often":        {time.Second, 100, 1},
		"idle for too long": {maxIdleTime + time.Second, 3, 3},
		"too old":           {10 * time.Second, 61, 3}, // ten minutes, at most five each
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conns := 0
				b := newBackend(t, "http://node.memory", func(o *Options) { o.Dial = piped(&conns) })
				for range c.calls {
					result(t, ask(t, b, blockNumber())[0], `"0x1"`)
					time.Sleep(c.every)
				}
				if conns != c.conns {
					t.Errorf("%d connections, want %d", conns, c.conns)
				}
			})
		})
	}
}

func TestDialTimeoutBoundsANewConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t, "http://node.memory", func(o *Options) {
			o.DialTimeout, o.ResponseTimeout = 2*time.Second, time.Minute
			o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
			}
		})
		begun := time.Now()
		e := failure(t, ask(t, b, blockNumber())[0], Timeout, "")
		if took := time.Since(begun); took != 2*time.Second || e.Wrote || !e.Whole {
			t.Errorf("took %v, wrote %v, whole %v", took, e.Wrote, e.Whole)
		}
	})
}

func TestSizeOfABatchIsNotTakenForItsCount(t *testing.T) {
	var mu sync.Mutex // the parts come at the same time
	var sizes []int
	url := provider(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		n := strings.Count(string(body), `"method"`)
		mu.Lock()
		sizes = append(sizes, n)
		mu.Unlock()
		if len(body) > 20<<10 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		answers := make([]string, n)
		for i := range answers {
			answers[i] = fmt.Sprintf(`{"id":%d,"result":"0x1"}`, idIn(body)+uint64(i))
		}
		if n == 1 {
			io.WriteString(w, answers[0])
			return
		}
		io.WriteString(w, "["+strings.Join(answers, ",")+"]")
	})
	b := newBackend(t, url, nil)
	long := call("eth_call", `["`+strings.Repeat("x", 15<<10)+`"]`)
	for _, r := range ask(t, b, long, long) {
		result(t, r, `"0x1"`)
	}
	for _, r := range ask(t, b, blockNumber(), blockNumber(), blockNumber(), blockNumber()) {
		result(t, r, `"0x1"`)
	}
	if fmt.Sprint(sizes) != "[2 1 1 4]" {
		t.Errorf("batches of %v were sent", sizes)
	}
}
