package proxyd

import (
	"crypto/tls"
	"maps"
	"slices"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/probe"
)

// probers returns what asks the backends on the gateway's own account, one for
// each chain; nothing of it runs where nothing is configured.
func (b *builder) probers(g *graph) ([]*probe.Prober, error) {
	targets := make(map[string][]probe.Target) // by chain
	for _, name := range slices.Sorted(maps.Keys(b.byName)) {
		t, err := b.target(g, name)
		if err != nil {
			return nil, err
		}
		chain := b.chainOf[name]
		targets[chain] = append(targets[chain], t)
	}
	var probers []*probe.Prober
	chains := b.chains()
	for _, chain := range slices.Sorted(maps.Keys(chains)) {
		o := probe.Options{Targets: targets[chain], Metrics: b.metrics[chain].probe, Log: b.chainLog(chain)}
		if h := b.c.Health; h != nil {
			o.Enabled, o.Interval, o.Checks, o.Concurrency = true, h.Interval.D(), h.Checks, h.Concurrency
			o.FailureThreshold, o.SuccessThreshold = h.FailureThreshold, h.SuccessThreshold
			o.EphemeralInterval, o.EphemeralHealthyThreshold = h.EphemeralInterval.D(), h.EphemeralHealthyThreshold
		}
		for name, c := range chains[chain].BackendGroups {
			if c.ReferenceURL == "" {
				continue
			}
			r := probe.Reference{Group: name, URL: c.ReferenceURL.Reveal(), Interval: o.Interval}
			for _, n := range c.Backends {
				r.Members = append(r.Members, b.byName[n])
			}
			o.References = append(o.References, r)
		}
		probers = append(probers, probe.New(o))
	}
	return probers, nil
}

// target is a backend as a prober sees it.
func (b *builder) target(g *graph, name string) (probe.Target, error) {
	c := b.c.Backends[name]
	var settings *tls.Config
	if c.ProbeURL != "" {
		var err error
		if settings, err = tlsConfig(c); err != nil {
			return probe.Target{}, err
		}
	}
	t := probe.Target{
		Backend: b.byName[name], SkipSyncing: c.SkipIsSyncingCheck, URL: c.ProbeURL.Reveal(), TLS: settings,
		FailureThreshold: c.ProbeFailureThreshold, SuccessThreshold: c.ProbeSuccessThreshold,
		Period: c.ProbePeriod.D(), Timeout: c.ProbeTimeout.D(),
	}
	peers := map[*backend.Backend]bool{t.Backend: true}
	for _, gr := range g.groups {
		members := gr.Members()
		if !slices.ContainsFunc(members, func(m *group.Member) bool { return m.Backend == t.Backend }) {
			continue
		}
		for _, m := range members {
			if !peers[m.Backend] {
				peers[m.Backend] = true
				t.Peers = append(t.Peers, m.Backend)
			}
		}
	}
	return t, nil
}
