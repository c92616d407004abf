package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
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

// world is a Prober with the backends that it checks and their nodes.
type world struct {
	*Prober
	t        testing.TB
	reg      *prometheus.Registry
	logs     *logBuffer
	nodes    []*node
	backends []*backend.Backend
	begun    time.Time
}

type setting struct {
	probe   func(o *Options)
	backend func(i int, o *backend.Options)
	target  func(i int, t *Target)
	node    func(i int, n *node)
	idle    bool // the test starts the Prober itself
}

// newWorld builds n backends and starts a Prober for them.
func newWorld(t testing.TB, n int, s setting) *world {
	t.Helper()
	w := &world{t: t, reg: prometheus.NewRegistry(), logs: new(logBuffer), begun: time.Now()}
	log := slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	metrics := backend.NewMetrics(w.reg)
	o := Options{Enabled: true, Interval: 30 * time.Second, Metrics: NewMetrics(w.reg), Log: log}
	for i := range n {
		nd := &node{begun: w.begun, answers: map[string]answer{}}
		if s.node != nil {
			s.node(i, nd)
		}
		bo := backend.Options{
			Name: fmt.Sprint("b", i), URL: "http://node.memory/secret-key", Dial: listenMemory(t, nd), Classify: errorTable, Metrics: metrics, Log: log,
			ResponseTimeout: 5 * time.Second, ProbedRecovery: true,
		}
		if s.backend != nil {
			s.backend(i, &bo)
		}
		b := must(backend.New(bo))
		t.Cleanup(b.Close)
		w.nodes, w.backends = append(w.nodes, nd), append(w.backends, b)
		o.Targets = append(o.Targets, Target{Backend: b})
	}
	for i := range o.Targets {
		o.Targets[i].Peers = slices.Delete(slices.Clone(w.backends), i, i+1)
		if s.target != nil {
			s.target(i, &o.Targets[i])
		}
	}
	if s.probe != nil {
		s.probe(&o)
	}
	w.Prober = New(o)
	t.Cleanup(w.Stop)
	if !s.idle {
		w.Start()
	}
	return w
}

// inBubble runs a test of n backends on the clock of a bubble.
func inBubble(t *testing.T, n int, s setting, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, n, s)) })
}

// pass lets time pass and everything that happens meanwhile end.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) state(i int, want backend.State) {
	w.t.Helper()
	if got := w.backends[i].Standing().State; got != want {
		w.t.Fatalf("after %s backend %d is %s (%s), want %s", time.Since(w.begun), i, got, w.backends[i].Unfitness(), want)
	}
}

func (w *world) reason(i int, want string) {
	w.t.Helper()
	if got := w.backends[i].Unfitness(); got != want {
		w.t.Fatalf("the reason is %q, want %q", got, want)
	}
}

// watch returns the loop of a backend's checks.
func (w *world) watch(i int) *watch { return w.loops[i].(*watch) }

// check makes one check now, in a Prober that was not started.
func (w *world) check(i int) {
	w.watch(i).check(context.Background())
	synctest.Wait()
}

// clientCall makes one call of a client; blame says that another backend
// answered it.
func (w *world) clientCall(i int, method string, blame bool) backend.Result {
	return w.attempt(i, method, backend.Try{Timeout: time.Minute}, blame)
}

// clientTries makes the call of a client that holds the backend's trial.
func (w *world) clientTries(i int) {
	w.attempt(i, "eth_gasPrice", backend.Try{Timeout: time.Minute, Trial: true}, false)
}

func (w *world) attempt(i int, method string, try backend.Try, blame bool) backend.Result {
	row, label := methodTable.Lookup(method)
	c := &jsonrpc.Call{Method: method, Params: []byte("[]"), Row: row, Label: label, Client: &jsonrpc.Client{Auth: "none", Source: "http"}}
	done := make(chan *backend.Attempt, 1)
	w.backends[i].Begin([]*jsonrpc.Call{c}, try, done)
	a := <-done
	a.Settle(blame)
	return a.Results[0]
}

// clientFails makes a call of a client fail at a backend.
func (w *world) clientFails(i int) {
	w.nodes[i].says("eth_gasPrice", answer{status: 500})
	w.clientCall(i, "eth_gasPrice", true)
	synctest.Wait()
}

// value is that of the series of a family whose labels, in the order of their
// names, are as given; -1 when there is none. Of a histogram it is the count.
func (w *world) value(family string, labels ...string) float64 {
	w.t.Helper()
	for _, f := range must(w.reg.Gather()) {
		if f.GetName() != family {
			continue
		}
		for _, m := range f.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() {
				have = append(have, l.GetValue())
			}
			if slices.Equal(have, labels) {
				switch f.GetType() {
				case dto.MetricType_HISTOGRAM:
					return float64(m.GetHistogram().GetSampleCount())
				case dto.MetricType_GAUGE:
					return m.GetGauge().GetValue()
				}
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

// node is the provider of a backend.
type node struct {
	begun time.Time

	mu      sync.Mutex
	answers map[string]answer // by method
	all     *answer           // in place of every answer
	asked   []ask
	busy    int // requests under way
}

// answer is what a node says; the zero value is a good one.
type answer struct {
	result string // JSON
	err    string // JSON of the error
	status int
	header map[string]string
	delay  time.Duration
}

// ask is a request that a node got.
type ask struct {
	method string
	at     time.Duration
}

var usualResults = map[string]string{blockNumber: `"0x64"`, syncing: "false", chainID: `"0x1"`}

func (n *node) says(method string, a answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[method] = a
}

// saysAll sets the answer to everything, nil for the usual ones.
func (n *node) saysAll(a *answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = a
}

var tooMany = &answer{status: 429}

func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var in struct {
		ID     int
		Method string
	}
	if err != nil || json.Unmarshal(body, &in) != nil {
		return
	}
	n.mu.Lock()
	n.asked = append(n.asked, ask{in.Method, time.Since(n.begun)})
	a := n.answers[in.Method]
	if n.all != nil {
		a = *n.all
	}
	n.busy++
	n.mu.Unlock()
	defer func() { n.mu.Lock(); n.busy--; n.mu.Unlock() }()
	if a.delay > 0 {
		select {
		case <-time.After(a.delay):
		case <-r.Context().Done():
			return
		}
	}
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	if a.status != 0 {
		w.WriteHeader(a.status)
		return
	}
	switch {
	case a.err != "":
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"error":%s}`, in.ID, a.err)
	default:
		result := a.result
		if result == "" {
			result = usualResults[in.Method]
		}
		if result == "" {
			result = `"0x1"`
		}
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"result":%s}`, in.ID, result)
	}
}

// took returns the requests since the last time, and forgets them.
func (n *node) took() []ask {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.asked
	n.asked = nil
	return asked
}

// times are those of the requests for a method since the last time.
func (n *node) times(method string) []time.Duration {
	var at []time.Duration
	for _, a := range n.took() {
		if a.method == method {
			at = append(at, a.at)
		}
	}
	return at
}

func (n *node) methods() []string {
	var methods []string
	for _, a := range n.took() {
		methods = append(methods, a.method)
	}
	return methods
}

// listenMemory serves h over pipes and returns how to reach it.
func listenMemory(t testing.TB, h http.Handler) func(context.Context, string, string) (net.Conn, error) {
	l := &memory{conns: make(chan net.Conn), closed: make(chan struct{})}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.dial
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

// memoryClient is a client that reaches h whatever the URL.
func memoryClient(t testing.TB, h http.Handler) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: listenMemory(t, h)}}
}

// logBuffer keeps what is logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// seconds makes durations comparable in a failure's text.
func seconds(s ...float64) []time.Duration {
	out := make([]time.Duration, len(s))
	for i := range s {
		out[i] = time.Duration(s[i] * float64(time.Second))
	}
	return out
}
