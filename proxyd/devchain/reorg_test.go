package devchain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func hashAt(c *Chain, n uint64) hash { return c.at(blockRef{number: n}).hash }

func TestReorgReplacesTheLastBlocks(t *testing.T) {
	c := New(Options{})
	kept, old := hashAt(c, 13), []hash{hashAt(c, 14), hashAt(c, 15), hashAt(c, 16)}
	c.Reorg(3, 4)
	if c.Head() != 17 || hashAt(c, 13) != kept {
		t.Fatalf("head %d, block 13 %x", c.Head(), hashAt(c, 13))
	}
	for n := uint64(14); n <= 17; n++ {
		one := c.at(blockRef{number: n})
		if slices.Contains(old, one.hash) || one.parent != hashAt(c, n-1) || len(one.events()) == 0 {
			t.Errorf("block %d: %+v", n, one)
		}
		if c.at(blockRef{hash: &one.hash}) != one || c.transaction(one.txs[0].hash) != one.txs[0] {
			t.Errorf("block %d or its transaction is not found by hash", n)
		}
	}
	for _, h := range old {
		if c.at(blockRef{hash: &h}) != nil {
			t.Errorf("replaced block %x is still known", h)
		}
	}
}

func TestReorgIsDeterministicAndNeverReturnsToABranch(t *testing.T) {
	seen := map[hash]bool{}
	var twin [2][]hash
	for i := range twin {
		c := New(Options{})
		for range 3 {
			c.Reorg(1, 1)
			twin[i] = append(twin[i], headHash(c))
		}
		c.Reorg(2, 0)
		c.Mine(1)
		twin[i] = append(twin[i], headHash(c))
	}
	if !slices.Equal(twin[0], twin[1]) {
		t.Error("the same history gave different hashes")
	}
	for _, h := range append(twin[0], hashAt(New(Options{}), 15), hashAt(New(Options{}), 16)) {
		if seen[h] {
			t.Errorf("block %x came twice", h)
		}
		seen[h] = true
	}
}

func TestReorgStopsShortOfTheOldestBlock(t *testing.T) {
	c := New(Options{Blocks: 3})
	first := hashAt(c, 0)
	c.Reorg(1000, 1)
	if c.Head() != 1 || hashAt(c, 0) != first {
		t.Errorf("head %d", c.Head())
	}
	c.Reorg(-1, -1)
	if c.Head() != 1 {
		t.Errorf("head %d after a reorg of nothing, want 1", c.Head())
	}
	c = New(Options{Blocks: KeptBlocks + 10})
	c.Reorg(2*KeptBlocks, 0)
	if c.Head() != 11 || len(c.recent) != 1 || len(c.byHash) != 2 {
		t.Errorf("head %d, %d blocks, %d hashes", c.Head(), len(c.recent), len(c.byHash))
	}
}

func TestReorgLosesNoTransaction(t *testing.T) {
	c := New(Options{})
	var sent []hash
	for i := range 3 * poolPerBlock {
		h, err := c.send(fmt.Appendf(nil, "transaction %d", i))
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, h)
	}
	c.Mine(2)
	c.Reorg(2, 1)
	for i, h := range sent {
		mined := c.transaction(h).block != nil
		if mined != (i < poolPerBlock) {
			t.Errorf("transaction %d: mined %v", i, mined)
		}
	}
	if pool := c.Pooled(); len(pool) != 2*poolPerBlock || string(pool[0]) != fmt.Sprint("transaction ", poolPerBlock) {
		t.Errorf("%d in the pool, the first %q: want the rest in the order in which it was sent", len(pool), pool[0])
	}
	c.Mine(2)
	if c.pool.bytes != 0 || len(c.Pooled()) != 0 {
		t.Errorf("%d bytes of %d transactions stay in the pool", c.pool.bytes, len(c.Pooled()))
	}
}

func TestReplacedBlocksAreNotAnswered(t *testing.T) {
	chain := New(Options{})
	b := NewBackend(chain, "one")
	old := object(t, result(t, b, "eth_getBlockByNumber", `["latest",false]`))["hash"].(string)
	chain.Reorg(1, 2)
	for _, method := range []string{"eth_getBlockByHash", "eth_getBlockByNumber"} {
		params := `["` + old + `",false]`
		if method == "eth_getBlockByNumber" {
			params = `["0x10",false]`
		}
		if got := result(t, b, method, params); strings.Contains(got, old) {
			t.Errorf("%s: %s", method, got)
		}
	}
	if got := result(t, b, "eth_getLogs", `[{"blockHash":"`+old+`"}]`); got != "-32000 unknown block" {
		t.Errorf("logs of a replaced block: %s", got)
	}
}
