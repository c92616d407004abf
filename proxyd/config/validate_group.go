package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

func (v *validator) groups(s scope) {
	if len(s.BackendGroups) == 0 {
		v.fault(s.at.with("backend_groups"), "must have at least one group, like [%s] with its backends", s.at.with("backend_groups", "main"))
	}
	for _, name := range slices.Sorted(maps.Keys(s.BackendGroups)) {
		at, g := s.at.with("backend_groups", name), s.BackendGroups[name]
		if name == Refuse {
			v.fault(at, "the name refuse means \"no group\" in rpc_method_mappings: choose another")
		}
		v.members(at, g)
		v.strategy(at, g)
		v.attempts(at, g)
		v.rank(at.with("rank"), g.Rank)
		v.heads(at, g)
		v.hedge(at.with("hedge"), g)
		v.retryBudget(at.with("retry_budget"), g.RetryBudget)
		for key, d := range map[string]Duration{
			"consensus_poller_interval": g.ConsensusPollerInterval, "consensus_ban_period": g.ConsensusBanPeriod,
			"consensus_max_update_threshold": g.ConsensusMaxUpdateThreshold, "consensus_ha_heartbeat_interval": g.ConsensusHAHeartbeatInterval,
			"consensus_ha_lock_period": g.ConsensusHALockPeriod, "consensus_cl_head_l1_max_age": g.ConsensusCLHeadL1MaxAge,
		} {
			notNegative(v, at.with(key), d)
		}
		notNegative(v, at.with("consensus_min_peer_count"), *g.ConsensusMinPeerCount)
	}
}

func (v *validator) members(at path, g Group) {
	listed := !v.isUnread(at.with("backends"))
	if len(g.Backends) == 0 {
		v.fault(at.with("backends"), "must name at least one backend")
	}
	seen := map[string]bool{}
	weights, last := 0, 0
	for i, b := range g.Backends {
		if _, ok := v.c.Backends[b]; !ok && !v.isUnread(path{"backends"}) {
			v.fault(at.with("backends", index(i)), "there is no backend %q%s", b, didYouMean(b, v.c.Backends))
		}
		if seen[b] {
			v.fault(at.with("backends", index(i)), "%q stands twice", b)
		}
		seen[b] = true
		weights += v.c.Backends[b].Weight
		if slices.Contains(g.Fallbacks, b) || v.c.Backends[b].Role == "fallback" {
			last++
		}
	}
	for i, b := range g.Fallbacks {
		if !seen[b] && listed {
			v.fault(at.with("fallbacks", index(i)), "%q must stand in backends too", b)
		}
	}
	if last > 0 && last >= len(g.Backends) && listed {
		key := "backends"
		if len(g.Fallbacks) > 0 {
			key = "fallbacks"
		}
		v.warn(at.with(key), "every backend is a fallback, so none is asked first")
	}
	if g.WeightedRouting && g.drawn() && weights == 0 && listed {
		v.warn(at.with("weighted_routing"), "no backend has a weight: the order is random")
	}
}

// drawn reports whether weighted_routing has a say in the order.
func (g Group) drawn() bool { return g.RoutingStrategy != "sticky" && g.RoutingStrategy != "ranked" }

func (v *validator) strategy(at path, g Group) {
	if !g.ConsensusAware && !slices.Contains(Strategies, g.RoutingStrategy) {
		v.fault(at.with("routing_strategy"), "%q is not a strategy: must be one of %s", g.RoutingStrategy, strings.Join(Strategies, ", "))
	}
	if g.ConsensusAware && g.RoutingStrategy != "" {
		v.fault(at.with("consensus_aware"), "is the old form of routing_strategy = \"consensus_aware\": keep one of them")
	}
	notNegative(v, at.with("fail_back"), g.FailBack)
	atLeast(v, at.with("public_first_attempts"), *g.PublicFirstAttempts, 1)
}

// attempts checks how often and for how long a call is tried, and what ends it.
func (v *validator) attempts(at path, g Group) {
	notNegative(v, at.with("max_attempts"), g.MaxAttempts)
	if g.RetryDelay != nil {
		notNegative(v, at.with("retry_delay"), *g.RetryDelay)
	}
	if g.RetryCount != nil {
		notNegative(v, at.with("retry_count"), *g.RetryCount)
	}
	notNegative(v, at.with("try_timeout"), g.TryTimeout)
	notNegative(v, at.with("total_timeout"), g.TotalTimeout)
	for i, e := range g.FinalErrors {
		v.finalError(at.with("final_errors", index(i)), e)
	}
}

// finalError checks an error code, a class or a part of a message.
func (v *validator) finalError(at path, e any) {
	switch e := e.(type) {
	case int64:
	case string:
		if strings.TrimSpace(e) == "" {
			v.fault(at, "is empty: write an error code, a class or a part of the message")
		} else if err := classify.CheckMatch(e); err != nil {
			v.fault(at, "%v", err)
		}
	default:
		v.fault(at, "must be an error code, a class or a part of the message, not %s", describe(e))
	}
}

func (v *validator) rank(at path, r Rank) {
	atLeast(v, at.with("interval"), r.Interval, Duration(100*time.Millisecond))
	if r.SampleCount < 1 || r.SampleCount > 1000 {
		v.fault(at.with("sample_count"), "must be between 1 and 1000")
	}
	if r.Timeout <= 0 {
		v.fault(at.with("timeout"), "must be longer than zero")
	}
	v.ownCall(at.with("ping_method"), r.PingMethod)
	notNegative(v, at.with("weights", "latency"), r.Weights.Latency)
	notNegative(v, at.with("weights", "stability"), r.Weights.Stability)
	if r.Weights.Latency == 0 && r.Weights.Stability == 0 && !v.touchesUnread(at.with("weights")) {
		v.fault(at.with("weights"), "are both 0, so nothing is left to rank by: give one of them a weight")
	}
}

// ownCall checks a method that the gateway calls of itself.
func (v *validator) ownCall(at path, method string) {
	switch {
	case !jsonrpc.ValidMethod(method):
		v.fault(at, "%q is not a method name", method)
	case !v.isRead(method):
		v.fault(at, "%s is not a read, and the gateway calls nothing else of itself; if it is one on your chain, say so with [methods.%s] class = \"read\"", method, method)
	}
}

// heads checks the keys that need to know the backends' heads.
func (v *validator) heads(at path, g Group) {
	if g.ReferenceURL != "" {
		v.url(at.with("reference_url"), g.ReferenceURL, "http", "https")
	}
	if v.watchesHeads() || v.touchesUnread(path{"health"}) {
		return
	}
	const remedy = "needs the backends' heads: add [health] with \"eth_blockNumber\" in its checks and an interval"
	if g.MaxBlockLag != nil {
		v.fault(at.with("max_block_lag"), remedy)
	}
	if g.ReferenceURL != "" {
		v.fault(at.with("reference_url"), remedy)
	}
}

func (v *validator) hedge(at path, g Group) {
	if g.Hedge == nil {
		return
	}
	h := *g.Hedge
	if _, _, ok := h.delay(); !ok {
		v.fault(at.with("delay"), "%q is neither a share of calls like \"p95\" or \"p99.5\" nor a duration like \"200ms\"", h.Delay)
	}
	notNegative(v, at.with("min"), h.Min)
	switch {
	case h.Max <= 0:
		v.fault(at.with("max"), "must be longer than zero")
	case h.Min > h.Max && !v.touchesUnread(at):
		v.fault(at.with("min"), "is %s, which is longer than max, %s: make one of them fit", h.Min, h.Max)
	}
	atLeast(v, at.with("max_extra"), h.MaxExtra, 1)
	if len(g.Backends) == 1 {
		v.warn(at, "does nothing: the group has one backend, and no other to ask")
	}
}

// Quantile returns the share of calls that are over before a call is asked a
// second time; where the delay is a duration, q is 0 and fixed that duration.
func (h Hedge) Quantile() (q float64, fixed time.Duration) {
	q, fixed, _ = h.delay()
	return q, fixed
}

// delay reads "p95", "p99.5" or a duration.
func (h Hedge) delay() (q float64, fixed time.Duration, ok bool) {
	if percent, is := strings.CutPrefix(h.Delay, "p"); is {
		whole, tenth, point := strings.Cut(percent, ".")
		if !digits(whole, 2) || point && !digits(tenth, 1) {
			return 0, 0, false
		}
		q, err := strconv.ParseFloat(percent+"e-2", 64)
		return q, 0, err == nil && q > 0
	}
	fixed, err := time.ParseDuration(h.Delay)
	if err != nil || fixed <= 0 {
		return 0, 0, false
	}
	return 0, fixed, true
}

// digits reports whether a text is of 1 to most digits.
func digits(text string, most int) bool {
	return text != "" && len(text) <= most && strings.Trim(text, "0123456789") == ""
}
