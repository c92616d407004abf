package config

import (
	"maps"
	"slices"
	"strings"
)

const (
	noRedis     = "Redis is not built yet: cache and limits are kept in memory"
	noConsensus = "consensus is not built yet"
	noSender    = "the sender rate limit is not built yet"
	noInterop   = "the validation of interop transactions is not built yet"
	noTx        = "the transaction validation middleware is not built yet"
)

// unbuilt lists the keys that nothing reads in this version, with the reason. In
// a pattern * stands for any name or for the rest of one. The first pattern
// decides. A chain's keys are called as those of the top level. A test holds the
// list against the code that uses the configuration.
var unbuilt = []struct{ pattern, why string }{
	{"server.enable_tx_hash_logging", "logging of transaction hashes is not built yet"},
	{"rate_limit.use_redis", "Redis is not built yet: each process counts for itself, in memory"},
	{"redis.*", noRedis},
	{"sender_rate_limit.*", noSender},
	{"interop_validation.*", noInterop},
	{"interop_validation.*.*", noInterop},
	{"tx_validation_middleware.*", noTx},
	{"backends.*.ws_port", "it has no meaning"},
	{"backends.*.max_ws_conns", "clients share one WebSocket connection to a backend, which is always allowed; server.max_client_ws_conns limits those of clients"},
	{"backends.*.consensus_*", noConsensus},
	{"backends.*.safe_block_drift_threshold", noConsensus},
	{"backends.*.finalized_block_drift_threshold", noConsensus},
	{"methods.*.block_param", "what depends on the block asked for is not built yet"},
	{"backend_groups.*.max_block_range", "the block range limit is not built yet"},
	{"backend_groups.*.consensus_max_block_range", "the block range limit is not built yet"},
	{"backend_groups.*.consensus_*", noConsensus},
	{"backend_groups.*.consensus_ha_redis.*", noConsensus},
}

// inactive speaks about every key that is set but does nothing. Where the key
// asks for protection or for consensus and that is not built yet, a start
// without it would be a surprise, so it is a fault unless that is allowed.
func (v *validator) inactive(allow bool) {
	c := v.c
	told := map[string]bool{}
	protection := func(at path, active bool, what string) {
		if !active {
			return
		}
		told[at.String()] = true
		if allow {
			v.warn(at, "%s: going on without it, as --allow-inactive says", what)
		} else {
			v.fault(at, "%s: remove it, or start with --allow-inactive to go on without it", what)
		}
	}
	protection(path{"sender_rate_limit", "enabled"}, c.SenderRateLimit.Enabled, noSender)
	protection(path{"sender_rate_limit", "allowed_chain_ids"}, len(c.SenderRateLimit.AllowedChainIDs) > 0, noSender)
	protection(path{"interop_validation", "urls"}, len(c.InteropValidation.URLs) > 0, noInterop)
	protection(path{"interop_validation", "sender_rate_limit", "enabled"}, c.InteropValidation.SenderRateLimit.Enabled, noInterop)
	protection(path{"tx_validation_middleware", "enabled"}, c.TxValidation.Enabled, noTx)
	for _, s := range c.scopes() {
		for _, name := range slices.Sorted(maps.Keys(s.BackendGroups)) {
			at, g := s.at.with("backend_groups", name), s.BackendGroups[name]
			protection(at.with("consensus_aware"), g.ConsensusAware, noConsensus)
			protection(at.with("routing_strategy"), Inactive(g.RoutingStrategy), noConsensus)
			protection(at.with("max_block_range"), g.MaxBlockRange > 0, "the block range limit is not built yet")
			protection(at.with("consensus_max_block_range"), g.ConsensusMaxBlockRange > 0, "the block range limit is not built yet")
		}
	}
	for _, k := range v.leaves {
		if told[k.at.String()] {
			continue
		}
		for _, u := range unbuilt {
			if matches(local(k.at), u.pattern) {
				v.dead(k, u.why)
				break
			}
		}
	}
	v.without()
	v.unused()
}

// without speaks about keys that work only together with others.
func (v *validator) without() {
	c := v.c
	limits := c.RateLimit.BaseRate > 0 || len(c.RateLimit.MethodOverrides) > 0
	v.chainIDs()
	for _, k := range v.leaves {
		needs, met := "", true
		switch key := k.at.String(); key {
		case "chain_id":
			needs, met = "the top level has no groups, only chains have", len(c.BackendGroups) > 0
		case "server.queue_timeout":
			needs, met = "it works only with server.max_concurrent_rpcs", c.Server.MaxConcurrentRPCs > 0 && !c.Server.DisableSemaphore
		case "server.max_concurrent_rpcs":
			needs, met = "server.disable_concurrent_request_semaphore turns it off", !c.Server.DisableSemaphore
		case "server.max_request_body_log_len":
			needs, met = "it works only with server.enable_request_log", c.Server.EnableRequestLog
		case "server.ws_host":
			needs, met = "it works only with server.ws_port", c.Server.WSPort != 0
		case "server.pprof_addr":
			needs, met = "it works only with server.enable_pprof", c.Server.EnablePprof
		case "server.public_access":
			needs, met = "it works only with keys in [authentication]", len(c.Authentication) > 0
		case "cache.ttl", "cache.max_size_bytes", "cache.rules":
			needs, met = "it works only with cache.enabled", c.Cache.Enabled
		case "metrics.host", "metrics.port":
			needs, met = "it works only with metrics.enabled", c.Metrics.Enabled
		case "rate_limit.base_interval", "rate_limit.shared":
			needs, met = "it works only with rate_limit.base_rate", c.RateLimit.BaseRate > 0
		case "rate_limit.exempt_origins", "rate_limit.exempt_user_agents", "rate_limit.error_message", "rate_limit.key", "rate_limit.max_keys":
			needs, met = "it works only with rate_limit.base_rate or rate_limit.method_overrides", limits
		case "backend.response_timeout_seconds":
			needs, met = "response_timeout_milliseconds stands beside it", c.Backend.ResponseTimeoutMS == 0
		default:
			switch {
			case len(k.at) == 2 && k.at[0] == "server" && slices.Contains(socketKeys, k.at[1]):
				needs, met = "it works only with ws_backend_group", c.servesSockets()
			case matches(local(k.at), "ws_method_whitelist"):
				needs, met = "it works only with ws_backend_group", c.scopeOf(k.at).WSBackendGroup != ""
			case matches(k.at, "backends.*.ws_url"):
				b := c.Backends[k.at[1]]
				needs, met = "it is used for the members of a ws_backend_group, of which this backend is none, and for backends without rpc_url", b.RPCURL == "" || b.SocketURL() == "" || c.followed(k.at[1])
			case matches(k.at, "backends.*.max_rps_strict"):
				needs, met = "it works only with max_rps", c.Backends[k.at[1]].MaxRPS > 0
			case matches(k.at, "backends.*.weight"):
				needs, met = "it works only in a group with weighted_routing", c.anyGroup(k.at[1], func(g Group) bool { return g.WeightedRouting && g.drawn() })
			case matches(k.at, "backends.*.cost"):
				needs, met = only("scored"), c.anyGroup(k.at[1], func(g Group) bool { return g.RoutingStrategy == "scored" })
			case matches(k.at, "backends.*.probe_*"):
				needs, met = "it works only with probe_url", c.Backends[k.at[1]].ProbeURL != ""
			case matches(k.at, "backends.*.skip_is_syncing_check"):
				needs, met = "it works only with [health] and \"eth_syncing\" in its checks", v.checks("eth_syncing")
			case matches(k.at, "methods.*.hedge"):
				needs, met = "it works only in a group with hedge", c.hedges()
			default:
				needs, met = v.withoutInGroup(k.at)
			}
		}
		if !met {
			v.dead(k, needs)
		}
	}
}

// withoutInGroup tells what a key of a group needs, and whether that is there.
func (v *validator) withoutInGroup(at path) (needs string, met bool) {
	g, key := v.c.groupAt(at)
	public := func(name string) bool { return v.c.Backends[name].Role == "public" }
	switch {
	case matches(key, "backend_groups.*.fail_back"):
		return only("sticky"), g.RoutingStrategy == "sticky"
	case matches(key, "backend_groups.*.rank.*"), matches(key, "backend_groups.*.rank.weights.*"):
		return only("ranked"), g.RoutingStrategy == "ranked"
	case matches(key, "backend_groups.*.multicall_rpc_error_check"):
		return only("multicall"), g.RoutingStrategy == "multicall"
	case matches(key, "backend_groups.*.weighted_routing"):
		return "a group with routing_strategy = \"" + g.RoutingStrategy + "\" has an order of its own", g.drawn()
	case matches(key, "backend_groups.*.public_first_attempts") && !g.PublicFirst:
		return "it works only with public_first", false
	case matches(key, "backend_groups.*.public_first"), matches(key, "backend_groups.*.public_first_attempts"):
		return "no member has role = \"public\"", slices.ContainsFunc(g.Backends, public)
	}
	return "", true
}

func only(strategy string) string {
	return "it works only with routing_strategy = \"" + strategy + "\""
}

// chainIDs warns that chain ids are compared with what clients ask only, where no
// health check asks for them.
func (v *validator) chainIDs() {
	if v.checks("eth_chainId") && v.c.Health.Interval > 0 {
		return
	}
	for _, k := range v.leaves {
		if k.nothing || v.faulty[k.at.String()] || !matches(k.at, "chain_id") && !matches(k.at, "chains.*.chain_id") && !matches(k.at, "backends.*.chain_id") {
			continue
		}
		v.warn(k.at, "is compared only when a client asks for eth_chainId, and until then a backend of another chain is used: add [health] with eth_chainId in its checks and an interval")
	}
}

// dead warns of a key that does nothing, unless it asks for nothing either or
// has a fault that comes first.
func (v *validator) dead(k setKey, why string) {
	if !k.nothing && !v.faulty[k.at.String()] {
		v.warn(k.at, "does nothing: %s", why)
	}
}

// unused speaks about backends and groups that get no calls, in a file without
// faults: with them it is too early to tell.
func (v *validator) unused() {
	if len(v.faults) > 0 {
		return
	}
	members := map[string]bool{}
	for _, s := range v.c.scopes() {
		used := map[string]bool{s.WSBackendGroup: true}
		for _, name := range s.RPCMethodMappings {
			used[name] = true
		}
		for _, name := range slices.Sorted(maps.Keys(s.BackendGroups)) {
			if !used[name] && name != Refuse {
				v.warn(s.at.with("backend_groups", name), "does nothing: no method is mapped to it")
			}
			for _, b := range s.BackendGroups[name].Backends {
				members[b] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.c.Backends)) {
		if !members[name] {
			v.warn(path{"backends", name}, "does nothing: it is in no group")
		}
	}
}

// matches compares a key with a pattern, segment by segment.
func matches(at path, pattern string) bool {
	segments := strings.Split(pattern, ".")
	if len(at) != len(segments) {
		return false
	}
	for i, s := range segments {
		prefix, star := strings.CutSuffix(s, "*")
		if at[i] != s && !(star && strings.HasPrefix(at[i], prefix)) {
			return false
		}
	}
	return true
}

// Inactive reports whether a routing strategy is known but not built yet; a
// group that names it works as fallback.
func Inactive(strategy string) bool {
	return strings.HasPrefix(strategy, "consensus_aware")
}
