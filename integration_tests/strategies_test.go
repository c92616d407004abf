//go:build unix

package integration_tests

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// quickToLeave makes the gateway notice within a test what it else notices within minutes.
const quickToLeave = "response_timeout_seconds = 2\nmax_retries = 1\nout_of_service_seconds = 1"

// Three nodes with the same chain: the first is paused, the second killed while it is, the third answers late; then the
// first goes on. Readers see nothing of it, whatever the strategy.
func TestNoStrategyLosesReadsWhileNodesArePausedKilledAndSlow(t *testing.T) {
	t.Parallel()
	c := dumpChain(t)
	steady := c.start(t)
	strategies := map[string]struct{ group, more string }{
		"fallback":    {},
		"sticky":      {group: `fail_back = "1s"`}, // or the first would not serve again
		"ranked":      {more: "[backend_groups.main.rank]\ninterval = \"500ms\""},
		"least_used":  {},
		"scored":      {},
		"round_robin": {},
		"random":      {},
		"multicall":   {},
	}
	for strategy, lines := range strategies {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			paused, killed := c.start(t), c.start(t)
			first, second, third := newFaultyListener(t, paused.addr), newFaultyListener(t, killed.addr), newFaultyListener(t, steady.addr)
			third.delayBy(50 * time.Millisecond)
			g := startGateway(t, config{
				backend:  quickToLeave,
				backends: []string{first.url(), second.url(), third.url()},
				group:    fmt.Sprintf("routing_strategy = %q\n%s", strategy, lines.group),
				more:     lines.more,
			}.String())
			readers := []*reader{startReader(t, "viem", g, steady, c), startReader(t, "ethers", g, steady, c)}
			further := func(what string) {
				t.Helper()
				for _, r := range readers {
					r.further(t, 75, what)
				}
			}

			further("all nodes are well")
			paused.pause(t)
			further("the first is paused")
			killed.kill(t)
			before := third.seen().answers
			further("the first is paused and the second is dead")
			if third.seen().answers == before {
				t.Error("the third served nothing while no other could")
			}
			before = first.seen().answers
			paused.resume(t)
			further("the first is back")
			eventually(t, 20*time.Second, "the first to serve again", func() error {
				if first.seen().answers == before {
					return fmt.Errorf("no answer since it goes on")
				}
				return nil
			})
			for _, r := range readers {
				got := r.finish(t)
				t.Logf("%s: %d reads, the slowest took %d ms", r.name, got.Reads, got.Slowest)
				if got.Reads < 300 || got.Faults > 0 {
					t.Errorf("%s: %d of %d reads failed, want none of at least 300:\n%s", r.name, got.Faults, got.Reads, strings.Join(got.First, "\n"))
				}
			}
			t.Logf("pieces of answers: paused %d, killed %d, slow %d", first.seen().answers, second.seen().answers, third.seen().answers)
		})
	}
}

// While three of four backends refuse, hang, cut or restore every second, no call fails.
func TestFlappingBackendsFailNoCall(t *testing.T) {
	t.Parallel()
	n := startAnvil(t)
	const leastCalls, leastRounds, goroutines = 20_000, 10, 32              // with each strategy
	seeds := map[string]uint64{"fallback": 2, "least_used": 5, "scored": 3} // with fallback the last is always well
	for strategy, seed := range seeds {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, seed))
			var backends []*faultyListener
			var urls []string
			for range 4 {
				l := newFaultyListener(t, n.addr)
				backends, urls = append(backends, l), append(urls, l.url())
			}
			well := random.IntN(len(backends))
			g := startGateway(t, config{
				backend:  quickToLeave,
				backends: urls,
				group:    fmt.Sprintf("routing_strategy = %q", strategy),
				logLevel: "info",
			}.String())

			began := time.Now()
			var begun, slowest atomic.Int64
			var enough atomic.Bool // rounds of faults
			var failures failureList
			var callers sync.WaitGroup
			for range goroutines {
				callers.Go(func() {
					for i := begun.Add(1); i <= leastCalls || !enough.Load(); i = begun.Add(1) {
						asked := time.Now()
						if err := readNumbered(g.client, i); err != nil {
							failures.add(fmt.Sprintf("call %d at %s, after %s: %v", i, asked.Sub(began), time.Since(asked), err))
						}
						took := int64(time.Since(asked))
						for was := slowest.Load(); took > was && !slowest.CompareAndSwap(was, took); was = slowest.Load() {
						}
					}
				})
			}
			over := make(chan struct{})
			go func() {
				callers.Wait()
				close(over)
			}()
			var flaps []string
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for round, flapping := 1, true; flapping; round++ {
				enough.Store(round > leastRounds)
				for i, l := range backends {
					if i == well {
						continue
					}
					var did string
					switch random.IntN(10) {
					case 0, 1:
						did = "refuse"
						l.refuse()
					case 2, 3:
						did = "hang"
						l.become(hanging)
					case 4, 5:
						did = "lose answers"
						l.become(loseAnswers)
					case 6:
						did = "cut"
						l.cut()
					case 7, 8, 9: // which is rare enough that two thirds are broken at a time
						did = "restore"
						l.restore(t)
					}
					flaps = append(flaps, fmt.Sprintf("%s node%d %s", time.Since(began).Round(time.Millisecond), i+1, did))
				}
				select {
				case <-tick.C:
				case <-over:
					flapping = false
				}
			}
			calls := begun.Load() - goroutines // each took one number more
			t.Logf("%d calls in %s, the slowest took %s; node%d was always well", calls, time.Since(began), time.Duration(slowest.Load()), well+1)
			if failures.n > 0 {
				t.Errorf("%d of %d calls failed:\n%s\nflaps:\n%s", failures.n, calls, strings.Join(failures.first, "\n"), strings.Join(flaps, "\n"))
			}
		})
	}
}

func TestMulticallSendsTransactionToEveryNode(t *testing.T) {
	t.Parallel()
	var nodes []*node
	urls := []string{"http://127.0.0.1:1"} // nobody is there
	for range 3 {
		n := startAnvil(t, "--no-mining", "--timestamp", "1700000000")
		nodes, urls = append(nodes, n), append(urls, n.url)
	}
	genesis := string(nodes[0].must(t, "eth_getBlockByNumber", `["0x0",false]`))
	for _, n := range nodes[1:] {
		if got := string(n.must(t, "eth_getBlockByNumber", `["0x0",false]`)); got != genesis {
			t.Fatalf("the nodes have different chains: %s and %s", genesis, got)
		}
	}
	g := startGateway(t, config{
		backend:  quickToLeave,
		backends: urls,
		group:    `routing_strategy = "multicall"`,
	}.String())
	txs := nodes[0].sign(t, 4, sink)
	everywhere := func(tx signedTx) {
		t.Helper()
		for i, n := range nodes {
			eventually(t, 10*time.Second, fmt.Sprintf("the transaction at node %d", i+1), func() error {
				known, err := n.call("eth_getTransactionByHash", fmt.Sprintf("[%q]", tx.Hash))
				if err == nil && !strings.Contains(string(known), tx.Hash) {
					err = fmt.Errorf("%s", known)
				}
				return err
			})
		}
	}

	for _, how := range []string{"new", "known to all", "known to all"} {
		status, _, reply, err := g.client.post(request(`"one"`, "eth_sendRawTransaction", fmt.Sprintf("[%q]", txs[0].Raw)))
		if want := fmt.Sprintf(`{"jsonrpc":"2.0","result":%q,"id":"one"}`, txs[0].Hash); err != nil || status != 200 || strings.TrimSpace(string(reply)) != want {
			t.Errorf("%s: HTTP %d %s, %v, want %s", how, status, reply, err, want)
		}
		everywhere(txs[0])
	}
	if err := sendTransactions(nodes[1].rpcClient, txs[1:2]); err != nil {
		t.Fatal(err)
	}
	if err := sendTransactions(g.client, txs[1:]); err != nil { // the first of this batch is known to one of them
		t.Errorf("batch: %v", err)
	}
	for _, tx := range txs[1:] {
		everywhere(tx)
	}
	for _, n := range nodes {
		n.must(t, "evm_mine", "[]")
		minedOnce(t, n, txs)
	}
	// In a block it is not known but used up, which is what the nodes say and nobody may hide.
	again := request("1", "eth_sendRawTransaction", fmt.Sprintf("[%q]", txs[0].Raw))
	said, err := nodes[0].send(again)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := g.client.send(again); err != nil || string(got.Error) != string(said.Error) {
		t.Errorf("when mined: result %s, error %s, %v; the node says %s", got.Result, got.Error, err, said.Error)
	}
}

func TestGatewayWithoutFileServesSequencers(t *testing.T) {
	t.Parallel()
	n := startAnvil(t)
	g := runGateway(t, "--rollup.sequencer-http", "http://127.0.0.1:1,"+n.url)
	var got dapp
	runClient(t, &got, "viem.mjs", g.url)
	if got.ChainID != 31337 || got.Value != 42 || !got.SameReceipt {
		t.Errorf("viem through the gateway: %+v", got)
	}
	if nonce := n.nonce(t); nonce != 3 {
		t.Errorf("%d transactions reached the node, want 3", nonce)
	}
}

func TestEachChainHasItsOwnPath(t *testing.T) {
	t.Parallel()
	one, two := startAnvil(t, "--chain-id", "1001"), startAnvil(t, "--chain-id", "1002")
	g := startGateway(t, config{
		backends: []string{one.url},
		more: fmt.Sprintf(`[backends.second]
rpc_url = %q

[chains.two.backend_groups.main]
backends = ["second"]

[chains.two.rpc_method_mappings]
"*" = "main"
`, two.url),
	}.String())
	chains := []struct {
		path string
		id   int
	}{{"", 1001}, {"/two", 1002}}
	for _, c := range chains {
		if id, want := string(newRPCClient(t, g.url+c.path).must(t, "eth_chainId", "[]")), fmt.Sprintf(`"0x%x"`, c.id); id != want {
			t.Errorf("POST %s/: chain %s, want %s", c.path, id, want)
		}
	}
	for _, c := range chains {
		for _, client := range []string{"viem", "ethers"} {
			if client == "ethers" && c.path == "" {
				continue // the other tests do that
			}
			var got dapp
			runClient(t, &got, client+".mjs", g.url+c.path)
			if got.ChainID != c.id || got.Value != 42 || !got.SameReceipt {
				t.Errorf("%s at %s/: %+v, want chain %d", client, c.path, got, c.id)
			}
		}
	}
	if a, b := one.nonce(t), two.nonce(t); a != 3 || b != 6 {
		t.Errorf("%d and %d transactions reached the chains, want 3 and 6", a, b)
	}
	if status, _, body, err := newRPCClient(t, g.url+"/three").post(request("1", "eth_chainId", "[]")); err != nil || strings.Contains(string(body), `"result"`) {
		t.Errorf("a chain that is not there: HTTP %d %s, %v", status, body, err)
	}
}

func TestBackendOfAnotherChainIsNeverServed(t *testing.T) {
	t.Parallel()
	// The first of the list is the wrong one; what it would say is seen at the client.
	wrong, right := startAnvil(t, "--chain-id", "1001"), startAnvil(t, "--chain-id", "1002")
	wrong.must(t, "anvil_mine", `["0x3"]`)
	right.must(t, "anvil_mine", `["0x7"]`)
	asked := func() int { return strings.Count(wrong.process.output(), "eth_chainId") }
	before := asked()
	g := startGateway(t, fmt.Sprintf(`
[server]
rpc_host = "127.0.0.1"
log_level = "info"

[health]
interval = "1s"

[backends.wrong]
rpc_url = %q
chain_id = 1002
[backends.right]
rpc_url = %q
chain_id = 1002

[chains.two.backend_groups.main]
backends = ["wrong", "right"]
routing_strategy = "round_robin"

[chains.two.rpc_method_mappings]
"*" = "main"
`, wrong.url, right.url))
	client := newRPCClient(t, g.url+"/two")
	read := func() {
		t.Helper()
		for method, want := range map[string]string{"eth_blockNumber": `"0x7"`, "eth_chainId": `"0x3ea"`, "net_version": `"1002"`} {
			if got, err := client.call(method, "[]"); err != nil || string(got) != want {
				t.Fatalf("%s: %s, %v, want %s", method, got, err, want)
			}
		}
	}
	for range 50 {
		read()
	}
	eventually(t, 20*time.Second, "more checks of the wrong one", func() error {
		read()
		if checks := asked() - before; checks < 3 {
			return fmt.Errorf("%d checks", checks)
		}
		return nil
	})
	// No check asks for the network. The nodes print what they are asked, that one under this name.
	if strings.Contains(wrong.process.output(), "eth_networkId") {
		t.Error("a client's call reached the wrong one")
	}
	if !strings.Contains(right.process.output(), "eth_networkId") {
		t.Error("the nodes do not print what they are asked")
	}
	named := false
	for line := range strings.Lines(g.output()) {
		var said struct{ Level, Msg, Backend string }
		if json.Unmarshal([]byte(line), &said) == nil && strings.EqualFold(said.Level, "error") && said.Backend == "wrong" {
			named = true
			t.Log(strings.TrimSpace(line))
		}
	}
	if !named {
		t.Error("no error in the log names the backend")
	}
}

// chain is a dumped chain that any number of nodes can begin with.
type chain struct {
	state    string // file
	contract string // of node/store.mjs
}

// dumpChain makes 301 blocks: a contract, its events, and transfers.
func dumpChain(t *testing.T) chain {
	t.Helper()
	c := chain{state: filepath.Join(t.TempDir(), "state.json")}
	n := startAnvil(t, "--no-mining", "--preserve-historical-states", "--dump-state", c.state)
	txs := n.sign(t, 1, "deploy")
	c.contract = txs[0].Contract
	txs = append(txs, n.sign(t, 150, "burst:"+c.contract+":3", "1")...)
	txs = append(txs, n.sign(t, 150, sink, "151")...)
	for i := range txs {
		if err := sendTransactions(n.rpcClient, txs[i:i+1]); err != nil {
			t.Fatal(err)
		}
		n.must(t, "evm_mine", "[]")
	}
	n.process.stop(t)
	if _, err := os.Stat(c.state); err != nil {
		t.Fatalf("anvil dumped nothing: %v", err)
	}
	return c
}

func (c chain) start(t *testing.T) *node {
	t.Helper()
	return startAnvil(t, "--no-mining", "--load-state", c.state)
}

func (n *node) kill(t *testing.T) {
	t.Helper()
	n.signal(t, syscall.SIGKILL)
	<-n.process.exited
}

// pause stops the node as it is, with its connections; it goes on with resume, or for the end of the test.
func (n *node) pause(t *testing.T) {
	t.Helper()
	n.signal(t, syscall.SIGSTOP)
	t.Cleanup(func() { n.process.cmd.Process.Signal(syscall.SIGCONT) })
}

func (n *node) resume(t *testing.T) {
	t.Helper()
	n.signal(t, syscall.SIGCONT)
}

func (n *node) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := n.process.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s to %s: %v", s, n.process.name, err)
	}
}

// reader is node/reads.mjs at work.
type reader struct {
	*process
	stdin io.Closer
}

// reading is what it prints.
type reading struct {
	Reads, Faults, Slowest int
	First                  []string // of the faults
}

// startReader begins to read through the gateway with viem or ethers and to compare with the node.
func startReader(t *testing.T, library string, g *gateway, n *node, c chain) *reader {
	t.Helper()
	cmd := nodeCommand(t, "reads.mjs", library, g.url, n.url, c.contract, "300")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{stdin: stdin}
	r.process = startProcess(t, library, cmd, 10, func(line string) bool { return strings.HasPrefix(line, "{") })
	return r
}

func (r *reader) now() (reading, error) {
	var now reading
	line := r.last(1)[0]
	if err := json.Unmarshal([]byte(line), &now); err != nil {
		return now, fmt.Errorf("%s: %w: %s", r.name, err, line)
	}
	return now, nil
}

// further waits until it has read so many times more, without a fault.
func (r *reader) further(t *testing.T, reads int, what string) {
	t.Helper()
	from := -1
	eventually(t, 30*time.Second, fmt.Sprintf("%d more reads by %s while %s", reads, r.name, what), func() error {
		now, err := r.now()
		if err != nil {
			return err
		}
		if from < 0 {
			from = now.Reads
		}
		if now.Reads < from+reads {
			return fmt.Errorf("%d of %d", now.Reads-from, reads)
		}
		return nil
	})
}

// finish ends the reading.
func (r *reader) finish(t *testing.T) reading {
	t.Helper()
	r.stdin.Close()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	select {
	case <-r.exited:
	case <-limit.C:
		t.Fatalf("%s still read 30 s after it was told to end", r.name)
	}
	if err := r.exitError(); err != nil {
		t.Fatalf("%s: %v", r.name, err)
	}
	end, err := r.now()
	if err != nil {
		t.Fatal(err)
	}
	return end
}

// readNumbered makes a call, or every eighth time a batch; each must have a result of the right kind.
func readNumbered(c *rpcClient, i int64) error {
	balance := request(fmt.Sprint(i), "eth_getBalance", fmt.Sprintf(`["0x%040x","latest"]`, i))
	calls := []string{balance}
	switch i % 8 {
	case 0:
		calls = append(calls, request(`"head"`, "eth_blockNumber", "[]"), request(`"chain"`, "eth_chainId", "[]"))
	case 1, 2:
		calls[0] = request(fmt.Sprint(i), "eth_blockNumber", "[]")
	case 3:
		calls[0] = request(fmt.Sprint(i), "eth_gasPrice", "[]")
	}
	var answers []answer
	var err error
	if len(calls) > 1 {
		answers, err = c.sendBatch(calls)
	} else {
		answers = make([]answer, 1)
		answers[0], err = c.send(calls[0])
	}
	if err != nil {
		return err
	}
	for j, a := range answers {
		if !strings.HasPrefix(string(a.Result), `"0x`) || j == 0 && string(a.ID) != fmt.Sprint(i) {
			return fmt.Errorf("%s: id %s, result %s, error %s", calls[j], a.ID, a.Result, a.Error)
		}
	}
	return nil
}

// failureList counts failures and keeps the first.
type failureList struct {
	mu    sync.Mutex
	n     int
	first []string
}

func (f *failureList) add(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n++; len(f.first) < 20 {
		f.first = append(f.first, text)
	}
}
