package main

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"gateway.internal/bench/internal/content"
)

// chain is what the upstream's ports know of the blocks, as nodes that agree. A
// nil one knows nothing.
type chain struct {
	mu        sync.Mutex
	published []time.Time // of each head since content.FirstHead
	listeners map[string]listener
	made      int // subscriptions so far
}

// listener is one who has subscribed.
type listener struct {
	socket *socket
	logs   *filter // nil for heads
}

func newChain() *chain {
	return &chain{published: []time.Time{time.Now()}, listeners: map[string]listener{}}
}

// chainSince is a chain whose heads are as old as the clock says: the same for all
// who begin with the same epoch, whenever they do.
func chainSince(epoch time.Time, interval time.Duration) *chain {
	c := newChain()
	c.published[0] = epoch
	for due := c.due(interval); time.Until(due) <= 0; due = c.due(interval) {
		c.published = append(c.published, due)
	}
	return c
}

// due is when the next head is, by the clock.
func (c *chain) due(interval time.Duration) time.Time {
	return c.published[0].Add(time.Duration(len(c.published)) * interval)
}

// publishEvery announces heads. The time of each is that of the first write.
func (c *chain) publishEvery(interval time.Duration) {
	for range time.Tick(interval) {
		c.publish(time.Now())
	}
}

// publishWhenDue announces heads. The time of each is when it was due.
func (c *chain) publishWhenDue(interval time.Duration) {
	for {
		due := c.due(interval)
		time.Sleep(time.Until(due))
		c.publish(due)
	}
}

// publish announces the next head to all who listen, and its log to all who listen
// to it: before the heads or after them by turns, since nodes do either.
func (c *chain) publish(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published = append(c.published, at)
	number := c.latest()
	head, log := c.appendHead(nil, number), content.AppendLog(nil, number)
	logsFirst := number%2 == 0
	for _, logs := range []bool{logsFirst, !logsFirst} {
		for id, l := range c.listeners {
			switch {
			case logs != (l.logs != nil):
			case !logs:
				l.socket.send(content.AppendNotification(nil, []byte(id), head))
			case l.logs.wants():
				l.socket.send(content.AppendNotification(nil, []byte(id), log))
			}
		}
	}
}

func (c *chain) latest() uint64 { return content.FirstHead + uint64(len(c.published)) - 1 }

func (c *chain) appendHead(dst []byte, number uint64) []byte {
	return content.AppendHead(dst, number, c.published[number-content.FirstHead])
}

// subscribe makes a subscription and has its id answered before the first
// notification. Without a filter of logs it is to heads.
func (c *chain) subscribe(s *socket, logs *filter, answer func(id string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	stamp := content.StampOf("subscription", strconv.AppendInt(nil, int64(c.made), 10))
	id := fmt.Sprintf(`"0x%s"`, stamp[:32])
	c.listeners[id] = listener{s, logs}
	answer(id)
}

// unsubscribe ends a subscription of a socket, if there is such a one.
func (c *chain) unsubscribe(s *socket, id string) (was bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was = c.listeners[id].socket == s; was {
		delete(c.listeners, id)
	}
	return was
}

// leave ends all subscriptions of a socket.
func (c *chain) leave(s *socket) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, other := range c.listeners {
		if other.socket == s {
			delete(c.listeners, id)
		}
	}
}

// listening is how many subscriptions there are now.
func (c *chain) listening() int {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.listeners)
}

// subscriptions is how many were made so far.
func (c *chain) subscriptions() int {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made
}

// appendResult appends what the chain has to say to a call; ok is false when
// others are to answer it.
func (c *chain) appendResult(dst []byte, r *request) (_ []byte, ok bool) {
	if c == nil {
		return dst, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch string(r.method) {
	case content.Chain:
		return append(dst, `"0x1"`...), true
	case "eth_blockNumber":
		return fmt.Appendf(dst, `"0x%x"`, c.latest()), true
	case content.Logs:
		f, ok := filterOf(first(r.params))
		if !ok {
			return dst, false
		}
		from, to, ok := c.blocks(&f)
		if !ok {
			return dst, false
		}
		return c.appendLogs(dst, &f, from, to), true
	case "eth_getBlockByNumber", content.Block:
		number, ok := c.named(strings.Trim(first(r.params), `"`))
		switch {
		case !ok:
			return dst, false
		case number < content.FirstHead || number > c.latest():
			return append(dst, "null"...), true
		}
		dst = c.appendHead(dst, number)
		return append(dst[:len(dst)-1], `,"size":"0x220","transactions":[],"uncles":[]}`...), true
	}
	return dst, false
}

// named reads the number, tag or hash of a block.
func (c *chain) named(name string) (number uint64, ok bool) {
	switch name {
	case "latest", "pending":
		return c.latest(), true
	case "safe", "finalized", "earliest":
		return content.FirstHead, true
	default:
		if hash, ok := strings.CutPrefix(name, "0x"); ok && len(hash) == len(content.Stamp{}) {
			return c.hashed(hash), true
		}
		number, err := strconv.ParseUint(name, 0, 64)
		return number, err == nil
	}
}

// hashed is the number of the block with a hash, 0 when there is none.
func (c *chain) hashed(hash string) uint64 {
	for number := c.latest(); number >= content.FirstHead; number-- {
		if own := content.BlockHash(number); string(own[:]) == hash {
			return number
		}
	}
	return 0
}
