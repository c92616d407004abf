package integration_tests

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// socketDapp is what node/socket.mjs prints.
type socketDapp struct {
	Differ      []struct{ Kind, Want string }
	Calls       int
	Together    bool
	Mined       bool
	SameReceipt bool
	Value       int
}

// sameOverSocket has a library make calls over WebSocket and HTTP.
func sameOverSocket(t *testing.T, library string, g *gateway, contract string) {
	t.Helper()
	var got socketDapp
	runClient(t, &got, "socket.mjs", library, g.ws(), g.url, contract)
	for _, d := range got.Differ {
		t.Errorf("%s: %s differs over WebSocket: %+v", library, d.Kind, d)
	}
	if got.Calls < 60 || !got.Together || !got.Mined || !got.SameReceipt || got.Value != 11 {
		t.Errorf("%s: %+v", library, got)
	}
}

func TestWebSocketCallsAreAnsweredAsOverHTTP(t *testing.T) {
	t.Parallel()
	for kind, start := range miningSources {
		for _, library := range []string{"viem", "ethers"} {
			t.Run(library+" on "+kind, func(t *testing.T) {
				t.Parallel()
				s := start(t)
				g := startSocketGateway(t, socketConfig{backends: []string{s.addr, s.addr}}.String())
				sameOverSocket(t, library, g, s.contract)
			})
		}
	}
}

func TestWebSocketAnswersAreTheNodesOwnBytes(t *testing.T) {
	t.Parallel()
	s := socketSources["anvil"](t)
	s.steps(t, 1500) // events, in one block
	g := startSocketGateway(t, socketConfig{more: "[cache]\nenabled = true\n", backends: []string{s.addr}}.String())
	for range 2 { // the second time finds the cache filled
		sameBytesOverSocket(t, g, s, func(_, text string) answer {
			a, err := s.send(text)
			if err != nil {
				t.Fatal(err)
			}
			return a
		})
	}

	// Transactions as a batch, and what is no call.
	p := dialPlain(t, g.ws())
	txs := s.sign(t, 3, sink, fmt.Sprint(s.nonce(t)))
	var batch []string
	for i, tx := range txs {
		batch = append(batch, request(fmt.Sprint(i), "eth_sendRawTransaction", fmt.Sprintf("[%q]", tx.Raw)))
	}
	for i, a := range p.askBatch(t, batch) {
		if string(a.Result) != fmt.Sprintf("%q", txs[i].Hash) {
			t.Errorf("transaction %d: result %s, error %s, want %s", i, a.Result, a.Error, txs[i].Hash)
		}
	}
	s.must(t, "evm_mine", "[]")
	s.mined(t, txs)
	for _, odd := range []string{`{"jsonrpc":"2.0","id":"odd","method":7}`, `{"id":"odd"}`, `{"jsonrpc":`, `17`, `[]`} {
		want, err := g.client.send(odd)
		if err != nil {
			t.Fatalf("%s over HTTP: %v", odd, err)
		}
		sameBytes(t, "odd", interesting{odd, ""}, string(want.ID), p.ask(t, string(want.ID), odd), want)
	}
	p.open(t)
}

func TestWebSocketOnItsOwnPortAlone(t *testing.T) {
	t.Parallel()
	s := socketSources["anvil"](t)
	// A port that is never given to an outgoing connection, like those of faulty listeners.
	reserve := newFaultyListener(t, s.addr)
	reserve.refuse()
	port := reserve.addr[strings.LastIndex(reserve.addr, ":")+1:]
	g := startSocketGateway(t, socketConfig{
		server:   "ws_host = \"127.0.0.1\"\nws_port = " + port,
		backends: []string{s.addr},
	}.String())
	for _, url := range []string{"ws://" + reserve.addr, g.ws()} {
		p := dialPlain(t, url)
		p.subscribe(t, "newHeads", "")
		before := s.quantity(t, "eth_blockNumber", "[]")
		s.must(t, "evm_mine", "[]")
		eventually(t, 10*time.Second, "a head over "+url, func() error {
			if heads, _ := p.seen(t); len(heads) != 1 || heads[0].Number != fmt.Sprintf("0x%x", before+1) {
				return fmt.Errorf("heads %+v", heads)
			}
			return nil
		})
		if a := p.ask(t, "7", request("7", "eth_blockNumber", "[]")); string(a.Result) != fmt.Sprintf(`"0x%x"`, before+1) {
			t.Errorf("eth_blockNumber over %s: %s%s", url, a.Result, a.Error)
		}
	}
	if status, body, err := get("http://" + reserve.addr); err != nil || status < 400 {
		t.Errorf("plain GET at ws_port: status %d, %v: %s", status, err, body)
	}
}

func TestWebSocketWatchersSeeEverythingOnceWithBackendsThatHaveHTTPAlone(t *testing.T) {
	t.Parallel()
	for kind, start := range socketSources {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			w := &watched{source: s, first: newFaultyListener(t, s.addr), second: newFaultyListener(t, s.addr)}
			w.gateway = startSocketGateway(t, socketConfig{
				server:   `ws_poll_interval = "200ms"`,
				plain:    true,
				backends: []string{w.first.addr, w.second.addr},
			}.String())
			w.watch(t, []string{"viem", "ethers"}, "nopending")
			w.gateway.follows(t, "node1")
			w.stop = s.run(t)
			w.progress(t, "calm")
			w.first.refuse()
			w.gateway.follows(t, "node2")
			w.progress(t, "node1 refuses")

			// viem that asks for itself, over the same gateway.
			polls := startWatcher(t, "viem-poll", w.gateway.ws(), s.contract, "nopending")
			last := s.quantity(t, "eth_blockNumber", "[]") + 1
			polls.reaches(t, "number", last)
			polls.reaches(t, "block", last)
			polls.finish(t)
			polls.sawBlocks(t, last)

			if a := w.plain.ask(t, `"p"`, request(`"p"`, "eth_subscribe", `["newPendingTransactions"]`)); !strings.Contains(string(a.Error), "-32601") {
				t.Errorf("newPendingTransactions without any ws_url: %s%s", a.Result, a.Error)
			}
			w.end(t)
		})
	}
}

func TestWebSocketEndpointAloneServesCallsAndSubscriptions(t *testing.T) {
	t.Parallel()
	for kind, start := range miningSources {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			large, err := s.emit(1500)
			if err != nil {
				t.Fatal(err)
			}
			s.mined(t, []signedTx{{Hash: large}})
			way := newFaultyListener(t, s.addr)
			g := runGateway(t, "--rollup.sequencer-http", "ws://"+way.addr, "--rollup.sequencer-request-timeout", "5s")
			sameOverSocket(t, "viem", g, s.contract)
			node := dialPlain(t, "ws://"+s.addr) // anvil's errors are not those of its HTTP
			sameBytesOverSocket(t, g, s, func(id, text string) answer { return node.ask(t, id, text) })
			if a, err := g.client.send(request("1", "eth_subscribe", `["newHeads"]`)); err != nil || a.Error == nil {
				t.Errorf("eth_subscribe over HTTP: %s%s, %v", a.Result, a.Error, err)
			}
			var got dapp
			runClient(t, &got, "ethers.mjs", g.url)
			if got.Value != 42 || got.Refused != "Refused(7)" || len(got.Batch) != 10 {
				t.Errorf("ethers over HTTP: %+v", got)
			}

			w := startWatcher(t, "viem", g.ws(), s.contract)
			hash, err := s.emit(2)
			if err != nil {
				t.Fatal(err)
			}
			w.seesPending(t, hash)
			way.cut() // the only one there is; it is dialled again
			eventually(t, 10*time.Second, "calls to be answered after the cut", func() error {
				_, err := g.client.call("eth_blockNumber", "[]")
				return err
			})
			if _, err := s.emit(3); err != nil {
				t.Fatal(err)
			}
			s.mined(t, []signedTx{{Hash: s.sent[len(s.sent)-1]}})
			w.reaches(t, "number", s.quantity(t, "eth_blockNumber", "[]"))
			eventually(t, 10*time.Second, "the events on both sides of the cut", func() error {
				if got := len(w.sights(t, "event")); got != 5 {
					return fmt.Errorf("%d of 5", got)
				}
				return nil
			})
			w.finish(t)
		})
	}
}

// sameBytesOverSocket makes calls alone and together, over WebSocket and HTTP, and wants the node's own bytes.
func sameBytesOverSocket(t *testing.T, g *gateway, s *source, node func(id, text string) answer) {
	t.Helper()
	calls := []interesting{
		{"eth_chainId", "[]"},
		{"eth_getBlockByNumber", `["0x1",true]`},
		{"eth_getBlockByNumber", `["0xffffff",true]`},
		{"eth_getCode", fmt.Sprintf(`[%q,"latest"]`, s.contract)},
		{"eth_getLogs", fmt.Sprintf(`[{"fromBlock":"0x0","toBlock":"latest","address":%q}]`, s.contract)},
		{"eth_getBlockReceipts", `["0x2"]`},
		{"eth_call", fmt.Sprintf(`[{"to":%q,"data":"0x12345678"},"latest"]`, s.contract)}, // reverts
		{"eth_getBalance", "[]"},
		{"eth_noSuchMethod", "[]"},
		{"eth_sendRawTransaction", `["0x00"]`},
	}
	p := dialPlain(t, g.ws())
	var batch, ids []string
	var want []answer
	largest := 0
	for i, c := range calls {
		id := fmt.Sprintf(`"%d-é"`, i)
		text := request(id, c.method, c.params)
		want = append(want, node(id, text))
		largest = max(largest, len(want[i].Result))
		over, err := g.client.send(text)
		if err != nil {
			t.Errorf("%s: %v", c.method, err)
		}
		sameBytes(t, "HTTP", c, id, over, want[i])
		sameBytes(t, "WebSocket", c, id, p.ask(t, id, text), want[i])
		ids = append(ids, spellings[i%len(spellings)])
		batch = append(batch, request(ids[i], c.method, c.params))
	}
	answers, err := g.client.sendBatch(batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range answers {
		sameBytes(t, "HTTP batch", calls[i], ids[i], a, want[i])
	}
	for i, a := range p.askBatch(t, batch) {
		sameBytes(t, "WebSocket batch", calls[i], ids[i], a, want[i])
	}
	t.Logf("the largest result has %d bytes", largest)
}
