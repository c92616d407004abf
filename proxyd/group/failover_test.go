package group

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

func rounds(n int) setting {
	return setting{group: func(o *Options) { o.MaxRetries = &n }}
}

func (w *world) all(f func(*node)) {
	for _, n := range w.nodes {
		f(n)
	}
}

func wantOrder(t *testing.T, w *world, want string) {
	t.Helper()
	if got := w.order(); got != want {
		t.Fatalf("asked %q, want %q", got, want)
	}
}

func wantRPCError(t *testing.T, c *jsonrpc.Call, want string) {
	t.Helper()
	if c.Err != nil || string(c.Answer.Error) != want {
		t.Fatalf("got %+v, error %v, want %s", c.Answer, c.Err, want)
	}
}

func TestMembersAreAskedInTheirOrder(t *testing.T) {
	w := newWorld(t, 3, setting{})
	for range 5 {
		w.well("b0")
	}
	wantOrder(t, w, "00000")
}

func TestEveryKindOfFailureGoesToTheNextMember(t *testing.T) {
	for _, f := range []devchain.Fault{
		{Kind: devchain.FaultStatus, Status: 500}, {Kind: devchain.FaultStatus, Status: 404}, {Kind: devchain.FaultStatus, Status: 204}, {Kind: devchain.FaultStatus, Status: 302},
		{Kind: devchain.FaultGarbage}, {Kind: devchain.FaultRateLimited}, {Kind: devchain.FaultWrongID}, {Kind: devchain.FaultClose}, {Kind: devchain.FaultTruncate},
		{Kind: devchain.FaultHang},
		{Kind: devchain.FaultRPCError, RPCCode: -32603, RPCMessage: "internal error"},
		{Kind: devchain.FaultRPCError, RPCCode: -32005, RPCMessage: "rate limit"},
		{Kind: devchain.FaultRPCError, RPCCode: -32000, RPCMessage: "header not found"},
		{Kind: devchain.FaultRPCError, RPCCode: -32601, RPCMessage: "method not found"},
		{Kind: devchain.FaultRPCError, RPCCode: -32099, RPCMessage: "who knows"},
	} {
		t.Run(fmt.Sprint(f.Kind, f.Status, f.RPCMessage), func(t *testing.T) {
			w := newWorld(t, 2, setting{backend: func(_ int, o *backend.Options) { o.ResponseTimeout = 300 * time.Millisecond }})
			w.nodes[0].SetFault(f)
			w.well("b1")
			wantOrder(t, w, "01")
		})
	}
}

func TestEveryMemberIsAskedBeforeAnyIsAskedAgain(t *testing.T) {
	w := newWorld(t, 3, rounds(2))
	w.all(func(n *node) { n.is(devchain.FaultStatus) })
	c := w.get()
	wantOrder(t, w, "012012012")
	var nobody *Unserviceable
	if !errors.As(c.Err, &nobody) || len(nobody.Reasons) != 9 || nobody.Group != "g" || nobody.RetryAfter != 0 {
		t.Fatalf("got %v", c.Err)
	}
	if !strings.Contains(c.Err.Error(), "backend b2: HTTP status 503") {
		t.Errorf("the reasons are not named: %v", c.Err)
	}
}

func TestBackendsCapTheirOwnRounds(t *testing.T) {
	retries := []int{0, 2, 1}
	w := newWorld(t, 3, setting{
		group:   func(o *Options) { o.MaxRetries = nil },
		backend: func(i int, o *backend.Options) { o.MaxRetries = retries[i] },
	})
	w.all(func(n *node) { n.is(devchain.FaultGarbage) })
	w.get()
	wantOrder(t, w, "012"+"12"+"1")
}

func TestMaxAttemptsEndsACallAtOnce(t *testing.T) {
	inBubble(t, 3, setting{group: func(o *Options) { n := 5; o.MaxRetries, o.MaxAttempts, o.RetryDelay = &n, 2, after(time.Hour) }}, func(t *testing.T, w *world) {
		w.all(func(n *node) { n.is(devchain.FaultGarbage) })
		started := time.Now()
		c := w.get()
		wantOrder(t, w, "01")
		if took := time.Since(started); took > 0 {
			t.Errorf("it waited %s for a round that it may not make: %v", took, c.Err)
		}
	})
}

func TestRoundsWaitAsTheIncumbentDoes(t *testing.T) {
	n := 4
	inBubble(t, 2, setting{group: func(o *Options) { o.MaxRetries, o.RetryDelay = &n, nil }}, func(t *testing.T, w *world) {
		w.all(func(n *node) { n.is(devchain.FaultGarbage) })
		w.do(time.Minute, read())
		asks := w.asks()
		if len(asks) != 10 {
			t.Fatalf("%d attempts", len(asks))
		}
		for round, want := range []time.Duration{1 * time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second} {
			if pause := asks[2*round+2].at - asks[2*round+1].at; pause < want || pause > want+250*time.Millisecond {
				t.Errorf("pause %d is %s", round, pause)
			}
			if asks[2*round+1].at != asks[2*round].at {
				t.Error("a pause before the next member")
			}
		}
	})
}

func TestNoRoundThatTheDeadlineForbids(t *testing.T) {
	n := 3
	inBubble(t, 2, setting{group: func(o *Options) { o.MaxRetries, o.RetryDelay = &n, after(time.Minute) }}, func(t *testing.T, w *world) {
		w.all(func(n *node) { n.is(devchain.FaultStatus) })
		started := time.Now()
		c := w.get()
		var nobody *Unserviceable
		if !errors.As(c.Err, &nobody) || time.Since(started) > 0 {
			t.Errorf("after %s: %v", time.Since(started), c.Err)
		}
	})
}

func TestFinalErrorIsNotAskedAbout(t *testing.T) {
	w := newWorld(t, 3, rounds(3))
	w.nodes[0].errs(3, "execution reverted")
	wantRPCError(t, w.get(), `{"code":3,"message":"execution reverted"}`)
	wantOrder(t, w, "0")
}

func TestErrorIsAskedAboutAtOneOtherMemberAndInNoSecondRound(t *testing.T) {
	for _, text := range []string{"who knows", "header not found", "internal error", "rate limit"} {
		w := newWorld(t, 3, rounds(3))
		w.all(func(n *node) { n.errs(-32000, text) })
		wantRPCError(t, w.get(), `{"code":-32000,"message":"`+text+`"}`)
		wantOrder(t, w, "01")
	}
}

func TestBestErrorIsReturnedUnchanged(t *testing.T) {
	for _, c := range []struct{ first, second, want string }{
		{"who knows", "rate limit", "who knows"},
		{"rate limit", "who knows", "who knows"},
		{"internal error", "missing trie node", "missing trie node"},
		{"missing trie node", "internal error", "missing trie node"},
		{"method not found", "rate limit", "method not found"},
		{"rate limit", "internal error", "rate limit"},
		{"missing trie node", "execution reverted", "execution reverted"},
	} {
		w := newWorld(t, 3, rounds(1))
		w.nodes[0].errs(-32000, c.first)
		w.nodes[1].errs(-32000, c.second)
		wantRPCError(t, w.get(), `{"code":-32000,"message":"`+c.want+`"}`)
	}
}

func TestErrorBeatsTheSilenceOfOthers(t *testing.T) {
	w := newWorld(t, 2, rounds(2))
	w.nodes[0].errs(-32000, "header not found")
	w.nodes[1].is(devchain.FaultGarbage)
	wantRPCError(t, w.get(), `{"code":-32000,"message":"header not found"}`)
	wantOrder(t, w, "01")
	w.nodes[0].is(devchain.FaultGarbage)
	w.nodes[1].errs(-32000, "header not found")
	wantRPCError(t, w.get(), `{"code":-32000,"message":"header not found"}`)
	wantOrder(t, w, "01")
}

func TestAllTimedOutIsATimeout(t *testing.T) {
	inBubble(t, 3, setting{backend: func(_ int, o *backend.Options) { o.ResponseTimeout = time.Second }}, func(t *testing.T, w *world) {
		w.all(func(n *node) { n.is(devchain.FaultHang) })
		if c := w.get(); !errors.Is(c.Err, ErrTimeout) {
			t.Fatal(c.Err)
		}
		wantOrder(t, w, "012")
	})
	inBubble(t, 2, setting{backend: func(_ int, o *backend.Options) { o.ResponseTimeout = time.Second }}, func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultHang)
		w.nodes[1].is(devchain.FaultGarbage)
		var nobody *Unserviceable
		if c := w.get(); !errors.As(c.Err, &nobody) || len(nobody.Reasons) != 2 {
			t.Fatal(c.Err)
		}
	})
}

func TestUnserviceableSaysWhenToComeBack(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		w.all(func(n *node) {
			n.SetFault(devchain.Fault{Kind: devchain.FaultRateLimited, RetryAfter: fmt.Sprint(20 * (n.index + 1))})
		})
		c := w.get()
		var nobody *Unserviceable
		if !errors.As(c.Err, &nobody) || nobody.RetryAfter != 20*time.Second {
			t.Fatalf("%v, %+v", c.Err, nobody)
		}
		wantOrder(t, w, "01")
	})
}

func TestAttemptLeavesTheUnaskedAShareOfTheTime(t *testing.T) {
	inBubble(t, 3, setting{backend: func(_ int, o *backend.Options) { o.ResponseTimeout = time.Minute }}, func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultHang)
		w.nodes[1].is(devchain.FaultHang)
		started := time.Now()
		w.well("b2")
		if took := time.Since(started); took >= 10*time.Second {
			t.Errorf("took %s", took)
		}
		wantOrder(t, w, "012")
		w.state(0, backend.Well) // once is not in a row
	})
}

func TestNoAttemptAfterTheDeadline(t *testing.T) {
	inBubble(t, 3, rounds(5), func(t *testing.T, w *world) {
		w.all(func(n *node) { n.SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 3 * time.Second}) })
		c := read()
		started := time.Now()
		w.do(time.Second, c)
		if took := time.Since(started); !errors.Is(c.Err, ErrTimeout) || took != time.Second {
			t.Fatalf("after %s: %v", took, c.Err)
		}
		n := len(w.asks())
		time.Sleep(time.Minute)
		if len(w.asks()) != n {
			t.Error("asked after the deadline")
		}
		for i := range w.backends {
			w.state(i, backend.Well)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		w.order()
		c = read()
		w.ServeRPC(ctx, callsOf(c))
		if !errors.Is(c.Err, context.Canceled) || w.order() != "" {
			t.Errorf("a client that has left: %v", c.Err)
		}
	})
}

func callsOf(calls ...*jsonrpc.Call) []*jsonrpc.Call { return calls }

func TestClientThatLeavesBlamesNobody(t *testing.T) {
	inBubble(t, 2, setting{backend: func(_ int, o *backend.Options) { o.OutAfter = 1 }}, func(t *testing.T, w *world) {
		w.all(func(n *node) { n.is(devchain.FaultHang) })
		left := errors.New("client left")
		for range 10 {
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(100*time.Millisecond, func() { cancel(left) })
			c := read()
			w.ServeRPC(ctx, callsOf(c))
			if !errors.Is(c.Err, left) {
				t.Fatal(c.Err)
			}
		}
		w.state(0, backend.Well)
		wantOrder(t, w, "0000000000")
	})
}

func TestOnlyFailedElementsOfABatchAreAskedAgain(t *testing.T) {
	w := newWorld(t, 3, setting{})
	w.nodes[0].does(func(rw http.ResponseWriter, r *http.Request) {
		var calls []struct {
			ID     uint64
			Method string
		}
		json.NewDecoder(r.Body).Decode(&calls)
		fmt.Fprintf(rw, `[{"id":%d,"result":"first"},{"id":%d,"error":{"code":-32000,"message":"header not found"}},{"id":%d,"error":{"code":3,"message":"execution reverted"}}]`,
			calls[0].ID, calls[1].ID, calls[2].ID)
	})
	calls := callsOf(read(), call("eth_gasPrice", ""), call("eth_call", ""), call("eth_chainId", ""))
	w.do(10*time.Second, calls...)
	if string(calls[0].Answer.Result) != `"first"` || calls[0].Answer.Backend != "b0" {
		t.Errorf("the answered element: %+v", calls[0].Answer)
	}
	wantRPCError(t, calls[2], `{"code":3,"message":"execution reverted"}`)
	for _, i := range []int{1, 3} {
		if calls[i].Err != nil || calls[i].Answer.Backend != "b1" || calls[i].Answer.Result == nil {
			t.Errorf("element %d: %+v, %v", i, calls[i].Answer, calls[i].Err)
		}
	}
	second := w.asks()[1].body
	if strings.Contains(second, "eth_blockNumber") || strings.Contains(second, "eth_call") || !strings.Contains(second, "eth_gasPrice") || !strings.Contains(second, "eth_chainId") {
		t.Errorf("asked again: %s", second)
	}
	wantOrder(t, w, "01")
}

func TestBatchesAreCutToTheirMaximumAndReadsKeptApart(t *testing.T) {
	w := newWorld(t, 1, setting{group: func(o *Options) { o.MaxBatch = 4 }})
	calls := callsOf()
	for i := range 9 {
		calls = append(calls, call("eth_getBalance", fmt.Sprintf(`["0x%040d","latest"]`, i)))
	}
	calls = append(calls, call("eth_sendTransaction", ""), call("eth_newFilter", ""))
	calls[3].Err = errors.New("done before")
	w.ServeRPC(context.Background(), calls)
	sizes := map[int]int{}
	for _, a := range w.asks() {
		n := strings.Count(a.body, `"method"`)
		sizes[n]++
		if strings.Contains(a.body, "eth_newFilter") && strings.Contains(a.body, "eth_getBalance") {
			t.Error("a read travels with what must not run twice")
		}
	}
	if fmt.Sprint(sizes) != "map[2:1 4:2]" {
		t.Errorf("sizes of batches: %v", sizes)
	}
}

func TestDeadlineKeepsFinishedElements(t *testing.T) {
	inBubble(t, 1, setting{group: func(o *Options) { o.MaxBatch = 1 }}, func(t *testing.T, w *world) {
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultHang, Method: "eth_call"})
		calls := callsOf(read(), call("eth_call", "[{}]"), call("eth_gasPrice", ""))
		w.do(time.Second, calls...)
		if calls[0].Err != nil || calls[2].Err != nil || !errors.Is(calls[1].Err, ErrTimeout) {
			t.Errorf("%v, %v, %v", calls[0].Err, calls[1].Err, calls[2].Err)
		}
	})
}

func TestTooLargeIsAnsweredAtOnce(t *testing.T) {
	w := newWorld(t, 2, setting{backend: func(_ int, o *backend.Options) { o.MaxResponseSize = 20 }})
	if c := w.get(); !errors.Is(c.Err, ErrTooLarge) {
		t.Fatal(c.Err)
	}
	wantOrder(t, w, "0")
	w.state(0, backend.Well)
}

func TestFallbacksAreAskedOnlyWhenTheFirstTierCannotServe(t *testing.T) {
	w := newWorld(t, 3, setting{group: func(o *Options) { o.Members[0].Tier = 1 }})
	w.well("b1")
	w.nodes[1].is(devchain.FaultStatus)
	w.well("b2")
	wantOrder(t, w, "112")
	w.nodes[2].is(devchain.FaultStatus)
	w.well("b0")
	wantOrder(t, w, "120")
}

func TestStrainedMembersComeBehindWellOnesOfTheirTier(t *testing.T) {
	w := newWorld(t, 3, setting{
		group:   func(o *Options) { o.Members[2].Tier = 1 },
		backend: func(i int, o *backend.Options) { o.OutAfter, o.OutFor = 1000, time.Nanosecond },
	})
	w.nodes[0].is(devchain.FaultStatus)
	for range 12 {
		w.well("b1")
	}
	w.state(0, backend.Strained)
	w.order()
	w.well("b1")
	wantOrder(t, w, "1")
	w.nodes[1].is(devchain.FaultStatus)
	w.nodes[0].is(devchain.FaultNone)
	w.well("b0")
	wantOrder(t, w, "10") // and not the second tier
}

func TestMemberThatLacksAMethodIsAskedLastForIt(t *testing.T) {
	w := newWorld(t, 2, setting{})
	w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: -32601, RPCMessage: "method not found", Method: "eth_gasPrice"})
	for range 3 {
		w.do(time.Second, call("eth_gasPrice", ""))
	}
	wantOrder(t, w, "0111")
	w.well("b0")
}

func TestWeightedRoutingSharesByWeight(t *testing.T) {
	weights := []int{6, 3, 1, 0, -5}
	members := make([]*Member, len(weights))
	for i, weight := range weights {
		members[i] = &Member{Weight: weight, Tier: i}
	}
	f := newFallback(Options{Members: members, Weighted: true})
	const n = 20_000
	first := make([]int, len(weights))
	last := 0
	for range n {
		order := slices.Clone(members)
		f.Arrange(order, Ask{})
		first[order[0].Tier]++
		if order[4].Weight < 0 {
			last++
		}
		for i, m := range order {
			if m.Weight > 0 && i > 2 {
				t.Fatal("a member without weight stands before one with weight")
			}
		}
	}
	for i, want := range []int{n * 6 / 10, n * 3 / 10, n / 10, 0, 0} {
		if d := first[i] - want; d < -n/50 || d > n/50 {
			t.Errorf("weight %d came first %d times, want about %d", weights[i], first[i], want)
		}
	}
	if last < n*45/100 || last > n*55/100 {
		t.Errorf("members without weight are not in random order: %d of %d", last, n)
	}
}

func TestSoftSignsAreIgnoredWhenLessThanHalfIsWellAndLoadIsSpread(t *testing.T) {
	for _, weighted := range []bool{true, false} {
		w := newWorld(t, 3, setting{
			group:   func(o *Options) { o.Weighted = weighted; o.Members[0].Weight = 1 },
			backend: func(i int, o *backend.Options) { o.MaxLatency = time.Hour },
		})
		// Two of three are strained: their latency is over the threshold.
		for i := range 2 {
			strain(t, w, i)
		}
		w.order()
		c := w.get()
		want := map[bool]string{true: "b0", false: "b2"}[weighted]
		if c.Answer.Backend != want {
			t.Errorf("weighted %t: %s answered, want %s", weighted, c.Answer.Backend, want)
		}
	}
}

// strain gives backend i failures that another member's answers blame on it.
func strain(t *testing.T, w *world, i int) {
	t.Helper()
	w.nodes[i].is(devchain.FaultStatus)
	done := make(chan *backend.Attempt, 1)
	for n := 0; n < 12; n++ {
		w.nodes[i].is(map[bool]devchain.FaultKind{true: devchain.FaultNone, false: devchain.FaultStatus}[n%3 == 2])
		w.backends[i].Begin(callsOf(read()), backend.Try{Timeout: time.Minute}, done)
		(<-done).Settle(true)
	}
	w.nodes[i].is(devchain.FaultNone)
	w.state(i, backend.Strained)
}

func TestMaxRPSMovesOnAndThenTakesTheOneWithMostRoom(t *testing.T) {
	inBubble(t, 3, setting{backend: func(i int, o *backend.Options) { o.MaxRPS = []float64{2, 3, 1}[i] }}, func(t *testing.T, w *world) {
		for range 6 {
			w.get()
		}
		wantOrder(t, w, "001112")
		time.Sleep(300 * time.Millisecond) // 0.6, 0.9 and 0.3 calls of room
		if c := w.get(); c.Err != nil {
			t.Fatal(c.Err)
		}
		wantOrder(t, w, "1")
		w.nodes[1].is(devchain.FaultGarbage)
		if c := w.get(); c.Err != nil {
			t.Fatal(c.Err)
		}
		wantOrder(t, w, "10")
	})
}

func TestSmallMaxRPSOnTheOnlyBackendServes(t *testing.T) {
	w := newWorld(t, 1, setting{backend: func(_ int, o *backend.Options) { o.MaxRPS = 3 }})
	for range 20 {
		w.well("b0")
	}
}

func TestStrictMaxRPSRefuses(t *testing.T) {
	inBubble(t, 2, setting{backend: func(_ int, o *backend.Options) { o.MaxRPS, o.MaxRPSStrict = 1, true }}, func(t *testing.T, w *world) {
		w.well("b0")
		w.well("b1")
		if c := w.get(); !errors.Is(c.Err, ErrOverCapacity) {
			t.Fatal(c.Err)
		}
		wantOrder(t, w, "01")
		time.Sleep(time.Second)
		w.well("b0")
	})
}

func TestStrictMaxRPSHoldsInTheLastResort(t *testing.T) {
	inBubble(t, 2, setting{backend: func(i int, o *backend.Options) { o.MaxRPS, o.MaxRPSStrict = float64(100-99*i), true }}, func(t *testing.T, w *world) {
		w.nodes[0].is(devchain.FaultGarbage)
		w.well("b1")
		w.order()
		var nobody *Unserviceable
		if c := w.get(); !errors.As(c.Err, &nobody) {
			t.Fatal(c.Err)
		}
		wantOrder(t, w, "0")
	})
}

func TestOverloadIsAnsweredAndBlamesNobody(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, _ *world) {
		slots := backend.NewSlots(1, 50*time.Millisecond)
		w := newWorld(t, 2, setting{listen: listenMemory, backend: func(_ int, o *backend.Options) { o.Slots, o.OutAfter = slots, 1 }})
		w.nodes[0].is(devchain.FaultHang)
		held := read()
		ctx, cancel := context.WithCancel(context.Background())
		go w.ServeRPC(ctx, callsOf(held))
		synctest.Wait()
		started := time.Now()
		if c := w.get(); !errors.Is(c.Err, backend.ErrOverloaded) || time.Since(started) != 50*time.Millisecond {
			t.Fatalf("after %s: %v", time.Since(started), c.Err)
		}
		wantOrder(t, w, "0")
		cancel()
		synctest.Wait()
		w.state(0, backend.Well)
		w.nodes[0].is(devchain.FaultNone)
		w.well("b0")
	})
}

func TestGroupWithoutMembersOrWithAnUnknownStrategyIsAnError(t *testing.T) {
	for _, o := range []Options{{Name: "g"}, {Name: "g", Strategy: "nonsense", Members: []*Member{{}}}} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "backend group g") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestNegativeRoundsAreNone(t *testing.T) {
	w := newWorld(t, 2, rounds(-3))
	w.all(func(n *node) { n.is(devchain.FaultGarbage) })
	w.get()
	wantOrder(t, w, "01")
}

func TestLargeAnswersPassUntouched(t *testing.T) {
	w := newWorld(t, 1, setting{})
	long := `["` + strings.Repeat("aé\\u00e9", 300_000) + `", 1.0, 12345678901234567890]`
	w.nodes[0].does(func(rw http.ResponseWriter, r *http.Request) {
		in, _ := io.ReadAll(r.Body)
		io.WriteString(rw, replaceID(`{"jsonrpc":"2.0","result":`+long+`,"id":$id}`, in))
	})
	if c := w.get(); c.Err != nil || string(c.Answer.Result) != long {
		t.Errorf("%v, %d bytes", c.Err, len(c.Answer.Result))
	}
}
