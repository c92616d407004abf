package devchain

import (
	"context"
	"sync"
	"time"
)

const (
	// SafeDepth and FinalizedDepth are how far the tags safe and finalized lie behind latest; they stop at block 0.
	SafeDepth      = 4
	FinalizedDepth = 8

	// KeptBlocks is how many of the latest blocks a Chain remembers, besides block 0. Older ones are unknown to it.
	KeptBlocks = 4096

	defaultChainID  = 31337
	defaultBlocks   = 16
	defaultInterval = 12 * time.Second // between timestamps, without a BlockTime
)

var defaultGenesis = time.Date(2024, time.January, 1, 0, 0, 0, 0, time.UTC)

// Options describe a Chain. Chains with the same Options and the same history have the same hashes.
type Options struct {
	// ChainID answers eth_chainId and net_version. 0: 31337.
	ChainID uint64
	// BlockTime is the time between two blocks, in their timestamps and for Start. 0: blocks come only from Mine, 12 seconds apart
	// in their timestamps.
	BlockTime time.Duration
	// Genesis is the timestamp of block 0. The zero time: 2024-01-01 00:00:00 UTC. A time before 1970 counts as 1970.
	Genesis time.Time
	// Blocks is how many blocks New mines. 0: 16. Negative: none.
	Blocks int
}

// Chain is a sequence of blocks in memory and a pool of transactions that wait for the next one. It is safe for concurrent use.
type Chain struct {
	id        uint64
	blockTime time.Duration
	genesis   time.Time
	seed      hash

	mu     sync.RWMutex
	first  *block   // block 0
	recent []*block // the latest blocks, consecutive, never empty
	byHash map[hash]*block
	txs    map[hash]*transaction
	pool   pool
	forks  uint64 // how often Reorg was called; the blocks after it depend on it

	watchers []watcher

	running   sync.Mutex // guards the fields below
	closed    bool
	stop      context.CancelFunc
	advancing sync.WaitGroup
}

// New returns a Chain with block 0 and o.Blocks blocks on top of it.
func New(o Options) *Chain {
	if o.ChainID == 0 {
		o.ChainID = defaultChainID
	}
	if o.Blocks == 0 {
		o.Blocks = defaultBlocks
	}
	if o.Genesis.IsZero() {
		o.Genesis = defaultGenesis
	}
	if o.Genesis.Unix() < 0 {
		o.Genesis = time.Unix(0, 0)
	}
	if o.BlockTime < 0 {
		o.BlockTime = 0
	}
	c := &Chain{
		id:        o.ChainID,
		blockTime: o.BlockTime,
		genesis:   o.Genesis,
		seed:      label("chain", word(o.ChainID)),
		byHash:    make(map[hash]*block),
		txs:       make(map[hash]*transaction),
		pool:      newPool(),
	}
	c.first = c.newGenesis()
	c.recent = []*block{c.first}
	c.byHash[c.first.hash] = c.first
	c.Mine(o.Blocks)
	return c
}

// Mine adds n blocks. The first ones include what waits in the pool.
func (c *Chain) Mine(n int) {
	for range n {
		c.mu.Lock()
		parent := c.head().number
		c.mine()
		c.tell(parent, nil)
		c.mu.Unlock()
	}
}

func (c *Chain) mine() { c.add(c.newBlock(c.head(), c.pool.take(poolPerBlock))) }

// Start adds a block every BlockTime until ctx ends or Close is called. Without a BlockTime, after Close, or when it was started before, it
// does nothing.
func (c *Chain) Start(ctx context.Context) {
	c.running.Lock()
	defer c.running.Unlock()
	if c.closed || c.stop != nil || c.blockTime == 0 {
		return
	}
	ctx, c.stop = context.WithCancel(ctx)
	c.advancing.Go(func() {
		tick := time.NewTicker(c.blockTime)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				c.Mine(1)
			}
		}
	})
}

// Close stops what Start began and waits for it. The blocks stay readable, and Mine still works.
func (c *Chain) Close() {
	c.running.Lock()
	c.closed = true
	if c.stop != nil {
		c.stop()
	}
	c.running.Unlock()
	c.advancing.Wait()
}

// ChainID is the number that eth_chainId answers.
func (c *Chain) ChainID() uint64 { return c.id }

// Head is the number of the latest block.
func (c *Chain) Head() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.head().number
}

func (c *Chain) head() *block { return c.recent[len(c.recent)-1] }

// add appends b and forgets the oldest block when there are more than KeptBlocks.
func (c *Chain) add(b *block) {
	c.recent = append(c.recent, b)
	c.byHash[b.hash] = b
	for _, t := range b.txs {
		c.txs[t.hash] = t
	}
	if len(c.recent) <= KeptBlocks {
		return
	}
	old := c.recent[0]
	c.recent[0] = nil // the array behind the slice lives on until append moves it
	c.recent = c.recent[1:]
	if old == c.first {
		return
	}
	delete(c.byHash, old.hash)
	for _, t := range old.txs {
		delete(c.txs, t.hash)
	}
}

// timestamp is the time of block n in whole seconds since 1970. With a BlockTime under a second, neighbours share one.
func (c *Chain) timestamp(n uint64) uint64 {
	interval := c.blockTime
	if interval == 0 {
		interval = defaultInterval
	}
	nanos := uint64(interval % time.Second)
	return uint64(c.genesis.Unix()) + n*uint64(interval/time.Second) + n*nanos/uint64(time.Second)
}
