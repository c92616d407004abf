package filters

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// nodes are backends that keep their own filters: 0x1, 0x2 and so on in each.
type nodes struct {
	mu     sync.Mutex
	turn   int                        // who makes the next filter
	made   map[string]map[string]bool // by backend and id
	slices [][]string                 // the methods of each slice that came
	asked  []string                   // who was asked, what
	fails  bool
}

func newNodes() *nodes {
	return &nodes{made: map[string]map[string]bool{"a": {}, "b": {}, "c": {}}}
}

func (n *nodes) ServeRPC(_ context.Context, calls []*jsonrpc.Call) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var methods []string
	for _, c := range calls {
		methods = append(methods, c.Method)
		if c.Done() {
			continue
		}
		if c.Only != "" && len(calls) > 1 {
			c.Err = errors.New("a call with Only does not travel alone")
			continue
		}
		n.asked = append(n.asked, c.Only+":"+c.Method+string(c.Params))
		if n.fails {
			c.Err = errDown
			continue
		}
		node := c.Only
		if node == "" {
			node = []string{"a", "b", "c"}[n.turn%3]
		}
		var id string
		jsonrpc.Strings(c.Params, func(s []byte) bool { id = string(s); return false })
		c.Answer = &jsonrpc.Answer{Backend: node, Group: "main"}
		switch c.Method {
		case newFilter, newBlockFilter, newPendingFilter:
			n.turn++
			id = fmt.Sprintf("0x%x", len(n.made[node])+1)
			n.made[node][id] = true
			c.Answer.Result = []byte(`"` + id + `"`)
		case uninstall:
			c.Answer.Result = fmt.Append(nil, n.made[node][id])
			n.made[node][id] = false
		case getChanges, getLogs:
			if !n.made[node][id] {
				c.Answer.Error, c.Answer.Code = []byte(`{"code":-32000,"message":"filter not found"}`), -32000
				continue
			}
			c.Answer.Result = fmt.Appendf(nil, `["%s of %s"]`, id, node)
		default:
			c.Answer.Result = []byte(`"0x0"`)
		}
	}
	n.slices = append(n.slices, methods)
}

func TestCallsOnAFilterGoToTheBackendThatMadeIt(t *testing.T) {
	for _, mode := range []Mode{ModeBackend, ModeGateway} {
		n := newNodes()
		f, _ := stage(Options{Mode: mode})
		h := f.Middleware(n)
		for _, node := range []string{"a", "b", "c"} {
			id := opens(t, h, newPendingFilter)
			check(t, "changes", ask(h, getChanges, id), array(`"0x1 of `+node+`"`))
			check(t, "logs", ask(h, getLogs, id), array(`"0x1 of `+node+`"`))
			check(t, "uninstall", ask(h, uninstall, id), "true")
			check(t, "uninstall", ask(h, uninstall, id), "false")
			check(t, "changes", ask(h, getChanges, id), notFound)
		}
	}
}

func TestAnotherGatewayWithTheSameBackendsFindsTheFilter(t *testing.T) {
	n := newNodes()
	one, _ := stage(Options{})
	two, _ := stage(Options{Backends: []string{"c", "a", "b", "d"}})
	id := opens(t, one.Middleware(n), newBlockFilter)
	check(t, "changes", ask(two.Middleware(n), getChanges, id), `["0x1 of a"]`)
}

func TestUnknownFilterIsAnsweredAsGethDoes(t *testing.T) {
	for _, mode := range []Mode{ModeBackend, ModeGateway} {
		n := newNodes()
		f, _ := stage(Options{Mode: mode})
		h := f.Middleware(n)
		other, _ := newTags([]string{"other"}).encode("other", []byte(`"0x1"`))
		for _, id := range []string{`"0x1"`, `""`, `17`, `{}`, `"` + other + `"`, `"` + newOwnID() + `"`, `"` + strings.Repeat("f", 10_000) + `"`} {
			check(t, "changes", ask(h, getChanges, id), notFound)
			check(t, "logs", ask(h, getLogs, id), notFound)
			check(t, "uninstall", ask(h, uninstall, id), "false")
		}
		check(t, "changes", ask(h, getChanges), "error -32602: missing value for required argument 0")
		check(t, "changes", ask(h, getChanges, `"0x1"`, `1`), "error -32602: too many arguments, want at most 1")
		c := call(getChanges)
		c.Params = []byte(`{"id":"0x1"}`)
		h.ServeRPC(t.Context(), []*jsonrpc.Call{c})
		check(t, "changes", outcome(c), "error -32602: non-array args")
		if len(n.asked) > 0 {
			t.Errorf("asked: %v", n.asked)
		}
	}
	c := call(getChanges, `"0x1"`)
	f, _ := stage(Options{})
	f.Middleware(newNodes()).ServeRPC(t.Context(), []*jsonrpc.Call{c})
	if c.Answer.Backend != "proxyd" || c.Answer.Status != 0 {
		t.Errorf("%+v", c.Answer)
	}
}

func TestBackendThatCannotBeAskedLeavesItsError(t *testing.T) {
	n := newNodes()
	f, _ := stage(Options{})
	h := f.Middleware(n)
	id := opens(t, h, newFilter, "{}")
	n.fails = true
	c := call(getChanges, id)
	h.ServeRPC(t.Context(), []*jsonrpc.Call{c})
	if !errors.Is(c.Err, errDown) || c.Answer != nil {
		t.Errorf("%v, %+v", c.Err, c.Answer)
	}
	if len(n.asked) != 2 || !strings.HasPrefix(n.asked[1], "a:") {
		t.Errorf("asked: %v", n.asked)
	}
}

func TestFilterThatNoBackendMadeIsAnsweredAsItIs(t *testing.T) {
	f, _ := stage(Options{MaxPerClient: 1})
	for _, a := range []*jsonrpc.Answer{
		{Error: []byte(`{"code":-32601,"message":"not here"}`), Code: -32601, Backend: "a"},
		{Result: []byte(`"0x1"`), Backend: "stranger"},
		{Result: []byte(`null`), Backend: "a"},
		{Result: []byte(`"` + strings.Repeat("1", 500) + `"`), Backend: "a"},
	} {
		got := ask(f.Middleware(jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) { calls[0].Answer = a })), newFilter, "{}")
		if strings.HasPrefix(got, `"0x`) || a.Error != nil && got != "error -32601: not here" {
			t.Errorf("%s%s by %s became %s", a.Result, a.Error, a.Backend, got)
		}
	}
	opens(t, f.Middleware(newNodes()), newFilter, "{}") // none of them counts
}

func TestSharedAnswerOfABackendIsNotChanged(t *testing.T) {
	f, _ := stage(Options{})
	shared := &jsonrpc.Answer{Result: []byte(`"0x1"`), Backend: "a", Group: "main"}
	c := call(newFilter, "{}")
	f.Middleware(jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) { calls[0].Answer = shared })).ServeRPC(t.Context(), []*jsonrpc.Call{c})
	if string(shared.Result) != `"0x1"` || c.Answer == shared || c.Answer.Backend != "a" || c.Answer.Group != "main" {
		t.Errorf("%+v, %+v", shared, c.Answer)
	}
}

func TestClientsCallStaysAsItIs(t *testing.T) {
	n := newNodes()
	f, _ := stage(Options{})
	h := f.Middleware(n)
	id := opens(t, h, newFilter, "{}")
	c := call(getChanges, id)
	c.Epoch, c.MayStream = 3, true
	before := *c
	var inner jsonrpc.Call
	f.Middleware(jsonrpc.HandlerFunc(func(ctx context.Context, calls []*jsonrpc.Call) {
		inner = *calls[0]
		n.ServeRPC(ctx, calls)
	})).ServeRPC(t.Context(), []*jsonrpc.Call{c})
	if c.Answer == nil || !bytes.Equal(c.Params, before.Params) || c.Only != "" || c.Method != before.Method {
		t.Errorf("%+v", c)
	}
	if inner.Method != getChanges || string(inner.Params) != `["0x1"]` || inner.Only != "a" || inner.Row != c.Row || inner.Label != c.Label ||
		inner.Client != c.Client || inner.Epoch != 3 || !inner.MayStream || string(inner.ID) != "7" {
		t.Errorf("%+v", inner)
	}
}

func TestBatchKeepsTheOrderOfCallsOnOneFilter(t *testing.T) {
	n := newNodes()
	f, _ := stage(Options{})
	h := f.Middleware(n)
	var ids []string
	for range 30 {
		ids = append(ids, opens(t, h, newFilter, "{}"))
	}
	calls := []*jsonrpc.Call{call("eth_chainId"), call(newBlockFilter)}
	for _, method := range []string{getChanges, getLogs, uninstall, getChanges} {
		for _, id := range ids {
			calls = append(calls, call(method, id))
		}
	}
	done := call("eth_call")
	done.Err = errDown
	calls = append(calls, call("eth_gasPrice"), done, call(getChanges, `"0x1"`))
	n.slices = nil
	h.ServeRPC(t.Context(), calls)
	for i, c := range calls[2 : 2+4*len(ids)] {
		of := fmt.Sprintf(`["0x%x of %c"]`, i%len(ids)/3+1, "abc"[i%3])
		want := []string{of, of, "true", notFound}[i/len(ids)]
		check(t, fmt.Sprint("call ", i), outcome(c), want)
	}
	if !slices.ContainsFunc(n.slices, func(s []string) bool {
		return slices.Equal(s, []string{"eth_chainId", newBlockFilter, "eth_gasPrice", "eth_call"})
	}) {
		t.Errorf("the rest did not go on in one slice: %v", n.slices)
	}
	check(t, "last", outcome(calls[len(calls)-1]), notFound)
	check(t, "done", outcome(done), "failed: down")
	if s := outcome(calls[1]); !strings.HasPrefix(s, `"0xb`) {
		t.Error(s)
	}
}

func TestCallsOnSeveralFiltersOfABatchRunBesideEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNodes()
		f, _ := stage(Options{})
		slow := jsonrpc.HandlerFunc(func(ctx context.Context, calls []*jsonrpc.Call) {
			time.Sleep(time.Second)
			n.ServeRPC(ctx, calls)
		})
		h := f.Middleware(slow)
		calls := []*jsonrpc.Call{call("eth_chainId")}
		for range 10 {
			calls = append(calls, call(getChanges, opens(t, h, newFilter, "{}")))
		}
		begun := time.Now()
		h.ServeRPC(t.Context(), calls)
		if took := time.Since(begun); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestSliceWithoutFiltersGoesOnAsItIs(t *testing.T) {
	f, _ := stage(Options{})
	done := call(getChanges, `"0x1"`)
	done.Err = errDown
	calls := []*jsonrpc.Call{call("eth_call"), done, call("eth_newfilter")}
	var got []*jsonrpc.Call
	f.Middleware(jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) { got = calls })).ServeRPC(t.Context(), calls)
	if len(got) != 3 || &got[0] != &calls[0] {
		t.Errorf("%v", got)
	}
}

func TestClientHasABoundedNumberOfFilters(t *testing.T) {
	for _, mode := range []Mode{ModeBackend, ModeGateway} {
		t.Run(string(mode), func(t *testing.T) {
			var next jsonrpc.Handler = newNodes()
			if mode == ModeGateway {
				next = newChain(5)
			}
			f, reg := stage(Options{Mode: mode, MaxPerClient: 3})
			h := f.Middleware(next)
			var calls []*jsonrpc.Call
			for range 5 {
				calls = append(calls, call(newBlockFilter))
			}
			h.ServeRPC(t.Context(), calls)
			var ids []string
			for _, c := range calls[:3] {
				ids = append(ids, outcome(c))
			}
			const tooMany = "error -32005: too many filters: at most 3 per client; uninstall some or wait for them to expire"
			check(t, "fourth", outcome(calls[3]), tooMany)
			check(t, "fifth", outcome(calls[4]), tooMany)
			shown(t, reg, "proxyd_filters_refused_total 2")
			shown(t, reg, "proxyd_filters 3")

			stranger := call(newBlockFilter)
			stranger.Client = &jsonrpc.Client{Key: "2.2.2.2"}
			h.ServeRPC(t.Context(), []*jsonrpc.Call{stranger})
			check(t, "kind", outcome(stranger)[:3], `"0x`)
			gone := call(uninstall, ids[0])
			gone.Client = stranger.Client // any client that knows it
			h.ServeRPC(t.Context(), []*jsonrpc.Call{gone})
			check(t, "uninstall", outcome(gone), "true")
			opens(t, h, newBlockFilter)
			check(t, "one more", ask(h, newBlockFilter), tooMany)
		})
	}
}

func TestFilterThatItsNodeHasForgottenNoLongerCounts(t *testing.T) {
	n := newNodes()
	f, _ := stage(Options{MaxPerClient: 1})
	h := f.Middleware(n)
	id := opens(t, h, newFilter, "{}")
	clear(n.made["a"])
	check(t, "changes", ask(h, getChanges, id), notFound)
	opens(t, h, newFilter, "{}")
}

func TestFilterThatNobodyUsesExpires(t *testing.T) {
	for _, mode := range []Mode{ModeBackend, ModeGateway} {
		synctest.Test(t, func(t *testing.T) {
			var next jsonrpc.Handler = newNodes()
			if mode == ModeGateway {
				next = newChain(5)
			}
			f, reg := stage(Options{Mode: mode, MaxPerClient: 2})
			h := f.Middleware(next)
			idle, used := opens(t, h, newBlockFilter), opens(t, h, newBlockFilter)
			for range 3 {
				time.Sleep(DefaultExpiry/2 - time.Second)
				ask(h, getChanges, used)
			}
			shown(t, reg, "proxyd_filters 1")
			shown(t, reg, "proxyd_filters_expired_total 1")
			if mode == ModeGateway {
				check(t, "idle", ask(h, getChanges, idle), notFound)
				check(t, "idle", ask(h, uninstall, idle), "false")
			}
			opens(t, h, newBlockFilter)
			if got := ask(h, newBlockFilter); !strings.HasPrefix(got, "error -32005") {
				t.Error(got)
			}
			time.Sleep(DefaultExpiry)
			shown(t, reg, "proxyd_filters 0")
		})
	}
}

func TestPanicKeepsNoPlaceAndLeavesNoCallOpen(t *testing.T) {
	f, _ := stage(Options{Mode: ModeGateway, MaxPerClient: 1})
	broken := f.Middleware(jsonrpc.HandlerFunc(func(context.Context, []*jsonrpc.Call) { panic("broken") }))
	check(t, "new", ask(broken, newBlockFilter), "failed: internal error")
	func() {
		defer func() { _ = recover() }() // the front's
		ask(broken, newPendingFilter)
	}()
	h := f.Middleware(newChain(5))
	id := opens(t, h, newBlockFilter)
	check(t, "changes", ask(broken, getChanges, id), "failed: internal error")
	check(t, "changes", ask(h, getChanges, id), "[]") // its turn is not taken for good
}
