package cache

import (
	"context"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// DefaultMaxSize is how many bytes a memory store keeps by default.
const DefaultMaxSize = 64 << 20

// shards is the number of locks of a memory store.
const shards = 16

// entryOverhead is what an entry costs beside its key and value, in bytes.
const entryOverhead = 200

// Memory is a Store in the process's memory, bounded in bytes: the entries used
// longest ago go first. Each entry has its own time.
type Memory struct {
	seed   maphash.Seed
	began  time.Time
	shards [shards]shard
}

type shard struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[string, entry]
	size  int64
	limit int64
}

type entry struct {
	value   []byte
	expires time.Duration // since the store's beginning
}

// NewMemory returns a store for at most maxSize bytes; 0 means DefaultMaxSize.
func NewMemory(maxSize int64) *Memory {
	if maxSize <= 0 {
		maxSize = DefaultMaxSize
	}
	m := &Memory{seed: maphash.MakeSeed(), began: time.Now()}
	for i := range m.shards {
		s := &m.shards[i]
		s.limit = maxSize / shards
		// The bound is in bytes, so the count is only a backstop: no entry is
		// smaller than its overhead.
		s.lru, _ = simplelru.NewLRU(int(s.limit/entryOverhead)+1, func(key string, e entry) {
			s.size -= entrySize(key, e.value)
		})
	}
	return m
}

func entrySize(key string, value []byte) int64 { return int64(len(key)+cap(value)) + entryOverhead }

func (m *Memory) shard(key string) *shard {
	return &m.shards[maphash.String(m.seed, key)%shards]
}

// Get implements Store.
func (m *Memory) Get(_ context.Context, key string) ([]byte, bool, error) {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.lru.Get(key)
	if !ok {
		return nil, false, nil
	}
	if time.Since(m.began) >= e.expires {
		s.lru.Remove(key)
		return nil, false, nil
	}
	return e.value, true, nil
}

// Put implements Store. A value that would take more than a quarter of its shard
// is not kept. The bytes are copied, so that a small result does not keep the
// whole upstream answer alive.
func (m *Memory) Put(_ context.Context, key string, value []byte, ttl time.Duration) error {
	s := m.shard(key)
	size := int64(len(key)+len(value)) + entryOverhead
	if ttl <= 0 || size > s.limit/4 {
		return nil
	}
	kept := make([]byte, len(value))
	copy(kept, value)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lru.Remove(key)
	s.size += size
	// The key may be a part of many, which it must not keep alive.
	s.lru.Add(strings.Clone(key), entry{kept, time.Since(m.began) + ttl})
	for s.size > s.limit {
		s.lru.RemoveOldest()
	}
	return nil
}

// Len is the number of entries, expired ones included.
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

// Size is the number of bytes that the entries take.
func (m *Memory) Size() int64 {
	var n int64
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += s.size
		s.mu.Unlock()
	}
	return n
}
