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
	return h, nil
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
func (p *pool) take(n int) []hash {
	taken := append([]hash(nil), p.order[:min(n, len(p.order))]...)
	p.order = append(p.order[:0], p.order[len(taken):]...)
	for _, h := range taken {
		p.bytes -= len(p.raw[h])
		delete(p.raw, h)
	}
	return taken
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
