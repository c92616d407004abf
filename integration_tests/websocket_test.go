package integration_tests

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// socketConfig is a configuration that serves WebSocket.
type socketConfig struct {
	server   string // more lines of [server]
	group    string // more lines of [backend_groups.main]
	more     string // other tables
	plain    bool   // backends have HTTP alone
	backends []string
}

func (c socketConfig) String() string {
	var b strings.Builder
	if !strings.Contains(c.server, "ws_head_stall") {
		c.server += "\nws_head_stall = \"3s\""
	}
	fmt.Fprintf(&b, "ws_backend_group = \"main\"\n\n")
	fmt.Fprintf(&b, "[server]\nrpc_host = \"127.0.0.1\"\ntimeout_seconds = 20\nlog_level = \"debug\"\n%s\n\n", c.server)
	fmt.Fprintf(&b, "[backend]\nresponse_timeout_seconds = 2\nmax_retries = 1\nout_of_service_seconds = 1\n\n")
	var names []string
	for i, addr := range c.backends {
		name := fmt.Sprintf("node%d", i+1)
		names = append(names, fmt.Sprintf("%q", name))
		fmt.Fprintf(&b, "[backends.%s]\nrpc_url = \"http://%s\"\n", name, addr)
		if !c.plain {
			fmt.Fprintf(&b, "ws_url = \"ws://%s\"\n", addr)
		}
	}
	fmt.Fprintf(&b, "\n[backend_groups.main]\nbackends = [%s]\n%s\n\n", strings.Join(names, ", "), c.group)
	fmt.Fprintf(&b, "[rpc_method_mappings]\n\"*\" = \"main\"\n\n%s\n", c.more)
	return b.String()
}

// ws is the URL for WebSocket connections.
func (g *gateway) ws() string { return strings.Replace(g.url, "http", "ws", 1) }

// startSocketGateway is startGateway, and tells what became of subscriptions when the test fails.
func startSocketGateway(t *testing.T, config string) *gateway {
	t.Helper()
	g := startGateway(t, config)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for line := range strings.Lines(g.output()) {
			if strings.Contains(line, "subscription") || strings.Contains(line, "followed") || strings.Contains(line, "socket") {
				t.Logf("proxyd said: %.400s", line)
			}
		}
	})
	return g
}

// series is the value of the metric with this name and these labels, as they are written; zero when it is not there.
func (g *gateway) series(t *testing.T, series string) float64 {
	t.Helper()
	for line := range strings.Lines(g.metrics(t)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			var n float64
			if _, err := fmt.Sscan(value, &n); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			return n
		}
	}
	return 0
}

// follows waits until the gateway's subscriptions follow the backend.
func (g *gateway) follows(t *testing.T, backend string) {
	t.Helper()
	series := fmt.Sprintf(`proxyd_subscription_backend{backend_group_name="main",backend_name=%q}`, backend)
	eventually(t, 15*time.Second, "subscriptions to follow "+backend, func() error {
		if g.series(t, series) != 1 {
			return fmt.Errorf("%s is not 1", series)
		}
		return nil
	})
}

// startGethWithSocket is startGeth with WebSocket on the port of HTTP, and a block each so many seconds; 0 is one for each
// transaction at once.
func startGethWithSocket(t *testing.T, period int) *node {
	t.Helper()
	bin := component(t, "geth", "GETH_BIN", "../tools/bin/geth")
	dir := t.TempDir()
	cmd := exec.Command(bin, "--dev", "--dev.gaslimit", "30000000", "--dev.period", fmt.Sprint(period), "--datadir", dir, "--cache", "64",
		"--http", "--http.addr", "127.0.0.1", "--http.port", "0", "--http.api", "eth,net,web3,txpool",
		"--ws", "--ws.addr", "127.0.0.1", "--ws.port", "0", "--ws.api", "eth,net,web3,txpool", "--ws.origins", "*",
		"--ipcdisable", "--nodiscover", "--port", "0", "--nat", "none")
	return startNode(t, "geth", cmd, dir, gethListens)
}

// source is a node whose chain goes on, with the contract of node/store.mjs and an account that the node signs for.
type source struct {
	*node
	mine     bool // blocks are for the test to make
	account  string
	contract string

	mu   sync.Mutex
	sent []string // hashes of transactions that emit
}

// socketSources are the nodes that subscriptions are tested with.
var socketSources = map[string]func(*testing.T) *source{
	"anvil": func(t *testing.T) *source {
		return newSource(t, startAnvil(t, "--no-mining"), true)
	},
	"geth": func(t *testing.T) *source { return newSource(t, startGethWithSocket(t, 1), false) },
}

// miningSources mine each transaction at once.
var miningSources = map[string]func(*testing.T) *source{
	"anvil": func(t *testing.T) *source { return newSource(t, startAnvil(t), false) },
	"geth":  func(t *testing.T) *source { return newSource(t, startGethWithSocket(t, 0), false) },
}

func newSource(t *testing.T, n *node, mine bool) *source {
	t.Helper()
	s := &source{node: n, mine: mine}
	var accounts []string
	if err := json.Unmarshal(n.must(t, "eth_accounts", "[]"), &accounts); err != nil || len(accounts) == 0 {
		t.Fatalf("accounts %v, %v", accounts, err)
	}
	s.account = accounts[0]
	code := deployment(t, n)
	if s.account != devAccount {
		n.must(t, "eth_sendTransaction", fmt.Sprintf(`[{"from":%q,"to":%q,"value":"0x3635c9adc5dea00000"}]`, s.account, devAccount))
		eventually(t, 20*time.Second, "the account to be funded", func() error {
			balance, err := n.call("eth_getBalance", fmt.Sprintf(`[%q,"latest"]`, devAccount))
			if err == nil && string(balance) == `"0x0"` {
				err = fmt.Errorf("balance %s", balance)
			}
			return err
		})
	}
	eventually(t, 20*time.Second, "the contract to be accepted", func() error { // geth's pool may not know of the funds yet
		_, err := n.call("eth_sendRawTransaction", fmt.Sprintf("[%q]", code.Raw))
		return err
	})
	if mine {
		n.must(t, "evm_mine", "[]")
	}
	n.mined(t, []signedTx{code})
	s.contract = code.Contract
	return s
}

// deployments are the transactions that create the contract, by chain: the same on each node of a kind.
var deployments struct {
	mu     sync.Mutex
	signed map[string]signedTx
}

func deployment(t *testing.T, n *node) signedTx {
	t.Helper()
	deployments.mu.Lock()
	defer deployments.mu.Unlock()
	tx, ok := deployments.signed[n.chainID]
	if !ok {
		tx = n.sign(t, 1, "deploy")[0]
		if deployments.signed == nil {
			deployments.signed = make(map[string]signedTx)
		}
		deployments.signed[n.chainID] = tx
	}
	return tx
}

// emit sends a transaction that emits count events.
func (s *source) emit(count int) (hash string, err error) {
	// burst(uint256)
	raw, err := s.call("eth_sendTransaction", fmt.Sprintf(`[{"from":%q,"to":%q,"gas":"0x%x","data":"0x657eb4ca%064x"}]`, s.account, s.contract, 50_000+3_000*count, count))
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(raw, &hash); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, hash)
	return hash, nil
}

// step emits and, where that is the test's to do, mines.
func (s *source) step(count int) error {
	_, err := s.emit(count)
	if err == nil && s.mine {
		_, err = s.call("evm_mine", "[]")
	}
	return err
}

// run lets the chain go on, until stop returns.
func (s *source) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(120 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			if err := s.step(1 + n%3); err != nil {
				t.Errorf("step %d of the chain: %v", n, err)
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// settle makes every transaction part of a block, and returns the last block.
func (s *source) settle(t *testing.T) uint64 {
	t.Helper()
	if s.mine {
		s.must(t, "evm_mine", "[]")
	}
	s.mu.Lock()
	sent := slices.Clone(s.sent)
	s.mu.Unlock()
	if len(sent) > 0 {
		s.mined(t, []signedTx{{Hash: sent[len(sent)-1]}})
	}
	return s.quantity(t, "eth_blockNumber", "[]")
}

// logID is an event by its place.
type logID struct{ number, index uint64 }

// logs are all events of the contract, by the node itself.
func (s *source) logs(t *testing.T) []logID {
	t.Helper()
	var list []struct{ BlockNumber, LogIndex string }
	raw := s.must(t, "eth_getLogs", fmt.Sprintf(`[{"fromBlock":"0x0","toBlock":"latest","address":%q}]`, s.contract))
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	ids := make([]logID, len(list))
	for i, l := range list {
		if _, err := fmt.Sscanf(l.BlockNumber+" "+l.LogIndex, "0x%x 0x%x", &ids[i].number, &ids[i].index); err != nil {
			t.Fatalf("%+v: %v", l, err)
		}
	}
	return ids
}

// watcher is a client that watches through the gateway; see node/watch.mjs.
type watcher struct {
	*process
	stdin io.Closer
	kinds []string // of sights that it has
}

// sight is one thing that a watcher was told.
type sight struct {
	Kind    string
	Number  int64
	Index   uint64
	Hash    string
	Removed bool
	Code    int
	Text    string
	Same    bool
}

func startWatcher(t *testing.T, library, url, contract string, more ...string) *watcher {
	t.Helper()
	cmd := nodeCommand(t, "watch.mjs", append([]string{library, url, contract}, more...)...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{stdin: stdin, kinds: []string{"number", "event"}}
	if library != "ethers" {
		w.kinds = append(w.kinds, "contractEvent")
		if !slices.Contains(more, "noblocks") {
			w.kinds = append(w.kinds, "block")
		}
	}
	w.process = startProcess(t, "watcher "+library, cmd, 0, func(line string) bool { return line == `{"kind":"ready"}` })
	return w
}

// sights are those so far, of the kinds or all.
func (w *watcher) sights(t *testing.T, kinds ...string) []sight {
	t.Helper()
	var list []sight
	for line := range strings.Lines(w.output()) {
		var s sight
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			s = sight{Kind: "error", Text: line} // of node itself
		}
		if len(kinds) == 0 || slices.Contains(kinds, s.Kind) {
			list = append(list, s)
		}
	}
	return list
}

// has are those of the kinds that it has.
func (w *watcher) has(kinds ...string) []string {
	return slices.DeleteFunc(kinds, func(kind string) bool { return !slices.Contains(w.kinds, kind) })
}

// mustBeOpen ends the test when the connection has been closed.
func (w *watcher) mustBeOpen(t *testing.T) {
	t.Helper()
	if list := w.sights(t, "closed", "error"); len(list) > 0 {
		t.Fatalf("%s: %+v", w.name, list[0])
	}
}

// reaches waits until a block as high as number was seen as one of the kind. viem's calls for whole blocks may be answered
// in any order: there all up to number must be.
func (w *watcher) reaches(t *testing.T, kind string, number uint64) {
	t.Helper()
	eventually(t, 15*time.Second, fmt.Sprintf("%s to see %s %d", w.name, kind, number), func() error {
		w.mustBeOpen(t)
		list := w.sights(t, kind)
		if !slices.ContainsFunc(list, func(s sight) bool { return s.Number >= int64(number) }) {
			return fmt.Errorf("%d seen, the last %+v", len(list), list[max(0, len(list)-1):])
		}
		if kind != "block" {
			return nil
		}
		heads := w.sights(t, "number")
		if strings.Contains(w.name, "poll") { // its two watchers begin at different blocks
			heads = nil
		}
		for _, head := range heads {
			if head.Number <= int64(number) && !slices.ContainsFunc(list, func(s sight) bool { return s.Number == head.Number }) {
				return fmt.Errorf("block %d not yet", head.Number)
			}
		}
		return nil
	})
}

// seesPending waits until a transaction sent now is seen pending.
func (w *watcher) seesPending(t *testing.T, hash string) {
	t.Helper()
	eventually(t, 10*time.Second, w.name+" to see pending "+hash, func() error {
		list := w.sights(t, "pending")
		if !slices.ContainsFunc(list, func(s sight) bool { return s.Hash == hash }) {
			return fmt.Errorf("%d others were", len(list))
		}
		return nil
	})
}

// seesEvents waits until it has seen so many, by each of its ways to watch them.
func (w *watcher) seesEvents(t *testing.T, count int) {
	t.Helper()
	eventually(t, 10*time.Second, w.name+" to see all events", func() error {
		w.mustBeOpen(t)
		for _, kind := range w.has("event", "contractEvent") {
			if got := len(w.sights(t, kind)); got < count {
				return fmt.Errorf("%d of %d as %s", got, count, kind)
			}
		}
		return nil
	})
}

// finish ends the watching and wants that the first connection was open to the end, and that nothing failed.
func (w *watcher) finish(t *testing.T) {
	t.Helper()
	w.stdin.Close()
	limit := time.NewTimer(15 * time.Second)
	defer limit.Stop()
	select {
	case <-w.exited:
	case <-limit.C:
		t.Fatalf("%s still ran 15 s after it was told to end", w.name)
	}
	if list := w.sights(t, "closed", "error"); len(list) > 0 {
		t.Errorf("%s: %d closes and errors, the first %+v", w.name, len(list), list[0])
	}
	if end := w.sights(t, "end"); len(end) != 1 || !end[0].Same {
		t.Errorf("%s did not end with the connection it began with: %+v", w.name, end)
	}
}

// saw wants each block from the first seen to the last exactly once and in order, and each event exactly once.
// viem's watchBlocks fetches each block when it was told of its head, so that only its order is its own.
func (w *watcher) saw(t *testing.T, last uint64, logs []logID) {
	t.Helper()
	w.sawBlocks(t, last)
	w.sawEvents(t, logs)
}

func (w *watcher) sawBlocks(t *testing.T, last uint64) {
	t.Helper()
	for _, kind := range w.has("number", "block") {
		var numbers []int64
		for _, s := range w.sights(t, kind) {
			numbers = append(numbers, s.Number)
		}
		if kind == "block" {
			slices.Sort(numbers)
		}
		if len(numbers) == 0 || numbers[len(numbers)-1] < int64(last) { // a chain that mines by itself has gone on
			t.Errorf("%s: %d blocks as %s, not up to %d", w.name, len(numbers), kind, last)
		}
		for i := 1; i < len(numbers); i++ {
			if numbers[i] != numbers[i-1]+1 {
				t.Errorf("%s: block %d after %d as %s", w.name, numbers[i], numbers[i-1], kind)
			}
		}
	}
}

func (w *watcher) sawEvents(t *testing.T, logs []logID) {
	t.Helper()
	for _, kind := range w.has("event", "contractEvent") {
		var ids []logID
		for _, s := range w.sights(t, kind) {
			if s.Removed {
				t.Errorf("%s: %s %+v was taken back", w.name, kind, s)
			}
			ids = append(ids, logID{uint64(s.Number), s.Index})
		}
		sameLogs(t, w.name+", "+kind, ids, logs)
	}
}

// sameLogs wants exactly the events, in order.
func sameLogs(t *testing.T, who string, got, want []logID) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	times := make(map[logID]int)
	for _, id := range got {
		times[id]++
	}
	var lost, again []logID
	for _, id := range want {
		switch times[id] {
		case 0:
			lost = append(lost, id)
		case 1:
		default:
			again = append(again, id)
		}
		delete(times, id)
	}
	t.Errorf("%s: %d events, want %d; missed %v, seen again %v, %d unknown; first out of order: %v", who, len(got), len(want), lost, again, len(times), firstBack(got))
}

func firstBack(ids []logID) []logID {
	for i := 1; i < len(ids); i++ {
		if a, b := ids[i-1], ids[i]; b.number < a.number || b.number == a.number && b.index <= a.index {
			return ids[i-1 : i+1]
		}
	}
	return nil
}

// plainSocket is a client that looks at the messages themselves. It collects those of newHeads and logs.
type plainSocket struct {
	conn *websocket.Conn
	done chan struct{} // closed when the connection has ended

	mu      sync.Mutex
	heads   [][]byte
	logs    [][]byte
	answers map[string]answer
	batches [][]answer // not yet taken
	err     error
	ids     map[string]string // of subscriptions, to what they are of
}

func dialPlain(t *testing.T, url string) *plainSocket {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatalf("dial %s: %v", url, err)
	}
	conn.SetReadLimit(64 << 20)
	p := &plainSocket{conn: conn, done: make(chan struct{}), answers: make(map[string]answer), ids: make(map[string]string)}
	go p.read(context.WithoutCancel(t.Context()))
	t.Cleanup(func() {
		conn.CloseNow()
		<-p.done
	})
	return p
}

func (p *plainSocket) read(ctx context.Context) {
	defer close(p.done)
	for {
		_, raw, err := p.conn.Read(ctx)
		p.mu.Lock()
		if err != nil {
			p.err = err
			p.mu.Unlock()
			return
		}
		var m struct {
			answer
			Method string
			Params struct {
				Subscription string
				Result       json.RawMessage
			}
		}
		var batch []answer
		switch {
		case json.Unmarshal(raw, &batch) == nil:
			p.batches = append(p.batches, batch)
		case json.Unmarshal(raw, &m) != nil:
			p.answers[string(raw)] = answer{}
		case m.Method == "eth_subscription":
			switch p.ids[m.Params.Subscription] {
			case "newHeads":
				p.heads = append(p.heads, m.Params.Result)
			default:
				p.logs = append(p.logs, m.Params.Result)
			}
		default:
			if string(m.ID) == `"newHeads"` || string(m.ID) == `"logs"` { // before its first notification is read
				var id, kind string
				if json.Unmarshal(m.Result, &id) == nil && json.Unmarshal(m.ID, &kind) == nil {
					p.ids[id] = kind
				}
			}
			p.answers[string(m.ID)] = m.answer
		}
		p.mu.Unlock()
	}
}

// ask sends a message as it is and waits for the answer with the id.
func (p *plainSocket) ask(t *testing.T, id, message string) answer {
	t.Helper()
	if err := p.conn.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Fatalf("send %s: %v", message, err)
	}
	var a answer
	eventually(t, 15*time.Second, "the answer to "+message, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		var ok bool
		if a, ok = p.answers[id]; !ok {
			return fmt.Errorf("none; connection: %v", p.err)
		}
		delete(p.answers, id)
		return nil
	})
	return a
}

// askBatch sends the calls as one batch, and returns the answers by position.
func (p *plainSocket) askBatch(t *testing.T, calls []string) []answer {
	t.Helper()
	if err := p.conn.Write(t.Context(), websocket.MessageText, []byte("["+strings.Join(calls, ",")+"]")); err != nil {
		t.Fatalf("send a batch: %v", err)
	}
	var batch []answer
	eventually(t, 15*time.Second, "the answers to a batch", func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.batches) == 0 {
			return fmt.Errorf("none; connection: %v", p.err)
		}
		batch, p.batches = p.batches[0], p.batches[1:]
		return nil
	})
	if len(batch) != len(calls) {
		t.Fatalf("%d answers to %d calls", len(batch), len(calls))
	}
	return batch
}

// subscribe subscribes to newHeads or, with a filter, logs.
func (p *plainSocket) subscribe(t *testing.T, kind, filter string) {
	t.Helper()
	params := fmt.Sprintf("[%q]", kind)
	if filter != "" {
		params = fmt.Sprintf("[%q,%s]", kind, filter)
	}
	id := fmt.Sprintf("%q", kind)
	if a := p.ask(t, id, request(id, "eth_subscribe", params)); a.Result == nil {
		t.Fatalf("eth_subscribe%s: %s", params, a.Error)
	}
}

type plainHead struct{ Number, Hash, ParentHash string }

func (p *plainSocket) seen(t *testing.T) (heads []plainHead, logs []logID) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, raw := range p.heads {
		var h plainHead
		if err := json.Unmarshal(raw, &h); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		heads = append(heads, h)
	}
	for _, raw := range p.logs {
		var l struct{ BlockNumber, LogIndex string }
		var id logID
		if err := json.Unmarshal(raw, &l); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if _, err := fmt.Sscanf(l.BlockNumber+" "+l.LogIndex, "0x%x 0x%x", &id.number, &id.index); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		logs = append(logs, id)
	}
	return heads, logs
}

// chained wants heads each of which is the child of the one before, all with the same members.
func (p *plainSocket) chained(t *testing.T) {
	t.Helper()
	heads, _ := p.seen(t)
	for i := 1; i < len(heads); i++ {
		if heads[i].ParentHash != heads[i-1].Hash {
			t.Errorf("head %s (%s) has parent %s, told before was %s (%s)", heads[i].Number, heads[i].Hash, heads[i].ParentHash, heads[i-1].Number, heads[i-1].Hash)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var members []string
	for i, raw := range p.heads {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		var names []string
		for name := range m {
			names = append(names, name)
		}
		slices.Sort(names)
		if i > 0 && !slices.Equal(names, members) {
			t.Errorf("head %d has members %v, the one before %v", i, names, members)
		}
		members = names
	}
}

// open wants the connection to be there still.
func (p *plainSocket) open(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
		t.Errorf("the connection was closed: %v", p.err)
	default:
	}
}

// watched is a chain with clients that watch it through a gateway with two ways to its node.
type watched struct {
	*source
	gateway  *gateway
	first    *faultyListener // the way of node1
	second   *faultyListener // the way of node2
	plain    *plainSocket
	watchers []*watcher
	stop     func()
}

func startWatched(t *testing.T, s *source, more ...string) *watched {
	t.Helper()
	w := &watched{source: s, first: newFaultyListener(t, s.addr), second: newFaultyListener(t, s.addr)}
	w.gateway = startSocketGateway(t, socketConfig{backends: []string{w.first.addr, w.second.addr}}.String())
	w.watch(t, []string{"viem", "ethers"}, more...)
	w.gateway.follows(t, "node1")
	w.pending(t)
	w.stop = s.run(t)
	return w
}

// watch begins to watch with the libraries and a plain client.
func (w *watched) watch(t *testing.T, libraries []string, more ...string) {
	t.Helper()
	w.plain = dialPlain(t, w.gateway.ws())
	w.plain.subscribe(t, "newHeads", "")
	w.plain.subscribe(t, "logs", fmt.Sprintf(`{"address":%q}`, w.contract))
	for _, library := range libraries {
		w.watchers = append(w.watchers, startWatcher(t, library, w.gateway.ws(), w.contract, more...))
	}
}

// pending sends transactions until all watchers have seen one of them pending. While blocks have to be polled for nobody is
// told of these.
func (w *watched) pending(t *testing.T) {
	t.Helper()
	var hashes []string
	var last time.Time
	eventually(t, 15*time.Second, "pending transactions to be seen", func() error {
		if time.Since(last) > 500*time.Millisecond {
			last = time.Now()
			hash, err := w.emit(1)
			if err != nil {
				return err
			}
			hashes = append(hashes, hash)
		}
		for _, one := range w.watchers {
			one.mustBeOpen(t)
			if !slices.ContainsFunc(one.sights(t, "pending"), func(s sight) bool { return slices.Contains(hashes, s.Hash) }) {
				return fmt.Errorf("%s saw none of %d", one.name, len(hashes))
			}
		}
		return nil
	})
}

// progress waits until all watchers see a block that is not there yet.
func (w *watched) progress(t *testing.T, when string) {
	t.Helper()
	to := w.quantity(t, "eth_blockNumber", "[]") + 1
	if w.mine {
		to += 2 // these come quickly
	}
	for _, one := range w.watchers {
		one.reaches(t, "number", to)
	}
	t.Logf("%s: at block %d", when, to)
}

// moved waits until the subscriptions have left backends so often.
func (w *watched) moved(t *testing.T, times float64) {
	t.Helper()
	eventually(t, 15*time.Second, fmt.Sprintf("subscriptions to move %v times", times), func() error {
		sum := 0.0
		for line := range strings.Lines(w.gateway.metrics(t)) {
			if strings.HasPrefix(line, "proxyd_subscription_moves_total{") {
				var n float64
				if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &n); err != nil {
					return err
				}
				sum += n
			}
		}
		if sum < times {
			return fmt.Errorf("%v times", sum)
		}
		return nil
	})
}

// end stops the chain and wants that every client saw all of it once.
func (w *watched) end(t *testing.T) {
	t.Helper()
	w.stop()
	last := w.settle(t)
	logs := w.logs(t)
	for _, one := range w.watchers {
		for _, kind := range one.has("number", "block") {
			one.reaches(t, kind, last)
		}
		one.seesEvents(t, len(logs))
	}
	eventually(t, 10*time.Second, "all events over the plain connection", func() error {
		if _, got := w.plain.seen(t); len(got) < len(logs) {
			return fmt.Errorf("%d of %d", len(got), len(logs))
		}
		return nil
	})
	w.plain.open(t)
	w.plain.chained(t)
	_, got := w.plain.seen(t)
	sameLogs(t, "plain connection", got, logs)
	for _, one := range w.watchers {
		one.finish(t)
		one.saw(t, last, logs)
	}
	if n := w.gateway.series(t, `proxyd_subscription_gaps_total{backend_group_name="main"}`); n != 0 {
		t.Errorf("%v gaps", n)
	}
	t.Logf("%d blocks, %d events", last, len(logs))
}

func TestWebSocketWatchersSeeEverythingOnceWhileWaysToTheNodeBreak(t *testing.T) {
	t.Parallel()
	for kind, start := range socketSources {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := startWatched(t, start(t))
			w.progress(t, "calm")
			w.first.cut() // a moment only
			w.moved(t, 1)
			w.progress(t, "node1 was cut")
			w.first.refuse()
			w.gateway.follows(t, "node2")
			w.progress(t, "node1 refuses")
			w.first.restore(t)
			hung := time.Now()
			w.second.become(hanging)
			w.gateway.follows(t, "node1")
			t.Logf("left node2 %s after it hung", time.Since(hung).Round(100*time.Millisecond))
			w.progress(t, "node2 hangs")
			w.second.restore(t)
			w.pending(t)
			w.end(t)
		})
	}
}

// A node that is stopped for a while keeps its connections, and says nothing.
func TestWebSocketWatchersOutliveANodeThatIsFrozen(t *testing.T) {
	t.Parallel()
	w := startWatched(t, socketSources["anvil"](t))
	w.progress(t, "calm")
	for _, frozen := range []time.Duration{time.Second, 5 * time.Second} { // shorter and longer than ws_head_stall
		w.pause(t)
		time.Sleep(frozen)
		w.resume(t)
		w.progress(t, fmt.Sprintf("was frozen for %s", frozen))
	}
	w.pending(t)
	w.end(t)
}

func TestWebSocketWatchersOutliveAMomentWithoutAnyBackend(t *testing.T) {
	t.Parallel()
	for kind, start := range socketSources {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := startWatched(t, start(t), "noblocks") // calls fail while nobody can answer them
			w.progress(t, "calm")
			for round := range 2 {
				w.first.refuse()
				w.second.refuse()
				time.Sleep(500 * time.Millisecond) // how long nobody serves
				w.first.restore(t)
				w.second.restore(t)
				w.progress(t, fmt.Sprintf("back for the %d. time", round+1))
			}
			w.pending(t)
			w.end(t)
		})
	}
}
