package devchain

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// at, between and transaction look with nothing out of sight.
func (c *Chain) at(ref blockRef) *block { return horizon{chain: c}.at(ref) }
func (c *Chain) between(from, to blockRef) ([]*block, bool) {
	return horizon{chain: c}.between(from, to)
}
func (c *Chain) transaction(h hash) *transaction { return horizon{chain: c}.transaction(h) }

func headHash(c *Chain) hash { return c.at(blockRef{tag: "latest"}).hash }

func TestSameOptionsGiveSameHashes(t *testing.T) {
	a, b := New(Options{}), New(Options{})
	a.Mine(5)
	for range 5 {
		b.Mine(1)
	}
	if a.Head() != 21 || headHash(a) != headHash(b) {
		t.Fatalf("head %d %x, want 21 %x", a.Head(), headHash(a), headHash(b))
	}
}

func TestHashesOfTheDefaultChainAreFixed(t *testing.T) {
	h := headHash(New(Options{}))
	got := string(appendHex(nil, h[:]))
	if want := "0x0beaf8e311a52f9b44ba6d7b0d3d91800047d6a0cf1c9357a439595b31846d65"; got != want {
		t.Errorf("hash of block 16 is %s, want %s", got, want)
	}
}

func TestDifferentOptionsGiveDifferentHashes(t *testing.T) {
	seen := map[hash]Options{}
	for _, o := range []Options{{}, {ChainID: 1}, {BlockTime: time.Second}, {Genesis: time.Unix(1, 0)}, {Blocks: 17}, {Blocks: -1}} {
		h := headHash(New(o))
		if other, ok := seen[h]; ok {
			t.Errorf("%+v and %+v share the head %x", o, other, h)
		}
		seen[h] = o
	}
}

func TestHistoryIsPartOfTheHash(t *testing.T) {
	a, b := New(Options{}), New(Options{})
	if _, err := a.send([]byte{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	a.Mine(1)
	b.Mine(1)
	if headHash(a) == headHash(b) {
		t.Error("a transaction more did not change the block's hash")
	}
}

func TestTimestampsFollowGenesisAndBlockTime(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	for _, test := range []struct {
		blockTime time.Duration
		want      uint64
	}{{0, 1_000_120}, {2 * time.Second, 1_000_020}, {1500 * time.Millisecond, 1_000_015}, {100 * time.Millisecond, 1_000_001}} {
		c := New(Options{Genesis: at, BlockTime: test.blockTime, Blocks: 10})
		if got := c.at(blockRef{tag: "latest"}).timestamp; got != test.want {
			t.Errorf("block time %s: block 10 at %d, want %d", test.blockTime, got, test.want)
		}
	}
	if got := New(Options{Genesis: time.Unix(-5, 0), Blocks: -1}).at(blockRef{}).timestamp; got != 0 {
		t.Errorf("genesis before 1970 became %d, want 0", got)
	}
}

func TestOldBlocksAreForgottenButNotBlockZero(t *testing.T) {
	c := New(Options{Blocks: KeptBlocks + 10})
	first := c.at(blockRef{number: 11})
	if c.at(blockRef{number: 10}) != nil || first == nil {
		t.Fatal("want exactly the latest blocks from 11 on")
	}
	if c.at(blockRef{tag: "earliest"}) == nil || c.at(blockRef{hash: &c.first.hash}) == nil {
		t.Error("block 0 is gone")
	}
	if len(c.byHash) != KeptBlocks+1 || len(c.txs) != KeptBlocks || len(c.recent) != KeptBlocks {
		t.Errorf("kept %d hashes, %d transactions, %d blocks", len(c.byHash), len(c.txs), len(c.recent))
	}
	if blocks, ok := c.between(blockRef{}, blockRef{tag: "latest"}); !ok || len(blocks) != KeptBlocks {
		t.Errorf("between gave %d blocks, %v", len(blocks), ok)
	}
	lost := first.txs[0].hash
	c.Mine(1)
	if c.transaction(lost) != nil {
		t.Error("a transaction outlived its block")
	}
}

func TestPoolIsBounded(t *testing.T) {
	c := New(Options{})
	for i := range poolCount {
		if _, err := c.send(word(uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.send([]byte("one more")); err != errPoolFull {
		t.Errorf("got %v, want %v", err, errPoolFull)
	}
	c.Mine(1)
	if got := len(c.Pooled()); got != poolCount-poolPerBlock {
		t.Errorf("%d left in the pool, want %d", got, poolCount-poolPerBlock)
	}
	c.Mine(poolCount / poolPerBlock)
	if c.pool.bytes != 0 || len(c.pool.raw) != 0 || len(c.Pooled()) != 0 {
		t.Errorf("pool keeps %d bytes, %d entries", c.pool.bytes, len(c.pool.raw))
	}
}

func TestPoolIsBoundedInBytes(t *testing.T) {
	c := New(Options{})
	raw := make([]byte, poolTxMaxBytes)
	for i := range poolBytes / poolTxMaxBytes {
		copy(raw, word(uint64(i)))
		if _, err := c.send(append([]byte(nil), raw...)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.send([]byte{1}); err != errPoolFull {
		t.Errorf("got %v, want %v", err, errPoolFull)
	}
	if _, err := c.send(make([]byte, poolTxMaxBytes+1)); err != errOversized {
		t.Errorf("got %v, want %v", err, errOversized)
	}
}

// In a synctest bubble a goroutine that is left when the test returns fails it.
func TestCloseEndsWhatStartBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{BlockTime: 2 * time.Second})
		c.Start(t.Context())
		c.Start(t.Context()) // does nothing
		time.Sleep(7 * time.Second)
		synctest.Wait()
		if got := c.Head(); got != 19 {
			t.Errorf("head %d after three block times, want 19", got)
		}
		c.Close()
		c.Close()
		c.Start(t.Context()) // does nothing
		time.Sleep(time.Minute)
		if got := c.Head(); got != 19 {
			t.Errorf("head %d after Close, want 19", got)
		}
	})
}

func TestStartEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{BlockTime: time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		c.Start(ctx)
		cancel()
		synctest.Wait()
		time.Sleep(time.Minute)
		if got := c.Head(); got != 16 {
			t.Errorf("head %d, want 16", got)
		}
		c.Close()
	})
}

func TestWithoutBlockTimeOnlyMineAdvances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		c.Start(t.Context())
		time.Sleep(time.Hour)
		if got := c.Head(); got != 16 {
			t.Errorf("head %d, want 16", got)
		}
		c.Close()
		c.Mine(1)
		if got := c.Head(); got != 17 {
			t.Errorf("head %d after Mine, want 17", got)
		}
	})
}
