package integration_tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
)

// spellings are ids as clients write them; each must come back as it was. Only the empty string is none (-32600).
var spellings = []string{
	`1`, `"abc"`, `1.0`, `9007199254740993`, `null`, `-0`, `0`, `true`, `1e3`, `"1"`, `-7`, `"\u00e9\"\\"`,
	`18446744073709551616`, `"a b"`, `0.1E-2`,
}

func TestResultsAndErrorsAreTheNodesOwnBytes(t *testing.T) {
	t.Parallel()
	starts := map[string]func(*testing.T) *node{
		"anvil": func(t *testing.T) *node { return startAnvil(t, "--no-mining") },
		"geth":  startGeth,
	}
	for kind, start := range starts {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			n := start(t)
			calls := interestingCalls(t, kind, n)
			direct := make([]answer, len(calls))
			largest := 0
			for i, c := range calls {
				direct[i] = n.askTwice(t, c)
				largest = max(largest, len(direct[i].Result), len(direct[i].Error))
			}
			t.Logf("%d calls, the largest answer has %d bytes", len(calls), largest)

			for _, cache := range []string{"false", "true"} {
				g := startGateway(t, config{
					backends: []string{n.url},
					more:     "[cache]\nenabled = " + cache + "\n",
				}.String())
				turn := 0
				spelled := func() string {
					turn++
					return spellings[turn%len(spellings)]
				}
				for round := range 2 { // the second round finds the cache filled
					for i, c := range calls {
						id := spelled()
						got, err := g.client.send(request(id, c.method, c.params))
						if err != nil {
							t.Errorf("%s%s: %v", c.method, c.params, err)
							continue
						}
						sameBytes(t, fmt.Sprintf("cache %s, single, round %d", cache, round), c, id, got, direct[i])
					}
					var batch, ids []string
					for _, c := range calls {
						id := spelled()
						ids = append(ids, id)
						batch = append(batch, request(id, c.method, c.params))
					}
					answers, err := g.client.sendBatch(batch)
					if err != nil {
						t.Errorf("batch: %v", err)
						continue
					}
					for i, c := range calls {
						sameBytes(t, fmt.Sprintf("cache %s, batch, round %d", cache, round), c, ids[i], answers[i], direct[i])
					}
				}
			}
		})
	}
}

type interesting struct{ method, params string }

// interestingCalls fills the chain and returns calls whose answers do not change while no block is made: large ones,
// odd ones and errors of every kind.
func interestingCalls(t *testing.T, kind string, n *node) []interesting {
	t.Helper()
	deploy := n.sign(t, 1, "deploy")
	store := deploy[0].Contract
	var txs []signedTx
	txs = append(txs, deploy...)
	txs = append(txs, n.sign(t, 1, "burst:"+store+":1500", "1")...)
	txs = append(txs, n.sign(t, 60, sink, "2", "4000")...) // 240 kB of data
	for len(txs) > 0 {
		now := txs[:min(16, len(txs))]
		txs = txs[len(now):]
		if err := sendTransactions(n.rpcClient, now); err != nil {
			t.Fatal(err)
		}
		if kind == "anvil" {
			n.must(t, "evm_mine", "[]")
		}
		n.mined(t, now)
		if len(txs) == 0 {
			deploy = append(deploy, now[len(now)-1])
		}
	}
	head := fmt.Sprintf(`"0x%x"`, n.quantity(t, "eth_blockNumber", "[]"))
	last := deploy[1].Hash
	var block struct{ Hash string }
	if err := json.Unmarshal(n.must(t, "eth_getBlockByNumber", "["+head+",false]"), &block); err != nil {
		t.Fatal(err)
	}
	burst := n.sign(t, 1, "burst:"+store+":1500", "1")[0].Hash
	const word = "0000000000000000000000000000000000000000000000000000000000000007"
	call := func(data string) string {
		return fmt.Sprintf(`[{"from":%q,"to":%q,"data":%q},"latest"]`, devAccount, store, data)
	}
	// Code that reverts with Error("no"), run as a constructor: the data is behind 12 bytes of code.
	const reverts = "0x60648060095f395ffd08c379a0" +
		"0000000000000000000000000000000000000000000000000000000000000020" +
		"0000000000000000000000000000000000000000000000000000000000000002" +
		"6e6f000000000000000000000000000000000000000000000000000000000000"
	calls := []interesting{
		{"eth_chainId", ""},
		{"eth_chainId", "[]"},
		{"net_version", "[]"},
		{"web3_clientVersion", "[]"},
		{"eth_blockNumber", "[]"},
		{"eth_gasPrice", "[]"},
		{"eth_syncing", "[]"},
		{"eth_feeHistory", `["0x4","latest",[10,50]]`},
		{"eth_getBalance", fmt.Sprintf(`[%q,"latest"]`, devAccount)},
		{"eth_getBalance", fmt.Sprintf(`[ %q , "earliest" ]`, devAccount)},
		{"eth_getTransactionCount", fmt.Sprintf(`[%q,"latest"]`, devAccount)},
		{"eth_getCode", fmt.Sprintf(`[%q,"latest"]`, store)},
		{"eth_getStorageAt", fmt.Sprintf(`[%q,"0x0","latest"]`, store)},
		{"eth_getProof", fmt.Sprintf(`[%q,["0x0"],"latest"]`, store)},
		{"eth_getBlockByNumber", `["0x0",false]`},
		{"eth_getBlockByNumber", "[" + head + ",true]"},
		{"eth_getBlockByNumber", `["latest",true]`},
		{"eth_getBlockByNumber", `["0xffffff",false]`},
		{"eth_getBlockByHash", fmt.Sprintf(`[%q,true]`, block.Hash)},
		{"eth_getBlockByHash", `["0x` + word + `",false]`},
		{"eth_getBlockTransactionCountByNumber", "[" + head + "]"},
		{"eth_getBlockReceipts", "[" + head + "]"},
		{"eth_getTransactionByHash", fmt.Sprintf(`[%q]`, last)},
		{"eth_getTransactionByHash", `["0x` + word + `"]`},
		{"eth_getTransactionReceipt", fmt.Sprintf(`[%q]`, burst)},
		{"eth_getLogs", fmt.Sprintf(`[{"fromBlock":"0x0","toBlock":"latest","address":%q}]`, store)},
		{"eth_getLogs", `[{"fromBlock":"0x0","toBlock":"0x0"}]`},
		{"eth_call", call("0x6d4ce63c")},
		{"eth_estimateGas", call("0x60fe47b1" + word)},
		{"debug_traceTransaction", fmt.Sprintf(`[%q,{}]`, burst)},
		// errors
		{"eth_call", call("0xa60a07b2" + word)}, // a custom error, with data
		{"eth_estimateGas", call("0xa60a07b2" + word)},
		{"eth_call", fmt.Sprintf(`[{"data":%q},"latest"]`, reverts)}, // a reason
		{"eth_call", call("0x12345678")},                             // no reason
		{"eth_call", `[{"from":"0x0000000000000000000000000000000000000abc","to":"` + sink + `","value":"0xde0b6b3a7640000"},"latest"]`},
		{"eth_noSuchMethod", "[]"},
		{"zk_unheardOf", `[{"a":[1,2.50,"\u00e9"]}]`},
		{"eth_getBalance", `["0x1","latest"]`},
		{"eth_getBalance", "[]"},
		{"eth_getBalance", `{"address":"` + devAccount + `"}`},
		{"eth_getBlockByNumber", `["0xzz",false]`},
		{"eth_getTransactionReceipt", "[17]"},
		{"eth_sendRawTransaction", `["0x00"]`},
		{"eth_sendRawTransaction", `["0x"]`},
	}
	return calls
}

// askTwice is what the node says itself, which has to be the same each time.
func (n *node) askTwice(t *testing.T, c interesting) answer {
	t.Helper()
	first, err := n.send(request("1", c.method, c.params))
	if err != nil {
		t.Fatalf("%s%s: %v", c.method, c.params, err)
	}
	second, err := n.send(request("1", c.method, c.params))
	if err != nil {
		t.Fatalf("%s%s: %v", c.method, c.params, err)
	}
	if !bytes.Equal(first.Result, second.Result) || !bytes.Equal(first.Error, second.Error) {
		t.Fatalf("%s%s: the node says %s%s, then %s%s", c.method, c.params, first.Result, first.Error, second.Result, second.Error)
	}
	return first
}

func sameBytes(t *testing.T, how string, c interesting, id string, got, want answer) {
	t.Helper()
	if string(got.ID) != id {
		t.Errorf("%s: %s%.80s: id %s came back as %s", how, c.method, c.params, id, got.ID)
	}
	if !bytes.Equal(got.Result, want.Result) || !bytes.Equal(got.Error, want.Error) {
		t.Errorf("%s: %s%.80s:\ngateway %.300s%.300s\nnode    %.300s%.300s",
			how, c.method, c.params, got.Result, got.Error, want.Result, want.Error)
	}
}
