package proxyd

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/config"
	"gateway.internal/proxyd/group"
)

func (b *builder) groups(g *graph, chain string, configured map[string]config.Group) (map[string]*group.Group, error) {
	groups := make(map[string]*group.Group, len(configured))
	for _, name := range slices.Sorted(maps.Keys(configured)) {
		c := configured[name]
		members := make([]*group.Member, 0, len(c.Backends))
		for _, n := range c.Backends {
			m, err := b.member(n, c)
			if err != nil {
				return nil, fmt.Errorf("backend_groups.%s: %w", name, err)
			}
			members = append(members, m)
		}
		strategy := c.RoutingStrategy
		if config.Inactive(strategy) {
			strategy = "" // the operator was told at the start
		}
		finals, err := final(c.FinalErrors)
		if err != nil {
			return nil, fmt.Errorf("backend_groups.%s.final_errors: %w", name, err)
		}
		o := group.Options{
			Name: name, Members: members, Strategy: strategy, Weighted: c.WeightedRouting, MaxBatch: b.c.Server.MaxUpstreamBatchSize,
			MaxAttempts: c.MaxAttempts, MaxRetries: c.RetryCount, RetryDelay: (*time.Duration)(c.RetryDelay),
			TryTimeout: c.TryTimeout.D(), TotalTimeout: c.TotalTimeout.D(), Final: finals,
			MaxBlockLag: c.MaxBlockLag, FailBack: c.FailBack.D(), RPCErrorCheck: c.MulticallRPCErrorCheck,
			Rank: group.Rank{
				Interval: c.Rank.Interval.D(), Samples: c.Rank.SampleCount, Timeout: c.Rank.Timeout.D(), Method: c.Rank.PingMethod,
				Latency: c.Rank.Weights.Latency, Stability: c.Rank.Weights.Stability,
			},
			Metrics: b.metrics[chain].group, Log: b.chainLog(chain),
		}
		if c.PublicFirst {
			o.PublicAttempts = *c.PublicFirstAttempts
		}
		if h := b.c.Health; h != nil {
			o.HeadMaxAge = 2*h.Interval.D() + 10*time.Second
		}
		if c.Hedge != nil {
			quantile, fixed := c.Hedge.Quantile()
			o.Hedge = &group.Hedge{Quantile: quantile, Delay: fixed, Min: c.Hedge.Min.D(), Max: c.Hedge.Max.D(), MaxExtra: c.Hedge.MaxExtra}
		}
		if r := cmp.Or(c.RetryBudget, b.c.RetryBudget); r != nil {
			o.Budget = &group.Budget{Ratio: r.Ratio, MinPerSecond: r.MinPerSecond}
		}
		gr, err := group.New(o)
		if err != nil {
			return nil, err
		}
		groups[name] = gr
		g.groups = append(g.groups, groupOf{gr, chain})
	}
	return groups, nil
}

// member returns a backend's place in a group.
func (b *builder) member(name string, c config.Group) (*group.Member, error) {
	be, ok := b.byName[name]
	if !ok {
		return nil, fmt.Errorf("there is no backend %q", name)
	}
	bc := b.c.Backends[name]
	fallback := slices.Contains(c.Fallbacks, name) || bc.Role == "fallback" // whatever else its role is
	m := &group.Member{Backend: be, Weight: bc.Weight, Cost: bc.Cost, Public: bc.Role == "public" && !fallback, Archive: bc.Type == "archive"}
	switch {
	case m.Public && c.PublicFirst:
	case fallback:
		m.Tier = 2
	case m.Public:
		m.Tier = 3
	default:
		m.Tier = 1
	}
	return m, nil
}

// final tells apart what final_errors lists.
func final(list []any) (f group.Final, err error) {
	var texts []string
	for _, e := range list {
		text := fmt.Sprint(e)
		if code, err := strconv.ParseInt(text, 10, 64); err == nil {
			f.Codes = append(f.Codes, code)
		} else if slices.Contains(classify.Classes(), text) {
			f.Classes = append(f.Classes, text)
		} else {
			texts = append(texts, text)
		}
	}
	f.Texts, err = classify.NewTexts(texts)
	return f, err
}
