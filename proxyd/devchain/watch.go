package devchain

import "slices"

// watcher is told of everything that happens on a Chain, in order, before the call that did it returns. It is told under the Chain's lock:
// it must not wait for anything, and must not call what takes that lock again.
type watcher interface {
	// moved tells that the blocks after number fork are others now; removed are those that were there, oldest first.
	moved(c *Chain, fork uint64, removed []*block)
	// pooled tells of a transaction that waits for a block.
	pooled(t *transaction)
}

func (c *Chain) watch(w watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers = append(c.watchers, w)
}

func (c *Chain) tell(fork uint64, removed []*block) {
	for _, w := range c.watchers {
		w.moved(c, fork, removed)
	}
}

// unwatch ends what watch began. The Chain's lock is held.
func (c *Chain) unwatch(w watcher) {
	c.watchers = slices.DeleteFunc(c.watchers, func(other watcher) bool { return other == w })
}
