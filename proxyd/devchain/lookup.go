package devchain

// blockRef names a block: by hash when that is set, by tag when that is set, otherwise by number.
type blockRef struct {
	hash   *hash
	tag    string
	number uint64
}

// horizon is a Chain as far as a Backend sees it: without its last blocks, when it lags.
type horizon struct {
	chain *Chain
	lag   uint64
}

// number is the number of the latest block in sight.
func (h horizon) number() uint64 {
	h.chain.mu.RLock()
	defer h.chain.mu.RUnlock()
	return h.head().number
}

// head is the latest block in sight, at worst the oldest that the Chain remembers.
func (h horizon) head() *block {
	last := uint64(len(h.chain.recent) - 1)
	return h.chain.recent[last-min(h.lag, last)]
}

// at returns the block that ref names, or nil when it is not in sight.
func (h horizon) at(ref blockRef) *block {
	h.chain.mu.RLock()
	defer h.chain.mu.RUnlock()
	var found *block
	if ref.hash != nil {
		found = h.chain.byHash[*ref.hash]
	} else {
		found = h.chain.numbered(h.resolve(ref))
	}
	if found == nil || found.number > h.head().number {
		return nil
	}
	return found
}

// resolve turns a tag into the number it stands for now. pending stands for latest: there is no pending block.
func (h horizon) resolve(ref blockRef) uint64 {
	head := h.head().number
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

// numbered returns the block with that number, or nil when the Chain does not have it.
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

// between returns the blocks in sight from one to the other, both included, and whether the two are in order.
func (h horizon) between(from, to blockRef) ([]*block, bool) {
	h.chain.mu.RLock()
	defer h.chain.mu.RUnlock()
	lo, hi := h.resolve(from), h.resolve(to)
	if lo > hi {
		return nil, false
	}
	oldest := h.chain.recent[0].number
	lo, hi = max(lo, oldest), min(hi, h.head().number)
	if lo > hi {
		return nil, true
	}
	return append([]*block(nil), h.chain.recent[lo-oldest:hi-oldest+1]...), true
}

// transaction returns a mined transaction, or one that waits in the pool, or nil. One that was sent and is mined in a block out of sight
// waits still.
func (h horizon) transaction(id hash) *transaction {
	h.chain.mu.RLock()
	defer h.chain.mu.RUnlock()
	if t := h.chain.txs[id]; t != nil {
		switch {
		case t.block.number <= h.head().number:
			return t
		case t.raw == nil:
			return nil
		}
		return waiting{id, t.raw}.at(t.nonce)
	}
	if i, ok := h.chain.pool.position(id); ok {
		return h.chain.queued(i)
	}
	return nil
}

// nonce is how many transactions the sender has made up to b; with pending, those in the pool count too.
func (h horizon) nonce(b *block, pending bool) uint64 {
	h.chain.mu.RLock()
	defer h.chain.mu.RUnlock()
	if pending {
		return h.chain.head().txTotal + uint64(len(h.chain.pool.order))
	}
	return b.txTotal
}
