// Package series keeps metric series that were looked up by their labels, so that
// a call does not look them up again.
package series

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Set finds what belongs to a key, which is made once. The keys must be bounded:
// nothing is ever forgotten. The zero value is empty.
type Set[K comparable, V any] struct {
	known atomic.Pointer[map[K]V]
	mu    sync.Mutex
}

// Get returns what belongs to key; build makes it the first time.
func (s *Set[K, V]) Get(key K, build func(K) V) V {
	if known := s.known.Load(); known != nil {
		if v, ok := (*known)[key]; ok {
			return v
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	more := make(map[K]V)
	if known := s.known.Load(); known != nil {
		if v, ok := (*known)[key]; ok {
			return v
		}
		maps.Copy(more, *known)
	}
	v := build(key)
	more[key] = v
	s.known.Store(&more)
	return v
}
