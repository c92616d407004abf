package config

import "slices"

// webSocket checks what speaks of WebSocket connections; serves reports whether any
// chain has a group for them.
func (v *validator) webSocket(serves bool) {
	s, at := v.c.Server, path{"server"}
	if s.WSPort != 0 && !serves {
		v.fault(path{"ws_backend_group"}, "is required when server.ws_port is set")
	}
	if s.WSPort != 0 && s.WSPort == *s.RPCPort && (s.WSHost == s.RPCHost || everyHost(s.WSHost) || everyHost(s.RPCHost)) {
		v.fault(at.with("ws_port"), "is the RPC port too, which takes WebSocket connections anyhow: remove it, or choose another")
	}
	if s.WSPort != 0 && v.c.Metrics.Enabled && s.WSPort == v.c.Metrics.Port && (s.WSHost == v.c.Metrics.Host || everyHost(s.WSHost) || everyHost(v.c.Metrics.Host)) {
		v.fault(at.with("ws_port"), "is the port of metrics too: choose another")
	}
	for key, n := range map[string]int{
		"max_client_ws_conns": s.MaxClientWSConns, "max_ws_conns_per_client": s.MaxWSConnsPerClient,
	} {
		notNegative(v, at.with(key), n)
	}
	for key, n := range map[string]int{"max_ws_subscriptions": s.MaxWSSubscriptions, "ws_replay_blocks": s.WSReplayBlocks} {
		if n < 1 {
			v.fault(at.with(key), "must be at least 1")
		}
	}
	notNegative(v, at.with("ws_head_stall"), s.WSHeadStall)
	for key, d := range map[string]Duration{"ws_ping_interval": s.WSPingInterval, "ws_poll_interval": s.WSPollInterval} {
		if d <= 0 {
			v.fault(at.with(key), "must be longer than zero")
		}
	}
	if gaps := []string{"close", "count"}; !slices.Contains(gaps, s.WSGap) {
		v.fault(at.with("ws_gap"), "%q is not known: must be close or count", s.WSGap)
	}
	f := v.c.Filters
	if modes := []string{"backend", "gateway"}; !slices.Contains(modes, f.Mode) {
		v.fault(path{"filters", "mode"}, "%q is not known: must be backend or gateway", f.Mode)
	}
	if f.Expiry <= 0 {
		v.fault(path{"filters", "expiry"}, "must be longer than zero")
	}
	if f.MaxPerClient < 1 {
		v.fault(path{"filters", "max_per_client"}, "must be at least 1")
	}
}

// socketKeys need a chain that serves WebSocket connections.
var socketKeys = []string{
	"max_concurrent_ws_rpcs", "max_client_ws_conns", "max_ws_conns_per_client", "max_ws_subscriptions", "ws_ping_interval", "ws_head_stall",
	"ws_replay_blocks", "ws_poll_interval", "ws_gap", "allow_all_origins",
}

// followed reports whether a backend is in a group for WebSocket connections.
func (c *Config) followed(backend string) bool {
	return slices.ContainsFunc(c.scopes(), func(s scope) bool {
		return slices.Contains(s.BackendGroups[s.WSBackendGroup].Backends, backend)
	})
}

// servesSockets reports whether a chain has a group for WebSocket connections.
func (c *Config) servesSockets() bool {
	return slices.ContainsFunc(c.scopes(), func(s scope) bool { return s.WSBackendGroup != "" })
}
