package proxyd

import (
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/server"
)

// ready reports whether some group, or with strict every group, has a backend
// that would be asked in its turn.
func (g *graph) ready(strict bool) (ok bool, groups []server.GroupStatus) {
	some, all := false, true
	for _, gr := range g.groups {
		status := server.GroupStatus{Group: gr.Name(), Usable: gr.Usable()}
		for _, m := range gr.Members() {
			status.Backends = append(status.Backends, backendStatus(m.Backend))
		}
		some, all = some || status.Usable, all && status.Usable
		groups = append(groups, status)
	}
	if strict {
		return all, groups
	}
	return some, groups
}

func backendStatus(b *backend.Backend) server.BackendStatus {
	standing, trouble := b.Standing(), b.Trouble()
	return server.BackendStatus{
		Backend: b.Name(), State: standing.State.String(), Since: stamp(standing.Since), Until: stamp(standing.Until),
		UnansweredInRow: trouble.InRow, LastFailure: trouble.Last,
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// close ends what traffic has started. No call may come any more.
func (g *graph) close() {
	g.cache.Close()
	for _, b := range g.backends {
		b.Close()
	}
}
