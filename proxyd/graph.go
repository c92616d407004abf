package proxyd

import (
	"context"
	"fmt"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/server"
)

// ready reports whether some group, or with strict every group, has a backend
// that would be asked in its turn. Nothing is ready before the first round of
// health checks.
func (g *graph) ready(strict bool) (ok bool, groups []server.GroupStatus) {
	some, all := false, true
	for _, gr := range g.groups {
		status := server.GroupStatus{Chain: gr.chain, Group: gr.Name(), Usable: gr.Usable()}
		for _, m := range gr.Members() {
			status.Backends = append(status.Backends, backendStatus(gr.Group, m))
		}
		some, all = some || status.Usable, all && status.Usable
		groups = append(groups, status)
	}
	for _, p := range g.probers {
		select {
		case <-p.FirstRound():
		default:
			return false, groups
		}
	}
	if strict {
		return all, groups
	}
	return some, groups
}

func backendStatus(g *group.Group, m *group.Member) server.BackendStatus {
	b := m.Backend
	standing, behind := g.Status(m)
	trouble := b.Trouble()
	head, seen := b.Head()
	if time.Since(seen) > headShown {
		head = 0
	}
	reason := b.Unfitness()
	if behind > 0 {
		reason = fmt.Sprintf("%d blocks behind its group", behind)
	}
	return server.BackendStatus{
		Reason: reason, Head: head, WebSocket: socketStatus(b),
		Backend: b.Name(), State: standing.State.String(), Since: stamp(standing.Since), Until: stamp(standing.Until),
		UnansweredInRow: trouble.InRow, LastFailure: trouble.Last,
	}
}

// headShown is how long a head is shown that nobody has looked at again.
const headShown = 2 * time.Minute

func socketStatus(b *backend.Backend) string {
	s := b.SocketStatus()
	switch {
	case !b.HasSocket():
		return ""
	case s.Open:
		return "open"
	case s.Failures > 0 && time.Now().Before(s.RetryAt):
		return fmt.Sprintf("failed %d times in a row, again at %s: %v", s.Failures, stamp(s.RetryAt), s.Last)
	case s.Failures > 0 && s.Last != nil:
		return fmt.Sprintf("unused, the last one failed: %v", s.Last)
	}
	return "unused"
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// start begins what the graph does by itself.
func (g *graph) start() {
	for _, gr := range g.groups {
		gr.Start()
	}
	for _, p := range g.probers {
		p.Start()
	}
}

// close ends what traffic and start have started. No call may come any more.
func (g *graph) close(ctx context.Context) {
	for _, h := range g.hubs {
		h.Close()
	}
	for _, p := range g.probers {
		p.Stop()
	}
	for _, c := range g.caches {
		c.Close()
	}
	for _, gr := range g.groups {
		gr.Close(ctx)
	}
	for _, b := range g.backends {
		b.Close()
	}
}
