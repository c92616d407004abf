package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gateway.internal/proxyd/jsonrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// held answers when it is released, or fails when its context ends.
type held struct {
	upstream
	begun, release chan struct{}
}

func newHeld() *held {
	h := &held{begun: make(chan struct{}, 1000), release: make(chan struct{})}
	h.answer = func(ctx context.Context, c *jsonrpc.Call) {
		h.begun <- struct{}{}
		select {
		case <-h.release:
			c.Answer = &jsonrpc.Answer{Result: []byte(`"0x1"`), Backend: "b"}
		case <-ctx.Done():
			c.Err = context.Cause(ctx)
		}
	}
	return h
}

func TestEqualCallsInFlightShareOneAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, method := range []string{"eth_chainId", "eth_call"} { // kept, and listed
			up := newHeld()
			c := newCache(t, func(o *Options) { o.Coalesce = []string{"eth_ca*"} })
			h := c.Middleware(up)
			calls := make([]*jsonrpc.Call, 100)
			for i := range calls {
				calls[i] = newCall(t, method, []string{"[1]", "[ 1 ]", "[\n1]"}[i%3])
				go h.ServeRPC(t.Context(), calls[i:i+1])
			}
			synctest.Wait()
			if up.count() != 1 {
				t.Errorf("%s: asked %d times, want 1", method, up.count())
			}
			wantMetric(t, c.opts.Metrics.coalesced, fmt.Sprintf("proxyd_coalesced_calls_total{method=%q} 99", method))
			close(up.release)
			synctest.Wait()
			for _, call := range calls {
				want(t, call, `"0x1"`)
			}
			c.Close()
		}
	})
}

func TestCoalescingWorksWithoutAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := newHeld()
		c := newCache(t, func(o *Options) { o.Store, o.Coalesce = nil, []string{"eth_blockNumber"} })
		h := c.Middleware(up)
		for range 5 {
			go h.ServeRPC(t.Context(), []*jsonrpc.Call{newCall(t, "eth_blockNumber", "")})
			go h.ServeRPC(t.Context(), []*jsonrpc.Call{newCall(t, "eth_gasPrice", "")}) // not listed
			go h.ServeRPC(t.Context(), []*jsonrpc.Call{newCall(t, "eth_sendRawTransaction", `["0x01"]`)})
		}
		synctest.Wait()
		if up.count() != 11 {
			t.Errorf("asked %d times, want 1 + 5 + 5", up.count())
		}
		close(up.release)
		c.Close()
	})
}

func TestOnlyReadsAreEverShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := newHeld()
		c := newCache(t, func(o *Options) { o.Coalesce, o.Rules = []string{"*"}, []Rule{{"*", time.Hour}} })
		h := c.Middleware(up)
		methods := []string{"eth_sendRawTransaction", "eth_sendTransaction", "eth_newFilter", "eth_getFilterChanges", "made_up"}
		for _, m := range methods {
			for range 3 {
				go h.ServeRPC(t.Context(), []*jsonrpc.Call{newCall(t, m, "[1]"), newCall(t, m, "[1]")})
			}
		}
		synctest.Wait()
		close(up.release)
		synctest.Wait()
		if up.count() != 6*len(methods) {
			t.Errorf("asked %d times, want %d", up.count(), 6*len(methods))
		}
		c.Close()
	})
}

func TestWhoeverLeavesDoesNotEndTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, leaver := range []int{0, 1} { // the leader, and one who waits
			up := newHeld()
			c := newCache(t, nil)
			h := c.Middleware(up)
			calls := make([]*jsonrpc.Call, 3)
			leave := make([]context.CancelFunc, 3)
			for i := range calls {
				calls[i] = newCall(t, "eth_chainId", "")
				ctx, cancel := context.WithCancel(t.Context())
				leave[i] = cancel
				go h.ServeRPC(ctx, calls[i:i+1])
				synctest.Wait()
			}
			leave[leaver]()
			synctest.Wait()
			for i, call := range calls {
				if i == leaver && !errors.Is(call.Err, context.Canceled) {
					t.Errorf("the client that left has %v", call.Err)
				} else if i != leaver && call.Done() {
					t.Errorf("client %d was answered when %d left: %v", i, leaver, call.Err)
				}
			}
			close(up.release)
			synctest.Wait()
			for i, call := range calls {
				if i != leaver {
					want(t, call, `"0x1"`)
				}
			}
			if up.count() != 1 {
				t.Errorf("asked %d times, want 1", up.count())
			}
			for _, cancel := range leave {
				cancel()
			}
			c.Close()
		}
	})
}

func TestAnAttemptThatAllHaveLeftStillFillsTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := newHeld()
		c := newCache(t, nil)
		h := c.Middleware(up)
		ctx, cancel := context.WithCancel(t.Context())
		go h.ServeRPC(ctx, []*jsonrpc.Call{newCall(t, "eth_chainId", "")})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(up.release)
		synctest.Wait()
		later := newCall(t, "eth_chainId", "")
		h.ServeRPC(t.Context(), []*jsonrpc.Call{later})
		want(t, later, `"0x1"`)
		if up.count() != 1 {
			t.Errorf("asked %d times, want 1", up.count())
		}
		c.Close()
	})
}

func TestErrorsGoOnlyToThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := make(chan struct{})
		boom := errors.New("boom")
		up := &upstream{}
		up.answer = func(_ context.Context, c *jsonrpc.Call) {
			if up.count() == 1 {
				<-fail
				c.Err = boom
				return
			}
			c.Answer = &jsonrpc.Answer{Result: []byte(`"0x1"`)}
		}
		c := newCache(t, nil)
		h := c.Middleware(up)
		waiting := []*jsonrpc.Call{newCall(t, "eth_chainId", ""), newCall(t, "eth_chainId", ""), newCall(t, "eth_chainId", "")}
		for i := range waiting {
			go h.ServeRPC(t.Context(), waiting[i:i+1])
		}
		synctest.Wait()
		close(fail)
		synctest.Wait()
		for _, call := range waiting {
			if call.Err != boom || call.Answer != nil {
				t.Errorf("who waited has %v, %v", call.Answer, call.Err)
			}
		}
		later := newCall(t, "eth_chainId", "")
		h.ServeRPC(t.Context(), []*jsonrpc.Call{later})
		want(t, later, `"0x1"`)
		c.Close()
	})
}

func TestSharedAttemptHasADeadlineOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var deadline time.Time
		up := &upstream{answer: func(ctx context.Context, c *jsonrpc.Call) {
			deadline, _ = ctx.Deadline()
			<-ctx.Done()
			c.Err = context.Cause(ctx)
		}}
		c := newCache(t, func(o *Options) { o.Timeout = 7 * time.Second })
		h := c.Middleware(up)
		start := time.Now()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		leader, waiter := newCall(t, "eth_chainId", ""), newCall(t, "eth_chainId", "")
		go h.ServeRPC(short, []*jsonrpc.Call{leader})
		synctest.Wait()
		done := make(chan time.Time, 1)
		go func() {
			h.ServeRPC(context.WithoutCancel(t.Context()), []*jsonrpc.Call{waiter})
			done <- time.Now()
		}()
		time.Sleep(time.Second)
		synctest.Wait()
		if !errors.Is(leader.Err, context.DeadlineExceeded) || len(done) > 0 {
			t.Errorf("leader %v, waiter done %v", leader.Err, len(done) > 0)
		}
		if ended := (<-done).Sub(start); ended != 7*time.Second || deadline.Sub(start) != 7*time.Second {
			t.Errorf("the attempt's deadline was %v, it ended after %v; want 7s", deadline.Sub(start), ended)
		}
		if !errors.Is(waiter.Err, context.DeadlineExceeded) {
			t.Errorf("waiter: %v", waiter.Err)
		}
		c.Close()
	})
}

func TestElementsOfABatchThatWereAnsweredInTimeAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// As a group: each call has its verdict when the deadline comes.
		up := jsonrpc.HandlerFunc(func(ctx context.Context, calls []*jsonrpc.Call) {
			for _, c := range calls {
				if strings.Contains(string(c.Params), "fast") {
					c.Answer = &jsonrpc.Answer{Result: c.Params}
				}
			}
			if len(jsonrpc.Pending(calls)) == 0 {
				return
			}
			<-ctx.Done()
			for _, c := range jsonrpc.Pending(calls) {
				c.Err = context.Cause(ctx)
			}
		})
		c := newCache(t, func(o *Options) { o.Timeout = 9800 * time.Millisecond })
		calls := make([]*jsonrpc.Call, 12)
		for i := range calls {
			calls[i] = newCall(t, "test_kept", fmt.Sprintf(`["fast",%d]`, i))
		}
		calls[5] = newCall(t, "test_kept", `["slow"]`)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c.Middleware(up).ServeRPC(ctx, calls)
		for i, call := range calls {
			if i == 5 {
				if !errors.Is(call.Err, context.DeadlineExceeded) {
					t.Errorf("the slow one: %v, %v", call.Answer, call.Err)
				}
				continue
			}
			want(t, call, string(call.Params))
		}
		c.Close()
	})
}

func TestNobodyWaitsForMoreOfAnothersBatchThanIsAskedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		up := jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) {
			for _, c := range calls {
				if string(c.Params) == "[7]" {
					<-stuck
				}
			}
			for _, c := range calls {
				c.Answer = &jsonrpc.Answer{Result: c.Params}
			}
		})
		c := newCache(t, func(o *Options) { o.MaxBatch = 3 })
		h := c.Middleware(up)
		batch := make([]*jsonrpc.Call, 9)
		for i := range batch {
			batch[i] = newCall(t, "test_kept", fmt.Sprintf("[%d]", i))
		}
		go h.ServeRPC(t.Context(), batch)
		synctest.Wait()
		other := newCall(t, "test_kept", "[1]")
		go h.ServeRPC(t.Context(), []*jsonrpc.Call{other})
		synctest.Wait()
		want(t, other, "[1]")
		close(stuck)
		synctest.Wait()
		for _, call := range batch {
			want(t, call, string(call.Params))
		}
		c.Close()
	})
}

func TestResultsTooLargeToShareAreAskedForByEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		large := `"` + strings.Repeat("x", 100) + `"`
		up := &upstream{answer: func(_ context.Context, c *jsonrpc.Call) {
			<-release
			c.Answer = &jsonrpc.Answer{Result: []byte(large)}
		}}
		c := newCache(t, func(o *Options) { o.MaxShared = 50 })
		h := c.Middleware(up)
		alone := newCall(t, "eth_chainId", "")
		batch := []*jsonrpc.Call{newCall(t, "eth_chainId", ""), newCall(t, "eth_chainId", "[]")} // a waiter and its twin
		go h.ServeRPC(t.Context(), []*jsonrpc.Call{alone})
		synctest.Wait()
		go h.ServeRPC(t.Context(), batch)
		synctest.Wait()
		close(release)
		synctest.Wait()
		for _, call := range append(batch, alone) {
			want(t, call, large)
		}
		if up.count() != 2 {
			t.Errorf("asked %d times, want 2", up.count())
		}
		if n := c.opts.Store.(*Memory).Len(); n != 0 {
			t.Errorf("%d entries are kept", n)
		}
		c.Close()
	})
}

func TestPanicsBehindTheCacheDoNotHangAnybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		up := jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) {
			<-release
			calls[0].Answer = &jsonrpc.Answer{Result: []byte("1")}
			panic("boom")
		})
		c := newCache(t, nil)
		h := c.Middleware(up)
		var calls []*jsonrpc.Call
		for range 3 {
			batch := []*jsonrpc.Call{newCall(t, "test_kept", "[1]"), newCall(t, "test_kept", "[2]")}
			calls = append(calls, batch...)
			go h.ServeRPC(t.Context(), batch)
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		for i, call := range calls {
			if i%2 == 0 {
				want(t, call, "1")
			} else if call.Err == nil {
				t.Errorf("call %d: answer %v after a panic", i, call.Answer)
			}
		}
		if len(c.flights) != 0 {
			t.Errorf("%d flights are left", len(c.flights))
		}
		c.Close()
	})
}

func TestCloseEndsSharedAttemptsAndLeavesNoGoroutine(t *testing.T) {
	up := newHeld()
	c := newCache(t, nil)
	h := c.Middleware(up)
	calls := []*jsonrpc.Call{newCall(t, "eth_chainId", ""), newCall(t, "eth_chainId", ""), newCall(t, "net_version", "")}
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() { h.ServeRPC(context.Background(), calls[i:i+1]) })
	}
	<-up.begun
	<-up.begun
	c.Close()
	c.Close()
	wg.Wait()
	late := newCall(t, "eth_chainId", "")
	h.ServeRPC(context.Background(), []*jsonrpc.Call{late})
	for i, call := range append(calls, late) {
		if call.Err == nil {
			t.Errorf("call %d: answer %v after Close", i, call.Answer)
		}
	}
	goleak.VerifyNone(t)
}

func TestCallsDuringCloseAreSafe(t *testing.T) {
	for range 50 {
		c := newCache(t, nil)
		h := c.Middleware(&upstream{})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				call := newCall(t, "eth_chainId", fmt.Sprintf("[%d]", i))
				h.ServeRPC(context.Background(), []*jsonrpc.Call{call})
				if !call.Done() {
					t.Error("left open")
				}
			})
		}
		c.Close()
		wg.Wait()
	}
}

func TestIdenticalReadsOfABatchAreAskedOnce(t *testing.T) {
	c, up := newCache(t, nil), &upstream{}
	up.answer = func(_ context.Context, c *jsonrpc.Call) {
		c.Answer = &jsonrpc.Answer{Result: []byte(fmt.Sprintf(`"%s %d"`, c.Method, len(c.Params)))}
	}
	var calls []*jsonrpc.Call
	for range 4 {
		calls = append(calls, newCall(t, "eth_getBalance", `["0x1"]`), newCall(t, "eth_chainId", ""), newCall(t, "eth_sendRawTransaction", `["0x1"]`), newCall(t, "made_up", ""))
	}
	c.Middleware(up).ServeRPC(t.Context(), calls)
	asked := map[string]int{}
	for _, c := range up.asked {
		asked[c.Method]++
	}
	if asked["eth_getBalance"] != 1 || asked["eth_chainId"] != 1 || asked["eth_sendRawTransaction"] != 4 || asked["made_up"] != 4 {
		t.Errorf("asked %v", asked)
	}
	for _, call := range calls {
		want(t, call, fmt.Sprintf(`"%s %d"`, call.Method, len(call.Params)))
	}
}

func TestReadsAreNeverSharedAcrossASend(t *testing.T) {
	c := newCache(t, func(o *Options) { o.Coalesce = []string{"eth_getTransactionCount"} })
	up := &upstream{}
	n := 0
	up.answer = func(_ context.Context, c *jsonrpc.Call) {
		up.mu.Lock()
		defer up.mu.Unlock()
		n++
		c.Answer = &jsonrpc.Answer{Result: []byte(fmt.Sprint(n))}
	}
	for _, method := range []string{"eth_getTransactionCount", "eth_getBalance"} { // coalesced, and only de-duplicated
		up.asked = nil
		var calls []*jsonrpc.Call
		for epoch := range 3 {
			for range 2 {
				call := newCall(t, method, `["0xa","pending"]`)
				call.Epoch = epoch
				calls = append(calls, call)
			}
		}
		c.Middleware(up).ServeRPC(t.Context(), calls)
		if up.count() != 3 {
			t.Errorf("%s: asked %d times, want once in each of 3 epochs", method, up.count())
		}
		for i := 0; i < len(calls); i += 2 {
			if a, b := calls[i].Answer, calls[i+1].Answer; a == nil || b == nil || string(a.Result) != string(b.Result) {
				t.Errorf("%s: twins of epoch %d differ", method, calls[i].Epoch)
			}
			if i > 0 && string(calls[i].Answer.Result) == string(calls[i-2].Answer.Result) {
				t.Errorf("%s: epochs %d and %d share an answer", method, calls[i-2].Epoch, calls[i].Epoch)
			}
		}
	}
}

// TestEveryCallEndsDone drives all kinds of calls at once through a handler that
// answers, fails, is slow and panics, under clients that leave.
func TestEveryCallEndsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := jsonrpc.HandlerFunc(func(ctx context.Context, calls []*jsonrpc.Call) {
			for _, c := range calls {
				switch {
				case strings.Contains(string(c.Params), "panic"):
					panic("boom")
				case strings.Contains(string(c.Params), "slow"):
					select {
					case <-time.After(3 * time.Second):
					case <-ctx.Done():
					}
				}
				switch {
				case ctx.Err() != nil:
					c.Err = context.Cause(ctx)
				case strings.Contains(string(c.Params), "fail"):
					c.Err = errors.New("failed")
				case strings.Contains(string(c.Params), "large"):
					c.Answer = &jsonrpc.Answer{Result: []byte(strings.Repeat("1", 200))}
				default:
					c.Answer = &jsonrpc.Answer{Result: []byte("1")}
				}
			}
		})
		c := newCache(t, func(o *Options) { o.MaxShared, o.MaxBatch, o.Coalesce = 100, 2, []string{"eth_call"} })
		h := c.Middleware(up)
		methods := []string{"eth_chainId", "eth_call", "eth_getBalance", "test_unshared", "eth_sendRawTransaction", "made_up"}
		params := []string{"[]", `["slow"]`, `["fail"]`, `["large"]`, `["slow","large"]`, `["panic"]`}
		var wg sync.WaitGroup
		for client := range 60 {
			var calls []*jsonrpc.Call
			for i := range 1 + client%7 {
				call := newCall(t, methods[(client+i)%len(methods)], params[(client/6+i*i)%len(params)])
				call.Epoch = i / 3
				calls = append(calls, call)
			}
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+client%5)*time.Second)
				defer cancel()
				panicked := true
				func() {
					defer func() { _ = recover() }() // of what goes on unshared; the front answers it
					h.ServeRPC(ctx, calls)
					panicked = false
				}()
				for _, call := range calls {
					if call.Answer != nil && call.Err != nil {
						t.Errorf("%s %s has both an answer and an error", call.Method, call.Params)
					}
					if !panicked && !call.Done() {
						t.Errorf("%s %s was left open", call.Method, call.Params)
					}
				}
			})
		}
		wg.Wait()
		c.Close()
		if len(c.flights) != 0 {
			t.Errorf("%d flights are left", len(c.flights))
		}
	})
}

func TestCallThatAStageLeavesOpenEndsWithAnError(t *testing.T) {
	c := newCache(t, nil)
	calls := []*jsonrpc.Call{newCall(t, "eth_chainId", ""), newCall(t, "eth_chainId", "")}
	c.Middleware(jsonrpc.HandlerFunc(func(context.Context, []*jsonrpc.Call) {})).ServeRPC(t.Context(), calls)
	for _, call := range calls {
		if call.Err == nil {
			t.Error("left open")
		}
	}
}
