package main

import (
	"bytes"
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
	listeners map[string]*socket
	made      int // subscriptions so far
}

func newChain() *chain {
	return &chain{published: []time.Time{time.Now()}, listeners: map[string]*socket{}}
}

func (c *chain) publishEvery(interval time.Duration) {
	for range time.Tick(interval) {
		c.publish()
	}
}

// publish announces the next head to all who listen. Its time is that of the
// first write.
func (c *chain) publish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published = append(c.published, time.Now())
	head := c.appendHead(nil, c.latest())
	for id, s := range c.listeners {
		s.send(content.AppendNotification(nil, []byte(id), head))
	}
}

func (c *chain) latest() uint64 { return content.FirstHead + uint64(len(c.published)) - 1 }

func (c *chain) appendHead(dst []byte, number uint64) []byte {
	return content.AppendHead(dst, number, c.published[number-content.FirstHead])
}

// subscribe makes a subscription and has its id answered before the first
// notification.
func (c *chain) subscribe(s *socket, answer func(id string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	stamp := content.StampOf("subscription", strconv.AppendInt(nil, int64(c.made), 10))
	id := fmt.Sprintf(`"0x%s"`, stamp[:32])
	c.listeners[id] = s
	answer(id)
}

// unsubscribe ends a subscription of a socket, if there is such a one.
func (c *chain) unsubscribe(s *socket, id string) (was bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was = c.listeners[id] == s; was {
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
		if other == s {
			delete(c.listeners, id)
		}
	}
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
	case "eth_getBlockByNumber", content.Block:
		number, ok := c.named(r.params)
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

// named reads the number, tag or hash that the params of a call begin with.
func (c *chain) named(params []byte) (number uint64, ok bool) {
	s := scanner{b: params}
	if !s.batch() {
		return 0, false
	}
	switch name := string(bytes.Trim(s.value(), `"`)); name {
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
