package devchain

// horizon is what the Backend sees of its Chain now.
func (b *Backend) horizon() horizon { return *b.sight.Load() }

// SetLag makes the Backend see and publish its Chain without its last blocks, as a node that is behind does; 0 or less: none. When it comes to
// see more, it publishes the blocks that come into sight, one by one. When it comes to see less, it publishes nothing; blocks that come into
// sight again later are published again, as by another node behind the same address.
func (b *Backend) SetLag(blocks int) {
	b.moving.Lock()
	defer b.moving.Unlock()
	was := b.horizon()
	c := was.chain
	c.mu.RLock()
	defer c.mu.RUnlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	now := horizon{chain: c, lag: uint64(max(blocks, 0))}
	b.sight.Store(&now)
	b.move(now, c.head().number, nil, was.head().number)
}

// SetChain moves the Backend to another Chain, as a node that changes to another branch: it publishes the logs of the old Chain's blocks as
// removed, down to the last block that both Chains have, and the new Chain's blocks after that one. Chains that have no block in common
// part after the oldest one that the old Chain remembers. The lag stays.
func (b *Backend) SetChain(c *Chain) {
	b.moving.Lock()
	defer b.moving.Unlock()
	was := b.horizon()
	if was.chain == c {
		return
	}
	branch, seen := was.leave(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	common := len(branch) - 1
	for common > 0 && c.byHash[branch[common].hash] == nil {
		common--
	}
	c.watchers = append(c.watchers, b)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := horizon{chain: c, lag: was.lag}
	b.sight.Store(&now)
	b.move(now, branch[common].number, branch[common+1:], seen)
}

// leave ends what watch began, and returns the blocks of the Chain and the number of the last one in sight at that time.
func (h horizon) leave(w watcher) (branch []*block, seen uint64) {
	h.chain.mu.Lock()
	defer h.chain.mu.Unlock()
	h.chain.unwatch(w)
	return append([]*block(nil), h.chain.recent...), h.head().number
}

// moved implements watcher.
func (b *Backend) moved(c *Chain, fork uint64, removed []*block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.horizon()
	head := fork + uint64(len(removed))
	b.move(now, fork, removed, head-min(head, now.lag))
}

// move publishes the change from what was in sight, up to the block numbered seen, to what is in sight now. The blocks up to fork are the same
// in both; removed are those that followed it, oldest first. b.mu and the Chain's lock are held.
func (b *Backend) move(now horizon, fork uint64, removed []*block, seen uint64) {
	var gone, come []*block
	if seen > fork {
		gone = removed[:seen-fork]
	}
	for n := min(fork, seen) + 1; n <= now.head().number; n++ {
		if one := now.chain.numbered(n); one != nil {
			come = append(come, one)
		}
	}
	b.publish(gone, come)
}
