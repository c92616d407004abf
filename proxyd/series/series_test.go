package series

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestEachKeyIsBuiltOnceHoweverManyAsk(t *testing.T) {
	var s Set[int, *int]
	var built atomic.Int64
	build := func(k int) *int { built.Add(1); return &k }
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for k := range 100 {
				if got := s.Get(k, build); *got != k {
					t.Errorf("key %d has what belongs to %d", k, *got)
				}
			}
		})
	}
	wg.Wait()
	if n := built.Load(); n != 100 {
		t.Errorf("built %d times for 100 keys", n)
	}
}
