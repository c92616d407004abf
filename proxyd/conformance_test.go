package proxyd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/cache"
	"gateway.internal/proxyd/jsonrpc"
	"gateway.internal/proxyd/ratelimit"
	"gateway.internal/proxyd/server"
)

// spring is the end of a handler chain: it answers with a stream where it may, and
// knows what becomes of each.
type spring struct {
	t *testing.T
	// before is called with each call before it is answered, behind after.
	before func(ctx context.Context, c *jsonrpc.Call)
	after  func(c *jsonrpc.Call)
	// least is how long a result is at least; an endless stream goes on until it
	// is interrupted.
	least   int
	endless bool

	mu      sync.Mutex
	asked   []*jsonrpc.Call
	may     map[string]int // calls that may stream, by method
	streams []*watched
}

func (s *spring) ServeRPC(ctx context.Context, calls []*jsonrpc.Call) {
	for _, c := range calls {
		if c.Done() {
			s.t.Errorf("%s is asked and done already", c.Method)
		}
		if c.MayStream && len(calls) > 1 {
			s.t.Errorf("%s may stream, one of %d calls", c.Method, len(calls))
		}
		s.mu.Lock()
		s.asked = append(s.asked, c)
		n := len(s.asked)
		if c.MayStream {
			s.may[c.Method]++
		}
		s.mu.Unlock()
		if s.before != nil {
			s.before(ctx, c)
		}
		result := fmt.Sprintf(`["%s %x %d %s"]`, c.Method, c.Params, n, strings.Repeat("x", s.least))
		if c.Answer = (&jsonrpc.Answer{Backend: "b1", Group: "main"}); c.MayStream {
			st := &watched{t: s.t, result: result}
			if s.endless {
				st.interrupted = make(chan struct{})
			}
			s.mu.Lock()
			s.streams = append(s.streams, st)
			s.mu.Unlock()
			c.Answer.Stream = st
		} else {
			c.Answer.Result = []byte(result)
		}
		if s.after != nil {
			s.after(c)
		}
	}
}

// watched is a stream that complains of whoever does not treat it as a stream.
type watched struct {
	t      *testing.T
	result string
	// interrupted is closed by Interrupt; nil for a stream that has an end.
	interrupted chan struct{}

	mu      sync.Mutex
	reading bool
	passed  int
	over    error // what Next has ended with
	cut     error // why it was interrupted
	closed  bool
}

func (s *watched) AtMost() int64 { return int64(len(s.result)) }

func (s *watched) Next(w jsonrpc.Sink) (int64, error) {
	s.mu.Lock()
	if s.reading || s.over != nil || s.closed {
		s.t.Errorf("%s: read by two, or behind its end %v, or when it was closed %v", s.result, s.over, s.closed)
	}
	s.reading = true
	at, err := s.passed, s.cut
	s.mu.Unlock()
	var n int
	if err == nil && s.interrupted != nil {
		<-s.interrupted
		err = context.Canceled
	}
	if err == nil {
		w.Renew()
		n, err = io.WriteString(w, s.result[at:min(at+7, len(s.result))])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = false
	if s.passed += n; err == nil && s.passed == len(s.result) {
		err = io.EOF
	}
	s.over = err
	return int64(n), err
}

func (s *watched) Interrupt(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut == nil {
		if s.cut = cause; s.interrupted != nil {
			close(s.interrupted)
		}
	}
}

func (s *watched) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reading {
		s.t.Errorf("%s: closed while it is read", s.result)
	}
	s.closed = true
}

// noLeak checks that each stream was closed, and was read to its end unless it
// was dropped.
func (s *spring) noLeak(dropped bool) {
	s.t.Helper()
	for _, st := range s.streams {
		if st.mu.Lock(); !st.closed || !dropped && st.over != io.EOF {
			s.t.Errorf("%s: closed %v, %d bytes were read, end %v", st.result, st.closed, st.passed, st.over)
		}
		st.mu.Unlock()
	}
}

// stages are the stages that may stand before the group, as build.go chains them.
var stages = map[string]struct {
	limit, cache bool
	rules        func(*cache.Options)
}{
	"no stage":                   {},
	"limits":                     {limit: true},
	"cache":                      {cache: true},
	"cache without a store":      {cache: true, rules: func(o *cache.Options) { o.Store = nil }},
	"coalescing":                 {cache: true, rules: func(o *cache.Options) { o.Coalesce = []string{"eth_gasPrice", "eth_call"} }},
	"coalescing without a store": {cache: true, rules: func(o *cache.Options) { o.Store, o.Coalesce = nil, []string{"eth_gasPrice", "eth_call"} }},
	"limits and cache, rules": {limit: true, cache: true, rules: func(o *cache.Options) {
		o.Rules, o.Coalesce = []cache.Rule{{Method: "eth_getLogs", TTL: time.Minute}}, []string{"eth_gasPrice"}
	}},
}

// needs reports whether a stage needs the bytes of a method's result.
func needs(stage, method string) bool {
	st := stages[stage]
	if !st.cache {
		return false
	}
	o := cache.Options{Store: cache.NewMemory(0)}
	if st.rules != nil {
		st.rules(&o)
	}
	kept := method == "eth_chainId" || method == "eth_getLogs" && len(o.Rules) > 0
	for _, m := range o.Coalesce {
		if m == method {
			return true
		}
	}
	return kept && o.Store != nil
}

// chained is a front over the stages over a spring; between stands behind the
// stages, nil for nothing.
func chained(t *testing.T, stage string, end *spring, outer jsonrpc.Middleware, change func(*server.Options), rules func(*cache.Options)) http.Handler {
	t.Helper()
	end.t, end.may = t, map[string]int{}
	reg, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	st := stages[stage]
	var limits, kept jsonrpc.Middleware
	if st.limit {
		limits = ratelimit.New(ratelimit.Options{
			Base: ratelimit.Limit{Calls: 1000, Interval: time.Hour}, Methods: map[string]ratelimit.Limit{"eth_limited": {Calls: 1, Interval: time.Hour}},
			Metrics: ratelimit.NewMetrics(reg), Log: log,
		}).Middleware
	}
	if st.cache {
		o := cache.Options{Store: cache.NewMemory(0), Metrics: cache.NewMetrics(reg), Log: log}
		if st.rules != nil {
			st.rules(&o)
		}
		if rules != nil {
			rules(&o)
		}
		c := cache.New(o)
		t.Cleanup(c.Close)
		kept = c.Middleware
	}
	table, err := jsonrpc.NewTable(nil)
	if err != nil {
		t.Fatal(err)
	}
	routes := server.NewRoutes(table)
	routes.Map("eth_*", &server.Target{Group: "main", Handler: jsonrpc.Chain(end, outer, limits, kept)})
	o := server.Options{
		Routes: routes, Ready: func(bool) (bool, []server.GroupStatus) { return true, nil },
		Metrics: server.NewMetrics(reg), Log: log, MaxBatch: 100,
	}
	if change != nil {
		change(&o)
	}
	return server.New(o)
}

// seen is what a client saw.
type seen struct {
	*httptest.ResponseRecorder
	aborted bool
}

func ask(ctx context.Context, h http.Handler, body string) (s *seen) {
	s = &seen{ResponseRecorder: httptest.NewRecorder()}
	defer func() {
		if v := recover(); v != nil {
			if s.aborted = v == http.ErrAbortHandler; !s.aborted {
				panic(v)
			}
		}
	}()
	h.ServeHTTP(s, httptest.NewRequest("POST", "/", strings.NewReader(body)).WithContext(ctx))
	return s
}

// results are the results of an answer, in order; "" where there was an error.
func (s *seen) results(t *testing.T) (out []string) {
	t.Helper()
	var answers []struct{ Result json.RawMessage }
	body := s.Body.Bytes()
	if len(body) == 0 || body[0] != '[' {
		body = []byte("[" + string(body) + "]")
	}
	if err := json.Unmarshal(body, &answers); err != nil || s.aborted {
		t.Fatalf("%v: %s (aborted %v)", err, s.Body, s.aborted)
	}
	for _, a := range answers {
		out = append(out, string(a.Result))
	}
	return out
}

func callOf(method string, params any) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"params":[%v],"id":1}`, method, params)
}

func asJSON(params any) string { return fmt.Sprintf("[%v]", params) }

var everyKind = []string{"eth_chainId", "eth_gasPrice", "eth_call", "eth_getLogs", "eth_getBalance", "eth_sendRawTransaction", "eth_sendTransaction", "eth_madeUp"}

func TestEveryStageTreatsAStreamAsOne(t *testing.T) {
	for stage := range stages {
		t.Run(stage, func(t *testing.T) {
			end := new(spring)
			h := chained(t, stage, end, nil, nil, nil)
			lone := map[string]int{}
			for n, method := range everyKind {
				for range 2 { // the second may be answered by a stage
					lone[method]++
					got := ask(t.Context(), h, callOf(method, n)).results(t)[0]
					if want := fmt.Sprintf(`["%s %x `, method, asJSON(n)); !strings.HasPrefix(got, want) {
						t.Errorf("%s: %s, want %s", method, got, want)
					}
				}
				for _, size := range []int{1, 2, 5} { // alone, with a twin, and with others
					var calls []string
					for i := range size {
						calls = append(calls, callOf([]string{method, method, "eth_call", "eth_chainId", "eth_getBalance"}[i], n+100*size+i/2))
					}
					if got := ask(t.Context(), h, "["+strings.Join(calls, ",")+"]").results(t); len(got) != size || got[0] == "" {
						t.Errorf("%s: %s", method, got)
					}
				}
			}
			for method, n := range lone {
				if needs(stage, method) {
					n = 0
				}
				if end.may[method] != n {
					t.Errorf("%s may stream %d times, want %d", method, end.may[method], n)
				}
			}
			end.noLeak(false)
		})
	}
}

func TestEqualCallsAtOnceNeverShareAStream(t *testing.T) {
	for stage := range stages {
		t.Run(stage, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const clients = 20
				release := make(chan struct{})
				end := &spring{before: func(context.Context, *jsonrpc.Call) { <-release }}
				h := chained(t, stage, end, nil, nil, nil)
				got := map[string][]*seen{}
				var mu sync.Mutex
				var wg sync.WaitGroup
				for _, method := range everyKind {
					for range clients {
						wg.Go(func() {
							s := ask(t.Context(), h, callOf(method, 1))
							mu.Lock()
							got[method] = append(got[method], s)
							mu.Unlock()
						})
					}
				}
				synctest.Wait()
				close(release)
				wg.Wait()
				for method, all := range got {
					different := map[string]bool{}
					for _, s := range all {
						result := s.results(t)[0]
						if !strings.HasPrefix(result, `["`+method+` `) {
							t.Errorf("%s is answered with %s", method, result)
						}
						different[result] = true
					}
					want := clients
					if needs(stage, method) {
						want = 1 // the bytes of one answer for all
					}
					if len(different) != want || end.may[method] != map[bool]int{true: 0, false: clients}[want == 1] {
						t.Errorf("%s: %d different answers, want %d; %d might stream", method, len(different), want, end.may[method])
					}
				}
				end.noLeak(false)
			})
		})
	}
}

// A result that is too large to be shared is asked for by each that waits: then on
// its own behalf, so that it may stream.
func TestWaitersForWhatIsTooLargeToShareHaveAStreamOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients = 10
		release := make(chan struct{})
		end := &spring{least: 1000, before: func(context.Context, *jsonrpc.Call) { <-release }}
		h := chained(t, "coalescing", end, nil, nil, func(o *cache.Options) { o.MaxShared = 100 })
		var mu sync.Mutex
		different := map[string]int{}
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				result := ask(t.Context(), h, callOf("eth_call", 1)).results(t)[0]
				mu.Lock()
				different[result]++
				mu.Unlock()
			})
		}
		var batch []string
		wg.Go(func() {
			batch = ask(t.Context(), h, "["+callOf("eth_call", 1)+","+callOf("eth_call", 1)+","+callOf("eth_getBalance", 1)+"]").results(t)
		})
		synctest.Wait()
		close(release)
		wg.Wait()
		if len(different) != clients || end.may["eth_call"] > clients || end.may["eth_getBalance"] != 0 {
			t.Errorf("%d different answers for %d clients; may stream: %v", len(different), clients, end.may)
		}
		if len(batch) != 3 || batch[0] == "" || batch[0] != batch[1] {
			t.Errorf("twins: %.100s", batch)
		}
		end.noLeak(false)
	})
}

func TestClientThatIsGoneLeavesNoStreamBehind(t *testing.T) {
	for stage := range stages {
		for _, when := range []string{"before it is asked", "while it is asked", "when it is answered"} {
			t.Run(stage+", "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { // where a stream that nobody interrupts is a deadlock
					for _, method := range everyKind {
						ctx, leave := context.WithCancel(t.Context())
						end := &spring{endless: true}
						switch when {
						case "before it is asked":
							leave()
						case "while it is asked":
							end.before = func(context.Context, *jsonrpc.Call) { leave() }
						default:
							end.after = func(*jsonrpc.Call) { leave() }
						}
						s := ask(ctx, chained(t, stage, end, nil, nil, nil), callOf(method, 1))
						if end.may[method] > 0 && !s.aborted {
							t.Errorf("%s: the answer was written as a whole: %s", method, s.Body)
						}
						leave()
						end.noLeak(true)
					}
				})
			})
		}
	}
}

// boom panics where a stage would go on.
func boom(next jsonrpc.Handler) jsonrpc.Handler {
	return jsonrpc.HandlerFunc(func(ctx context.Context, calls []*jsonrpc.Call) {
		next.ServeRPC(ctx, calls)
		panic("boom")
	})
}

// drops takes the answer of its calls away, as a stage may that finds fault with it.
func drops(next jsonrpc.Handler) jsonrpc.Handler {
	return jsonrpc.HandlerFunc(func(ctx context.Context, calls []*jsonrpc.Call) {
		next.ServeRPC(ctx, calls)
		for _, c := range calls {
			if c.Answer != nil && c.Answer.Stream != nil {
				c.Answer.Stream.Close()
				c.Answer, c.Err = nil, errors.New("dropped")
			}
		}
	})
}

func TestPanicOfAStageLeavesNoStreamBehind(t *testing.T) {
	for stage := range stages {
		for name, c := range map[string]struct {
			outer jsonrpc.Middleware
			after func(*jsonrpc.Call)
		}{
			"in an outer stage":                   {outer: boom},
			"in the backend, behind its answer":   {after: func(*jsonrpc.Call) { panic("boom") }},
			"in both":                             {outer: boom, after: func(*jsonrpc.Call) { panic("boom") }},
			"no panic, but the answer is dropped": {outer: drops},
		} {
			t.Run(stage+", "+name, func(t *testing.T) {
				for _, method := range everyKind {
					end := &spring{after: c.after}
					h := chained(t, stage, end, c.outer, nil, nil)
					for _, body := range []string{callOf(method, 1), "[" + callOf(method, 1) + "," + callOf("eth_call", 2) + "]"} {
						if s := ask(t.Context(), h, body); s.aborted || !json.Valid(s.Body.Bytes()) {
							t.Errorf("%s: aborted %v: %s", method, s.aborted, s.Body)
						}
					}
					end.noLeak(c.outer != nil)
				}
			})
		}
	}
}

func TestRefusedCallsOpenNoStream(t *testing.T) {
	end := new(spring)
	h := chained(t, "limits and cache, rules", end, nil, nil, nil)
	first := ask(t.Context(), h, callOf("eth_limited", 1))
	for range 3 {
		if s := ask(t.Context(), h, callOf("eth_limited", 1)); s.Code != 429 || first.Code != 200 {
			t.Errorf("HTTP %d, then %d %s", first.Code, s.Code, s.Body)
		}
	}
	for _, body := range []string{callOf("net_version", 1), callOf("eth_accounts", ""), callOf("proxyd_healthz", ""), `{"jsonrpc":"1.0","method":"eth_call","id":1}`, `{`, `[]`} {
		ask(t.Context(), h, body)
	}
	if end.noLeak(false); len(end.streams) != 1 || len(end.asked) != 1 {
		t.Errorf("%d streams of %d calls", len(end.streams), len(end.asked))
	}
}

func TestTooManyStreamsOfAClientAreClosedUnread(t *testing.T) {
	for stage := range stages {
		t.Run(stage, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := new(spring)
				h := chained(t, stage, end, nil, func(o *server.Options) { o.MaxStreams = 1 }, nil)
				first, write := &slow{ResponseRecorder: httptest.NewRecorder()}, make(chan struct{})
				first.write = write
				done := make(chan struct{})
				go func() {
					defer close(done)
					h.ServeHTTP(first, httptest.NewRequest("POST", "/", strings.NewReader(callOf("eth_getBalance", 1))))
				}()
				synctest.Wait()
				for _, method := range everyKind {
					s := ask(t.Context(), h, callOf(method, 1))
					if want := map[bool]int{true: 200, false: 429}[needs(stage, method)]; s.Code != want {
						t.Errorf("%s: HTTP %d, want %d", method, s.Code, want)
					}
				}
				for _, st := range end.streams[1:] {
					if !st.closed || st.passed != 0 {
						t.Errorf("%s: closed %v, %d bytes were read", st.result, st.closed, st.passed)
					}
				}
				close(write)
				<-done
				if s := ask(t.Context(), h, callOf("eth_getBalance", 1)); s.Code != 200 {
					t.Errorf("there is no room again: HTTP %d", s.Code)
				}
				end.noLeak(true)
			})
		})
	}
}

// slow is a client that takes nothing until it may.
type slow struct {
	*httptest.ResponseRecorder
	write chan struct{}
}

func (s *slow) Write(p []byte) (int, error) {
	<-s.write
	return s.ResponseRecorder.Write(p)
}
