// Package series keeps metric series that were looked up by their labels, so that
// a call does not look them up again.
package series

import "sync"

// Set finds what belongs to a key, which is made once. The keys must be bounded:
// nothing is ever forgotten. The zero value is empty.
type Set[K comparable, V any] struct {
	mu    sync.RWMutex
	known map[K]V
}

// Get returns what belongs to key; build makes it the first time.
func (s *Set[K, V]) Get(key K, build func(K) V) V {
	s.mu.RLock()
	v, ok := s.known[key]
	s.mu.RUnlock()
	if ok {
		return v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.known[key]; ok {
		return v
	}
	if s.known == nil {
		s.known = make(map[K]V)
	}
	v = build(key)
	s.known[key] = v
	return v
}
