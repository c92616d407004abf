package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

// socketChain serves a dev chain over WebSockets, to a backend without HTTP.
func socketChain(t testing.TB, change func(*Options)) (*devchain.Backend, *Backend) {
	t.Helper()
	node := devchain.NewBackend(devchain.New(devchain.Options{}), "node")
	s := httptest.NewServer(node)
	t.Cleanup(func() { node.Close(); s.Close() })
	return node, newBackend(t, "", func(o *Options) {
		o.WSURL = strings.Replace(s.URL, "http", "ws", 1)
		if change != nil {
			change(o)
		}
	})
}

// begin begins an attempt.
func begin(b *Backend, how Try, calls ...*jsonrpc.Call) (*Attempt, <-chan *Attempt) {
	if how.Timeout == 0 {
		how.Timeout = time.Minute
	}
	done := make(chan *Attempt, 1)
	return b.Begin(calls, how, done), done
}

func TestCallsOverASocketAreAnsweredAsOverHTTP(t *testing.T) {
	node, url := chain(t)
	over := newBackend(t, "", func(o *Options) { o.WSURL = strings.Replace(url, "http", "ws", 1) })
	http := newBackend(t, url, nil)
	for _, calls := range [][]*jsonrpc.Call{
		{blockNumber()}, {call("eth_chainId", "")}, {call("eth_getBlockByNumber", `["latest", true]`)}, {call("eth_getBlockByNumber", `["0xfffffff",false]`)},
		{call("eth_nosuch", "[]")}, {call("eth_getBalance", `[1]`)}, {call("eth_sendRawTransaction", `["zz"]`)},
		{blockNumber(), call("eth_chainId", "")}, {blockNumber(), call("eth_nosuch", ""), call("eth_getBalance", `[]`), call("eth_gasPrice", "[ ]")},
		batchOf(50),
	} {
		got, want := ask(t, over, calls...), ask(t, http, calls...)
		for i := range want {
			g, w := got[i], want[i]
			if (g.Err == nil) != (w.Err == nil) || g.Outcome != w.Outcome {
				t.Fatalf("%s: %v, %+v, over HTTP %v, %+v", calls[i].Method, g.Err, g.Outcome, w.Err, w.Outcome)
			}
			if g.Err == nil && (string(g.Answer.Result) != string(w.Answer.Result) || string(g.Answer.Error) != string(w.Answer.Error) || g.Answer.Code != w.Answer.Code || g.Answer.Status != w.Answer.Status) {
				t.Fatalf("%s: %+v, over HTTP %+v", calls[i].Method, g.Answer, w.Answer)
			}
		}
	}
	if n := node.Sockets(); n != 1 {
		t.Errorf("%d sockets", n)
	}
	state(t, over, Well)
}

func TestRequestOverASocketIsTheGatewaysOwn(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		c := call("eth_call", `[ {"B":1.0,"a":"é\u00e9"} , "latest" ]`)
		c.ID = []byte(`"the client's"`)
		c.Client = &jsonrpc.Client{Auth: "alias", Key: "1.2.3.4", ForwardedFor: "1.2.3.4", OptimismSignature: "0xabc", Origin: "https://dapp", UserAgent: "wallet", RequestID: "r1"}
		_, done := begin(b, Try{}, c)
		l := f.line()
		if got, want := l.next(), `{"jsonrpc":"2.0","method":"eth_call","params":[ {"B":1.0,"a":"é\u00e9"} , "latest" ],"id":1}`; got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		l.say(`{"id":1,"result":"0x1"}`)
		(<-done).Settle(false)
		_, done = begin(b, Try{}, blockNumber(), call("eth_chainId", "[]"))
		if got, want := l.next(), `[{"jsonrpc":"2.0","method":"eth_blockNumber","id":2},{"jsonrpc":"2.0","method":"eth_chainId","params":[],"id":3}]`; got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		l.say(`[{"id":3,"result":"three"},{"id":2,"result":"two"}]`)
		a := <-done
		result(t, a.Results[0], `"two"`)
		result(t, a.Results[1], `"three"`)
		a.Settle(false)
		for _, name := range []string{"X-Forwarded-For", "X-Optimism-Signature", "Origin", "X-Request-Id"} {
			if got := f.asked[0].Header.Get(name); got != "" {
				t.Errorf("%s: %q", name, got)
			}
		}
		if got := f.asked[0].Header.Get("User-Agent"); got != "proxyd" {
			t.Errorf("User-Agent: %q", got)
		}
	})
}

func TestErrorsOverASocketMeanWhatTheyMeanOverHTTP(t *testing.T) {
	for _, e := range []string{
		`{"code":3,"message":"execution reverted","data":"0x08c379a0"}`, `{"code":-32000,"message":"nonce too low"}`, `{"code":-32000,"message":"header not found"}`,
		`{"code":-32005,"message":"rate limit exceeded"}`, `{"code":429,"message":"too many requests"}`, `{"code":-32603,"message":"internal error"}`,
		`{"code":-32601,"message":"the method eth_call does not exist"}`, `{"code":-32602,"message":"invalid params"}`, `{"code":-32000,"message":"already known"}`, `{"code":-32016,"message":"daily quota exceeded"}`,
	} {
		for _, id := range []string{"$0", "null"} {
			body := `{"jsonrpc":"2.0","id":` + id + `,"error":` + e + `}`
			over := newBackend(t, answering(t, 200, body), nil)
			want := ask(t, over, call("eth_call", "[]"))[0]
			onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
				_, done := begin(b, Try{}, call("eth_call", "[]"))
				l := f.line()
				l.say("%s", fill(body, idIn([]byte(l.next()))))
				a := <-done
				got := a.Results[0]
				a.Settle(false)
				if got.Err != nil || want.Err != nil || got.Outcome != want.Outcome || got.Answer.Code != want.Answer.Code || string(got.Answer.Error) != string(want.Answer.Error) {
					t.Errorf("%s: %+v %+v, over HTTP %+v %+v", body, got, got.Answer, want, want.Answer)
				}
				if got, want := b.Standing().State, over.Standing().State; got != want {
					t.Errorf("%s: it is %s, over HTTP %s", body, got, want)
				}
			})
		}
	}
}

func TestRateLimitOverASocketHoldsTheBackendOff(t *testing.T) {
	node, b := socketChain(t, nil)
	node.SetFault(devchain.Fault{Kind: devchain.FaultRateLimited})
	r := ask(t, b, blockNumber())[0]
	if r.Err != nil || r.Outcome.Hold == classify.None {
		t.Errorf("%+v", r)
	}
	state(t, b, Held)
}

func TestCallOverASocketEndsWithTheResponseTimeout(t *testing.T) {
	onSocket(t, func(o *Options, _ *far) { o.ResponseTimeout = 2 * time.Second }, func(t *testing.T, b *Backend, f *far) {
		began := time.Now()
		_, done := begin(b, Try{}, blockNumber())
		l := f.line()
		request := l.next()
		a := <-done
		e := failure(t, a.Results[0], Timeout, "response timeout")
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("after %v", took)
		}
		if !e.Wrote || !e.Whole || e.Heard {
			t.Errorf("%+v", e)
		}
		a.Settle(false)
		l.reply(request, `"late"`)
		_, done = begin(b, Try{}, blockNumber()) // on the same socket
		l.reply(l.next(), `"0x2"`)
		a = <-done
		result(t, a.Results[0], `"0x2"`)
		a.Settle(false)
		// A shorter share of the call's time.
		began = time.Now()
		_, done = begin(b, Try{Timeout: 500 * time.Millisecond}, blockNumber())
		a = <-done
		if e := failure(t, a.Results[0], Timeout, ""); e.Whole || time.Since(began) != 500*time.Millisecond {
			t.Errorf("%+v after %v", e, time.Since(began))
		}
		a.Settle(false)
		if f.upgrades() != 1 {
			t.Errorf("%d sockets", f.upgrades())
		}
	})
}

func TestCallDoesNotWaitForASocketForLongerThanItsTime(t *testing.T) {
	onSocket(t, func(o *Options, f *far) {
		o.ResponseTimeout, o.DialTimeout = time.Second, 5*time.Second
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			time.Sleep(3 * time.Second)
			return f.dial(ctx, network, address)
		}
	}, func(t *testing.T, b *Backend, f *far) {
		began := time.Now()
		a := try(t, b, Try{}, blockNumber())
		e := failure(t, a.Results[0], Timeout, "")
		if e.Wrote || time.Since(began) != time.Second {
			t.Errorf("%+v after %v", e, time.Since(began))
		}
		a.Settle(false)
		f.line() // it opens all the same
		synctest.Wait()
		if s := b.SocketStatus(); !s.Open {
			t.Error("it did not s.Open")
		}
	})
}

func TestCanceledCallLeavesTheSocketAlone(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		gone := errors.New("the client left")
		a, done := begin(b, Try{}, blockNumber())
		l := f.line()
		request := l.next()
		a.Cancel(gone)
		began := time.Now()
		a = <-done
		e := a.Results[0].Err
		if e == nil || e.Kind != Canceled || !errors.Is(e, gone) || time.Since(began) > 0 {
			t.Errorf("%v after %v", e, time.Since(began))
		}
		a.Settle(false)
		l.reply(request, `"late"`)
		_, done = begin(b, Try{}, blockNumber())
		l.reply(l.next(), `"0x2"`)
		a = <-done
		result(t, a.Results[0], `"0x2"`)
		a.Settle(false)
		state(t, b, Well)
		s, err := b.Socket(context.Background())
		if err != nil || len(s.waiters) != 0 {
			t.Errorf("%v, %d wait", err, len(s.waiters))
		}
	})
}

func TestBackendThatDiesDuringACall(t *testing.T) {
	ways := map[string]func(l *line){
		"closed":       func(l *line) { l.CloseNow() },
		"said goodbye": func(l *line) { go l.Close(1001, "going away") },
		"garbage":      func(l *line) { l.say("garbage") },
	}
	for name, die := range ways {
		t.Run(name, func(t *testing.T) {
			onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
				_, read := begin(b, Try{}, blockNumber())
				l := f.line()
				l.next()
				_, batch := begin(b, Try{}, blockNumber(), call("eth_sendRawTransaction", `["0x"]`))
				l.next()
				die(l)
				for _, done := range []<-chan *Attempt{read, batch} {
					a := <-done
					for _, r := range a.Results {
						e := failure(t, r, Network, "WebSocket")
						if !e.Wrote || r.Outcome.NothingRan || !r.Outcome.Sick || e.atOnce() {
							t.Errorf("%+v, %+v: it may have been read", e, r.Outcome)
						}
						if strings.Count(e.Error(), "backend b") != 1 {
							t.Errorf("%v", e)
						}
					}
					a.Settle(false)
				}
			})
		})
	}
	t.Run("reset", func(t *testing.T) {
		node, b := socketChain(t, nil)
		node.SetFault(devchain.Fault{Kind: devchain.FaultClose})
		if e := failure(t, ask(t, b, blockNumber())[0], Network, "WebSocket"); !e.Wrote {
			t.Errorf("%+v", e)
		}
	})
}

func TestBackendWhoseSocketCannotBeOpenedWroteNothing(t *testing.T) {
	b := newBackend(t, "", func(o *Options) { o.WSURL = strings.Replace(refusing(t), "http", "ws", 1) })
	for range 3 { // the later ones while it is left alone
		r := ask(t, b, call("eth_sendRawTransaction", `["0x"]`))[0]
		e := failure(t, r, Refused, "connection refused")
		if e.Wrote || !e.atOnce() || !r.Outcome.NothingRan {
			t.Errorf("%+v, %+v", e, r.Outcome)
		}
		if strings.Count(e.Error(), "backend b") != 1 {
			t.Errorf("%v", e)
		}
	}
	state(t, b, Out)
	onSocket(t, func(_ *Options, f *far) { f.answer = refuse(503) }, func(t *testing.T, b *Backend, f *far) {
		for range 3 {
			a := try(t, b, Try{}, blockNumber())
			e := failure(t, a.Results[0], Network, "503")
			if e.Wrote {
				t.Errorf("%+v", e)
			}
			a.Settle(false)
		}
		state(t, b, Out)
		f.set(nil)
		time.Sleep(time.Minute)
		_, done := begin(b, Try{}, blockNumber())
		l := f.line()
		l.reply(l.next(), `"0x1"`)
		a := <-done
		result(t, a.Results[0], `"0x1"`)
		a.Settle(false)
		state(t, b, Well)
	})
}

// Nothing can have run of a call that found the socket dead.
func TestCallThatFindsTheSocketDeadWroteNothing(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, _ := f.open(b)
		s.mu.Lock()
		s.err = &Error{Backend: "b", Kind: Network, Wrote: true, cause: errIdle} // as end does first
		s.mu.Unlock()
		_, done := begin(b, Try{}, call("eth_sendRawTransaction", `["0x"]`))
		synctest.Wait()
		s.mu.Lock()
		s.err = nil
		s.mu.Unlock()
		s.Close(errors.New("over"))
		a := <-done
		if e := a.Results[0].Err; e == nil || e.Wrote || !a.Results[0].Outcome.NothingRan {
			t.Errorf("%#v", e)
		}
		a.Settle(false)
	})
}

func TestAnswerOverASocketThatIsTooLarge(t *testing.T) {
	const limit = 10_000
	// answer is one of n bytes.
	answer := func(id uint64, n int) string {
		head := fmt.Sprintf(`{"id":%d,"result":"`, id)
		return head + strings.Repeat("x", n-len(head)-2) + `"}`
	}
	for _, streams := range []bool{false, true} {
		onSocket(t, func(o *Options, _ *far) { o.MaxResponseSize = limit }, func(t *testing.T, b *Backend, f *far) {
			_, other := begin(b, Try{}, blockNumber())
			l := f.line()
			first := l.next()
			c := call("eth_getLogs", "[{}]")
			c.MayStream = streams
			_, done := begin(b, Try{}, call("eth_getLogs", "[{}]"))
			go l.say("%s", answer(idIn([]byte(l.next())), limit))
			a := <-done
			if r := a.Results[0]; r.Err != nil || len(r.Answer.Result) < limit-100 {
				t.Fatalf("exactly the limit: %v", r.Err)
			}
			a.Settle(false)
			_, done = begin(b, Try{}, c)
			go l.say("%s", answer(idIn([]byte(l.next())), limit+1))
			a = <-done
			failure(t, a.Results[0], TooLarge, "max_response_size_bytes")
			a.Settle(false)
			// It costs the others nothing.
			l.reply(first, `"0x1"`)
			a = <-other
			result(t, a.Results[0], `"0x1"`)
			a.Settle(false)
			if s := b.SocketStatus(); !s.Open || s.Failures != 0 {
				t.Errorf("s.Open %t, %d s.Failures", s.Open, s.Failures)
			}
			state(t, b, Well)
		})
	}
}

func TestStreamableCallOverASocket(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		for _, size := range []int{10, 100_000, 3_000_000} {
			c := call("eth_getLogs", "[{}]")
			c.MayStream = true
			_, done := begin(b, Try{}, c)
			var l *line
			if size == 10 {
				l = f.line()
				f.lines <- l
			} else {
				l = <-f.lines
				f.lines <- l
			}
			want := `"` + strings.Repeat("x", size) + `"`
			go l.reply(l.next(), want)
			a := <-done
			r := a.Results[0]
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			got := string(r.Answer.Result)
			if r.Answer.Stream != nil {
				a.Keep()
				text, err := drain(r.Answer.Stream)
				if err != io.EOF {
					t.Error(err)
				}
				got = text
				r.Answer.Stream.Close()
			}
			if got != want {
				t.Errorf("%d bytes, want %d", len(got), len(want))
			}
			a.Settle(false)
		}
	})
}

func TestAnswerWithAnotherIDIsNotForTheCall(t *testing.T) {
	onSocket(t, func(o *Options, _ *far) { o.ResponseTimeout = time.Second }, func(t *testing.T, b *Backend, f *far) {
		_, done := begin(b, Try{}, blockNumber())
		l := f.line()
		request := l.next()
		time.Sleep(100 * time.Millisecond)
		l.say(`{"id":%d,"result":"0x1"}`, idIn([]byte(request))+1000)
		a := <-done
		if e := failure(t, a.Results[0], Timeout, ""); !e.Heard {
			t.Errorf("%+v", e)
		}
		a.Settle(false)
	})
}

func TestAnswersToABatchOverASocket(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		want         [2]string // a result, or the Kind of the failure
	}{
		{"in order", `[{"id":$0,"result":"a"},{"id":$1,"result":"b"}]`, [2]string{`"a"`, `"b"`}},
		{"in another order", `[{"id":$1,"result":"b"},{"id":$0,"result":"a"}]`, [2]string{`"a"`, `"b"`}},
		{"ids as text", `[{"id":"$1","result":"b"},{"id":"$0","result":"a"}]`, [2]string{`"a"`, `"b"`}},
		{"one is missing", `[{"id":$1,"result":"b"}]`, [2]string{"invalid_answer", `"b"`}},
		{"an error without id", `[{"id":null,"error":{"code":-32000,"message":"x"}},{"id":$1,"result":"b"}]`, [2]string{"invalid_answer", `"b"`}},
		{"an unknown id behind", `[{"id":$0,"result":"a"},{"id":77777,"result":"b"}]`, [2]string{"invalid_answer", "invalid_answer"}},
		{"an unknown id in front", `[{"id":77777,"result":"b"},{"id":$1,"result":"b"}]`, [2]string{"invalid_answer", "invalid_answer"}},
		{"twice the same", `[{"id":$0,"result":"a"},{"id":$0,"result":"a"}]`, [2]string{"invalid_answer", "invalid_answer"}},
		{"too many", `[{"id":$0,"result":"a"},{"id":$1,"result":"b"},{"id":$2,"result":"c"}]`, [2]string{"invalid_answer", "invalid_answer"}},
		{"one object", `{"id":$0,"result":"a"}`, [2]string{"invalid_answer", "invalid_answer"}},
		{"an error for all", `{"id":null,"error":{"code":-32005,"message":"limit"}}`, [2]string{"-32005", "-32005"}},
		{"an error with the first id", `{"id":$0,"error":{"code":-32005,"message":"limit"}}`, [2]string{"-32005", "-32005"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onSocket(t, func(o *Options, _ *far) { o.ResponseTimeout = time.Second }, func(t *testing.T, b *Backend, f *far) {
				_, done := begin(b, Try{}, blockNumber(), call("eth_chainId", ""))
				l := f.line()
				l.say("%s", fill(c.answer, idIn([]byte(l.next()))))
				a := <-done
				for i, r := range a.Results {
					got := ""
					switch {
					case r.Err != nil:
						got = r.Err.Kind.String()
					case r.Answer.Error != nil:
						got = fmt.Sprint(r.Answer.Code)
					default:
						got = string(r.Answer.Result)
					}
					if got != c.want[i] {
						t.Errorf("call %d: %s, want %s (%v)", i, got, c.want[i], r.Err)
					}
				}
				a.Settle(false)
				if s := b.SocketStatus(); !s.Open {
					t.Error("the socket is closed")
				}
			})
		})
	}
}

func TestBatchThatIsTooManyForASocketIsSplit(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		_, done := begin(b, Try{}, batchOf(8)...)
		l := f.line()
		end := make(chan struct{})
		defer close(end)
		go func() {
			for {
				select {
				case frame := <-l.frames:
					var calls []struct{ ID uint64 }
					if json.Unmarshal([]byte(frame), &calls) != nil {
						l.reply(frame, `"0x1"`)
					} else if len(calls) > 4 {
						l.say(`{"id":null,"error":{"code":-32600,"message":"batch too large"}}`)
					} else {
						var out []string
						for _, c := range calls {
							out = append(out, fmt.Sprintf(`{"id":%d,"result":"0x1"}`, c.ID))
						}
						l.say("[%s]", strings.Join(out, ","))
					}
				case <-end:
					return
				}
			}
		}()
		a := <-done
		for _, r := range a.Results {
			if r.Err != nil {
				t.Error(r.Err)
			}
		}
		a.Settle(false)
	})
}

func TestAThousandCallsOverOneSocket(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		const n = 1000
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				calls := callsOf(call("eth_getBalance", fmt.Sprintf(`["%d"]`, i)))
				if i%5 == 0 {
					calls = append(calls, call("eth_getBalance", fmt.Sprintf(`["%d"]`, i+n)))
				}
				_, done := begin(b, Try{}, calls...)
				a := <-done
				for k, r := range a.Results {
					if want := fmt.Sprintf(`"%d"`, i+k*n); r.Err != nil || string(r.Answer.Result) != want {
						t.Errorf("%v, %+v, want %s", r.Err, r.Answer, want)
					}
				}
				a.Settle(false)
			})
		}
		l := f.line()
		type request struct {
			ID     uint64
			Params []string
		}
		answers := make([]string, n)
		for i := range answers {
			frame := l.next()
			var one request
			var many []request
			if json.Unmarshal([]byte(frame), &one) == nil {
				answers[i] = fmt.Sprintf(`{"id":%d,"result":%q}`, one.ID, one.Params[0])
			} else if err := json.Unmarshal([]byte(frame), &many); err != nil {
				t.Fatalf("%s: %v", frame, err)
			} else {
				answers[i] = fmt.Sprintf(`[{"id":%d,"result":%q},{"id":%d,"result":%q}]`, many[1].ID, many[1].Params[0], many[0].ID, many[0].Params[0])
			}
		}
		rand.Shuffle(n, func(i, j int) { answers[i], answers[j] = answers[j], answers[i] })
		for _, answer := range answers {
			l.say("%s", answer)
			l.notify("0xa", "1")
		}
		all.Wait()
		if f.upgrades() != 1 {
			t.Errorf("%d sockets", f.upgrades())
		}
		s, err := b.Socket(context.Background())
		if err != nil || len(s.waiters) != 0 {
			t.Errorf("%v, %d wait", err, len(s.waiters))
		}
	})
}

func TestAThousandCallsOverOneRealSocket(t *testing.T) {
	node, b := socketChain(t, nil)
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			for _, r := range ask(t, b, blockNumber(), call("eth_chainId", "")) {
				if r.Err != nil {
					t.Error(r.Err)
				}
			}
		})
	}
	all.Wait()
	if n := node.Sockets(); n != 1 {
		t.Errorf("%d sockets", n)
	}
}

// unread is a connection whose other side takes nothing once stop is closed.
type unread struct {
	net.Conn
	stop   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (c *unread) Write(p []byte) (int, error) {
	select {
	case <-c.stop:
		<-c.closed
		return 0, io.ErrClosedPipe
	default:
		return c.Conn.Write(p)
	}
}

func (c *unread) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A backend that takes nothing must not hold calls up for longer than their time.
func TestCallDoesNotWaitForAWriteForLongerThanItsTime(t *testing.T) {
	stopped := func(t *testing.T, test func(t *testing.T, b *Backend)) {
		stop := make(chan struct{})
		onSocket(t, func(o *Options, f *far) {
			stop = make(chan struct{})
			o.ResponseTimeout = 2 * time.Second
			f.conn = func(c net.Conn) net.Conn { return &unread{Conn: c, stop: stop, closed: make(chan struct{})} }
		}, func(t *testing.T, b *Backend, f *far) {
			f.open(b)
			close(stop)
			test(t, b)
		})
	}
	t.Run("time", func(t *testing.T) {
		stopped(t, func(t *testing.T, b *Backend) {
			began := time.Now()
			for range 2 {
				_, done := begin(b, Try{}, blockNumber())
				defer func() {
					a := <-done
					failure(t, a.Results[0], Timeout, "")
					if took := time.Since(began); took > 2*time.Second {
						t.Errorf("after %v", took)
					}
					a.Settle(false)
				}()
			}
		})
	})
	t.Run("cancel", func(t *testing.T) {
		stopped(t, func(t *testing.T, b *Backend) {
			began := time.Now()
			a, done := begin(b, Try{}, blockNumber())
			time.Sleep(time.Second)
			a.Cancel(errors.New("the client left"))
			a = <-done
			if e := a.Results[0].Err; e == nil || e.Kind != Canceled {
				t.Errorf("%v", e)
			}
			if took := time.Since(began); took != time.Second {
				t.Errorf("after %v", took)
			}
			a.Settle(false)
		})
	})
	t.Run("close", func(t *testing.T) {
		stopped(t, func(t *testing.T, b *Backend) {
			_, done := begin(b, Try{}, blockNumber())
			synctest.Wait()
			began := time.Now()
			b.Close()
			if took := time.Since(began); took > time.Second {
				t.Errorf("Close took %v", took)
			}
			(<-done).Settle(false)
		})
	})
}

func TestOwnCallsOverASocket(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		own := func(large bool, result string) Reply {
			replies := make(chan Reply, 1)
			go func() {
				if large {
					replies <- b.OwnLarge(context.Background(), "eth_getBlockByNumber", "[]", time.Second)
				} else {
					replies <- b.Own(context.Background(), "eth_blockNumber", "[]", time.Second)
				}
			}()
			if result != "" {
				l := <-f.lines
				f.lines <- l
				go l.reply(l.next(), result)
			}
			return <-replies
		}
		if r := own(false, `"0x7"`); r.Err != nil || string(r.Result) != `"0x7"` {
			t.Errorf("%+v", r)
		}
		var e *Error
		if r := own(false, `"`+strings.Repeat("x", maxOwn)+`"`); !errors.As(r.Err, &e) || e.Kind != TooLarge {
			t.Errorf("%v", r.Err)
		}
		if r := own(true, `"`+strings.Repeat("x", maxOwn)+`"`); r.Err != nil || len(r.Result) < maxOwn {
			t.Errorf("%v", r.Err)
		}
		if r := own(false, ""); !errors.As(r.Err, &e) || e.Kind != Timeout || r.Took != time.Second {
			t.Errorf("%v after %v", r.Err, r.Took)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if r := b.Own(ctx, "eth_blockNumber", "[]", time.Second); !r.Canceled {
			t.Errorf("%+v", r)
		}
	})
}

func TestCloseEndsCallsOverASocket(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		_, done := begin(b, Try{}, blockNumber())
		l := f.line()
		l.next()
		began := time.Now()
		b.Close()
		a := <-done
		if e := a.Results[0].Err; e == nil || e.Kind != Canceled || time.Since(began) > 0 {
			t.Errorf("%v after %v", e, time.Since(began))
		}
		a.Settle(false)
		<-l.gone
		if e := ask(t, b, blockNumber())[0].Err; e == nil || e.Kind != Canceled {
			t.Errorf("%v", e)
		}
	})
}

func TestSilentBackendIsSuspectOverASocketToo(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		var ends []<-chan *Attempt
		for range 3 {
			_, done := begin(b, Try{Watched: true}, blockNumber())
			ends = append(ends, done)
		}
		l := f.line()
		time.Sleep(2 * time.Second)
		state(t, b, Suspect)
		for range ends {
			l.reply(l.next(), `"0x1"`)
		}
		for _, done := range ends {
			(<-done).Settle(false)
		}
		state(t, b, Well)
	})
}

// Whose an answer is that is too large is told by its id alone, wherever it stands;
// what is in the result is nobody's id.
func TestIDOfAnAnswerThatIsTooLarge(t *testing.T) {
	const limit = 10_000
	for name, answer := range map[string]string{ // $N is its id, $M that of another call
		"id first":                    `{"jsonrpc":"2.0","id":$N,"result":$X}`,
		"id last":                     `{"jsonrpc":"2.0","result":$X,"id":$N}`,
		"id as text":                  `{"jsonrpc":"2.0","id":"$N","result":$X}`,
		"id as text, last":            `{"jsonrpc":"2.0","result":$X,"id":"$N"}`,
		"white space":                 "{ \"jsonrpc\" : \"2.0\" , \"id\" : $N ,\n\"result\" : $X }",
		"white space, last":           "{ \"jsonrpc\" : \"2.0\" , \"result\" : $X ,\n\"id\" :\t$N } \n",
		"an error":                    `{"jsonrpc":"2.0","id":$N,"error":{"code":1,"message":"x","data":$X}}`,
		"id first, others behind":     `{"id":$N,"result":[{"id":$M},$X,{"id":$M}]}`,
		"id last, another in front":   `{"result":[{"id":$M},$X],"id":$N}`,
		"id last, others":             `{"result":[{"id":$M},$X,{"id":$M}],"id":$N}`,
		"a text like an id":           `{"result":["\"id\":$M,",$X],"id":$N}`,
		"id last, the version behind": `{"result":[{"id":$M},$X],"id":$N,"jsonrpc":"2.0"}`,
	} {
		t.Run(name, func(t *testing.T) {
			onSocket(t, func(o *Options, _ *far) { o.MaxResponseSize = limit }, func(t *testing.T, b *Backend, f *far) {
				_, other := begin(b, Try{}, blockNumber())
				l := f.line()
				first := l.next()
				_, done := begin(b, Try{}, call("eth_call", "[]"))
				text := strings.NewReplacer("$N", fmt.Sprint(idIn([]byte(l.next()))), "$M", fmt.Sprint(idIn([]byte(first))), "$X", `"`+strings.Repeat("x", limit)+`"`).Replace(answer)
				go l.say("%s", text)
				a := <-done
				failure(t, a.Results[0], TooLarge, "max_response_size_bytes")
				a.Settle(false)
				select {
				case a := <-other:
					t.Fatalf("the other call was told %v", a.Results[0].Err)
				case <-time.After(time.Second):
				}
				l.reply(first, `"0x1"`)
				a = <-other
				result(t, a.Results[0], `"0x1"`)
				a.Settle(false)
			})
		})
	}
	for name, answer := range map[string]string{
		"batch, ids first": `[{"id":$N,"result":$X},{"id":$O,"result":1}]`,
		"batch, ids last":  `[{"result":$X,"id":$N},{"result":1,"id":$O}]`,
	} {
		t.Run(name, func(t *testing.T) {
			onSocket(t, func(o *Options, _ *far) { o.MaxResponseSize = limit }, func(t *testing.T, b *Backend, f *far) {
				_, done := begin(b, Try{}, call("eth_call", "[]"), call("eth_call", "[]"))
				l := f.line()
				id := idIn([]byte(l.next()))
				go l.say("%s", strings.NewReplacer("$N", fmt.Sprint(id), "$O", fmt.Sprint(id+1), "$X", `"`+strings.Repeat("x", limit)+`"`).Replace(answer))
				a := <-done
				failure(t, a.Results[0], TooLarge, "max_response_size_bytes")
				failure(t, a.Results[1], TooLarge, "max_response_size_bytes")
				a.Settle(false)
			})
		})
	}
}

// A frame that is too large and nobody's ends the socket; but that says nothing about
// the calls that wait, which others may answer.
func TestNotificationThatIsTooLarge(t *testing.T) {
	onSocket(t, func(o *Options, _ *far) { o.MaxResponseSize = 10_000 }, func(t *testing.T, b *Backend, f *far) {
		_, done := begin(b, Try{}, blockNumber())
		l := f.line()
		l.next()
		go l.notify("0xa", `"`+strings.Repeat("x", 20_000)+`"`)
		a := <-done
		failure(t, a.Results[0], Network, "")
		a.Settle(false)
	})
}

// While a large answer comes in pieces the backend is not silent.
func TestPiecesOfAFrameAreSignsOfLife(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		var ends []<-chan *Attempt
		for range 3 {
			_, done := begin(b, Try{Watched: true}, blockNumber())
			ends = append(ends, done)
		}
		l := f.line()
		w, err := l.Writer(context.Background(), 1)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(w, `{"id":%d,"result":"`, idIn([]byte(l.next())))
		for range 30 {
			fmt.Fprint(w, strings.Repeat("x", 10_000))
			time.Sleep(100 * time.Millisecond)
			state(t, b, Well)
		}
		fmt.Fprint(w, `"}`)
		w.Close()
		for range 2 {
			l.reply(l.next(), `"0x1"`)
		}
		for _, done := range ends {
			a := <-done
			if e := a.Results[0].Err; e != nil {
				t.Error(e)
			}
			a.Settle(false)
		}
	})
}

// What waits for a backend that takes nothing is bounded, and what is refused was not
// sent.
func TestRequestsThatWaitForAWriteAreBounded(t *testing.T) {
	stop := make(chan struct{})
	onSocket(t, func(o *Options, f *far) {
		o.ResponseTimeout, o.OutAfter = 5*time.Second, 1<<30
		f.conn = func(c net.Conn) net.Conn { return &unread{Conn: c, stop: stop, closed: make(chan struct{})} }
	}, func(t *testing.T, b *Backend, f *far) {
		f.open(b)
		close(stop)
		began, kinds := time.Now(), map[Kind]int{}
		const n = maxUnwritten + 1000
		done := make(chan *Attempt, n)
		for range n {
			b.Begin(callsOf(call("eth_sendRawTransaction", `["0x"]`)), Try{Timeout: time.Minute}, done)
		}
		for range n {
			a := <-done
			e := a.Results[0].Err
			kinds[e.Kind]++
			if e.Wrote == (e.Kind == Network) || a.Results[0].Outcome.NothingRan == e.Wrote || e.Kind == Network && time.Since(began) > 0 {
				t.Fatalf("%+v after %v", e, time.Since(began))
			}
			a.Settle(false)
		}
		if len(kinds) != 2 || kinds[Timeout] > maxUnwritten+1 {
			t.Errorf("%v", kinds)
		}
	})
}
