package config

import (
	"maps"
	"slices"
	"strings"
)

// inactive speaks about every key that is set but does nothing in this version.
// Where the key asks for protection or for consensus, a start without it would
// be a surprise, so it is a fault unless that is allowed.
func (v *validator) inactive(allow bool) {
	protection := func(at path, active bool, what string) {
		switch {
		case !active:
		case allow:
			v.warn(at, "%s is not built yet: going on without it, as --allow-inactive says", what)
		default:
			v.fault(at, "%s is not built yet: remove it, or start with --allow-inactive to go on without it", what)
		}
	}
	c := v.c
	protection(path{"sender_rate_limit"}, c.SenderRateLimit.Enabled || len(c.SenderRateLimit.AllowedChainIDs) > 0, "the sender rate limit")
	protection(path{"interop_validation"}, len(c.InteropValidation.URLs) > 0, "the validation of interop transactions")
	protection(path{"tx_validation_middleware"}, c.TxValidation.Enabled, "the transaction validation middleware")
	for _, name := range slices.Sorted(maps.Keys(c.BackendGroups)) {
		at, g := path{"backend_groups", name}, c.BackendGroups[name]
		consensus := strings.HasPrefix(g.RoutingStrategy, "consensus_aware") || g.ConsensusAware
		key := "routing_strategy"
		if g.ConsensusAware {
			key = "consensus_aware"
		}
		protection(at.with(key), consensus, "consensus")
		protection(at.with("max_block_range"), g.MaxBlockRange > 0, "the block range limit")
		protection(at.with("consensus_max_block_range"), g.ConsensusMaxBlockRange > 0, "the block range limit")
		if g.RoutingStrategy == "multicall" {
			v.warn(at.with("routing_strategy"), "multicall is not built yet: the group works as fallback")
		}
		if !consensus {
			v.ineffective(at, "consensus_", "works only with a consensus strategy", "consensus_aware", "consensus_max_block_range")
		}
	}
	for _, d := range []struct{ key, why string }{
		{"ws_backend_group", "WebSocket is not built yet"},
		{"ws_method_whitelist", "WebSocket is not built yet"},
		{"server.ws_host", "WebSocket is not built yet"},
		{"server.ws_port", "WebSocket is not built yet: the port stays closed"},
		{"server.max_concurrent_ws_rpcs", "WebSocket is not built yet"},
		{"server.max_client_ws_conns", "WebSocket is not built yet"},
		{"server.allow_all_origins", "WebSocket is not built yet"},
		{"server.enable_tx_hash_logging", "logging of transaction hashes is not built yet"},
		{"rate_limit.use_redis", "Redis is not built yet: each process counts for itself, in memory"},
		{"redis.url", "Redis is not built yet: cache and limits are kept in memory"},
		{"redis.read_url", "Redis is not built yet"},
		{"redis.namespace", "Redis is not built yet"},
		{"redis.redis_cluster", "Redis is not built yet"},
		{"redis.fallback_to_memory", "Redis is not built yet"},
	} {
		if v.defined[d.key] {
			v.warn(strings.Split(d.key, "."), "does nothing: %s", d.why)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Backends)) {
		at := path{"backends", name}
		v.ineffective(at, "ws_port", "it has no meaning")
		v.ineffective(at, "max_ws_conns", "WebSocket is not built yet; it will count upstream sockets, and server.max_client_ws_conns those of clients")
		v.ineffective(at, "probe_", "active probes are not built yet")
		for _, key := range []string{"skip_is_syncing_check", "consensus_", "safe_block_drift_threshold", "finalized_block_drift_threshold"} {
			v.ineffective(at, key, "consensus is not built yet")
		}
		if v.defined[at.with("ws_url").String()] {
			v.warn(at.with("ws_url"), "does nothing: WebSocket is not built yet")
		}
	}
}

// ineffective warns of the keys of a table that begin with prefix.
func (v *validator) ineffective(at path, prefix, why string, except ...string) {
	for _, key := range slices.Sorted(maps.Keys(v.defined)) {
		name, ok := strings.CutPrefix(key, at.String()+".")
		if ok && strings.HasPrefix(name, prefix) && !strings.Contains(name, ".") && !slices.Contains(except, name) {
			v.warn(at.with(name), "does nothing: %s", why)
		}
	}
}

// Inactive reports whether a routing strategy is known but not built yet; a
// group that names it works as fallback.
func Inactive(strategy string) bool {
	return strategy == "multicall" || strings.HasPrefix(strategy, "consensus_aware")
}
