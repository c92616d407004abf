package proxyd

// What Ætherlay's documentation promises, each sentence as a test through the whole gateway. It may be said there in other
// words, and of other keys: those of ours stand in the configurations.
//
// Not covered here:
//   - state that several gateways share: Valkey, its cache of health, its grace period; nothing of it is built yet
//   - the standalone checker, and its port and metrics
//   - Kubernetes files, and the dashboard
//   - WebSocket: upgrades at /NAME, and health told apart by protocol
//   - CORS, metrics and log levels, which have tests of their own
//   - the exact times of checks and recoveries, which package probe tests on a clock of its own
//
// Where we differ on purpose: calls are served from the beginning, while /ready waits for the first round of checks, since a
// dead endpoint would delay every start; they wait only for the chain of an endpoint, where it is declared; a
// public endpoint beyond public_first_attempts is asked last instead of never; an endpoint that failed is asked again in the
// next of retry_count rounds, never within one.

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// provider is an endpoint that a test directs. It answers every method with its own name, and what a healthy node says to
// checks.
type provider struct {
	*httptest.Server
	t     testing.TB
	name  string
	diary *diary
	over  chan struct{}

	mu   sync.Mutex
	ways map[string]way // by method; "" is every other
}

// way is how a provider answers. The zero value is well.
type way struct {
	result     string // JSON
	status     int    // instead of an answer
	retryAfter string
	text       string // the body with a status
	noBatch    bool   // one error for each batch
	hang       bool   // no answer until the other side leaves
	times      int    // so often, then well; 0 is until it is changed
	do         func() way
}

var (
	broken503 = way{status: 503}
	limited   = way{status: 429}
	hangs     = way{hang: true}
)

// diary is what all providers of a test were asked, in order.
type diary struct {
	mu    sync.Mutex
	lines []line
}

type line struct {
	name, method string
	at           time.Time
}

// own reports whether the gateway may have asked by itself; clients of these tests do not ask so.
func own(method string) bool { return method == "eth_blockNumber" || method == "eth_syncing" }

// calls are the names of those who were asked by clients, in order, since the last time.
func (d *diary) calls() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	d.lines = slices.DeleteFunc(d.lines, func(l line) bool {
		if !own(l.method) {
			names = append(names, l.name)
		}
		return !own(l.method)
	})
	return strings.Join(names, " ")
}

// count is how often a provider was asked a method, "" for all of the gateway's own.
func (d *diary) count(name, method string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lines {
		if l.name == name && (l.method == method || method == "" && own(l.method)) {
			n++
		}
	}
	return n
}

func newProvider(t testing.TB, name string, d *diary) *provider {
	p := &provider{t: t, name: name, diary: d, over: make(chan struct{}), ways: make(map[string]way)}
	p.Server = httptest.NewServer(p)
	t.Cleanup(func() {
		close(p.over)
		p.Server.Close()
	})
	return p
}

// says changes how a method is answered, "" for all that have no way of their own.
func (p *provider) says(method string, w way) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ways[method] = w
}

// wayOf is how a method is answered this time.
func (p *provider) wayOf(method string) way {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.ways[method]
	if !ok {
		method = ""
		w = p.ways[method]
	}
	if w.times == 1 {
		delete(p.ways, method)
	} else if w.times > 1 {
		again := w
		again.times--
		p.ways[method] = again
	}
	return w
}

var wellSaid = map[string]string{"eth_blockNumber": `"0x10"`, "eth_syncing": "false", "eth_chainId": `"0x1"`}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, header := range []string{"Cookie", "Authorization", "X-Api-Key"} {
		if r.Header.Get(header) != "" {
			p.t.Errorf("%s of the client came to %s: %s", header, p.name, r.Header.Get(header))
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var calls []struct {
		ID     json.RawMessage
		Method string
	}
	batch := strings.HasPrefix(string(body), "[")
	if !batch {
		body = []byte("[" + string(body) + "]")
	}
	if err := json.Unmarshal(body, &calls); err != nil {
		p.t.Errorf("%s is asked %s", p.name, body)
		return
	}
	answers := make([]string, len(calls))
	for i, c := range calls {
		p.diary.mu.Lock()
		p.diary.lines = append(p.diary.lines, line{p.name, c.Method, time.Now()})
		p.diary.mu.Unlock()
		how := p.wayOf(c.Method)
		if how.do != nil {
			how = how.do()
		}
		switch {
		case how.hang:
			select {
			case <-r.Context().Done():
			case <-p.over:
			}
			panic(http.ErrAbortHandler)
		case how.noBatch && batch:
			fmt.Fprint(w, `{"jsonrpc":"2.0","error":{"code":-32600,"message":"batch requests are not supported"},"id":null}`)
			return
		case how.status != 0:
			if how.retryAfter != "" {
				w.Header().Set("Retry-After", how.retryAfter)
			}
			w.WriteHeader(how.status)
			_, _ = io.WriteString(w, how.text)
			return
		}
		result := how.result
		if result == "" {
			result = wellSaid[c.Method]
		}
		if result == "" {
			result = fmt.Sprintf("%q", p.name)
		}
		answers[i] = fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":%s}`, c.ID, result)
	}
	if out := strings.Join(answers, ","); batch {
		fmt.Fprint(w, "["+out+"]")
	} else {
		fmt.Fprint(w, out)
	}
}

// layer is a gateway over providers.
type layer struct {
	*gateway
	t    testing.TB
	text string
	by   map[string]*provider
	*diary

	// What prepare may let providers do.
	steps   *stepper
	crowd   *crowd
	release chan struct{}
	over    chan struct{} // closed when the test has ended
}

var placeholder = regexp.MustCompile(`@([a-z0-9]+)@`)

// lay starts a gateway. @NAME@ in the configuration is the URL of a provider; prepare directs them before the start. What a
// test leaves out is there: patience, and a mapping of all methods to the group main.
func lay(t testing.TB, text string, prepare func(*layer)) *layer {
	t.Helper()
	l := &layer{t: t, by: make(map[string]*provider), diary: new(diary), release: make(chan struct{}), over: make(chan struct{})}
	l.steps = &stepper{arrived: make(chan struct{}), again: make(chan struct{}, 1), answer: make(chan way), over: l.over}
	l.crowd = &crowd{turns: make(chan struct{}), over: l.over}
	if !strings.Contains(text, "rpc_method_mappings]") {
		text += "\n[rpc_method_mappings]\n\"*\" = \"main\"\n"
	}
	if !strings.Contains(text, "[server]") {
		text += "\n[server]\ntimeout_seconds = 60\n"
	}
	if !strings.Contains(text, "[backend]") {
		text += "\n[backend]\nresponse_timeout_seconds = 60\n"
	}
	l.text = placeholder.ReplaceAllStringFunc(text, func(m string) string {
		name := strings.Trim(m, "@")
		if l.by[name] == nil {
			l.by[name] = newProvider(t, name, l.diary)
		}
		return l.by[name].URL
	})
	if prepare != nil {
		prepare(l)
	}
	t.Cleanup(func() { close(l.over) })
	l.gateway = start(t, l.text, nil)
	if !strings.Contains(text, "[health]") && !strings.Contains(text, "ranked") {
		t.Cleanup(func() {
			for name := range l.by {
				if n := l.count(name, ""); n > 0 {
					t.Errorf("without [health] %s was asked %d times by the gateway itself", name, n)
				}
			}
		})
	}
	return l
}

// ask posts a call or a batch as a client that has secrets.
func (l *layer) ask(path, body string, headers ...string) (status int, answer string, h http.Header) {
	l.t.Helper()
	status, h, answer, err := l.post(path, body, append([]string{"Cookie", "session=client", "Authorization", "Basic Y2xpZW50OnNlY3JldA=="}, headers...)...)
	if err != nil {
		l.t.Errorf("%s %s: %v", path, body, err)
	}
	return status, answer, h
}

const balance = `{"jsonrpc":"2.0","method":"eth_getBalance","params":["0x01","latest"],"id":1}`

func said(name string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","result":%q,"id":1}`+"\n", name)
}

// servedBy asks at a path and reports an answer of another provider; "" is that nobody may answer.
func (l *layer) servedBy(path, name string) {
	l.t.Helper()
	status, answer, _ := l.ask(path, balance)
	if name == "" {
		if status < 400 || !strings.Contains(answer, `"error"`) {
			l.t.Errorf("%s: HTTP %d %s, want an error", path, status, answer)
		}
		return
	}
	if status != 200 || answer != said(name) {
		l.t.Errorf("%s: HTTP %d %s, want the answer of %s", path, status, answer, name)
	}
}

// asked reports providers that were asked in another order, since the last time.
func (l *layer) asked(want string) {
	l.t.Helper()
	if got := l.calls(); got != want {
		l.t.Errorf("asked %q, want %q", got, want)
	}
}

// state is what /ready says of a backend.
func (l *layer) state(name string) string {
	l.t.Helper()
	s, _ := l.standing(name)
	return s
}

func (l *layer) standing(name string) (state, reason string) {
	l.t.Helper()
	_, body := l.get(l.t, l.RPCAddr(), "/ready")
	var page struct {
		Groups []struct {
			Backends []struct{ Backend, State, Reason string }
		}
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		l.t.Fatalf("%v: %s", err, body)
	}
	for _, g := range page.Groups {
		for _, b := range g.Backends {
			if b.Backend == name {
				return b.State, b.Reason
			}
		}
	}
	l.t.Fatalf("%s is not in %s", name, body)
	return "", ""
}

func (l *layer) becomes(name, state string) {
	l.t.Helper()
	becomes(l.t, name+" is "+state, func() bool { return l.state(name) == state })
}

// ready waits until every endpoint was checked once.
func (l *layer) ready() {
	l.t.Helper()
	becomes(l.t, "it is ready", func() bool {
		status, _ := l.get(l.t, l.RPCAddr(), "/ready")
		return status == 200
	})
}

// holds are the hold-offs of a backend that the log tells of, in order.
func (l *layer) holds(name string) (held []time.Duration) {
	l.t.Helper()
	for text := range strings.Lines(l.log.String()) {
		var entry struct{ Msg, Backend, For string }
		if json.Unmarshal([]byte(text), &entry) != nil || entry.Msg != "backend held off" || entry.Backend != name {
			continue
		}
		d, err := time.ParseDuration(entry.For)
		if err != nil {
			l.t.Errorf("%v: %s", err, text)
		}
		held = append(held, d)
	}
	return held
}

// askUntilHeld calls until a backend was held off n times.
func (l *layer) askUntilHeld(name string, n int) []time.Duration {
	l.t.Helper()
	becomes(l.t, fmt.Sprintf("%s is held off %d times", name, n), func() bool {
		if len(l.holds(name)) < n {
			l.ask("/", balance)
		}
		return len(l.holds(name)) >= n
	})
	return l.holds(name)
}

// receive waits for what must come.
func receive[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s did not come", what)
	}
	return v
}

// times repeats a text with spaces between.
func times(n int, text string) string { return strings.TrimSpace(strings.Repeat(text+" ", n)) }

// Configurations that several sentences have in common.
const (
	oneOfEachRole = `
[backends]
free = { rpc_url = "@free@", role = "public" }
spare = { rpc_url = "@spare@", role = "fallback" }
paid = { rpc_url = "@paid@", role = "primary" }
[backend_groups.main]
backends = ["free", "spare", "paid"]
`
	publicFirst = `
[backends]
spare = { rpc_url = "@spare@", role = "fallback" }
paid = { rpc_url = "@paid@" }
free1 = { rpc_url = "@free1@", role = "public" }
free2 = { rpc_url = "@free2@", role = "public" }
free3 = { rpc_url = "@free3@", role = "public" }
[backend_groups.main]
backends = ["spare", "paid", "free1", "free2", "free3"]
retry_count = 0
public_first = true
`
	withArchives = `
[backends]
full = { rpc_url = "@full@", type = "full" }
plain = { rpc_url = "@plain@" }
deep1 = { rpc_url = "@deep1@", type = "archive" }
deep2 = { rpc_url = "@deep2@", type = "archive", role = "fallback" }
[backend_groups.main]
backends = ["full", "plain", "deep1", "deep2"]
`
	two = `
[backends]
one = { rpc_url = "@one@" }
other = { rpc_url = "@other@" }
[backend_groups.main]
backends = ["one", "other"]
`
	// limitedOne has room for the keys of rate_limit_recovery.
	limitedOne = `
[backends]
one = { rpc_url = "@one@", rate_limit_recovery = { %s } }
other = { rpc_url = "@other@", role = "fallback" }
[backend_groups.main]
backends = ["one", "other"]
`
)

// sentences are what Ætherlay promises. Each runs in a gateway of its own.
var sentences = []struct {
	says, config string
	prepare      func(*layer)
	holds        func(t *testing.T, l *layer)
}{
	// Load balancing.
	{
		says:   "requests go round the endpoints that are equal",
		config: three("least_used"),
		holds: func(t *testing.T, l *layer) {
			for range 30 {
				l.ask("/", balance)
			}
			if got := strings.Fields(l.calls()); tally(got, "a") != 10 || tally(got, "b") != 10 || tally(got, "c") != 10 {
				t.Errorf("asked %q", got)
			}
		},
	}, {
		says:   "an endpoint with fewer requests in the last 24 hours comes first",
		config: strings.Replace(three("least_used"), `"@a@"`, `"@a@", type = "archive"`, 1),
		holds: func(t *testing.T, l *layer) {
			for range 3 {
				l.ask("/", balance)
			}
			l.calls()
			for range 6 {
				l.servedBy("/?archive=true", "a")
			}
			l.calls()
			for range 12 {
				l.ask("/", balance)
			}
			if got := strings.Fields(l.calls()); tally(got, "b") != 6 || tally(got, "c") != 6 {
				t.Errorf("asked %q, want a only when the others have caught up", got)
			}
			for range 3 {
				l.ask("/", balance)
			}
			if got := strings.Fields(l.calls()); tally(got, "a") != 1 {
				t.Errorf("asked %q, want each once", got)
			}
		},
	}, {
		says:   "each call of a batch is a request",
		config: two + "routing_strategy = \"least_used\"\n",
		holds: func(t *testing.T, l *layer) {
			l.ask("/", batchOf(balance, balance2(1), balance2(2), balance2(3)))
			first, _, _ := strings.Cut(l.calls(), " ")
			for range 4 {
				l.ask("/", balance)
			}
			if got := strings.Fields(l.calls()); tally(got, first) != 0 {
				t.Errorf("after a batch of four to %s: %q", first, got)
			}
		},
	}, {
		says:   "an endpoint that comes late does not get every request until it has caught up",
		config: three("least_used") + "[health]\ninterval = \"1s\"\nfailure_threshold = 1\n",
		prepare: func(l *layer) {
			l.by["c"].says("eth_syncing", way{result: "true"})
		},
		holds: func(t *testing.T, l *layer) {
			l.ready()
			for range 20 {
				l.ask("/", balance)
			}
			if got := strings.Fields(l.calls()); tally(got, "c") != 0 {
				t.Errorf("asked %q although c syncs", got)
			}
			l.by["c"].says("eth_syncing", way{})
			l.becomes("c", "well")
			for range 12 {
				l.ask("/", balance)
			}
			if got := strings.Fields(l.calls()); tally(got, "c") < 3 || tally(got, "c") > 6 {
				t.Errorf("asked %q, want c as often as the others", got)
			}
		},
	},

	// The order of endpoints.
	{
		says:   "normally the order is primary, fallback, public",
		config: oneOfEachRole,
		holds: func(t *testing.T, l *layer) {
			l.servedBy("/", "paid")
			l.asked("paid")
			l.by["paid"].says("", broken503)
			l.servedBy("/", "spare")
			l.asked("paid spare")
			l.by["spare"].says("", broken503)
			l.servedBy("/", "free")
			l.asked("paid spare free")
			l.by["paid"].says("", way{})
			l.servedBy("/", "paid")
			l.asked("paid")
		},
	}, {
		says:   "in public-first mode the order is public, primary, fallback",
		config: oneOfEachRole + "public_first = true\n",
		holds: func(t *testing.T, l *layer) {
			l.servedBy("/", "free")
			l.asked("free")
			l.by["free"].says("", broken503)
			l.servedBy("/", "paid")
			l.asked("free paid")
			l.by["paid"].says("", broken503)
			l.servedBy("/", "spare")
			l.asked("free paid spare")
		},
	}, {
		says:   "in public-first mode two public endpoints are tried, then primary and fallback",
		config: publicFirst,
		holds: func(t *testing.T, l *layer) {
			for _, name := range []string{"free1", "free2", "free3", "paid"} {
				l.by[name].says("", broken503)
			}
			l.servedBy("/", "spare")
			l.asked("free1 free2 paid spare")
			l.by["free3"].says("", way{})
			l.by["spare"].says("", broken503)
			l.servedBy("/", "free3") // better late than never
			l.asked("free1 free2 paid spare free3")
		},
	}, {
		says:   "public_first_attempts limits the attempts at public endpoints",
		config: publicFirst + "public_first_attempts = 1\nrouting_strategy = \"round_robin\"\n",
		holds: func(t *testing.T, l *layer) {
			for _, name := range []string{"free1", "free2", "free3"} {
				l.by[name].says("", broken503)
			}
			for range 3 {
				l.servedBy("/", "paid")
				if got := strings.Fields(l.calls()); len(got) != 2 || !strings.HasPrefix(got[0], "free") || got[1] != "paid" {
					t.Errorf("asked %q, want one public endpoint and then paid", got)
				}
			}
		},
	},

	// Retries.
	{
		says:   "retries are made up to retry_count",
		config: two + "retry_count = 2\nretry_delay = \"1ms\"\n",
		holds: func(t *testing.T, l *layer) {
			l.by["one"].says("", broken503)
			l.by["other"].says("", broken503)
			l.servedBy("/", "")
			l.asked("one other one other one other")
			l.by["other"].says("", way{status: 503, times: 2})
			l.servedBy("/", "other")
			l.asked("one other one other one other")
		},
	}, {
		says:   "without retries each endpoint is tried once",
		config: two + "retry_count = 0\n",
		holds: func(t *testing.T, l *layer) {
			l.by["one"].says("", broken503)
			l.by["other"].says("", broken503)
			l.servedBy("/", "")
			l.asked("one other")
		},
	}, {
		says:   "max_attempts limits all attempts of a request",
		config: two + "retry_count = 9\nretry_delay = \"1ms\"\nmax_attempts = 3\n",
		holds: func(t *testing.T, l *layer) {
			l.by["one"].says("", broken503)
			l.by["other"].says("", broken503)
			l.servedBy("/", "")
			l.asked("one other one")
		},
	},

	// Timeouts.
	{
		says:   "a slow endpoint costs one try_timeout, not the whole request",
		config: two + "try_timeout = \"300ms\"\ntotal_timeout = \"25s\"\nretry_count = 0\n",
		holds: func(t *testing.T, l *layer) {
			l.by["one"].says("", hangs)
			begun := time.Now()
			l.servedBy("/", "other")
			if took := time.Since(begun); took < 300*time.Millisecond || took > 12*time.Second {
				t.Errorf("took %v", took)
			}
			l.asked("one other")
		},
	}, {
		says:   "total_timeout is the most that the client waits",
		config: two + "try_timeout = \"20s\"\ntotal_timeout = \"500ms\"\nretry_count = 5\n",
		holds: func(t *testing.T, l *layer) {
			l.by["one"].says("", hangs)
			l.by["other"].says("", hangs)
			begun := time.Now()
			status, answer, _ := l.ask("/", balance)
			if took := time.Since(begun); took < 400*time.Millisecond || took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			if status != 504 || !strings.Contains(answer, `"code":-32015`) {
				t.Errorf("HTTP %d %s", status, answer)
			}
			l.asked("one other") // each had its part of the time
		},
	}, {
		says:   "there may be more retries than total_timeout / try_timeout, since failures are quick",
		config: two + "try_timeout = \"10s\"\ntotal_timeout = \"20s\"\nretry_count = 4\nretry_delay = \"1ms\"\n",
		holds: func(t *testing.T, l *layer) {
			l.by["one"].says("", broken503)
			l.by["other"].says("", way{status: 503, times: 4})
			l.servedBy("/", "other")
			l.asked(times(5, "one other"))
		},
	},

	// Archives.
	{
		says:   "?archive=true asks archive endpoints only",
		config: withArchives,
		holds: func(t *testing.T, l *layer) {
			l.servedBy("/", "full")
			for _, path := range []string{"/?archive=true", "/?archive=1", "/?x=1&archive=true"} {
				l.servedBy(path, "deep1")
			}
			if _, answer, _ := l.ask("/", balance, "X-Archive", "true"); answer != said("deep1") {
				t.Errorf("with the header X-Archive: %s", answer)
			}
			for _, path := range []string{"/?archive=false", "/?archive=", "/?noarchive=true"} {
				l.servedBy(path, "full")
			}
			if _, answer, _ := l.ask("/?archive=true", batchOf(balance, balance2(1))); strings.Count(answer, `"deep1"`) != 2 {
				t.Errorf("a batch: %s", answer)
			}
			l.calls()
			l.by["deep1"].says("", broken503)
			l.servedBy("/?archive=true", "deep2")
			l.by["deep2"].says("", broken503)
			l.calls()
			l.servedBy("/?archive=true", "") // rather than half of an answer
			if got := strings.Fields(l.calls()); tally(got, "full")+tally(got, "plain") != 0 {
				t.Errorf("asked %q", got)
			}
		},
	}, {
		says:   "an answer of a full node is not kept for those who ask for archives",
		config: withArchives + "[cache]\nenabled = true\n[[cache.rules]]\nmethods = [\"eth_getBalance\"]\nttl = \"1h\"\n",
		holds: func(t *testing.T, l *layer) {
			for range 2 {
				l.servedBy("/", "full")
				l.servedBy("/?archive=true", "deep1")
			}
			l.asked("full deep1")
		},
	},

	// Paths.
	{
		says: "each chain is served at its path",
		config: `
[backends]
m = { rpc_url = "@m@" }
b = { rpc_url = "@b@" }
o = { rpc_url = "@o@" }
[chains.mainnet]
rpc_method_mappings = { "*" = "main" }
backend_groups.main.backends = ["m"]
[chains.base]
rpc_method_mappings = { "*" = "main" }
backend_groups.main.backends = ["b"]
[chains.optimism.rpc_method_mappings]
"*" = "main"
[chains.optimism.backend_groups.main]
backends = ["o"]
`,
		holds: func(t *testing.T, l *layer) {
			l.servedBy("/mainnet", "m")
			l.servedBy("/base", "b")
			l.servedBy("/optimism", "o")
			l.servedBy("/", "")
			l.servedBy("/polygon", "")
			l.asked("m b o")
		},
	}, {
		says:   "GET /health and GET /ready say whether requests should come",
		config: two,
		holds: func(t *testing.T, l *layer) {
			pages := func(want int) {
				t.Helper()
				for _, path := range []string{"/health", "/healthz", "/ready", "/readyz"} {
					if status, body := l.get(t, l.RPCAddr(), path); status != want {
						t.Errorf("%s: %d %s, want %d", path, status, body, want)
					}
				}
			}
			pages(200)
			l.Drain(t.Context())
			pages(503)
		},
	},

	// Health checks.
	{
		says:   "an endpoint whose block is 0 is not healthy, where others are further",
		config: two + "[health]\ninterval = \"1s\"\nfailure_threshold = 1\nsuccess_threshold = 1\n",
		prepare: func(l *layer) {
			l.by["one"].says("eth_blockNumber", way{result: `"0x0"`})
		},
		holds: func(t *testing.T, l *layer) {
			l.becomes("one", "unfit")
			if _, reason := l.standing("one"); !strings.Contains(reason, "block number 0") {
				t.Errorf("because of %q", reason)
			}
			l.calls()
			l.servedBy("/", "other")
			l.asked("other")
			l.by["one"].says("eth_blockNumber", way{result: `"0x1"`})
			l.becomes("one", "well")
			l.servedBy("/", "one")
		},
	}, {
		says:   "an endpoint that syncs, or fails its check, is not healthy, unless its sync status is skipped",
		config: syncingConfig,
		prepare: func(l *layer) {
			l.by["yes"].says("eth_syncing", way{result: "true"})
			l.by["far"].says("eth_syncing", way{result: `{"startingBlock":"0x0","currentBlock":"0x1","highestBlock":"0x2"}`})
			l.by["mute"].says("eth_syncing", broken503)
			l.by["skipped"].says("eth_syncing", way{result: "true"})
		},
		holds: func(t *testing.T, l *layer) {
			l.ready()
			l.servedBy("/", "skipped")
			l.asked("skipped")
			for _, name := range []string{"yes", "far", "mute"} {
				if state := l.state(name); state != "unfit" {
					t.Errorf("%s is %s", name, state)
				}
			}
			if state := l.state("skipped"); state != "well" || l.count("skipped", "eth_syncing") != 0 {
				t.Errorf("skipped is %s, its sync status was asked for %d times", state, l.count("skipped", "eth_syncing"))
			}
		},
	}, {
		says:   "debouncing: two failures in a row make an endpoint unhealthy, two successes healthy",
		config: two + "[health]\ninterval = \"1s\"\nchecks = [\"eth_blockNumber\"]\n",
		prepare: func(l *layer) {
			l.by["one"].says("eth_blockNumber", way{do: l.steps.check})
		},
		holds: func(t *testing.T, l *layer) {
			defer l.by["one"].says("eth_blockNumber", way{})
			for i, step := range []struct {
				ok   bool
				then string
			}{{true, "well"}, {false, "well"}, {false, "unfit"}, {true, "unfit"}, {true, "well"}, {false, "well"}, {true, "well"}, {false, "well"}, {true, "well"}} {
				receive(t, "check", l.steps.arrived)
				answer := broken503
				if step.ok {
					answer = way{result: `"0x10"`}
				}
				l.steps.answer <- answer
				receive(t, "the next check", l.steps.arrived) // so that this one has counted
				if state := l.state("one"); state != step.then {
					t.Errorf("after check %d: %s, want %s", i+1, state, step.then)
				}
				served := map[string]string{"well": "one", "unfit": "other"}[step.then]
				l.servedBy("/", served)
				l.steps.again <- struct{}{}
			}
			receive(t, "check", l.steps.arrived)
			l.steps.answer <- way{}
		},
	}, {
		says:   "with an interval of 0 there are no checks until an endpoint fails, and then only of this one, until it is well",
		config: three("round_robin") + "[health]\ninterval = 0\nfailure_threshold = 1\nephemeral_interval = \"1s\"\nephemeral_healthy_threshold = 2\n",
		holds: func(t *testing.T, l *layer) {
			fails := func(name string) {
				t.Helper()
				l.by[name].says("", broken503)
				l.calls()
				becomes(t, name+" is asked", func() bool {
					if status, answer, _ := l.ask("/", balance); status != 200 { // at the same time another is tried
						t.Errorf("HTTP %d %s", status, answer)
					}
					return slices.Contains(strings.Fields(l.calls()), name)
				})
				l.becomes(name, "unfit")
			}
			for range 9 {
				l.ask("/", balance)
			}
			for name := range l.by {
				if n := l.count(name, ""); n != 0 {
					t.Errorf("%s was checked %d times before anything failed", name, n)
				}
			}
			fails("a")
			becomes(t, "a is checked", func() bool { return l.count("a", "") >= 2 })
			l.calls()
			for range 9 {
				l.ask("/", balance)
			}
			if got := strings.Fields(l.calls()); tally(got, "a") != 0 {
				t.Errorf("asked %q although a is unfit", got)
			}
			if l.count("b", "")+l.count("c", "") != 0 {
				t.Error("endpoints that did not fail were checked")
			}
			l.by["a"].says("", way{})
			l.becomes("a", "well")
			l.calls()
			for range 9 {
				l.ask("/", balance)
			}
			if got := strings.Fields(l.calls()); tally(got, "a") != 3 {
				t.Errorf("asked %q, want a in its turn", got)
			}
			checked := l.count("a", "")
			fails("b") // whose checks are the clock
			becomes(t, "b is checked", func() bool { return l.count("b", "") >= 3 })
			if n := l.count("a", ""); n != checked {
				t.Errorf("a is well and was checked %d times more", n-checked)
			}
			if l.count("c", "") != 0 {
				t.Error("c was checked")
			}
		},
	}, {
		says:   "checks count in metrics of their own only",
		config: two + "[health]\ninterval = \"1s\"\n",
		prepare: func(l *layer) {
			l.by["other"].says("", broken503)
		},
		holds: func(t *testing.T, l *layer) {
			checked := func(name, check, result string) float64 {
				return l.series(t, "proxyd_health_checks_total", fmt.Sprintf("backend_name=%q", name), fmt.Sprintf("check=%q", check), fmt.Sprintf("result=%q", result))
			}
			becomes(t, "both were checked twice", func() bool {
				return checked("one", "eth_syncing", "success") >= 2 && checked("other", "eth_blockNumber", "failure") >= 2
			})
			if n := l.series(t, "proxyd_backend_head", `backend_name="one"`); n != 16 {
				t.Errorf("the head is %v", n)
			}
			for _, family := range []string{
				"proxyd_rpc_calls_total", "proxyd_rpc_requests_total", "proxyd_rpc_forwards_total", "proxyd_rpc_errors_total", "proxyd_provider_errors_total",
				"proxyd_rpc_backend_http_response_codes_total", "proxyd_rpc_backend_request_duration_seconds_count", "proxyd_rpc_call_duration_seconds_count",
				"proxyd_group_calls_total", "proxyd_group_failures_total", "proxyd_group_failovers_total", "proxyd_unserviceable_requests_total",
				"proxyd_backend_error_rate", "proxyd_backend_avg_latency", "proxyd_backend_unanswered_in_row", "proxyd_http_response_codes_total",
			} {
				if n := l.series(t, family); n != 0 {
					t.Errorf("%s is %v", family, n)
				}
			}
			l.servedBy("/", "one")
			if n := l.series(t, "proxyd_rpc_forwards_total", `method_name="eth_getBalance"`); n != 1 {
				t.Errorf("%v calls were forwarded, want the client's", n)
			}
		},
	},

	// Startup.
	{
		says:    "/ready is 503 until every endpoint was checked once",
		config:  two + "[health]\ninterval = \"100h\"\n",
		prepare: oneCheckWaits,
		holds: func(t *testing.T, l *layer) {
			release := sync.OnceFunc(func() { close(l.release) })
			defer release()
			for range 5 {
				for _, path := range []string{"/ready", "/readyz", "/ready?strict=1"} {
					if status, body := l.get(t, l.RPCAddr(), path); status != 503 || !strings.Contains(body, `"ready":false`) {
						t.Errorf("%s: %d %s", path, status, body)
					}
				}
			}
			if status, _ := l.get(t, l.RPCAddr(), "/health"); status != 200 {
				t.Errorf("/health: %d, although it lives", status)
			}
			release()
			l.ready()
			if status, body := l.get(t, l.RPCAddr(), "/ready?strict=1"); status != 200 {
				t.Errorf("/ready: %d %s", status, body)
			}
		},
	}, {
		says:   "no request is served before the chain of an endpoint is known, where it is declared",
		config: "chain_id = 1\n" + two + "[server]\ntimeout_seconds = 4\n[health]\ninterval = \"100h\"\n",
		prepare: func(l *layer) {
			for _, p := range l.by {
				p.says("eth_chainId", way{do: func() way {
					await(l.over, l.release)
					return way{}
				}})
			}
		},
		holds: servesNothingBeforeTheRelease,
	}, {
		says:   "at the start no more than so many endpoints are checked at the same time",
		config: manyEndpoints(7) + "[health]\ninterval = \"100h\"\nconcurrency = 3\nchecks = [\"eth_blockNumber\"]\n",
		prepare: func(l *layer) {
			for _, p := range l.by {
				p.says("eth_blockNumber", way{do: l.crowd.check})
			}
		},
		holds: func(t *testing.T, l *layer) {
			becomes(t, "three are checked", func() bool { return l.crowd.now.Load() == 3 })
			for range 7 {
				l.crowd.turns <- struct{}{}
			}
			l.ready()
			if most := l.crowd.most.Load(); most != 3 {
				t.Errorf("%d at once, want 3", most)
			}
		},
	},

	// Rate limits.
	{
		says:   "an endpoint that answers 429 is left alone, and the request goes to another",
		config: fmt.Sprintf(limitedOne, `initial_backoff = "1h", max_backoff = "2h"`),
		holds: func(t *testing.T, l *layer) {
			l.by["one"].says("", limited)
			l.servedBy("/", "other")
			l.by["one"].says("", way{})
			for range 5 {
				l.servedBy("/", "other")
			}
			l.asked("one " + times(6, "other"))
			if state := l.state("one"); state != "held" {
				t.Errorf("one is %s", state)
			}
			if l.series(t, "proxyd_backend_held_off", `backend_name="one"`) != 1 {
				t.Error("the metric does not say so")
			}
		},
	}, {
		says:   "each wait is longer by backoff_multiplier, up to max_backoff",
		config: fmt.Sprintf(limitedOne, `initial_backoff = "200ms", backoff_multiplier = 2.0, max_backoff = "500ms"`),
		holds: func(t *testing.T, l *layer) {
			l.by["one"].says("", limited)
			want := []time.Duration{200 * time.Millisecond, 400 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond}
			if got := l.askUntilHeld("one", 4); !slices.Equal(got, want) {
				t.Errorf("held for %v, want %v", got, want)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			var last time.Time
			for _, entry := range l.lines {
				if entry.name != "one" {
					continue
				}
				if gap := entry.at.Sub(last); !last.IsZero() && gap < want[0] {
					t.Errorf("asked again after %v, want at least %v", gap, want[0])
				} else if !last.IsZero() {
					want = want[1:]
				}
				last = entry.at
			}
		},
	}, {
		says:   "after max_retries the endpoint is given up until reset_after",
		config: fmt.Sprintf(limitedOne, `initial_backoff = "100ms", backoff_multiplier = 1.0, max_retries = 2, reset_after = "1h"`),
		holds: func(t *testing.T, l *layer) {
			l.by["one"].says("", limited)
			got := l.askUntilHeld("one", 3)
			if got[0] != 100*time.Millisecond || got[1] != 100*time.Millisecond || got[2] < 58*time.Minute || got[2] > time.Hour {
				t.Errorf("held for %v", got)
			}
		},
	}, {
		says:   "after reset_after everything starts afresh",
		config: fmt.Sprintf(limitedOne, `initial_backoff = "100ms", backoff_multiplier = 7.0, max_backoff = "10s", max_retries = 1, reset_after = "3s"`),
		holds: func(t *testing.T, l *layer) {
			l.by["one"].says("", limited)
			const first, reset = 100 * time.Millisecond, 3 * time.Second
			got := l.askUntilHeld("one", 4)
			if got[0] != first || got[1] <= first || got[1] > reset || got[2] != first || got[3] <= first || got[3] > reset {
				t.Errorf("held for %v", got)
			}
		},
	}, {
		says:   "an endpoint comes back after required_successes, asked for one at a time",
		config: fmt.Sprintf(limitedOne, `initial_backoff = "100ms", required_successes = 2`),
		holds: func(t *testing.T, l *layer) {
			l.by["one"].says("", way{status: 429, times: 1})
			l.servedBy("/", "other")
			l.becomes("one", "trial")
			arrived := make(chan struct{}, 10)
			l.by["one"].says("", way{do: func() way {
				arrived <- struct{}{}
				await(l.over, l.release)
				return way{}
			}})
			tries := make(chan string, 1)
			go func() {
				_, _, answer, _ := l.post("/", balance)
				tries <- answer
			}()
			receive(t, "the first call that tries it", arrived)
			for range 5 {
				l.servedBy("/", "other")
			}
			close(l.release)
			if answer := receive(t, "its answer", tries); answer != said("one") || len(arrived) != 0 {
				t.Errorf("%s; %d more tried at the same time", answer, len(arrived))
			}
			if state := l.state("one"); state != "trial" {
				t.Errorf("after one success it is %s", state)
			}
			l.servedBy("/", "one")
			if state := l.state("one"); state != "well" || !strings.Contains(l.log.String(), "backend recovered from its rate limit") {
				t.Errorf("after two successes it is %s", state)
			}
		},
	}, {
		says:   "a failure on the way back begins the successes anew",
		config: fmt.Sprintf(limitedOne, `initial_backoff = "100ms", backoff_multiplier = 1.0, required_successes = 2`),
		holds: func(t *testing.T, l *layer) {
			limitOnce := func() {
				t.Helper()
				l.by["one"].says("", way{status: 429, times: 1})
				l.servedBy("/", "other")
				l.becomes("one", "trial")
			}
			limitOnce()
			l.servedBy("/", "one")
			limitOnce()
			l.servedBy("/", "one")
			if state := l.state("one"); state != "trial" {
				t.Errorf("it is %s after one success", state)
			}
			l.servedBy("/", "one")
			l.becomes("one", "well")
		},
	}, {
		says:   "with health checks the gateway itself tries the endpoint, and no request of a client does",
		config: fmt.Sprintf(limitedOne, `initial_backoff = "300ms", required_successes = 2`) + "[health]\ninterval = \"100h\"\n",
		holds: func(t *testing.T, l *layer) {
			l.ready()
			l.servedBy("/", "one")
			checked := l.count("one", "")
			l.by["one"].says("eth_getBalance", way{status: 429, times: 1})
			l.servedBy("/", "other")
			l.calls()
			becomes(t, "one has recovered", func() bool {
				recovered := func() bool { return strings.Contains(l.log.String(), "backend recovered from its rate limit") }
				before := recovered()
				l.ask("/", balance)
				got := l.calls()
				if !before && !recovered() && got != "other" {
					t.Errorf("asked %q before it had recovered", got)
				}
				return recovered()
			})
			l.servedBy("/", "one")
			if n := l.count("one", "") - checked; n != 2 {
				t.Errorf("tried %d times, want 2", n)
			}
			if n := l.series(t, "proxyd_health_checks_total", `backend_name="one"`, `check="recovery"`, `result="success"`); n != 2 {
				t.Errorf("%v are counted", n)
			}
		},
	}, {
		says: "each endpoint has its own recovery, and one without has the usual one",
		config: `
[backends]
one = { rpc_url = "@one@", rate_limit_recovery = { initial_backoff = "40m" } }
two = { rpc_url = "@two@", rate_limit_recovery = { initial_backoff = 120 } }
dflt = { rpc_url = "@dflt@", rate_limit_recovery = {} }
none = { rpc_url = "@none@" }
last = { rpc_url = "@last@" }
[backend_groups.main]
backends = ["one", "two", "dflt", "none", "last"]
`,
		holds: func(t *testing.T, l *layer) {
			for _, name := range []string{"one", "two", "dflt", "none"} {
				l.by[name].says("", limited)
			}
			l.servedBy("/", "last")
			for name, want := range map[string]time.Duration{"one": 40 * time.Minute, "two": 2 * time.Minute, "dflt": 5 * time.Minute, "none": time.Second} {
				if got := l.holds(name); len(got) != 1 || got[0] != want {
					t.Errorf("%s is held for %v, want %v", name, got, want)
				}
			}
		},
	}, {
		says: "the wait is never shorter than Retry-After asks for",
		config: `
[backends]
short = { rpc_url = "@short@", rate_limit_recovery = { initial_backoff = "100ms", max_backoff = "200ms" } }
long = { rpc_url = "@long@", rate_limit_recovery = { initial_backoff = "50m" } }
last = { rpc_url = "@last@" }
[backend_groups.main]
backends = ["short", "long", "last"]
`,
		holds: func(t *testing.T, l *layer) {
			l.by["short"].says("", way{status: 429, retryAfter: "77"})
			l.by["long"].says("", way{status: 429, retryAfter: "77"})
			l.servedBy("/", "last")
			for name, want := range map[string]time.Duration{"short": 77 * time.Second, "long": 50 * time.Minute} {
				if got := l.holds(name); len(got) != 1 || got[0] != want {
					t.Errorf("%s is held for %v, want %v", name, got, want)
				}
			}
		},
	}, {
		says: "when every endpoint is limited, the one whose wait ends first is asked rather than a refusal made up",
		config: `
[backends]
long = { rpc_url = "@long@", rate_limit_recovery = { initial_backoff = "1h", required_successes = 1 } }
short = { rpc_url = "@short@", rate_limit_recovery = { initial_backoff = "10m", required_successes = 1 } }
[backend_groups.main]
backends = ["long", "short"]
`,
		holds: func(t *testing.T, l *layer) {
			l.by["long"].says("", limited)
			l.by["short"].says("", limited)
			status, answer, h := l.ask("/", balance)
			if status != 503 || !strings.Contains(answer, "-32011") || h.Get("Retry-After") == "" {
				t.Errorf("HTTP %d %s %v", status, answer, h)
			}
			l.asked("long short")
			l.by["long"].says("", way{})
			l.by["short"].says("", way{})
			l.servedBy("/", "short")
			l.asked("short")
		},
	}, {
		says:   "after a restart an endpoint that was limited is not stuck",
		config: fmt.Sprintf(limitedOne, `initial_backoff = "1h", reset_after = "24h"`),
		holds: func(t *testing.T, l *layer) {
			l.by["one"].says("", limited)
			l.servedBy("/", "other")
			if err := l.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			l.by["one"].says("", way{})
			l.calls()
			l.gateway = start(t, l.text, nil)
			if state := l.state("one"); state != "well" {
				t.Errorf("one is %s", state)
			}
			l.servedBy("/", "one")
			l.asked("one")
		},
	},

	// Not to be taken over.
	{
		says:   "nothing that makes up a client's identity goes to an endpoint",
		config: withArchives + "routing_strategy = \"round_robin\"\n[cache]\nenabled = true\n[health]\ninterval = \"1s\"\n",
		holds: func(t *testing.T, l *layer) { // the providers complain themselves
			l.by["full"].says("eth_gasPrice", broken503)
			for range 8 {
				for _, path := range []string{"/", "/?archive=true"} {
					for _, body := range []string{balance, request("eth_chainId", "[]"), request("eth_gasPrice", "[]"), request("eth_sendRawTransaction", `["0x01"]`), batchOf(balance, balance2(1))} {
						if status, answer, _ := l.ask(path, body); status != 200 {
							t.Errorf("%s: HTTP %d %s", body, status, answer)
						}
					}
				}
			}
		},
	},
}

// stepper lets a test answer one check after another. The check that comes next waits until the test has looked at what the
// one before has changed.
type stepper struct {
	arrived, again chan struct{}
	answer         chan way
	over           chan struct{}
	begun          atomic.Bool
}

func (s *stepper) check() (w way) {
	if s.begun.Swap(true) {
		_ = handOver(s.over, s.arrived) && await(s.over, s.again) // the one before is over
	}
	if handOver(s.over, s.arrived) {
		select {
		case w = <-s.answer:
		case <-s.over:
		}
	}
	return w
}

// handOver and await are for handlers: they return false when the test has ended.
func handOver(over <-chan struct{}, to chan<- struct{}) bool {
	select {
	case to <- struct{}{}:
		return true
	case <-over:
		return false
	}
}

func await(over, event <-chan struct{}) bool {
	select {
	case <-event:
		return true
	case <-over:
		return false
	}
}

// crowd counts checks under way, each of which ends in its turn.
type crowd struct {
	now, most atomic.Int64
	turns     chan struct{}
	over      chan struct{}
}

func (c *crowd) check() way {
	n := c.now.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	await(c.over, c.turns)
	c.now.Add(-1)
	return way{}
}

// oneCheckWaits holds the last check of the first round.
func oneCheckWaits(l *layer) {
	l.by["other"].says("eth_syncing", way{do: func() way {
		await(l.over, l.release)
		return way{}
	}})
}

func servesNothingBeforeTheRelease(t *testing.T, l *layer) {
	release := sync.OnceFunc(func() { close(l.release) })
	defer release()
	var late sync.WaitGroup // they wait to the end of their time
	late.Go(func() {
		if _, answer, _ := l.ask("/", batchOf(balance, balance)); strings.Count(answer, "-32015") != 2 {
			t.Errorf("a batch: %s", answer)
		}
	})
	if status, answer, _ := l.ask("/", balance); status != 504 || !strings.Contains(answer, "-32015") {
		t.Errorf("HTTP %d %s", status, answer)
	}
	late.Wait()
	if n := l.count("one", "eth_getBalance") + l.count("other", "eth_getBalance"); n != 0 {
		t.Errorf("%d requests were passed on", n)
	}
	waits := make(chan string, 1)
	go func() {
		_, _, answer, _ := l.post("/", balance)
		waits <- answer
	}()
	release()
	if answer := receive(t, "the answer", waits); answer != said("one") && answer != said("other") {
		t.Errorf("answered %s", answer)
	}
	l.ready()
}

const syncingConfig = `
[backends]
yes = { rpc_url = "@yes@" }
far = { rpc_url = "@far@" }
mute = { rpc_url = "@mute@" }
skipped = { rpc_url = "@skipped@", skip_is_syncing_check = true }
[backend_groups.main]
backends = ["yes", "far", "mute", "skipped"]
[health]
interval = "100h"
failure_threshold = 1
`

// three are equal endpoints of a strategy.
func three(strategy string) string {
	return fmt.Sprintf(`
[backends]
a = { rpc_url = "@a@" }
b = { rpc_url = "@b@" }
c = { rpc_url = "@c@" }
[backend_groups.main]
backends = ["a", "b", "c"]
routing_strategy = %q
`, strategy)
}

func manyEndpoints(n int) string {
	var backends, names []string
	for i := range n {
		name := fmt.Sprint("n", i)
		backends, names = append(backends, fmt.Sprintf("%s = { rpc_url = \"@%s@\" }\n", name, name)), append(names, fmt.Sprintf("%q", name))
	}
	return "[backends]\n" + strings.Join(backends, "") + "[backend_groups.main]\nbackends = [" + strings.Join(names, ",") + "]\n"
}

func batchOf(calls ...string) string { return "[" + strings.Join(calls, ",") + "]" }

// balance2 is balance of another account.
func balance2(i int) string { return request("eth_getBalance", fmt.Sprintf(`["0x1%d","latest"]`, i)) }

func tally(list []string, name string) (n int) {
	for _, s := range list {
		if s == name {
			n++
		}
	}
	return n
}

func TestAetherlay(t *testing.T) {
	for _, s := range sentences {
		t.Run(s.says, func(t *testing.T) {
			t.Parallel()
			s.holds(t, lay(t, s.config, s.prepare))
		})
	}
}

func TestAetherlayFailedEndpointsLeaveTheRetryPoolOfARequest(t *testing.T) {
	for _, strategy := range []string{"fallback", "sticky", "ranked", "least_used", "scored", "round_robin", "random", "multicall"} {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			l := lay(t, manyEndpoints(5)+fmt.Sprintf("routing_strategy = %q\nretry_count = 1\nretry_delay = \"1ms\"\n", strategy), nil)
			for _, p := range l.by {
				p.says("eth_getBalance", broken503)
			}
			l.servedBy("/", "")
			got := strings.Fields(l.calls())
			if len(got) != 10 {
				t.Fatalf("asked %q, want each of five twice", got)
			}
			for _, round := range [][]string{got[:5], got[5:]} {
				if slices.Sort(round); len(slices.Compact(round)) != 5 {
					t.Errorf("in one round: %q", round)
				}
			}
		})
	}
}

// hanging is a group over providers that do not answer, with something that the gateway does by itself.
func hanging(more string) string {
	return "[backends]\none = { rpc_url = \"@one@\", rate_limit_recovery = { initial_backoff = \"1ms\" } }\nother = { rpc_url = \"@other@\" }\n" +
		"[server]\ntimeout_seconds = 60\nshutdown_timeout = \"40s\"\n" + more
}

func TestAetherlayShutdownEndsAllThatRunsInTheBackground(t *testing.T) {
	const group = "[backend_groups.main]\nbackends = [\"one\", \"other\"]\n"
	for _, c := range []struct {
		name, config string
		prepare      func(*layer)
		until        func(t *testing.T, l *layer) // it is under way
	}{
		{
			name: "the first round of checks", config: group + "[health]\n",
			prepare: func(l *layer) { l.by["one"].says("", hangs); l.by["other"].says("", hangs) },
			until: func(t *testing.T, l *layer) {
				becomes(t, "both are checked", func() bool { return l.count("one", "") > 0 && l.count("other", "") > 0 })
			},
		}, {
			name: "later checks", config: group + "[health]\ninterval = \"1s\"\n",
			prepare: func(l *layer) { l.by["one"].says("eth_blockNumber", way{times: 1, do: func() way { return way{} }}) },
			until: func(t *testing.T, l *layer) {
				l.ready()
				l.by["one"].says("eth_blockNumber", hangs)
				begun := l.count("one", "")
				becomes(t, "one is checked again", func() bool { return l.count("one", "") > begun })
			},
		}, {
			name: "checks after a failure", config: group + "[health]\ninterval = 0\nephemeral_interval = \"1s\"\n",
			until: func(t *testing.T, l *layer) {
				l.by["one"].says("eth_getBalance", broken503)
				l.by["one"].says("eth_blockNumber", hangs)
				l.servedBy("/", "other")
				becomes(t, "one is checked", func() bool { return l.count("one", "") > 0 })
			},
		}, {
			name: "a recovery", config: group + "[health]\ninterval = \"100h\"\n",
			until: func(t *testing.T, l *layer) {
				l.ready()
				begun := l.count("one", "")
				l.by["one"].says("eth_getBalance", limited)
				l.by["one"].says("eth_blockNumber", hangs)
				l.servedBy("/", "other")
				becomes(t, "one is tried", func() bool { return l.count("one", "") > begun })
			},
		}, {
			name: "pings", config: group + "routing_strategy = \"ranked\"\n[backend_groups.main.rank]\ninterval = \"100ms\"\ntimeout = \"50s\"\n",
			prepare: func(l *layer) { l.by["one"].says("eth_blockNumber", hangs) },
			until: func(t *testing.T, l *layer) {
				l.ask("/", balance)
				becomes(t, "one is pinged", func() bool { return l.count("one", "") > 0 })
			},
		}, {
			name: "an attempt that lost against its hedge", config: group + "[backend_groups.main.hedge]\ndelay = \"50ms\"\nmin = \"1ms\"\n",
			until: func(t *testing.T, l *layer) {
				l.by["one"].says("", hangs)
				l.servedBy("/", "other")
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			// The providers end before the look at what is left.
			t.Run("gateway", func(t *testing.T) {
				l := lay(t, hanging(c.config), c.prepare)
				c.until(t, l)
				begun := time.Now()
				if err := l.Stop(context.Background()); err != nil {
					t.Error(err)
				}
				if took := time.Since(begun); took > 20*time.Second { // nobody's call has to be waited for
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestAetherlayShutdownEndsWithinItsTimeout(t *testing.T) {
	for _, c := range []struct{ name, config, method string }{
		{"a request that an endpoint does not answer", "", "eth_getBalance"},
		{"a request that waits for the first checks", "[health]\n", "eth_chainId"},
		{"a request between two rounds", "retry_count = 1\nretry_delay = \"50s\"\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			t.Run("gateway", func(t *testing.T) {
				l := lay(t, "chain_id = 1\n"+strings.Replace(hanging("[backend_groups.main]\nbackends = [\"one\", \"other\"]\n"+c.config), "40s", "300ms", 1), func(l *layer) {
					for _, p := range l.by {
						if c.method == "" {
							p.says("", broken503)
						} else {
							p.says(c.method, hangs)
						}
					}
				})
				ended := make(chan string, 1)
				go func() {
					status, _, answer, err := l.post("/", balance)
					ended <- fmt.Sprint(status, answer, err)
				}()
				becomes(t, "the request is there", func() bool {
					l.mu.Lock()
					defer l.mu.Unlock()
					return slices.ContainsFunc(l.lines, func(e line) bool { return e.method == "eth_getBalance" }) || c.method == "eth_chainId" && len(l.lines) > 1
				})
				begun := time.Now()
				err := l.Stop(context.Background())
				if took := time.Since(begun); took > 20*time.Second {
					t.Errorf("took %v", took)
				}
				if c.method != "eth_chainId" && (err == nil || !strings.Contains(err.Error(), "cut off")) { // there the request may not have been read
					t.Errorf("stopped with %v", err)
				}
				if text := receive(t, "the request's end", ended); strings.HasPrefix(text, "200") {
					t.Errorf("answered %s", text)
				}
				l.client.CloseIdleConnections()
			})
		})
	}
}
