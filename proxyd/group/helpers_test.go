package group

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	methodTable = must(jsonrpc.NewTable(nil))
	errorTable  = must(classify.New(nil))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// world is a group under test with the provider of each member.
type world struct {
	*Group
	t        testing.TB
	backends []*backend.Backend
	nodes    []*node
	reg      *prometheus.Registry
	begun    time.Time
	mu       sync.Mutex
	asked    []ask // every request, in the order in which they came
}

// ask is a request that a provider got.
type ask struct {
	node int
	body string
	at   time.Duration // since the world began
}

// node is the provider of a member: a dev chain with its faults, or whatever
// serve says.
type node struct {
	*devchain.Backend
	index int
	serve atomic.Pointer[http.HandlerFunc]
}

// says replaces the dev chain by a fixed HTTP answer, in which $id is the
// request's id.
func (n *node) says(status int, body string) {
	n.does(func(w http.ResponseWriter, r *http.Request) {
		in, _ := io.ReadAll(r.Body)
		w.WriteHeader(status)
		io.WriteString(w, replaceID(body, in))
	})
}

func (n *node) does(h http.HandlerFunc) { n.serve.Store(&h) }

// is sets a fault of the dev chain.
func (n *node) is(kind devchain.FaultKind) { n.SetFault(devchain.Fault{Kind: kind}) }

// errs answers every call with a JSON-RPC error.
func (n *node) errs(code int, message string) {
	n.SetFault(devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: code, RPCMessage: message})
}

type setting struct {
	group   func(*Options)
	backend func(i int, o *backend.Options)
	chain   *devchain.Chain
	// listen is nil for real listeners.
	listen func(t testing.TB, h http.Handler) (url string, dial func(context.Context, string, string) (net.Conn, error))
}

func listenTCP(t testing.TB, h http.Handler) (string, func(context.Context, string, string) (net.Conn, error)) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL, nil
}

// listenMemory serves over pipes, for tests on the clock of a bubble.
func listenMemory(t testing.TB, h http.Handler) (string, func(context.Context, string, string) (net.Conn, error)) {
	l := &memory{conns: make(chan net.Conn), closed: make(chan struct{})}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return "http://node.memory", l.dial
}

type memory struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (m *memory) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case m.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { m.once.Do(func() { close(m.closed) }); return nil }
func (m *memory) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

// newWorld builds a group of n members on dev chain backends of one chain.
func newWorld(t testing.TB, n int, s setting) *world {
	t.Helper()
	if s.listen == nil {
		s.listen = listenTCP
	}
	if s.chain == nil {
		s.chain = devchain.New(devchain.Options{})
	}
	reg := prometheus.NewRegistry()
	w := &world{t: t, reg: reg, begun: time.Now()}
	log := slog.New(slog.DiscardHandler)
	metrics := backend.NewMetrics(reg)
	zero := 0
	o := Options{Name: "g", MaxRetries: &zero, RetryDelay: after(time.Millisecond), Metrics: NewMetrics(reg), Log: log}
	for i := range n {
		nd := &node{Backend: devchain.NewBackend(s.chain, fmt.Sprint("node", i)), index: i}
		url, dial := s.listen(t, w.handler(nd))
		t.Cleanup(nd.Close)
		bo := backend.Options{Name: fmt.Sprint("b", i), URL: url, Dial: dial, Classify: errorTable, Metrics: metrics, Log: log, ResponseTimeout: 5 * time.Second}
		if s.backend != nil {
			s.backend(i, &bo)
		}
		b := must(backend.New(bo))
		w.nodes, w.backends = append(w.nodes, nd), append(w.backends, b)
		o.Members = append(o.Members, &Member{Backend: b})
	}
	t.Cleanup(func() {
		for _, b := range w.backends {
			b.Close()
		}
	})
	if s.group != nil {
		s.group(&o)
	}
	w.Group = must(New(o))
	return w
}

// inBubble runs a test of a group on the clock of a bubble.
func inBubble(t *testing.T, n int, s setting, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s.listen = listenMemory
		test(t, newWorld(t, n, s))
	})
}

func (w *world) handler(n *node) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.mu.Lock()
		w.asked = append(w.asked, ask{n.index, string(body), time.Since(w.begun)})
		w.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		if h := n.serve.Load(); h != nil {
			(*h)(rw, r)
			return
		}
		n.ServeHTTP(rw, r)
	})
}

// order is which nodes were asked, as "012", since the last time.
func (w *world) order() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := ""
	for _, a := range w.asked {
		out += fmt.Sprint(a.node)
	}
	w.asked = nil
	return out
}

func (w *world) asks() []ask {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]ask(nil), w.asked...)
}

// do answers calls within limit.
func (w *world) do(limit time.Duration, calls ...*jsonrpc.Call) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	w.ServeRPC(ctx, calls)
	for _, c := range calls {
		if (c.Answer == nil) == (c.Err == nil) {
			w.t.Fatalf("%s has answer %v and error %v", c.Method, c.Answer, c.Err)
		}
	}
}

// get answers one read and returns its call.
func (w *world) get() *jsonrpc.Call {
	c := read()
	w.do(10*time.Second, c)
	return c
}

// well checks that one read is answered with a result, by the given member.
func (w *world) well(by string) {
	w.t.Helper()
	if c := w.get(); c.Err != nil || c.Answer.Result == nil || c.Answer.Backend != by || c.Answer.Group != "g" {
		w.t.Fatalf("error %v, answer %+v, want a result of %s", c.Err, c.Answer, by)
	}
}

func (w *world) state(i int, want backend.State) {
	w.t.Helper()
	if got := w.backends[i].Standing().State; got != want {
		w.t.Fatalf("backend %d is %s, want %s", i, got, want)
	}
}

// metric is the sum of the series with a name, without proxyd_, that have the
// given labels, which come in pairs; of a histogram it is the count.
func (w *world) metric(name string, labels ...string) float64 {
	sum := 0.0
	for _, family := range must(w.reg.Gather()) {
		if family.GetName() != "proxyd_"+name {
			continue
		}
		for _, m := range family.GetMetric() {
			has := make(map[string]string)
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			fits := true
			for i := 0; i < len(labels); i += 2 {
				fits = fits && has[labels[i]] == labels[i+1]
			}
			if fits {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func call(method, params string) *jsonrpc.Call {
	row, label := methodTable.Lookup(method)
	if label == "" {
		label = "*"
	}
	c := &jsonrpc.Call{Method: method, Row: row, Label: label, Client: &jsonrpc.Client{Auth: "none", Source: "http"}}
	if params != "" {
		c.Params = []byte(params)
	}
	return c
}

func read() *jsonrpc.Call { return call("eth_blockNumber", "") }

// eventually polls until ok, or fails the test.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// replaceID puts the id of the (first) request in for $id.
func replaceID(body string, request []byte) string {
	_, rest, _ := bytes.Cut(request, []byte(`"id":`))
	var id int
	fmt.Sscanf(string(rest), "%d", &id)
	return strings.ReplaceAll(body, "$id", fmt.Sprint(id))
}

// listenConstant answers every call with a short result, at the least cost that
// net/http's server has.
func listenConstant(t testing.TB, _ http.Handler) (string, func(context.Context, string, string) (net.Conn, error)) {
	return listenTCP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, _ := io.ReadAll(r.Body)
		out := make([]byte, 0, 64)
		for rest := in; ; {
			var found bool
			if _, rest, found = bytes.Cut(rest, []byte(`"id":`)); !found {
				break
			}
			id, _, _ := bytes.Cut(rest, []byte("}"))
			if len(out) > 0 {
				out = append(out, ',')
			}
			out = append(append(append(out, `{"jsonrpc":"2.0","id":`...), id...), `,"result":"0x1b4"}`...)
		}
		if len(in) > 0 && in[0] == '[' {
			out = append(append([]byte{'['}, out...), ']')
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(out)
	}))
}

// after is a retry delay.
func after(d time.Duration) *time.Duration { return &d }
