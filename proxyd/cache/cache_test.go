package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gateway.internal/proxyd/jsonrpc"
)

var (
	hashA = "0x" + strings.Repeat("ab", 32)
	hashB = "0x" + strings.Repeat("cd", 32)
)

// newCache builds a cache with a memory store; keep is what to change of it.
func newCache(t testing.TB, change func(*Options)) *Cache {
	t.Helper()
	o := Options{Store: NewMemory(0), Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	c := New(o)
	t.Cleanup(c.Close)
	return c
}

// newCall builds a call as the front does, with the method table's row.
func newCall(t testing.TB, method, params string) *jsonrpc.Call {
	t.Helper()
	table, err := jsonrpc.NewTable(map[string]jsonrpc.RowSpec{
		"test_kept":     {Class: "read", Immutable: "always"},
		"test_unshared": {Class: "read", Immutable: "always", Coalesce: new(bool)},
		"test_never":    {Class: "read", Immutable: "always", Cacheable: new(bool)},
	})
	if err != nil {
		t.Fatal(err)
	}
	row, _ := table.Lookup(method)
	c := &jsonrpc.Call{Method: method, ID: []byte("1"), Row: row, Label: method, Client: &jsonrpc.Client{Auth: "alice", Source: "http", RequestID: "r1"}}
	if params != "" {
		c.Params = []byte(params)
	}
	return c
}

// upstream is a handler that counts what it is asked.
type upstream struct {
	mu     sync.Mutex
	asked  []*jsonrpc.Call
	slices int
	answer func(context.Context, *jsonrpc.Call)
}

func (u *upstream) ServeRPC(ctx context.Context, calls []*jsonrpc.Call) {
	u.mu.Lock()
	u.slices++
	u.asked = append(u.asked, calls...)
	u.mu.Unlock()
	for _, c := range calls {
		if c.Done() {
			panic("asked for a call that is done")
		}
		if u.answer != nil {
			u.answer(ctx, c)
			continue
		}
		c.Answer = &jsonrpc.Answer{Result: []byte(`"0x1"`), Backend: "b", Group: "g"}
	}
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.asked)
}

func result(text string) func(context.Context, *jsonrpc.Call) {
	return func(_ context.Context, c *jsonrpc.Call) {
		c.Answer = &jsonrpc.Answer{Result: []byte(text), Backend: "b", Group: "g"}
	}
}

// want checks that a call ended with the result.
func want(t testing.TB, c *jsonrpc.Call, text string) {
	t.Helper()
	switch {
	case c.Err != nil:
		t.Errorf("%s %s: error %v, want %s", c.Method, c.Params, c.Err, text)
	case c.Answer == nil:
		t.Errorf("%s %s: left open, want %s", c.Method, c.Params, text)
	case string(c.Answer.Result) != text:
		t.Errorf("%s %s: %s, want %s", c.Method, c.Params, c.Answer.Result, text)
	}
}

// wantMetric checks that a collector shows the line.
func wantMetric(t testing.TB, c prometheus.Collector, line string) {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if !strings.Contains(w.Body.String(), line+"\n") {
		t.Errorf("no line %s in:\n%s", line, w.Body)
	}
}

func TestHitCostsNoUpstreamCall(t *testing.T) {
	c, up := newCache(t, nil), &upstream{}
	h := c.Middleware(up)
	first, second := newCall(t, "eth_chainId", ""), newCall(t, "eth_chainId", "[]")
	h.ServeRPC(t.Context(), []*jsonrpc.Call{first})
	h.ServeRPC(t.Context(), []*jsonrpc.Call{second})
	want(t, first, `"0x1"`)
	want(t, second, `"0x1"`)
	if up.count() != 1 || first.Answer.Backend != "b" || second.Answer.Backend != "cache" {
		t.Errorf("asked %d times, answered by %s and %s", up.count(), first.Answer.Backend, second.Answer.Backend)
	}
	wantMetric(t, c.opts.Metrics.hits, `proxyd_cache_hits_total{method="eth_chainId"} 1`)
	wantMetric(t, c.opts.Metrics.misses, `proxyd_cache_misses_total{method="eth_chainId"} 1`)
}

func TestCachedAnswerHasTheSameBytes(t *testing.T) {
	for _, text := range []string{
		`{"b":1,"a":12345678901234567890,"c":1e30,"d":1.0}`, `"<&>\u2028 \u0061 é` + "\u2028" + `"`, `[ 1 , 2 ]`, `""`, `false`, `0`, `{}`, "\"\xff\"",
	} {
		c, up := newCache(t, nil), &upstream{answer: result(text)}
		h := c.Middleware(up)
		var seen []string
		for range 2 {
			call := newCall(t, "eth_getBlockByHash", `["`+hashA+`",true]`)
			h.ServeRPC(t.Context(), []*jsonrpc.Call{call})
			want(t, call, text)
			if call.Answer != nil {
				seen = append(seen, string(jsonrpc.AppendAnswer(nil, call.ID, call.Answer)))
			}
		}
		if up.count() != 1 || len(seen) != 2 || seen[0] != seen[1] {
			t.Errorf("asked %d times: %q", up.count(), seen)
		}
	}
}

func TestNullErrorsAndOddStatusesAreNeverKept(t *testing.T) {
	answers := map[string]*jsonrpc.Answer{
		"null":           {Result: []byte("null")},
		"error":          {Error: []byte(`{"code":-32000,"message":"x"}`), Code: -32000},
		"status 400":     {Result: []byte(`"0x1"`), Status: 400},
		"empty receipts": {Result: []byte("[]")},
	}
	for name, a := range answers {
		t.Run(name, func(t *testing.T) {
			c := newCache(t, func(o *Options) { o.Rules = []Rule{{"*", time.Hour}} })
			up := &upstream{answer: func(_ context.Context, c *jsonrpc.Call) { c.Answer = a }}
			h := c.Middleware(up)
			for range 3 {
				call := newCall(t, "debug_getRawReceipts", `["`+hashA+`"]`)
				h.ServeRPC(t.Context(), []*jsonrpc.Call{call})
				if call.Answer != a {
					t.Fatalf("answer %+v, error %v", call.Answer, call.Err)
				}
			}
			if up.count() != 3 {
				t.Errorf("asked %d times, want 3", up.count())
			}
		})
	}
	t.Run("gateway error", func(t *testing.T) {
		c := newCache(t, nil)
		up := &upstream{answer: func(_ context.Context, c *jsonrpc.Call) { c.Err = errors.New("nobody") }}
		h := c.Middleware(up)
		for range 2 {
			h.ServeRPC(t.Context(), []*jsonrpc.Call{newCall(t, "eth_chainId", "")})
		}
		if up.count() != 2 {
			t.Errorf("asked %d times, want 2", up.count())
		}
	})
}

func TestEmptyArrayIsKeptWhereItMeansNothing(t *testing.T) {
	c, up := newCache(t, func(o *Options) { o.Rules = []Rule{{"eth_getLogs", time.Hour}} }), &upstream{answer: result("[]")}
	h := c.Middleware(up)
	for range 2 {
		h.ServeRPC(t.Context(), []*jsonrpc.Call{newCall(t, "eth_getLogs", "[{}]")})
	}
	if up.count() != 1 {
		t.Errorf("asked %d times, want 1", up.count())
	}
}

func TestEachEntryHasItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, func(o *Options) {
			o.TTL = time.Minute
			o.Rules = []Rule{{"eth_blockNumber", 500 * time.Millisecond}, {"eth_gas*", 2 * time.Second}}
		})
		up := &upstream{}
		h := c.Middleware(up)
		ask := func(method string) bool { // whether upstream was asked
			before := up.count()
			h.ServeRPC(t.Context(), []*jsonrpc.Call{newCall(t, method, "[]")})
			return up.count() > before
		}
		start := time.Now()
		for _, m := range []string{"eth_blockNumber", "eth_gasPrice", "eth_chainId"} {
			if !ask(m) {
				t.Errorf("%s was there before", m)
			}
		}
		for _, step := range []struct {
			at      time.Duration
			method  string
			expired bool
		}{
			{499 * time.Millisecond, "eth_blockNumber", false},
			{500 * time.Millisecond, "eth_blockNumber", true},
			{1999 * time.Millisecond, "eth_gasPrice", false},
			{2 * time.Second, "eth_gasPrice", true},
			{59 * time.Second, "eth_chainId", false},
			{time.Minute, "eth_chainId", true},
		} {
			time.Sleep(time.Until(start.Add(step.at)))
			if got := ask(step.method); got != step.expired {
				t.Errorf("%s after %v: expired %v, want %v", step.method, step.at, got, step.expired)
			}
		}
		c.Close()
	})
}

func TestMethodTableHasTheLastWordOnWhatIsKept(t *testing.T) {
	c := newCache(t, func(o *Options) { o.Rules = []Rule{{"*", time.Hour}, {"test_never", time.Hour}} })
	for method, kept := range map[string]bool{
		"eth_blockNumber": true, "eth_call": true, "test_kept": true,
		"eth_sendRawTransaction": false, "eth_getFilterChanges": false, "made_up": false, "eth_subscribe": false,
		"test_never": false, // immutable, but not cacheable
	} {
		if got := c.ttl(newCall(t, method, "[]")) > 0; got != kept {
			t.Errorf("%s: kept %v, want %v", method, got, kept)
		}
	}
}

func TestRulesPreferNamesAndLongerPatterns(t *testing.T) {
	c := newCache(t, func(o *Options) {
		o.TTL = 9 * time.Second
		o.Rules = []Rule{{"*", 1 * time.Second}, {"eth_*", 2 * time.Second}, {"eth_getB*", 3 * time.Second}, {"eth_getBalance", 4 * time.Second}}
	})
	for method, ttl := range map[string]time.Duration{"net_peerCount": 1, "eth_call": 2, "eth_getBlockByNumber": 3, "eth_getBalance": 4} {
		if got := c.ttl(newCall(t, method, "[]")); got != ttl*time.Second {
			t.Errorf("%s: %v, want %v", method, got, ttl*time.Second)
		}
	}
	plain := newCache(t, func(o *Options) { o.TTL = 9 * time.Second })
	for _, method := range []string{
		"eth_chainId", "net_version", "eth_getBlockTransactionCountByHash", "eth_getUncleCountByBlockHash", "eth_getBlockByHash",
		"eth_getTransactionByBlockHashAndIndex", "eth_getUncleByBlockHashAndIndex",
	} {
		if got := plain.ttl(newCall(t, method, "[]")); got != 9*time.Second {
			t.Errorf("%s without rules: %v, want the ttl", method, got)
		}
	}
	for _, method := range []string{"eth_blockNumber", "eth_getTransactionReceipt", "eth_getTransactionByHash", "eth_getBlockReceipts", "eth_getBlockByNumber"} {
		if got := plain.ttl(newCall(t, method, "[]")); got != 0 {
			t.Errorf("%s without rules is kept for %v", method, got)
		}
	}
}

func TestRawReceiptsAreKeptOnlyByOneBlockHash(t *testing.T) {
	c := newCache(t, nil)
	for params, kept := range map[string]bool{
		`["` + hashA + `"]`:                        true,
		` [ "` + hashA + `" ] `:                    true,
		`["` + strings.ToUpper(hashA[2:]) + `"]`:   false,
		`["0x` + strings.ToUpper(hashA[2:]) + `"]`: true,
		`["latest"]`:                               false,
		`["0x10"]`:                                 false,
		`["` + hashA + `","` + hashB + `"]`:        false,
		`["` + hashA + `",null]`:                   false,
		`[{"blockHash":"` + hashA + `"}]`:          false,
		`["0x` + strings.Repeat("zz", 32) + `"]`:   false,
		`["` + hashA + `00"]`:                      false,
		`{"b":"` + hashA + `"}`:                    false,
		`[]`:                                       false,
		"":                                         false,
	} {
		if got := c.ttl(newCall(t, "debug_getRawReceipts", params)) > 0; got != kept {
			t.Errorf("%s: kept %v, want %v", params, got, kept)
		}
	}
}

func TestLongParamsWithAnEscapeAtTheirCutDoNotPanic(t *testing.T) {
	for n := 4080; n < 4100; n++ {
		onlyBlockHash([]byte(`["` + strings.Repeat("a", n) + `\"` + `"]`))
	}
}

func TestKeyIsEqualForParamsThatSayTheSame(t *testing.T) {
	c := newCache(t, nil)
	key := func(params string) string { return c.key(newCall(t, "eth_call", params)) }
	for _, same := range [][]string{
		{"", "null", "[]", "[ ]", " [\n] ", "\t null\r"},
		{`["a",1]`, `[ "a" , 1 ]`, "[\n\t\"a\"\r,1]"},
		{`[{"a":1,"b":[true,null]}]`, `[ { "a" : 1 , "b" : [ true , null ] } ]`},
		{`["` + strings.Repeat("x", 300) + `"]`, ` [ "` + strings.Repeat("x", 300) + `" ]`},
	} {
		for _, other := range same[1:] {
			if key(same[0]) != key(other) {
				t.Errorf("%q and %q have different keys", same[0], other)
			}
		}
	}
	different := []string{
		"", "{}", `[null]`, `[[]]`, `"null"`, `"[]"`, `["a b"]`, `["ab"]`, `["a  b"]`, `["a\" b"]`, `["a\\"," b"]`, `["a\\\" b"]`, `["a\tb"]`, `["\u0061"]`, `["a"]`,
		`[1]`, `["1"]`, `[1.0]`, `[11]`, `[1,1]`, `["` + strings.Repeat("x", 300) + `"]`, `["` + strings.Repeat("x", 299) + ` "]`, `[{"a":1,"b":2}]`, `[{"b":2,"a":1}]`,
	}
	seen := map[string]string{}
	for _, p := range different {
		if other, ok := seen[key(p)]; ok {
			t.Errorf("%q and %q share a key", p, other)
		}
		seen[key(p)] = p
	}
	if c.key(newCall(t, "eth_call", "[1]")) == c.key(newCall(t, "eth_callMany", "[1]")) {
		t.Error("methods share a key")
	}
	other := newCache(t, func(o *Options) { o.Namespace = "x:" })
	if c.key(newCall(t, "eth_call", "")) == other.key(newCall(t, "eth_call", "")) {
		t.Error("namespaces share a key")
	}
}

func FuzzKeyIgnoresOnlyWhiteSpaceBetweenTokens(f *testing.F) {
	for _, s := range []string{`["a b", 1]`, `[]`, `{"a" : "\\\" "}`, "[\"\u2028\"]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, params string) {
		if !jsonrpc.Valid([]byte(params)) {
			t.Skip()
		}
		once := appendCanonical(nil, []byte(params))
		if again := appendCanonical(nil, once); string(again) != string(once) {
			t.Errorf("canonical form of %q is not stable: %q", params, again)
		}
		if len(once) > 0 && !jsonrpc.Valid(once) {
			t.Errorf("canonical form of %q is not JSON: %q", params, once)
		}
		var want, got []string
		jsonrpc.Strings([]byte(params), func(text []byte) bool { want = append(want, string(text)); return true })
		jsonrpc.Strings(once, func(text []byte) bool { got = append(got, string(text)); return true })
		if fmt.Sprint(want) != fmt.Sprint(got) {
			t.Errorf("strings of %q changed: %q", params, once)
		}
	})
}

func TestMethodsThatMayNotBeSharedAreKeptAllTheSame(t *testing.T) {
	c, up := newCache(t, nil), &upstream{}
	h := c.Middleware(up)
	calls := []*jsonrpc.Call{newCall(t, "test_unshared", "[1]"), newCall(t, "test_unshared", "[1]")}
	h.ServeRPC(t.Context(), calls)
	if up.count() != 2 {
		t.Errorf("asked %d times, want 2: equal calls in flight may not be shared", up.count())
	}
	third := newCall(t, "test_unshared", "[1]")
	h.ServeRPC(t.Context(), []*jsonrpc.Call{third})
	if up.count() != 2 || third.Answer == nil || third.Answer.Backend != "cache" {
		t.Errorf("asked %d times, want the third from the cache", up.count())
	}
}

// failingStore fails or forgets.
type failingStore struct{ err error }

func (s failingStore) Get(context.Context, string) ([]byte, bool, error) { return nil, false, s.err }
func (s failingStore) Put(context.Context, string, []byte, time.Duration) error {
	if s.err == nil {
		panic("put")
	}
	return s.err
}

func TestFailingStoreIsAMiss(t *testing.T) {
	for _, store := range []failingStore{{errors.New("down")}, {nil}} { // the second panics in Put
		c, up := newCache(t, func(o *Options) { o.Store = store }), &upstream{}
		h := c.Middleware(up)
		for range 2 {
			call := newCall(t, "eth_chainId", "")
			h.ServeRPC(t.Context(), []*jsonrpc.Call{call})
			want(t, call, `"0x1"`)
		}
		if up.count() != 2 {
			t.Errorf("asked %d times, want 2", up.count())
		}
		if store.err != nil {
			wantMetric(t, c.opts.Metrics.errors, `proxyd_cache_errors_total{method="eth_chainId"} 4`)
		}
	}
}

func TestSharedAttemptCarriesNothingOfItsClient(t *testing.T) {
	c, up := newCache(t, nil), &upstream{}
	call := newCall(t, "eth_chainId", "")
	call.Client.ForwardedFor, call.Client.OptimismSignature, call.Client.Origin = "1.2.3.4", "sig", "https://x"
	call.Client.Addr, call.Client.Key, call.Client.UserAgent = netip.MustParseAddr("1.2.3.4"), "1.2.3.4", "agent"
	c.Middleware(up).ServeRPC(t.Context(), []*jsonrpc.Call{call})
	want(t, call, `"0x1"`)
	asked := up.asked[0]
	if asked == call || asked.Client == call.Client {
		t.Fatal("the client's own call was passed on")
	}
	if got := *asked.Client; got != (jsonrpc.Client{Auth: "alice", Source: "http", RequestID: "r1"}) {
		t.Errorf("passed on: %+v", got)
	}
	if string(call.ID) != "1" {
		t.Errorf("id became %s", call.ID)
	}
}
