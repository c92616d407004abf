package probe

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/backend"
)

// A backend whose chain is not known gets no calls: it is asked for that before all
// else, and every second until it has said it.
func TestAnUnknownChainIsAskedForFirstAndEverySecond(t *testing.T) {
	for name, checks := range map[string][]string{"left out": {blockNumber}, "in its turn": {blockNumber, chainID}} {
		s := setting{
			backend: func(_ int, o *backend.Options) { o.ChainID, o.Verify = 10, true },
			probe:   func(o *Options) { o.Checks, o.FailureThreshold = checks, 1000 },
			node:    func(_ int, n *node) { n.all = &answer{status: 503} },
		}
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, s, func(t *testing.T, w *world) {
				synctest.Wait()
				w.state(0, backend.Foreign)
				w.reason(0, "its chain id has not been checked yet")
				pass(5*time.Second + 500*time.Millisecond)
				got := w.nodes[0].took()
				if len(got) < 6 || len(got) > 7 { // the second check may come sooner
					t.Fatalf("asked %v", got)
				}
				for i, a := range got {
					if a.method != chainID || i > 0 && a.at-got[i-1].at > time.Second || i > 1 && a.at-got[i-1].at != time.Second {
						t.Fatalf("asked %v", got)
					}
				}
				w.nodes[0].says(chainID, answer{result: `"0xa"`})
				w.nodes[0].saysAll(nil)
				pass(time.Second)
				w.state(0, backend.Well)
				if got := w.nodes[0].methods(); !slices.Equal(got, []string{chainID, blockNumber}) {
					t.Fatalf("asked for %v", got)
				}
				pass(5 * time.Second)
				if got := w.nodes[0].took(); len(got) != 0 {
					t.Fatalf("still asked: %v", got)
				}
			})
		})
	}
}
