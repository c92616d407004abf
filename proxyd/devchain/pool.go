package devchain

import "errors"

const (
	poolPerBlock   = 64       // transactions that one block takes
	poolCount      = 1024     // transactions that wait
	poolBytes      = 16 << 20 // of raw transactions that wait
	poolTxMaxBytes = 128 << 10
)

var (
	errKnown     = errors.New("already known")
	errPoolFull  = errors.New("txpool is full")
	errOversized = errors.New("oversized data")
	errTooShort  = errors.New("typed transaction too short")
)

// pool holds raw transactions until a block takes them, oldest first.
type pool struct {
	order []hash
	raw   map[hash][]byte
	bytes int
}

// waiting is a transaction as the pool gives it out.
type waiting struct {
	hash hash
	raw  []byte
}

// at is the transaction under a nonce. The raw bytes give its hash only; the rest is made up.
func (w waiting) at(nonce uint64) *transaction {
	return &transaction{hash: w.hash, nonce: nonce, to: token, input: hexBytes{}, gas: poolTxGas, raw: w.raw}
}

func newPool() pool { return pool{raw: make(map[hash][]byte)} }

// send puts raw into the pool under its Keccak-256 hash. It refuses what is in the pool or in a remembered block already.
func (c *Chain) send(raw []byte) (hash, error) {
	if len(raw) == 0 {
		return hash{}, errTooShort
	}
	if len(raw) > poolTxMaxBytes {
		return hash{}, errOversized
	}
	h := keccak(raw)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.txs[h] != nil || c.pool.raw[h] != nil {
		return hash{}, errKnown
	}
	if len(c.pool.order) >= poolCount || c.pool.bytes+len(raw) > poolBytes {
		return hash{}, errPoolFull
	}
	c.pool.order = append(c.pool.order, h)
	c.pool.raw[h] = raw
	c.pool.bytes += len(raw)
	for _, w := range c.watchers {
		w.pooled(c.queued(len(c.pool.order) - 1))
	}
	return h, nil
}

// queued is the transaction at place i of the pool, with the nonce that it will have: a block adds a transfer after each full load.
func (c *Chain) queued(i int) *transaction {
	h := c.pool.order[i]
	return waiting{h, c.pool.raw[h]}.at(c.head().txTotal + uint64(i) + uint64(i/poolPerBlock))
}

// Pooled returns the raw transactions that wait for a block, oldest first. The caller must not change them.
func (c *Chain) Pooled() [][]byte {
	c.mu.RLock()
	defer c.mu.RUnlock()
	list := make([][]byte, 0, len(c.pool.order))
	for _, h := range c.pool.order {
		list = append(list, c.pool.raw[h])
	}
	return list
}

// take removes the oldest transactions, at most n.
func (p *pool) take(n int) []waiting {
	taken := make([]waiting, min(n, len(p.order)))
	for i := range taken {
		h := p.order[i]
		taken[i] = waiting{h, p.raw[h]}
		p.bytes -= len(p.raw[h])
		delete(p.raw, h)
	}
	p.order = append(p.order[:0], p.order[len(taken):]...)
	return taken
}

// putBack queues transactions that were taken before, in front of the others. It may go beyond the bounds: nothing that was mined is lost.
func (p *pool) putBack(list []waiting) {
	front := make([]hash, len(list))
	for i, w := range list {
		front[i] = w.hash
		p.raw[w.hash] = w.raw
		p.bytes += len(w.raw)
	}
	p.order = append(front, p.order...)
}

// position is the place of a transaction in the queue.
func (p *pool) position(h hash) (int, bool) {
	if p.raw[h] == nil {
		return 0, false
	}
	for i, other := range p.order {
		if other == h {
			return i, true
		}
	}
	return 0, false
}
