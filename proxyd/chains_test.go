package proxyd

// [chains.NAME] through the whole gateway. A reload of the configuration is not there yet: chains are those of the start.

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"gateway.internal/proxyd/config"
)

// threeChains are a chain at the top level and two beside it. Groups have the same name everywhere, and the same chain id.
const threeChains = `
[backends]
top1 = { rpc_url = "@top1@" }
base1 = { rpc_url = "@base1@" }
op1 = { rpc_url = "@op1@" }
op2 = { rpc_url = "@op2@", type = "archive" }
[backend_groups.main]
backends = ["top1"]
[rpc_method_mappings]
"eth_*" = "main"
eth_gasPrice = "refuse"
[chains.base.backend_groups.main]
backends = ["base1"]
[chains.base.rpc_method_mappings]
"eth_*" = "main"
"debug_*" = "main"
eth_syncing = "refuse"
[chains.op.backend_groups.main]
backends = ["op1"]
[chains.op.backend_groups.all]
backends = ["op2", "op1"]
[chains.op.rpc_method_mappings]
"*" = "main"
eth_call = "all"
`

// paths are where the chains are served, and who answers there; chainOf is the chain of each backend.
var (
	paths   = map[string]string{"/": "top1", "/base": "base1", "/op": "op1"}
	chainOf = map[string]string{"top1": "", "base1": "base", "op1": "op", "op2": "op"}
)

func TestEachChainHasItsOwnMappingsAndGroups(t *testing.T) {
	l := lay(t, threeChains, nil)
	for _, c := range []struct {
		path, method, by string // by is "" where the method is refused
	}{
		{"/", "eth_getBalance", "top1"}, {"/base", "eth_getBalance", "base1"}, {"/op", "eth_getBalance", "op1"},
		{"/", "eth_gasPrice", ""}, {"/base", "eth_gasPrice", "base1"}, {"/op", "eth_gasPrice", "op1"},
		{"/", "debug_traceCall", ""}, {"/base", "debug_traceCall", "base1"}, {"/op", "debug_traceCall", "op1"},
		{"/", "net_version", ""}, {"/base", "net_version", ""}, {"/op", "net_version", "op1"},
		{"/", "eth_call", "top1"}, {"/base", "eth_call", "base1"}, {"/op", "eth_call", "op2"},
		{"/base", "eth_syncing", ""}, {"/base/", "eth_gasPrice", "base1"}, {"/op?x=1", "eth_gasPrice", "op1"},
	} {
		for _, body := range []string{request(c.method, "[]"), batchOf(request(c.method, "[]"), request("eth_getBalance", "[]"))} {
			_, answer, _ := l.ask(c.path, body)
			if c.by == "" && !strings.Contains(answer, "-32601") || c.by != "" && !strings.Contains(answer, fmt.Sprintf(`"result":%q`, c.by)) {
				t.Errorf("%s at %s: %s, want the answer of %q", c.method, c.path, answer, c.by)
			}
			for _, name := range strings.Fields(l.calls()) {
				if chain, _, _ := strings.Cut(strings.Trim(c.path, "/"), "?"); chainOf[name] != chain {
					t.Errorf("%s at %s asked %s", c.method, c.path, name)
				}
			}
		}
	}
}

func TestChainsNeverShareAnAnswerThatIsKept(t *testing.T) {
	l := lay(t, threeChains+"[cache]\nenabled = true\n[[cache.rules]]\nmethods = [\"eth_getBalance\"]\nttl = \"1h\"\n", nil)
	for _, body := range []string{request("eth_chainId", "[]"), balance, request("eth_getBlockByHash", fmt.Sprintf(`["0x%064x",false]`, 7))} {
		for path, by := range paths {
			l.by[by].says("eth_chainId", way{result: `"0x` + fmt.Sprintf("%x", len(path)) + `"`}) // 1, 5, 3
			for _, want := range []string{"MISS", "HIT", "HIT"} {
				_, answer, h := l.ask(path, body)
				if h.Get("X-Proxyd-Cache-Status") != want {
					t.Errorf("%s at %s: %s, want %s", body, path, h.Get("X-Proxyd-Cache-Status"), want)
				}
				if strings.Contains(body, "eth_chainId") {
					by = fmt.Sprintf("0x%x", len(path))
				}
				if answer != said(by) {
					t.Errorf("%s at %s: %s, want %s", body, path, answer, by)
				}
			}
		}
	}
	for _, name := range []string{"top1", "base1", "op1"} {
		if n := tally(strings.Fields(l.diaryOf(name)), name); n != 3 {
			t.Errorf("%s was asked %d times, want 3", name, n)
		}
	}
}

// diaryOf is what clients asked one provider.
func (d *diary) diaryOf(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for _, e := range d.lines {
		if e.name == name && !own(e.method) {
			names = append(names, e.name)
		}
	}
	return strings.Join(names, " ")
}

func TestChainsNeverShareAnAnswerThatIsUnderWay(t *testing.T) {
	l := lay(t, threeChains+"[cache]\ncoalesce = [\"eth_getBalance\"]\n", nil)
	release := sync.OnceFunc(func() { close(l.release) })
	defer release()
	for _, p := range l.by {
		p.says("eth_getBalance", way{do: func() way {
			await(l.over, l.release)
			return way{}
		}})
	}
	const each = 4
	var wg sync.WaitGroup
	for path, by := range paths {
		for range each {
			wg.Go(func() { l.servedBy(path, by) })
		}
	}
	for _, chain := range []string{"", "base", "op"} {
		becomes(t, "all but one wait at "+chain, func() bool {
			return l.series(t, "proxyd_coalesced_calls_total", fmt.Sprintf("chain=%q", chain)) == each-1
		})
	}
	release()
	wg.Wait()
	if got := strings.Fields(l.calls()); len(got) != 3 {
		t.Errorf("asked %q, want one of each chain", got)
	}
}

// traffic brings about as many metrics as it can.
func traffic(l *layer, paths ...string) {
	for name, p := range l.by {
		if strings.HasSuffix(name, "1") {
			p.says("eth_estimateGas", broken503)
			p.says("eth_maxPriorityFeePerGas", way{status: 200, text: `{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"x"}}`})
		}
	}
	for _, path := range paths {
		for _, body := range []string{
			balance, request("eth_chainId", "[]"), request("eth_chainId", "[]"), request("eth_estimateGas", "[]"), request("eth_maxPriorityFeePerGas", "[]"), request("eth_accounts", "[]"),
			request("eth_sendRawTransaction", `["0x01"]`), request("made_up", "[]"), "{", batchOf(balance, balance2(1)), request("eth_feeHistory", "[]"), request("eth_feeHistory", "[]"),
		} {
			l.ask(path, body)
		}
	}
}

const observed = `[cache]
enabled = true
[health]
interval = "1s"
[rate_limit.method_overrides.eth_feeHistory]
limit = 1
interval = "1h"
`

func TestMetricsNameTheChainOnlyWhereThereAreChains(t *testing.T) {
	with := lay(t, threeChains+observed, nil)
	traffic(with, "/", "/base", "/op", "/nosuch", "/Base", "/base/key")
	without := lay(t, manyEndpoints(2)+observed, nil)
	traffic(without, "/", "/base")
	families := [2]map[string]bool{}
	for i, l := range []*layer{with, without} {
		families[i] = map[string]bool{}
		gathered, err := l.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range gathered {
			if !strings.HasPrefix(f.GetName(), "proxyd_") || f.GetName() == "proxyd_up" {
				continue
			}
			families[i][f.GetName()] = true
			for _, m := range f.GetMetric() {
				chain, has, backend := "", false, ""
				for _, label := range m.GetLabel() {
					switch label.GetName() {
					case "chain":
						chain, has = label.GetValue(), true
					case "backend_name":
						backend = label.GetValue()
					}
				}
				if has != (i == 0) {
					t.Errorf("%s: a label chain %v", m, has)
				}
				if has && !slices.Contains([]string{"", "base", "op"}, chain) {
					t.Errorf("%s is of no chain: %s", f.GetName(), m)
				}
				if own := chainOf[backend]; has && backend != "proxyd" && backend != "cache" && backend != "" && chain != own {
					t.Errorf("%s is of the chain %q: %s", f.GetName(), chain, m)
				}
			}
		}
	}
	for name := range families[1] {
		if !families[0][name] {
			t.Errorf("%s is there only without chains", name)
		}
	}
	if len(families[1]) < 30 {
		t.Errorf("only %d families", len(families[1]))
	}
	if n := with.series(t, "proxyd_rpc_calls_total", `chain="base"`, `method_name="eth_getBalance"`, `backend_name="base1"`); n != 6 { // three at each of its paths
		t.Errorf("%v calls are counted at base", n)
	}
}

func TestPathsThatLeadToNoChain(t *testing.T) {
	l := lay(t, threeChains, nil)
	for _, path := range []string{"/nosuch", "/Base", "/BASE", "/bas", "/basement", "/main", "/top1", "/%20base", "/base%2Fop", "/nosuch?archive=true", "/chains"} {
		status, answer, h := l.ask(path, balance)
		if status != 404 || !strings.Contains(answer, `"code":-32600`) || h.Get("Content-Type") != "application/json" {
			t.Errorf("%s: HTTP %d %s", path, status, answer)
		}
		if name := strings.TrimPrefix(path, "/"); strings.Contains(answer, name) {
			t.Errorf("%s is repeated in %s", path, answer) // it may be a key
		}
	}
	l.asked("")
	noTop := lay(t, strings.Replace(threeChains, "[backend_groups.main]\nbackends = [\"top1\"]\n[rpc_method_mappings]\n\"eth_*\" = \"main\"\neth_gasPrice = \"refuse\"\n", "", 1), nil)
	for _, path := range []string{"/", "/nosuch"} {
		if status, answer, _ := noTop.ask(path, balance); status != 404 || !strings.Contains(answer, `"code":-32600`) {
			t.Errorf("%s without a chain at the top: HTTP %d %s", path, status, answer)
		}
	}
	noTop.servedBy("/op", "op1")
}

// The first segment decides, whatever stands behind it.
func TestUnknownFirstSegmentBeforeAKeyIsAnsweredInJSON(t *testing.T) {
	for name, keys := range map[string]string{"without keys": "", "with keys": "[authentication]\nkey1 = \"alice\"\n"} {
		t.Run(name, func(t *testing.T) {
			l := lay(t, threeChains+keys, nil)
			for _, path := range []string{"/nosuch/key1", "/nosuch/base", "/nosuch/", "/nosuch/a/b"} {
				if status, answer, _ := l.ask(path, balance); status != 404 || !strings.Contains(answer, `"code":-32600`) {
					t.Errorf("%s: HTTP %d %q, want 404 and -32600", path, status, answer)
				}
			}
		})
	}
}

func TestKeyBehindTheChain(t *testing.T) {
	const key = "KEYofalice0123456789"
	l := lay(t, threeChains+"[authentication]\n"+key+" = \"alice\"\n[health]\n", nil)
	for _, c := range []struct {
		path   string
		header string
		status int
		by     string
	}{
		{"/" + key, "", 200, "top1"},
		{"/base/" + key, "", 200, "base1"},
		{"/op/" + key, "", 200, "op1"},
		{"/op/" + key + "?archive=true", "", 200, ""}, // no archive in main
		{"/", "", 401, ""},
		{"/base", "", 401, ""},
		{"/base/", "", 401, ""},
		{"/base/op", "", 401, ""},
		{"/base/" + key + "x", "", 401, ""},
		{"/base", key, 200, "base1"},
		{"/base/wrong", key, 401, ""}, // a key in the path decides alone
		{"/nosuch", key, 404, ""},
		{"/" + key + "/base", "", 404, ""},
		{"/base/" + key + "/op", "", 404, ""},
	} {
		headers := []string{}
		if c.header != "" {
			headers = []string{"X-Api-Key", c.header}
		}
		status, answer, _ := l.ask(c.path, balance, headers...)
		if c.by != "" && answer != said(c.by) || c.by == "" && strings.Contains(answer, `"result"`) || c.status != 200 && status != c.status {
			t.Errorf("%s with %q: HTTP %d %s, want %d of %q", c.path, c.header, status, answer, c.status, c.by)
		}
	}
	if n := l.series(t, "proxyd_rpc_forwards_total", `auth="alice"`, `chain="base"`); n != 2 {
		t.Errorf("%v calls of alice at base", n)
	}
	_, metrics := l.get(t, l.MetricsAddr(), "/")
	if strings.Contains(l.log.String(), key) || strings.Contains(metrics, key) {
		t.Error("the key is in the log or in the metrics")
	}
	_, _, err := config.Parse(strings.ReplaceAll(threeChains, "@", "http://x")+"[authentication]\nbase = \"alice\"\n", config.Options{})
	if err == nil {
		t.Error("a key that is a chain's name is no fault")
	}
}

func TestRateLimitsAreCommonToAllChains(t *testing.T) {
	l := lay(t, threeChains+"[rate_limit]\nbase_rate = 6\nbase_interval = \"876000h\"\n[rate_limit.method_overrides.eth_estimateGas]\nlimit = 2\ninterval = \"876000h\"\n", nil)
	ask := func(path, method string, want int, headers ...string) {
		t.Helper()
		if status, answer, _ := l.ask(path, request(method, "[]"), headers...); status != want || want == 429 && !strings.Contains(answer, "-32016") {
			t.Errorf("%s at %s: HTTP %d %s, want %d", method, path, status, answer, want)
		}
	}
	ask("/", "eth_estimateGas", 200)
	ask("/op", "eth_estimateGas", 200)
	ask("/base", "eth_estimateGas", 429)
	if _, answer, _ := l.ask("/base", batchOf(balance, balance2(1))); strings.Count(answer, `"base1"`) != 2 {
		t.Errorf("a batch: %s", answer)
	}
	ask("/op", "eth_getBalance", 200) // the sixth
	for path := range paths {
		ask(path, "eth_getBalance", 429)
		ask(path, "eth_getBalance", 200, "X-Forwarded-For", "9.9.9.9")
	}
	for chain, want := range map[string]float64{"": 1, "base": 2, "op": 1} {
		if n := l.series(t, "proxyd_rate_limited_calls_total", fmt.Sprintf("chain=%q", chain)); n != want {
			t.Errorf("%v calls are refused at %q, want %v", n, chain, want)
		}
	}
}

func TestOneBoundHoldsForTheCachesOfAllChains(t *testing.T) {
	const bound = 256 << 10
	l := lay(t, threeChains+fmt.Sprintf("[cache]\nenabled = true\nmax_size_bytes = %d\n[[cache.rules]]\nmethods = [\"eth_getBalance\"]\nttl = \"1h\"\n", bound), nil)
	result := `"` + strings.Repeat("x", 2000) + `"`
	for _, p := range l.by {
		p.says("eth_getBalance", way{result: result})
	}
	for path := range paths {
		for from := range 2 {
			var calls []string
			for i := range 100 {
				calls = append(calls, request("eth_getBalance", fmt.Sprintf(`["0x%x","latest"]`, 1+100*from+i)))
			}
			l.ask(path, batchOf(calls...))
		}
		if size := l.series(t, "proxyd_cache_size_bytes"); size < bound/2 || size > bound {
			t.Errorf("after %s the caches have %v bytes, want at most %d", path, size, bound)
		}
	}
	_, text := l.get(t, l.MetricsAddr(), "/")
	if n := strings.Count(text, "\nproxyd_cache_size_bytes{"); n != 1 {
		t.Errorf("%d series of the size", n)
	}
}

func TestLogLinesNameTheChain(t *testing.T) {
	l := lay(t, threeChains+observed+"[server]\nenable_request_log = true\n", func(l *layer) {
		for name, p := range l.by {
			p.says("eth_syncing", way{status: 503, times: 3}) // more than once, so that it is unfit for a while
			p.says("eth_estimateGas", way{status: 429, retryAfter: "1", times: 1})
			if name == "op1" {
				p.says("eth_chainId", way{status: 500})
			}
		}
	})
	for path := range paths {
		chain := strings.TrimPrefix(path, "/")
		for i, body := range []string{balance, request("eth_estimateGas", "[]"), request("eth_chainId", "[]"), request("made_up", "[]"), "{", batchOf(balance, "{}")} {
			l.ask(path, body, "X-Request-Id", fmt.Sprintf("r%d.%s", i, chain))
		}
	}
	l.becomes("base1", "unfit")
	l.becomes("base1", "well")
	said := map[string]map[string]bool{"": {}, "base": {}, "op": {}}
	for text := range strings.Lines(l.log.String()) {
		var entry struct {
			Msg, Backend, Chain string
			RequestID           string `json:"req_id"`
		}
		if err := json.Unmarshal([]byte(text), &entry); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		want, known := chainOf[entry.Backend]
		if _, chain, ok := strings.Cut(entry.RequestID, "."); ok {
			want, known = chain, true
		}
		if known && (entry.Chain != want || strings.Contains(text, `"chain":""`)) {
			t.Errorf("is of the chain %q: %s", want, text)
		}
		if known {
			said[want][entry.Msg] = true
		}
	}
	for chain, messages := range said {
		for _, msg := range []string{"Raw RPC request", "request refused", "backend held off", "backend unfit, it is left alone", "call failed", "order of backends"} {
			if !messages[msg] {
				t.Errorf("%q has no line %q: %v", chain, msg, messages)
			}
		}
	}
}

func TestArchivesOfAChain(t *testing.T) {
	l := lay(t, threeChains+"[authentication]\nkey1 = \"alice\"\n", nil)
	call := request("eth_call", "[]")
	for _, path := range []string{"/op/key1?archive=true", "/op/key1?archive=1"} {
		for range 2 {
			if _, answer, _ := l.ask(path, call); answer != said("op2") {
				t.Errorf("%s: %s", path, answer)
			}
		}
		l.servedBy(path, "") // main has no archive
	}
	l.asked(times(4, "op2"))
}

func TestReadinessOfChains(t *testing.T) {
	l := lay(t, threeChains, nil)
	ready := func(path string, want int, texts ...string) {
		t.Helper()
		status, body := l.get(t, l.RPCAddr(), path)
		if status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
		for _, text := range texts {
			if !strings.Contains(body, text) {
				t.Errorf("%s lacks %s: %s", path, text, body)
			}
		}
	}
	ready("/ready?strict=1", 200, `{"group":"main","usable":true`, `{"chain":"base","group":"main","usable":true`, `{"chain":"op","group":"all","usable":true`, `{"chain":"op","group":"main","usable":true`)
	l.by["base1"].Close()
	l.servedBy("/base", "")
	l.servedBy("/", "top1")
	l.servedBy("/op", "op1")
	ready("/ready", 200, `{"chain":"base","group":"main","usable":false`)
	ready("/ready?strict=1", 503)
}

// foreign is a group whose first backend is on another chain than the group's.
const foreign = `
[backends]
wrong = { rpc_url = "@wrong@", type = "archive" }
right = { rpc_url = "@right@", type = "archive" }
[chains.op]
chain_id = 10
[chains.op.backend_groups.main]
backends = ["wrong", "right"]
[chains.op.rpc_method_mappings]
"*" = "main"
`

// onItsChain lets the right one answer as it must.
func onItsChain(l *layer) { l.by["right"].says("eth_chainId", way{result: `"0xa"`}) }

// neverWrong asks in all ways and reports an answer of the wrong one.
func (l *layer) neverWrong() {
	l.t.Helper()
	chain := request("eth_chainId", "[]")
	for _, path := range []string{"/op", "/op?archive=true"} {
		for _, body := range []string{
			balance, chain, batchOf(chain, balance), batchOf(balance, chain, balance2(1)), request("eth_sendRawTransaction", `["0x01"]`), batchOf(request("eth_sendRawTransaction", `["0x02"]`), balance, chain),
			request("eth_getLogs", "[{}]"), request("made_up", "[]"),
		} {
			status, answer, _ := l.ask(path, body)
			if status != 200 || strings.Contains(answer, "wrong") || strings.Contains(answer, `"0x1"`) || strings.Contains(answer, `"error"`) {
				l.t.Errorf("%s: HTTP %d %s", body, status, answer)
			}
		}
	}
}

func TestBackendOnAnotherChainIsNeverServed(t *testing.T) {
	for _, strategy := range []string{"fallback", "sticky", "ranked", "least_used", "scored", "round_robin", "random", "multicall"} {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			l := lay(t, strings.Replace(foreign, `"right"]`, `"right"]`+fmt.Sprintf("\nrouting_strategy = %q\nhedge = { delay = \"1ms\", min = \"1ms\" }", strategy), 1)+"[health]\ninterval = \"100h\"\n", onItsChain)
			l.ready()
			for range 3 {
				l.neverWrong()
			}
			if n := tally(strings.Fields(l.calls()), "wrong"); n != 1 { // the check
				t.Errorf("it was asked %d times", n)
			}
			if state, reason := l.standing("wrong"); state != "foreign" || !strings.Contains(reason, "chain id 1, not 10") {
				t.Errorf("it is %s: %s", state, reason)
			}
			l.by["right"].says("", broken503)
			for range 4 {
				l.servedBy("/op", "") // rather nothing than that
			}
			if n := tally(strings.Fields(l.calls()), "wrong"); n != 0 {
				t.Errorf("as a last resort it was asked %d times", n)
			}
		})
	}
}

func TestAnswersOfABackendOnAnotherChain(t *testing.T) {
	const checked, cached = "[health]\ninterval = \"100h\"\n", "[cache]\nenabled = true\n"
	for _, c := range []struct {
		name, more string
		prepare    func(wrong *provider)
	}{
		{"it is checked before", checked, func(*provider) {}},
		{"it is checked before, with a cache", checked + cached, func(*provider) {}},
		{"it syncs too", checked, func(wrong *provider) { wrong.says("eth_syncing", way{result: "true"}) }},
		{"it has no block number", checked, func(wrong *provider) { wrong.says("eth_blockNumber", broken503) }},
		{"its first check failed", checked, func(wrong *provider) { wrong.says("", way{status: 503, times: 1}) }},
		{"its first check met a limit", checked, func(wrong *provider) { wrong.says("", way{status: 429, times: 1}) }},
		{"its chain id is declared with the backend", checked + "[chains.other]\nbackend_groups.main.backends = [\"more\"]\nrpc_method_mappings = { \"*\" = \"main\" }\n[backends.more]\nrpc_url = \"@more@\"\nchain_id = 2\n", func(*provider) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := lay(t, foreign+c.more, func(l *layer) {
				onItsChain(l)
				c.prepare(l.by["wrong"])
			})
			if c.name == "its first check met a limit" {
				l.ready()
				becomes(t, "it is not held any more", func() bool { return l.state("wrong") != "held" })
			}
			l.neverWrong()
			if strings.Contains(c.more, "more") {
				l.servedBy("/other", "")
			}
		})
	}
}

// Without [health] nothing is known of a backend before a call asks for its chain: then at least nothing that is asked with it
// is served, and nothing after. What a large batch has in other upstream requests, and a send, may go out at the same time.
func TestBatchWithTheChainIDToABackendOnAnotherChainServesNothingOfIt(t *testing.T) {
	chain := request("eth_chainId", "[]")
	for _, c := range []struct {
		name, more string
		wrong      way
		calls      []string
		apart      bool // some go upstream apart from the chain id
	}{
		{name: "the chain id first", calls: []string{chain, balance}},
		{name: "the chain id last", calls: []string{balance, balance2(1), chain}},
		{name: "the backend takes no batches", wrong: way{noBatch: true}, calls: []string{chain, balance}},
		{name: "the backend takes no batches, the chain id last", wrong: way{noBatch: true}, calls: []string{balance, balance2(1), chain}},
		{name: "the chain id is cached", more: "[cache]\nenabled = true\n", calls: []string{chain, balance}, apart: true},
		{name: "the chain id is coalesced", more: "[cache]\ncoalesce = [\"eth_chainId\"]\n", calls: []string{chain, balance}, apart: true},
		{name: "more than one upstream batch", more: "[server]\ntimeout_seconds = 60\nmax_upstream_batch_size = 2\n", calls: []string{chain, balance, balance2(1), balance2(2)}, apart: true},
		{name: "with a send", calls: []string{chain, request("eth_sendRawTransaction", `["0x01"]`)}, apart: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lay(t, foreign+c.more, onItsChain)
			l.by["wrong"].says("", c.wrong)
			if c.wrong.noBatch {
				l.by["wrong"].says("eth_chainId", c.wrong)
			}
			for round := range 2 {
				status, answer, _ := l.ask("/op", batchOf(c.calls...))
				if status != 200 || strings.Contains(answer, `"wrong"`) && (!c.apart || round > 0) || strings.Contains(answer, `"0x1"`) || strings.Count(answer, `"result"`) != len(c.calls) {
					t.Errorf("HTTP %d %s", status, answer)
				}
			}
			if state := l.state("wrong"); state != "foreign" {
				t.Errorf("it is %s", state)
			}
			l.calls()
			l.neverWrong()
			if n := tally(strings.Fields(l.calls()), "wrong"); n != 0 {
				t.Errorf("asked %d times more", n)
			}
		})
	}
}

func TestBackendComesBackWhenItsChainIsRight(t *testing.T) {
	t.Parallel()
	l := lay(t, foreign+"[health]\ninterval = \"1s\"\n", onItsChain)
	l.servedBy("/op", "right")
	l.by["wrong"].says("eth_chainId", way{result: `"0xa"`})
	l.becomes("wrong", "well")
	l.servedBy("/op", "wrong")
}
