package series

import (
	"sync"
	"testing"
)

func TestWhatWasGotOnceStaysTheSameWhateverIsAdded(t *testing.T) {
	var s Set[string, *int]
	build := func(string) *int { return new(int) }
	names := []string{"", "a", "b", "c", "d", "e", "f", "g"}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var mine [8]*int
			for round := range 200 {
				k := (i + round) % len(names) // each begins with another one
				got := s.Get(names[k], build)
				if mine[k] == nil {
					mine[k] = got
				}
				if got != mine[k] {
					t.Errorf("%q is another one in round %d", names[k], round)
				}
			}
		})
	}
	wg.Wait()
	for i, a := range names {
		for _, b := range names[:i] {
			if s.Get(a, build) == s.Get(b, build) {
				t.Errorf("%q and %q share one", a, b)
			}
		}
	}
}

func TestBuildIsGivenItsKeyAndNothingIsKeptWhenItPanics(t *testing.T) {
	var s Set[int, int]
	func() {
		defer func() { _ = recover() }()
		s.Get(1, func(int) int { panic("no such label") })
	}()
	for range 2 {
		if got := s.Get(1, func(k int) int { return k * 10 }); got != 10 {
			t.Errorf("got %d", got)
		}
	}
	if got := s.Get(1, func(int) int { panic("it is known") }); got != 10 {
		t.Errorf("got %d", got)
	}
}

func TestKnownKeyCostsNoMemory(t *testing.T) {
	type key struct {
		name  string
		batch bool
	}
	var s Set[key, int]
	build := func(key) int { return 1 }
	s.Get(key{"a", true}, build)
	if n := testing.AllocsPerRun(100, func() { s.Get(key{"a", true}, build) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
