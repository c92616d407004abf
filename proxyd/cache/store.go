package cache

import (
	"context"
	"time"
)

// Store keeps results. A store may lose any entry at any time; it must never
// return one after its time. Implementations are safe for many goroutines.
type Store interface {
	// Get returns the value of key. The bytes must not be changed.
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)
	// Put keeps value for ttl. The store may keep the slice itself.
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) error
}
