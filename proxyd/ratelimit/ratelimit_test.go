package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/ulule/limiter/v3"

	"gateway.internal/proxyd/jsonrpc"
)

func newLimiter(o Options) (*Limiter, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	o.Metrics, o.Log = NewMetrics(reg), slog.New(slog.DiscardHandler)
	return New(o), reg
}

func shown(reg *prometheus.Registry) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return w.Body.String()
}

func client(key, alias string) *jsonrpc.Client { return &jsonrpc.Client{Key: key, Auth: alias} }

// ask sends one call for each method in one slice, and returns a letter for each: p for passed, r for
// refused, e for another error.
func ask(l *Limiter, c *jsonrpc.Client, methods ...string) string {
	calls := make([]*jsonrpc.Call, len(methods))
	for i, m := range methods {
		calls[i] = &jsonrpc.Call{Method: m, Label: m, Client: c}
	}
	reached := 0
	l.Middleware(jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) {
		reached += len(calls)
		for _, c := range calls {
			c.Answer = &jsonrpc.Answer{}
		}
	})).ServeRPC(context.Background(), calls)
	var out strings.Builder
	for _, c := range calls {
		var refused *Refused
		switch {
		case c.Answer != nil && c.Err == nil:
			out.WriteByte('p')
			reached--
		case errors.As(c.Err, &refused) && c.Answer == nil:
			out.WriteByte('r')
		default:
			out.WriteByte('e')
		}
	}
	if reached != 0 {
		return "a refused call went on"
	}
	return out.String()
}

// asks sends each call on its own.
func asks(l *Limiter, c *jsonrpc.Client, methods ...string) string {
	var out strings.Builder
	for _, m := range methods {
		out.WriteString(ask(l, c, m))
	}
	return out.String()
}

func times(n int, method string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = method
	}
	return out
}

// inBubble runs a test on the fake clock, which stands at the beginning of a window of every length used here.
func inBubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	run := func(t *testing.T) { synctest.Test(t, f) }
	if name == "" {
		run(t)
		return
	}
	t.Run(name, run)
}

func check(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestBaseRateCountsEachClientForItself(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		l, reg := newLimiter(Options{Base: Limit{Calls: 3, Interval: time.Second}})
		check(t, asks(l, client("1.1.1.1", "none"), times(5, "eth_call")...), "ppprr")
		check(t, asks(l, client("2.2.2.2", "none"), times(4, "eth_call")...), "pppr")
		if !strings.Contains(shown(reg), `proxyd_rate_limited_calls_total{method_name="eth_call"} 3`) {
			t.Error("refused calls are not counted")
		}
	})
}

func TestWindowRollsOverOnTheWallClock(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		l, _ := newLimiter(Options{Base: Limit{Calls: 2, Interval: 10 * time.Second}})
		c := client("1.1.1.1", "none")
		time.Sleep(4 * time.Second)
		check(t, asks(l, c, times(3, "m")...), "ppr")
		time.Sleep(6*time.Second - time.Microsecond)
		check(t, asks(l, c, "m"), "r")
		time.Sleep(time.Microsecond) // the window is aligned: it ends 6 s after the first call
		check(t, asks(l, c, times(3, "m")...), "ppr")
	})
}

func TestRefusedCallsCountToo(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		store := NewMemory(0)
		l, _ := newLimiter(Options{Base: Limit{Calls: 2, Interval: time.Minute}, Store: store})
		c := client("1.1.1.1", "none")
		asks(l, c, times(5, "m")...)
		got, err := store.Peek(t.Context(), "main:1.1.1.1", limiter.Rate{Limit: 2, Period: time.Minute})
		if err != nil || got.Remaining != -3 {
			t.Errorf("remaining %d, %v, want -3", got.Remaining, err)
		}
		got, _ = store.Reset(t.Context(), "main:1.1.1.1", limiter.Rate{Limit: 2, Period: time.Minute})
		if got.Remaining != 2 {
			t.Errorf("remaining %d after reset", got.Remaining)
		}
	})
}

func TestOverrideIsConsumedBesideTheBaseRate(t *testing.T) {
	inBubble(t, "both hold", func(t *testing.T) {
		l, _ := newLimiter(Options{
			Base:    Limit{Calls: 5, Interval: time.Second},
			Methods: map[string]Limit{"eth_getLogs": {Calls: 2, Interval: time.Second}},
		})
		c := client("1.1.1.1", "none")
		check(t, asks(l, c, times(3, "eth_getLogs")...), "ppr")
		check(t, asks(l, c, times(3, "eth_call")...), "ppr") // the base has seen six
	})
	inBubble(t, "without a base rate", func(t *testing.T) {
		l, _ := newLimiter(Options{Methods: map[string]Limit{"eth_getLogs": {Calls: 1, Interval: time.Second}}})
		check(t, asks(l, client("a", "none"), "eth_getLogs", "eth_getLogs", "eth_call", "eth_call"), "prpp")
	})
	inBubble(t, "its interval is its own", func(t *testing.T) {
		l, _ := newLimiter(Options{Methods: map[string]Limit{"slow": {Calls: 1, Interval: time.Minute}, "quick": {Calls: 1}}})
		c := client("a", "none")
		check(t, asks(l, c, "slow", "quick", "slow", "quick"), "pprr")
		time.Sleep(time.Second) // no interval is one second
		check(t, asks(l, c, "slow", "quick"), "rp")
		time.Sleep(59 * time.Second)
		check(t, asks(l, c, "slow"), "p")
	})
	inBubble(t, "zero refuses all", func(t *testing.T) {
		l, _ := newLimiter(Options{Methods: map[string]Limit{"never": {}}})
		check(t, asks(l, client("a", "none"), "never", "other"), "rp")
	})
}

func TestOverridesByPatternShareOneCounterAndYieldToNames(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		l, _ := newLimiter(Options{Methods: map[string]Limit{
			"debug_*": {Calls: 2, Interval: time.Second}, "debug_trace*": {Calls: 1, Interval: time.Second}, "debug_traceCall": {Calls: 3, Interval: time.Second},
		}})
		c := client("a", "none")
		check(t, asks(l, c, "debug_a", "debug_b", "debug_c"), "ppr")
		check(t, asks(l, c, "debug_traceBlock", "debug_traceTransaction"), "pr")
		check(t, asks(l, c, times(4, "debug_traceCall")...), "pppr")
	})
}

func TestExemptClientsPassAllButGlobalLimits(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		l, _ := newLimiter(Options{
			Base: Limit{Calls: 1, Interval: time.Second},
			Methods: map[string]Limit{
				"plain":  {Calls: 1, Interval: time.Second},
				"global": {Calls: 1, Interval: time.Second, Global: true},
			},
			ExemptOrigins:    []*regexp.Regexp{regexp.MustCompile(`app\.example`)},
			ExemptUserAgents: []*regexp.Regexp{regexp.MustCompile(`^monitor/`)},
		})
		for name, c := range map[string]*jsonrpc.Client{
			"origin": {Key: "a", Origin: "https://app.example"},
			"agent":  {Key: "b", UserAgent: "monitor/1.0"},
		} {
			if got := asks(l, c, "other", "other", "plain", "plain", "global", "global"); got != "pppppr" {
				t.Errorf("%s: %s", name, got)
			}
		}
		check(t, asks(l, &jsonrpc.Client{Key: "c", Origin: "https://other", UserAgent: "x monitor/"}, "other", "other"), "pr")
		check(t, asks(l, &jsonrpc.Client{Key: "d", Exempt: true}, times(5, "global")...), "ppppp") // an API key frees from all
	})
}

func TestEmptyHeadersAreNeverExempt(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		l, _ := newLimiter(Options{Base: Limit{Calls: 1}, ExemptOrigins: []*regexp.Regexp{regexp.MustCompile(`.*`)}, ExemptUserAgents: []*regexp.Regexp{regexp.MustCompile(``)}})
		check(t, asks(l, client("a", "none"), "m", "m"), "pr")
	})
}

func TestGlobalIsNotAShareOfOneCounter(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		l, _ := newLimiter(Options{Methods: map[string]Limit{
			"global": {Calls: 1, Interval: time.Second, Global: true},
			"shared": {Calls: 3, Interval: time.Second, Shared: true},
		}})
		a, b := client("a", "none"), client("b", "bob")
		check(t, asks(l, a, "global", "global")+asks(l, b, "global"), "prp")
		check(t, asks(l, a, "shared", "shared")+asks(l, b, "shared", "shared")+asks(l, a, "shared"), "ppprr")
	})
	inBubble(t, "base", func(t *testing.T) {
		l, _ := newLimiter(Options{Base: Limit{Calls: 2, Interval: time.Second, Shared: true}})
		check(t, asks(l, client("a", "none"), "x")+asks(l, client("b", "none"), "y", "z"), "ppr")
	})
}

func TestCallsAreCountedByWhatKeySays(t *testing.T) {
	base := Limit{Calls: 2, Interval: time.Second}
	alice1, alice2 := client("1.1.1.1", "alice"), client("2.2.2.2", "alice")
	bob1, nobody1 := client("1.1.1.1", "bob"), client("1.1.1.1", "none")
	inBubble(t, "address", func(t *testing.T) {
		l, _ := newLimiter(Options{Base: base})
		check(t, asks(l, alice1, "m")+asks(l, bob1, "m")+asks(l, nobody1, "m")+asks(l, alice2, "m"), "pprp")
	})
	inBubble(t, "alias", func(t *testing.T) {
		l, _ := newLimiter(Options{Base: base, Key: ByAlias})
		check(t, asks(l, alice1, "m")+asks(l, alice2, "m", "m")+asks(l, bob1, "m", "m"), "pprpp")
		check(t, asks(l, nobody1, "m", "m", "m"), "ppr") // without an alias by address
	})
	inBubble(t, "both", func(t *testing.T) {
		l, reg := newLimiter(Options{Base: base, Key: ByBoth})
		check(t, asks(l, alice1, "m")+asks(l, alice2, "m", "m"), "ppr") // the alias is over
		check(t, asks(l, bob1, "m", "m"), "pr")                         // the address is over: alice's call was there
		check(t, ask(l, client("3.3.3.3", "carol"), times(4, "n")...), "pprr")
		if !strings.Contains(shown(reg), `method_name="n"} 2`) {
			t.Errorf("a call over both limits counts twice: %s", shown(reg))
		}
	})
}

func TestAliasCannotBeAnAddress(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		l, _ := newLimiter(Options{Base: Limit{Calls: 1, Interval: time.Second}, Key: ByAlias})
		check(t, asks(l, client("9.9.9.9", "1.1.1.1"), "m")+asks(l, client("1.1.1.1", "none"), "m"), "pp")
	})
}

func TestEachElementOfABatchCountsAndWhatFitsPasses(t *testing.T) {
	inBubble(t, "base", func(t *testing.T) {
		l, _ := newLimiter(Options{Base: Limit{Calls: 5, Interval: time.Second}})
		c := client("a", "none")
		check(t, ask(l, c, times(3, "m")...), "ppp")
		check(t, ask(l, c, times(4, "m")...), "pprr")
		check(t, ask(l, c, times(2, "m")...), "rr")
		time.Sleep(time.Second)
		check(t, ask(l, c, times(8, "m")...), "ppppprrr")
	})
	inBubble(t, "overrides", func(t *testing.T) {
		l, _ := newLimiter(Options{
			Base:    Limit{Calls: 7, Interval: time.Second},
			Methods: map[string]Limit{"a": {Calls: 1, Interval: time.Second}, "b*": {Calls: 2, Interval: time.Second}},
		})
		check(t, ask(l, client("x", "none"), "a", "b1", "c", "a", "b2", "b3", "c", "c"), "pppr"+"prp"+"r")
	})
	inBubble(t, "duplicates", func(t *testing.T) {
		l, _ := newLimiter(Options{Methods: map[string]Limit{"same": {Calls: 2, Interval: time.Second}}})
		check(t, ask(l, client("x", "none"), times(3, "same")...), "ppr")
	})
	inBubble(t, "what is done is free", func(t *testing.T) {
		l, _ := newLimiter(Options{Base: Limit{Calls: 1, Interval: time.Second}})
		c := client("x", "none")
		calls := []*jsonrpc.Call{{Err: jsonrpc.ErrVersion, Client: c}, {Method: "m", Client: c}}
		l.charge(t.Context(), calls)
		if calls[1].Err != nil || calls[0].Err != jsonrpc.ErrVersion {
			t.Errorf("%v, %v", calls[0].Err, calls[1].Err)
		}
	})
}

func TestRefusedSaysWhenTheWindowEnds(t *testing.T) {
	for _, interval := range []time.Duration{500 * time.Millisecond, time.Second, 1500 * time.Millisecond, 10 * time.Second, time.Hour} {
		inBubble(t, interval.String(), func(t *testing.T) {
			l, _ := newLimiter(Options{Base: Limit{Calls: 1, Interval: interval}})
			c := client("a", "none")
			for i := range 4 { // windows that end on a second, and between two
				time.Sleep(time.Until(time.Now().Truncate(interval).Add(time.Duration(1+i%2)*interval + interval/3)))
				call := &jsonrpc.Call{Method: "m", Client: c}
				l.charge(t.Context(), []*jsonrpc.Call{{Method: "m", Client: c}})
				l.charge(t.Context(), []*jsonrpc.Call{call})
				var refused *Refused
				if !errors.As(call.Err, &refused) || refused.Limit != 1 {
					t.Fatalf("%v", call.Err)
				}
				left := interval - interval/3
				if refused.Reset < left || refused.Reset > left+time.Second {
					t.Errorf("reset in %v with %v left", refused.Reset, left)
				}
				time.Sleep(refused.Reset)
				check(t, asks(l, c, "m"), "p")
			}
		})
	}
}

// brokenStore fails, or counts without saying by how much a limit is passed.
type brokenStore struct {
	limiter.Store
	err error
}

func (s brokenStore) Increment(_ context.Context, _ string, n int64, rate limiter.Rate) (limiter.Context, error) {
	return limiter.Context{Limit: rate.Limit, Reached: n > rate.Limit, Reset: time.Now().Unix() + 1}, s.err
}

func TestFailingStoreRefusesAndIsCounted(t *testing.T) {
	l, reg := newLimiter(Options{Base: Limit{Calls: 100}, Store: brokenStore{err: errors.New("redis://:password@host is down")}})
	c := client("a", "none")
	call := &jsonrpc.Call{Method: "m", Client: c}
	l.charge(t.Context(), []*jsonrpc.Call{call})
	if !errors.Is(call.Err, ErrStore) || strings.Contains(call.Err.Error(), "password") {
		t.Errorf("%v", call.Err)
	}
	if !strings.Contains(shown(reg), "proxyd_rate_limit_take_errors 1\n") {
		t.Error("not counted")
	}
}

func TestStoreThatOnlySaysNoRefusesTheWholeBatch(t *testing.T) {
	l, _ := newLimiter(Options{Base: Limit{Calls: 2}, Store: brokenStore{}})
	check(t, ask(l, client("a", "none"), "m", "m", "m"), "rrr")
}

func TestMemoryIsBoundedWithAMillionKeys(t *testing.T) {
	const most = 10_000
	m := NewMemory(most)
	rate := limiter.Rate{Limit: 1, Period: time.Hour}
	before := heap()
	for i := range 1_000_000 {
		if _, err := m.Increment(t.Context(), fmt.Sprintf("main:2001:db8:%x:%x::/64", i>>16, i&0xffff), 1, rate); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.Len(); n > most || n < most/2 {
		t.Errorf("%d keys, want about %d", n, most)
	}
	if used := heap() - before; used > most*400 {
		t.Errorf("%d bytes a key", used/most)
	}
	runtime.KeepAlive(m)
}

func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func TestCountsAreExactUnderConcurrency(t *testing.T) {
	l, _ := newLimiter(Options{Base: Limit{Calls: 1000, Interval: 100 * 365 * 24 * time.Hour}})
	var mu sync.Mutex
	passed := 0
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				got := ask(l, client("a", "none"), times(1+i%4, "m")...)
				mu.Lock()
				passed += strings.Count(got, "p")
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if passed != 1000 {
		t.Errorf("%d passed, want 1000", passed)
	}
}

func TestLimitsSaysWhetherThereIsAny(t *testing.T) {
	for want, o := range map[bool]Options{false: {}, true: {Methods: map[string]Limit{"m": {}}}} {
		if l, _ := newLimiter(o); l.Limits() != want {
			t.Errorf("%+v: %v", o, l.Limits())
		}
	}
	if l, _ := newLimiter(Options{Base: Limit{Calls: 1}}); !l.Limits() {
		t.Error("a base rate is no limit")
	}
}
