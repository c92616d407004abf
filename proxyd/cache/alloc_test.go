//go:build !race

package cache

import "testing"

// hitBudget is what a hit may allocate. Nothing of it is the test's.
const hitBudget = 4

func TestHitKeepsToItsAllocations(t *testing.T) {
	ask := asker(t, "eth_chainId", "[]")
	ask()
	n := testing.AllocsPerRun(200, func() { ask() })
	if t.Logf("%v allocations", n); n > hitBudget {
		t.Errorf("a hit allocates %v times, at most %d are allowed", n, hitBudget)
	}
	if ask().Backend != "cache" {
		t.Error("it was no hit")
	}
}
