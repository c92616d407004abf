package proxyd

import "gateway.internal/proxyd/server"

// ready reports whether some group, or with strict every group, has a backend
// that would be asked in its turn.
func (g *graph) ready(strict bool) (ok bool, groups []server.GroupStatus) {
	some, all := false, true
	for _, gr := range g.groups {
		status := server.GroupStatus{Group: gr.Name(), Usable: gr.Usable()}
		for _, m := range gr.Members() {
			status.Backends = append(status.Backends, server.BackendStatus{Backend: m.Name(), State: m.Standing().State.String()})
		}
		some, all = some || status.Usable, all && status.Usable
		groups = append(groups, status)
	}
	if strict {
		return all, groups
	}
	return some, groups
}

// close ends what traffic has started. No call may come any more.
func (g *graph) close() {
	g.cache.Close()
	for _, b := range g.backends {
		b.Close()
	}
}
