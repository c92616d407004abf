package devchain

// blockRef names a block: by hash when that is set, by tag when that is set, otherwise by number.
type blockRef struct {
	hash   *hash
	tag    string
	number uint64
}

// at returns the block that ref names, or nil when this Chain does not have it.
func (c *Chain) at(ref blockRef) *block {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if ref.hash != nil {
		return c.byHash[*ref.hash]
	}
	return c.numbered(c.resolve(ref))
}

// resolve turns a tag into the number it stands for now. pending stands for latest: there is no pending block.
func (c *Chain) resolve(ref blockRef) uint64 {
	head := c.head().number
	switch ref.tag {
	case "":
		return ref.number
	case "earliest":
		return 0
	case "safe":
		return head - min(head, SafeDepth)
	case "finalized":
		return head - min(head, FinalizedDepth)
	}
	return head
}

func (c *Chain) numbered(n uint64) *block {
	if n == 0 {
		return c.first
	}
	oldest := c.recent[0].number
	if n < oldest || n-oldest >= uint64(len(c.recent)) {
		return nil
	}
	return c.recent[n-oldest]
}

// between returns the known blocks from one to the other, both included, and whether the two are in order.
func (c *Chain) between(from, to blockRef) ([]*block, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	lo, hi := c.resolve(from), c.resolve(to)
	if lo > hi {
		return nil, false
	}
	oldest := c.recent[0].number
	lo, hi = max(lo, oldest), min(hi, c.head().number)
	if lo > hi {
		return nil, true
	}
	return append([]*block(nil), c.recent[lo-oldest:hi-oldest+1]...), true
}

// transaction returns a mined transaction, or one that waits in the pool, or nil.
func (c *Chain) transaction(h hash) *transaction {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if t := c.txs[h]; t != nil {
		return t
	}
	if i, ok := c.pool.position(h); ok {
		return c.pooled(h, c.head().txTotal+uint64(i)+uint64(i/poolPerBlock))
	}
	return nil
}

// nonce is how many transactions the sender has made up to b; with pending, those in the pool count too.
func (c *Chain) nonce(b *block, pending bool) uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if pending {
		return c.head().txTotal + uint64(len(c.pool.order))
	}
	return b.txTotal
}
