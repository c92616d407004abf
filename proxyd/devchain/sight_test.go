package devchain

import (
	"slices"
	"strings"
	"testing"
)

func TestALaggingBackendAnswersFromItsOwnHead(t *testing.T) {
	chain := New(Options{})
	b := NewBackend(chain, "one")
	last := object(t, result(t, b, "eth_getBlockByNumber", `["0xf",false]`))
	hash, transfer := last["hash"].(string), last["transactions"].([]any)[0].(string)
	b.SetLag(3)
	for call, want := range map[string]string{
		`eth_blockNumber []`:                                          `"0xd"`,
		`eth_getBlockByNumber ["0xf",false]`:                          `null`,
		`eth_getBlockByHash ["` + hash + `",false]`:                   `null`,
		`eth_getTransactionByHash ["` + transfer + `"]`:               `null`,
		`eth_getTransactionReceipt ["` + transfer + `"]`:              `null`,
		`eth_getStorageAt ["` + TokenAddress + `","0x0","latest"]`:    `"0x` + strings.Repeat("0", 63) + `d"`,
		`eth_getStorageAt ["` + TokenAddress + `","0x0","safe"]`:      `"0x` + strings.Repeat("0", 63) + `9"`,
		`eth_getBalance ["` + MinerAddress + `","0xe"]`:               `-32000 header not found`,
		`eth_getLogs [{"fromBlock":"0xe","toBlock":"0x10"}]`:          `[]`,
		`eth_feeHistory ["0x1","0xe"]`:                                `-32000 request beyond head block`,
		`eth_getTransactionCount ["` + SenderAddress + `","latest"]`:  `"0xd"`,
		`eth_getTransactionCount ["` + SenderAddress + `","pending"]`: `"0x10"`,
	} {
		method, params, _ := strings.Cut(call, " ")
		if got := result(t, b, method, params); got != want {
			t.Errorf("%s: got %s, want %s", call, got, want)
		}
	}
	b.SetLag(0)
	if got := result(t, b, "eth_blockNumber", `[]`); got != `"0x10"` {
		t.Errorf("without a lag: %s", got)
	}
	b.SetLag(1000)
	if got := result(t, b, "eth_blockNumber", `[]`); got != `"0x0"` {
		t.Errorf("with a lag of more than all: %s", got)
	}
	b.SetLag(-1)
	if got := result(t, b, "eth_blockNumber", `[]`); got != `"0x10"` {
		t.Errorf("with a negative lag: %s", got)
	}
}

func TestATransactionOutOfSightStillWaits(t *testing.T) {
	chain := New(Options{})
	b := NewBackend(chain, "one")
	id := result(t, b, "eth_sendRawTransaction", `["0x01"]`)
	b.SetLag(1)
	chain.Mine(1)
	if got := object(t, result(t, b, "eth_getTransactionByHash", `[`+id+`]`)); got["blockHash"] != nil || got["nonce"] != "0x10" {
		t.Errorf("got %v", got)
	}
	if got := result(t, b, "eth_getTransactionReceipt", `[`+id+`]`); got != "null" {
		t.Errorf("receipt %s", got)
	}
	chain.Mine(1)
	if got := object(t, result(t, b, "eth_getTransactionByHash", `[`+id+`]`)); got["blockNumber"] != "0x11" {
		t.Errorf("got %v", got)
	}
}

func TestALaggingBackendPublishesItsOwnHead(t *testing.T) {
	chain := New(Options{})
	b, c := connect(t, chain)
	c.subscribe(`["newHeads"]`)
	b.SetLag(2)
	chain.Mine(2)
	b.SetLag(0) // catches up
	chain.Mine(1)
	if got, want := c.heads(5), []uint64{15, 16, 17, 18, 19}; !slices.Equal(got, want) {
		t.Errorf("heads %v, want %v", got, want)
	}
}

func TestAReorgOutOfSightIsNotPublished(t *testing.T) {
	chain := New(Options{})
	b, c := connect(t, chain)
	b.SetLag(3)
	c.subscribe(`["logs",{}]`)
	chain.Reorg(2, 2) // of 15 and 16, while 13 is the head
	chain.Mine(2)     // 14, and 15 of the new branch
	chain.Reorg(4, 5) // of 15 and what follows; 16 comes into sight
	if got, want := c.logs(5), []int{14, 15, -15, 15, 16}; !slices.Equal(got, want) {
		t.Errorf("logs %v, want %v", got, want)
	}
}

func TestSetChainPublishesTheOtherBranch(t *testing.T) {
	chain, other := New(Options{}), New(Options{})
	other.Reorg(2, 3)
	b := NewBackend(chain, "one")
	address := listen(t, b)
	logs, heads := dial(t, address), dial(t, address)
	logs.subscribe(`["logs",{}]`)
	heads.subscribe(`["newHeads"]`)
	b.SetChain(other)
	b.SetChain(other) // changes nothing
	chain.Mine(1)     // nobody's chain any more
	other.Mine(1)
	if got, want := logs.logs(6), []int{-16, -15, 15, 16, 17, 18}; !slices.Equal(got, want) {
		t.Errorf("logs %v, want %v", got, want)
	}
	if got, want := heads.heads(4), []uint64{15, 16, 17, 18}; !slices.Equal(got, want) {
		t.Errorf("heads %v, want %v", got, want)
	}
	if got, want := result(t, b, "eth_getBlockByNumber", `["latest",false]`), result(t, NewBackend(other, "two"), "eth_getBlockByNumber", `["latest",false]`); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestSetChainToWhatIsBehindPublishesOnlyWhatDiffers(t *testing.T) {
	chain, other := New(Options{Blocks: 20}), New(Options{})
	b, c := connect(t, chain)
	c.subscribe(`["logs",{}]`)
	b.SetChain(other)
	b.SetChain(chain)
	if got, want := c.logs(8), []int{-20, -19, -18, -17, 17, 18, 19, 20}; !slices.Equal(got, want) {
		t.Errorf("logs %v, want %v", got, want)
	}
}

func TestSetChainToAnUnrelatedChain(t *testing.T) {
	b, c := connect(t, New(Options{Blocks: 2}))
	c.subscribe(`["logs",{}]`)
	b.SetChain(New(Options{ChainID: 7, Blocks: 1}))
	if got, want := c.logs(3), []int{-2, -1, 1}; !slices.Equal(got, want) {
		t.Errorf("logs %v, want %v", got, want)
	}
	if got := c.ask("eth_chainId", `[]`); got != `"0x7"` {
		t.Errorf("chain %s", got)
	}
}
