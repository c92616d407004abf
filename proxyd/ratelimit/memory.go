package ratelimit

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/ulule/limiter/v3"
)

// DefaultMaxKeys is how many keys a memory store counts for by default. A key
// takes about 300 bytes.
const DefaultMaxKeys = 100_000

const shards = 16

// Memory is a limiter.Store in the process's memory over an LRU, so that it is
// bounded whatever keys clients bring; the library's own grows with its keys.
// Windows are fixed and aligned to the wall clock, as the incumbent's.
type Memory struct {
	seed   maphash.Seed
	shards [shards]struct {
		mu  sync.Mutex
		lru *simplelru.LRU[string, *counter]
	}
}

type counter struct {
	window int64 // start of the window, unix nanoseconds
	count  int64
}

// NewMemory returns a store for at most maxKeys keys; 0 means DefaultMaxKeys.
func NewMemory(maxKeys int) *Memory {
	if maxKeys <= 0 {
		maxKeys = DefaultMaxKeys
	}
	m := &Memory{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].lru, _ = simplelru.NewLRU[string, *counter](max(1, maxKeys/shards), nil)
	}
	return m
}

// Get implements limiter.Store.
func (m *Memory) Get(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	return m.Increment(ctx, key, 1, rate)
}

// Increment implements limiter.Store. Remaining is negative when the limit is
// passed, by as much as it is passed, so that the part of a batch that still
// fits can go on. Reset is the second in which the window has ended.
func (m *Memory) Increment(_ context.Context, key string, count int64, rate limiter.Rate) (limiter.Context, error) {
	now := time.Now()
	window := now.Truncate(rate.Period)
	s := &m.shards[maphash.String(m.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.lru.Get(key)
	if !ok {
		c = new(counter)
		s.lru.Add(key, c)
	}
	if start := window.UnixNano(); c.window != start {
		c.window, c.count = start, 0
	}
	c.count = min(c.count+count, 1<<53)
	return limiter.Context{
		Limit: rate.Limit, Remaining: rate.Limit - c.count, Reached: c.count > rate.Limit,
		Reset: window.Add(rate.Period + time.Second - 1).Unix(),
	}, nil
}

// Peek implements limiter.Store.
func (m *Memory) Peek(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	return m.Increment(ctx, key, 0, rate)
}

// Reset implements limiter.Store.
func (m *Memory) Reset(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	s := &m.shards[maphash.String(m.seed, key)%shards]
	s.mu.Lock()
	s.lru.Remove(key)
	s.mu.Unlock()
	return m.Peek(ctx, key, rate)
}

// Len is the number of keys.
func (m *Memory) Len() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += s.lru.Len()
		s.mu.Unlock()
	}
	return n
}
