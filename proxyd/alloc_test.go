//go:build !race

package proxyd

import (
	"runtime/debug"
	"testing"
)

// How often a call may allocate, from the front's ServeHTTP to the last byte of its answer. Nothing of it is the
// test's: the request is prepared, and the upstream allocates for connections only. What of a real call is not
// counted stands at asker. Whoever saves an allocation lowers the number.
const (
	hitBudget      = 14
	missBudget     = 24
	keptMissBudget = 54
)

func TestCallsKeepToTheirAllocations(t *testing.T) {
	for name, c := range map[string]struct {
		asker  func(testing.TB) *asker
		budget float64
	}{
		"hit":       {newHit, hitBudget},
		"miss":      {newMiss, missBudget},
		"kept miss": {newKeptMiss, keptMissBudget},
	} {
		t.Run(name, func(t *testing.T) {
			a := c.asker(t)
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools
			n := testing.AllocsPerRun(500, func() { a.ask(t) })
			for range 4 { // what else runs in the process only ever adds
				n = min(n, testing.AllocsPerRun(500, func() { a.ask(t) }))
			}
			if t.Logf("%v allocations", n); n > c.budget {
				t.Errorf("%v allocations, at most %v are allowed", n, c.budget)
			}
		})
	}
}
