package devchain

// Reorg replaces the last depth blocks by n others, as when a node moves to another branch. What the replaced blocks took from the pool goes
// back to its front, from where the new blocks take it again. The replaced blocks are unknown afterwards, by number and by hash. depth stops
// short of block 0 and of the oldest block that is remembered; a negative number counts as 0. Like everything else the new hashes depend on
// the Options and the history only; they are never those of blocks that were replaced.
func (c *Chain) Reorg(depth, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := len(c.recent) - min(max(depth, 0), len(c.recent)-1)
	removed := append([]*block(nil), c.recent[kept:]...)
	clear(c.recent[kept:])
	c.recent = c.recent[:kept]
	var again []waiting
	for _, b := range removed {
		delete(c.byHash, b.hash)
		for _, t := range b.txs {
			delete(c.txs, t.hash)
			if t.raw != nil {
				again = append(again, waiting{t.hash, t.raw})
			}
		}
	}
	c.pool.putBack(again)
	c.forks++
	fork := c.head().number
	for range n {
		c.mine()
	}
	c.tell(fork, removed)
}
