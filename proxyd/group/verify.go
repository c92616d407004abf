package group

import (
	"context"
	"time"

	"gateway.internal/proxyd/backend"
)

const (
	// verifyMost is how long the first calls wait for a member whose chain is
	// known, verifyEvery how often they look.
	verifyMost  = 10 * time.Second
	verifyEvery = 5 * time.Millisecond
)

// awaitVerified lets calls wait at the start until a member is known to serve the
// right chain: before that none may be asked.
func (g *Group) awaitVerified(ctx context.Context) {
	if g.verified.Load() {
		return
	}
	var tick *time.Ticker
	for g.allUnverified() && time.Since(g.made) < verifyMost {
		if tick == nil {
			tick = time.NewTicker(verifyEvery)
			defer tick.Stop()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	g.verified.Store(true)
}

// allUnverified reports whether no member can be asked before it is verified.
func (g *Group) allUnverified() bool {
	unverified := false
	for _, m := range g.members {
		switch {
		case m.Unverified():
			unverified = true
		case m.Standing().State != backend.Foreign:
			return false
		}
	}
	return unverified
}
