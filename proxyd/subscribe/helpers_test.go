package subscribe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/jsonrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errorTable = must(classify.New(nil))

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// node is the provider of a backend: a dev chain behind a relay that may change what
// goes over its sockets.
type node struct {
	*devchain.Backend
	relay *relay
	down  atomic.Bool
}

// goDown resets all connections and refuses new ones, by HTTP too.
func (n *node) goDown() {
	n.down.Store(true)
	n.DropSockets()
}

func (n *node) comeBack() { n.down.Store(false) }

func (n *node) is(kind devchain.FaultKind) { n.SetFault(devchain.Fault{Kind: kind}) }

func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case n.down.Load():
		resetConn(w)
	case n.relay != nil && r.Header.Get("Upgrade") != "":
		n.relay.serve(w, r)
	default:
		n.Backend.ServeHTTP(w, r)
	}
}

type setting struct {
	chain   *devchain.Chain
	hub     func(*Options)
	group   func(*group.Options)
	backend func(i int, o *backend.Options)
	relays  bool
	noWS    func(i int) bool
	noHTTP  bool
}

// world is a hub over a group of dev chain backends.
type world struct {
	*Hub
	t        testing.TB
	chain    *devchain.Chain
	nodes    []*node
	members  []*group.Member
	group    *group.Group
	reg      *prometheus.Registry
	log      *logBuffer
	sessions []*session
}

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

func newWorld(t testing.TB, n int, s setting) *world {
	t.Helper()
	if s.chain == nil {
		s.chain = devchain.New(devchain.Options{})
	}
	w := &world{t: t, chain: s.chain, reg: prometheus.NewRegistry(), log: &logBuffer{}}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	t.Cleanup(func() {
		if t.Failed() {
			text := w.log.String()
			t.Logf("log:\n%s", text[max(0, len(text)-8000):])
		}
	})
	metrics := backend.NewMetrics(w.reg)
	zero := 0
	o := group.Options{Name: "g", MaxRetries: &zero, Metrics: group.NewMetrics(w.reg), Log: log}
	for i := range n {
		nd := &node{Backend: devchain.NewBackend(s.chain, fmt.Sprint("node", i))}
		if s.relays {
			nd.relay = newRelay(t, nd.Backend)
		}
		server := httptest.NewServer(nd)
		t.Cleanup(server.Close)
		t.Cleanup(nd.Close)
		bo := backend.Options{
			Name: fmt.Sprint("b", i), URL: server.URL, WSURL: strings.Replace(server.URL, "http", "ws", 1), Classify: errorTable,
			Metrics: metrics, Log: log, ResponseTimeout: time.Second, DialTimeout: time.Second,
		}
		if s.noWS != nil && s.noWS(i) {
			bo.WSURL = ""
		}
		if s.noHTTP {
			bo.URL = ""
		}
		if s.backend != nil {
			s.backend(i, &bo)
		}
		m := &group.Member{Backend: must(backend.New(bo))}
		t.Cleanup(m.Close)
		w.nodes, w.members = append(w.nodes, nd), append(w.members, m)
	}
	o.Members = w.members
	if s.group != nil {
		s.group(&o)
	}
	w.group = must(group.New(o))
	ho := Options{
		Group: w.group, PollInterval: 20 * time.Millisecond, HeadStall: 300 * time.Millisecond, Grace: 100 * time.Millisecond,
		CallTimeout: time.Second, ReplayTimeout: 2 * time.Second, Tick: 20 * time.Millisecond,
		Metrics: NewMetrics(w.reg), Log: log,
	}
	if s.hub != nil {
		s.hub(&ho)
	}
	w.Hub = New(ho)
	t.Cleanup(w.Hub.Close)
	t.Cleanup(func() {
		for _, s := range w.sessions {
			s.end()
			s.ending.Wait()
		}
	})
	return w
}

// metric is the sum of the series with a name that have the labels, which come in
// pairs.
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
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// follows waits until a backend is followed, over WebSocket or by polling.
func (w *world) follows(name string) {
	w.t.Helper()
	eventually(w.t, "follow "+name, func() error {
		if w.metric("subscription_backend", "backend_name", name) != 1 {
			return errors.New("it is not followed")
		}
		return nil
	})
}

// session is a client's socket in a test. It keeps what it is told.
type session struct {
	w *world

	mu     sync.Mutex
	notes  map[string][]json.RawMessage
	begun  map[string]bool
	wrong  []string
	onEnd  []func()
	ended  bool
	lost   []string
	ending sync.WaitGroup
}

func (w *world) session() *session {
	s := &session{w: w, notes: make(map[string][]json.RawMessage), begun: make(map[string]bool)}
	w.sessions = append(w.sessions, s)
	return s
}

func (s *session) Notify(id string, result []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	if !s.begun[id] {
		s.wrong = append(s.wrong, "notification of "+id+" before its id was told")
	}
	s.notes[id] = append(s.notes[id], result)
}

func (s *session) Lose(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(reason) == 0 || len(reason) > 123 {
		s.wrong = append(s.wrong, fmt.Sprintf("lost for a reason of %d bytes", len(reason)))
	}
	if !s.ended {
		s.lost = append(s.lost, reason)
	}
	s.endLocked()
}

func (s *session) OnEnd(f func()) {
	s.mu.Lock()
	ended := s.ended
	if !ended {
		s.onEnd = append(s.onEnd, f)
	}
	s.mu.Unlock()
	if ended {
		f()
	}
}

func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked()
}

func (s *session) endLocked() {
	if s.ended {
		return
	}
	s.ended = true
	for _, f := range s.onEnd {
		s.ending.Go(f)
	}
}

func (s *session) lostFor() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.lost...)
}

func (s *session) told(id string) []json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notes[id][:len(s.notes[id]):len(s.notes[id])]
}

// call is what the server does with a call of a client's socket.
func (s *session) call(ctx context.Context, method, params string) *jsonrpc.Call {
	c := &jsonrpc.Call{Method: method, Params: []byte(params), Client: &jsonrpc.Client{Session: s, Source: "ws"}}
	s.w.ServeRPC(ctx, []*jsonrpc.Call{c})
	if (c.Answer == nil) == (c.Err == nil) {
		s.w.t.Errorf("%s%s has answer %v and error %v", method, params, c.Answer, c.Err)
		return c
	}
	if c.Answer != nil && (c.Answer.Result == nil) == (c.Answer.Error == nil) {
		s.w.t.Errorf("%s%s has result %s and error %s", method, params, c.Answer.Result, c.Answer.Error)
	}
	if c.Answer != nil && c.Answer.Result != nil && method == "eth_subscribe" {
		id, _ := jsonrpc.Text(c.Answer.Result)
		s.mu.Lock()
		s.begun[id] = true
		s.mu.Unlock()
		if c.Then == nil {
			s.w.t.Errorf("eth_subscribe%s has no Then", params)
		} else {
			c.Then()
		}
	}
	return c
}

// trySubscribe returns a subscription or why there is none.
func (s *session) trySubscribe(params string) (*sub, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := s.call(ctx, "eth_subscribe", params)
	switch {
	case c.Err != nil:
		return nil, c.Err
	case c.Answer.Error != nil:
		return nil, fmt.Errorf("%d %s", c.Answer.Code, c.Answer.Error)
	}
	id, ok := jsonrpc.Text(c.Answer.Result)
	if !ok || len(id) < 3 || !strings.HasPrefix(id, "0x") {
		s.w.t.Fatalf("eth_subscribe%s: id %s", params, c.Answer.Result)
	}
	return &sub{session: s, id: id, params: params, since: s.w.chain.Head(), standing: make(map[string]bool), kind: must(parseSpec([]byte(params))).kind}, nil
}

func (s *session) subscribe(params string) *sub {
	s.w.t.Helper()
	one, err := s.trySubscribe(params)
	if err != nil {
		s.w.t.Fatalf("eth_subscribe%s: %v", params, err)
	}
	return one
}

func (s *session) unsubscribe(id string) *jsonrpc.Call {
	return s.call(context.Background(), "eth_unsubscribe", string(jsonrpc.AppendString([]byte("["), id))+"]")
}

// sub is a subscription of a session, and what its client makes of what it is told.
type sub struct {
	session *session
	id      string
	params  string
	kind    kind
	since   uint64
	seen    int

	broken   bool
	view     []headSeen
	standing map[string]bool // of logs, by block hash and index
	gone     int
}

type headSeen struct {
	number       uint64
	hash, parent string
}

var liveMembers = []string{
	"number", "hash", "parentHash", "nonce", "sha3Uncles", "logsBloom", "transactionsRoot", "stateRoot", "receiptsRoot", "miner", "difficulty",
	"extraData", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "mixHash",
}

// take replays what came since the last time. What must never happen is an error of
// the test.
func (u *sub) take() {
	list := u.session.told(u.id)
	for _, raw := range list[u.seen:] {
		u.seen++
		var err error
		switch u.kind {
		case heads:
			err = u.takeHead(raw)
		case logs:
			err = u.takeLog(raw)
		}
		if err != nil {
			u.broken = true
			u.session.w.t.Errorf("%s: notification %d: %v: %.300s", u.params, u.seen, err, raw)
		}
	}
	u.session.mu.Lock()
	defer u.session.mu.Unlock()
	for _, text := range u.session.wrong {
		u.session.w.t.Error(text)
	}
	u.session.wrong = nil
}

func (u *sub) takeHead(raw []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return err
	}
	if len(members) != len(liveMembers) {
		return fmt.Errorf("%d members, want %d", len(members), len(liveMembers))
	}
	for _, name := range liveMembers {
		if members[name] == nil {
			return fmt.Errorf("no member %s", name)
		}
	}
	h, ok := parseHead(raw)
	if !ok {
		return errors.New("no head")
	}
	one := headSeen{h.number, h.hash, h.parent}
	for _, v := range u.view {
		if v.hash == one.hash {
			return fmt.Errorf("head %d twice", one.number)
		}
	}
	switch {
	case len(u.view) == 0 || one.number <= u.view[0].number:
		u.view = u.view[:0]
	default:
		at := int(one.number - u.view[0].number)
		if at > len(u.view) {
			return fmt.Errorf("head %d behind %d", one.number, u.view[len(u.view)-1].number)
		}
		if u.view[at-1].hash != one.parent {
			return fmt.Errorf("the parent of head %d is another than the one told", one.number)
		}
		u.view = u.view[:at]
	}
	u.view = append(u.view, one)
	return nil
}

func (u *sub) takeLog(raw []byte) error {
	l, ok := parseLog(raw)
	if !ok || !json.Valid(raw) {
		return errors.New("no log")
	}
	key := fmt.Sprint(l.number, l.hash, l.index)
	switch {
	case l.removed && !u.standing[key]:
		return fmt.Errorf("log of block %d is removed that does not stand", l.number)
	case l.removed:
		u.gone++
		delete(u.standing, key)
	case u.standing[key]:
		return fmt.Errorf("log of block %d twice", l.number)
	default:
		u.standing[key] = true
	}
	return nil
}

// agrees reports whether the client knows now what the chain has.
func (u *sub) agrees(c *devchain.Chain) error {
	u.take()
	if lost := u.session.lostFor(); len(lost) > 0 {
		return fmt.Errorf("%s: lost: %q", u.params, lost)
	}
	switch u.kind {
	case heads:
		return u.agreesHeads(c)
	case logs:
		return u.agreesLogs(c)
	}
	return nil
}

func (u *sub) agreesHeads(c *devchain.Chain) error {
	want := canonical(c, 0, "")
	head := uint64(len(want))
	if len(u.view) == 0 {
		if head > u.since {
			return fmt.Errorf("no heads since %d, the chain is at %d", u.since, head)
		}
		return nil
	}
	if tip := u.view[len(u.view)-1]; tip.number != head {
		return fmt.Errorf("the last head is %d, the chain's %d (%d told)", tip.number, head, u.seen)
	}
	if u.view[0].number > u.since+1 {
		return fmt.Errorf("the first head is %d, subscribed at %d", u.view[0].number, u.since)
	}
	for _, v := range u.view {
		if v.number == 0 {
			return errors.New("block 0 was told as a head")
		}
		if got := want[v.number-1]; got.hash != v.hash {
			return fmt.Errorf("head %d is %s, the chain's %s", v.number, v.hash, got.hash)
		}
	}
	return nil
}

func (u *sub) agreesLogs(c *devchain.Chain) error {
	want := make(map[string]bool)
	for _, l := range canonical(c, u.since+1, must(parseSpec([]byte(u.params))).members) {
		key := fmt.Sprint(l.number, l.hash, l.index)
		want[key] = true
		if !u.standing[key] {
			return fmt.Errorf("%s: log of block %d does not stand (%d told)", u.params, l.number, u.seen)
		}
	}
	all := make(map[string]bool)
	for _, l := range canonical(c, 1, "") {
		all[fmt.Sprint(l.number, l.hash, l.index)] = true
	}
	for key := range u.standing {
		if !all[key] {
			return fmt.Errorf("%s: log %s stands and should not (%d told)", u.params, key, u.seen)
		}
	}
	return nil
}

// canonical returns the logs of the chain that a filter's members select: one for
// each block, without members.
func canonical(c *devchain.Chain, from uint64, members string) []logEvent {
	from = max(from, 1)
	if from > c.Head() {
		return nil
	}
	raw := ask(c, "eth_getLogs", fmt.Sprintf(`[{"fromBlock":"0x%x","toBlock":"latest"%s}]`, from, members))
	var list []logEvent
	jsonrpc.Elements(raw, func(value []byte) bool {
		l, _ := parseLog(value)
		list = append(list, l)
		return true
	})
	return list
}

var oracles sync.Map // of *devchain.Chain

// ask makes a call of the test's own.
func ask(c *devchain.Chain, method, params string) json.RawMessage {
	b, _ := oracles.LoadOrStore(c, devchain.NewBackend(c, "oracle"))
	return askNode(b.(http.Handler), method, params)
}

func askNode(b http.Handler, method, params string) json.RawMessage {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, method, params)))
	rec := httptest.NewRecorder()
	b.ServeHTTP(rec, r)
	var reply struct{ Result, Error json.RawMessage }
	if err := json.Unmarshal(rec.Body.Bytes(), &reply); err != nil || reply.Error != nil {
		panic(fmt.Sprintf("%s%s: %s", method, params, rec.Body))
	}
	return reply.Result
}

const patience = 10 * time.Second

// eventually polls until ok, or fails the test.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// heal waits until all clients know what the chain has.
func (w *world) heal(c *devchain.Chain, subs ...*sub) {
	w.t.Helper()
	eventually(w.t, "clients agree with the chain", func() error {
		for _, u := range subs {
			err := u.agrees(c)
			if u.broken {
				w.t.FailNow()
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// mine mines blocks and waits until clients know them.
func (w *world) mine(n int, subs ...*sub) {
	w.t.Helper()
	w.chain.Mine(n)
	w.heal(w.chain, subs...)
}

func is(want, got any) error {
	if fmt.Sprint(want) != fmt.Sprint(got) {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

// counts waits until how many there are is n.
func counts[N int | int64 | uint64 | float64](t testing.TB, what string, n N, of func() N) {
	t.Helper()
	eventually(t, what, func() error { return is(n, of()) })
}

const everyLog = `["logs",{}]`
