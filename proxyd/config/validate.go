package config

import (
	"maps"
	"math"
	"math/big"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

// Refuse is the group name in rpc_method_mappings that takes a method out of a
// pattern.
const Refuse = "refuse"

// Strategies are the routing strategies that a group may name.
var Strategies = []string{
	"fallback", "sticky", "ranked", "least_used", "scored", "round_robin", "random", "multicall",
	"consensus_aware", "consensus_aware_consensus_layer",
}

type validator struct {
	*findings
	c       *Config
	defined map[string]bool
	leaves  []setKey
	table   *jsonrpc.Table // with the operator's rows
}

func (v *validator) validate() {
	v.methods()
	v.server()
	v.authentication()
	v.backends()
	v.chains()
	v.health()
	v.cache()
	v.rateLimit()
	v.errorRules()
	v.numbers()
}

func (v *validator) server() {
	s := v.c.Server
	at := path{"server"}
	if !v.defined["server.rpc_port"] {
		v.warn(at.with("rpc_port"), "not set: listening on %s; 0 turns the listener off", net.JoinHostPort(s.RPCHost, "8545"))
	}
	v.port(at.with("rpc_port"), *s.RPCPort)
	v.port(at.with("ws_port"), s.WSPort)
	v.port(path{"metrics", "port"}, v.c.Metrics.Port)
	if v.c.Metrics.Enabled && !v.defined["metrics.port"] {
		v.warn(path{"metrics"}, "enabled without a port: a free one is taken and logged at start")
	}
	if p := *s.RPCPort; p != 0 && p == v.c.Metrics.Port && v.c.Metrics.Enabled && (s.RPCHost == v.c.Metrics.Host || everyHost(s.RPCHost) || everyHost(v.c.Metrics.Host)) {
		v.fault(path{"metrics", "port"}, "is the RPC port too: choose another")
	}
	if _, port, err := net.SplitHostPort(s.PprofAddr); err != nil || !isPort(port) {
		v.fault(at.with("pprof_addr"), "must be a host and a port, like 127.0.0.1:6060")
	}
	if _, ok := LogLevels[strings.ToLower(s.LogLevel)]; s.LogLevel != "" && !ok {
		v.warn(at.with("log_level"), "%q is not a level: info is used; the levels are trace, debug, info, warn, error, crit", s.LogLevel)
	}
	for i, cidr := range s.TrustedProxies {
		if _, err := ParsePrefix(cidr); err != nil {
			v.fault(at.with("trusted_proxies", index(i)), "%q is neither an address nor a network like 10.0.0.0/8", cidr)
		}
	}
	if r := v.c.RateLimit; r.Key != "alias" && len(s.TrustedProxies) == 0 && (r.BaseRate > 0 || len(r.MethodOverrides) > 0) {
		v.warn(at.with("trusted_proxies"), "not set: rate limits believe the first entry of the forwarding header, which any client can choose")
	}
	// An empty list means everything to the CORS library.
	for key, list := range map[string][]string{"cors_allowed_origins": s.CORSAllowedOrigins, "cors_allowed_methods": s.CORSAllowedMethods, "cors_allowed_headers": s.CORSAllowedHeaders} {
		if len(list) == 0 {
			v.fault(at.with(key), "must not be empty: leave it out for the default")
		}
	}
	for i, o := range s.CORSAllowedOrigins {
		if o == "" {
			v.fault(at.with("cors_allowed_origins", index(i)), "is empty: write an origin like https://app.example, or *")
		}
	}
	if s.WriteTimeout > 0 && s.WriteTimeout < s.Timeout {
		v.warn(at.with("write_timeout"), "is shorter than timeout_seconds: slow calls are cut off without an answer")
	}
}

// everyHost reports whether a listener's host stands for every address.
func everyHost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n <= 65535
}

func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

// ParsePrefix reads an address or a network.
func ParsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

func (v *validator) port(at path, port int) {
	if port < 0 || port > 65535 {
		v.fault(at, "must be between 0 and 65535")
	}
}

func didYouMean[T any](name string, known map[string]T) string {
	if near := nearest(name, slices.Collect(maps.Keys(known))); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

func (v *validator) authentication() {
	at := path{"authentication"}
	for key, alias := range v.c.Authentication {
		at := at.with(key)
		if _, ok := v.c.Chains[key]; ok {
			v.fault(at, "a key is the name of the chain %s, which is served at that path: choose another key or another name", key)
		}
		switch {
		case key == "none":
			v.fault(at, "no key may be the word none, which stands for clients without a key")
		case key == "":
			v.fault(at, "a key is empty")
		case strings.ContainsAny(key, "/?#% "):
			v.warn(at, "a key has a character that cannot stand in a URL path; clients can only send it as a header")
		}
		switch alias {
		case "":
			v.warn(at, "a key without an alias is refused: give it a name to be counted and logged by")
		case "none":
			v.warn(at, "the alias none is that of clients without a key: they are counted together")
		}
	}
}

func notNegative[T int | int64 | float64 | Duration](v *validator, at path, n T) {
	switch f := float64(n); {
	case n < 0:
		v.fault(at, "must not be negative")
	case math.IsNaN(f) || math.IsInf(f, 0):
		v.fault(at, "must be a finite number")
	}
}

// atLeast checks a number that must not be smaller.
func atLeast[T int | float64 | Duration](v *validator, at path, n, least T) {
	switch {
	case !(n >= least):
		v.fault(at, "must be at least %v", least)
	case math.IsInf(float64(n), 0):
		v.fault(at, "must be a finite number")
	}
}

func (v *validator) cache() {
	c := v.c.Cache
	notNegative(v, path{"cache", "ttl"}, c.TTL)
	notNegative(v, path{"cache", "max_size_bytes"}, c.MaxSizeBytes)
	if c.Enabled && c.MaxSizeBytes == 0 {
		v.warn(path{"cache", "max_size_bytes"}, "is 0: nothing is kept")
	}
	for i, m := range c.Coalesce {
		at := path{"cache", "coalesce", index(i)}
		if err := jsonrpc.CheckPattern(m); err != nil {
			v.fault(at, "%v", err)
		} else if row, _ := v.table.Lookup(m); !row.Coalesce && !strings.HasSuffix(m, "*") {
			v.fault(at, "%s is not a read that may be shared", m)
		}
	}
	for i, r := range c.Rules {
		at := path{"cache", "rules", index(i)}
		if len(r.Methods) == 0 {
			v.fault(at.with("methods"), "must name at least one method")
		}
		if r.TTL <= 0 {
			v.fault(at.with("ttl"), "must be longer than zero, like \"500ms\"")
		}
		for j, m := range r.Methods {
			at := at.with("methods", index(j))
			if err := jsonrpc.CheckPattern(m); err != nil {
				v.fault(at, "%v", err)
			} else if row, _ := v.table.Lookup(m); !row.Cacheable && !strings.HasSuffix(m, "*") {
				v.fault(at, "%s is not a read that may be cached; if it is on your chain, say so with [methods.%s] class = \"read\"", m, m)
			}
		}
	}
}

func (v *validator) rateLimit() {
	r := v.c.RateLimit
	at := path{"rate_limit"}
	notNegative(v, at.with("base_rate"), r.BaseRate)
	notNegative(v, at.with("base_interval"), r.BaseInterval)
	for i, expr := range r.ExemptOrigins {
		v.regexp(at.with("exempt_origins", index(i)), expr)
	}
	for i, expr := range r.ExemptUserAgents {
		v.regexp(at.with("exempt_user_agents", index(i)), expr)
	}
	if !slices.Contains([]string{"address", "alias", "both"}, r.Key) {
		v.fault(at.with("key"), "must be one of address, alias, both")
	}
	if r.MaxKeys <= 0 {
		v.fault(at.with("max_keys"), "must be at least 1")
	}
	for _, method := range slices.Sorted(maps.Keys(r.MethodOverrides)) {
		o, at := r.MethodOverrides[method], at.with("method_overrides", method)
		if err := jsonrpc.CheckPattern(method); err != nil {
			v.fault(at, "%v", err)
		}
		notNegative(v, at.with("limit"), o.Limit)
		if !v.defined[at.with("limit").String()] {
			v.warn(at.with("limit"), "is not set: every call is refused, as with 0")
		}
		notNegative(v, at.with("interval"), o.Interval)
	}
}

func (v *validator) regexp(at path, expr string) {
	if _, err := regexp.Compile(expr); err != nil {
		v.fault(at, "is not a regular expression: %v", err)
	}
}

// methods checks the operator's rows for the method table and builds it.
func (v *validator) methods() {
	rows := map[string]Method{} // those without faults, so that the rest is checked all the same
	for _, name := range slices.Sorted(maps.Keys(v.c.Methods)) {
		at := path{"methods", name}
		badName := jsonrpc.CheckPattern(name)
		if badName != nil {
			v.fault(at, "%v", badName)
		}
		_, err := v.c.Methods[name].Row()
		if err != nil && !v.touchesUnread(at) {
			v.fault(at, "%v", err)
		}
		if badName == nil && err == nil {
			rows[name] = v.c.Methods[name]
		}
	}
	table, err := jsonrpc.NewTable(rows)
	if err != nil {
		v.fault(path{"methods"}, "%v", err)
		table = new(jsonrpc.Table)
	}
	v.table = table
}

// isRead reports whether the method table has a method as a read.
func (v *validator) isRead(method string) bool {
	row, _ := v.table.Lookup(method)
	return row.Class == jsonrpc.Read
}

func (v *validator) errorRules() {
	for i, r := range v.c.ErrorRules {
		at := path{"error_rules", index(i)}
		if r.Match == "" && r.Code == nil && r.Status == 0 && r.Backend == "" {
			v.fault(at, "needs a condition: match, code, status or backend")
		}
		if !slices.Contains(classify.Classes(), r.Class) {
			v.fault(at.with("class"), "must be one of %s", strings.Join(classify.Classes(), ", "))
		}
		if err := classify.CheckMatch(r.Match); err != nil {
			v.fault(at.with("match"), "%v", err)
		}
		if r.Status != 0 && (r.Status < 100 || r.Status > 599) {
			v.fault(at.with("status"), "%d is not an HTTP status", r.Status)
		}
		if _, ok := v.c.Backends[r.Backend]; r.Backend != "" && !ok {
			v.fault(at.with("backend"), "there is no backend %q%s", r.Backend, didYouMean(r.Backend, v.c.Backends))
		}
	}
}

// numbers checks what must not be negative, and ranges.
func (v *validator) numbers() {
	s := v.c.Server
	for key, d := range map[string]Duration{
		"timeout_seconds": s.Timeout, "graceful_shutdown_seconds": s.GracefulShutdown, "shutdown_timeout": s.ShutdownTimeout,
		"read_header_timeout": s.ReadHeaderTimeout, "read_timeout": s.ReadTimeout, "write_timeout": s.WriteTimeout,
		"idle_timeout": s.IdleTimeout, "queue_timeout": s.QueueTimeout, "cors_max_age": s.CORSMaxAge,
	} {
		notNegative(v, path{"server", key}, d)
	}
	for key, n := range map[string]int64{
		"max_body_size_bytes": s.MaxBodySizeBytes, "max_concurrent_rpcs": s.MaxConcurrentRPCs, "max_upstream_batch_size": int64(s.MaxUpstreamBatchSize),
		"max_request_body_log_len": int64(s.MaxRequestBodyLogLen),
		"max_streams_per_client":   int64(s.MaxStreamsPerClient),
	} {
		notNegative(v, path{"server", key}, n)
	}
	b, at := v.c.Backend, path{"backend"}
	notNegative(v, at.with("response_timeout_seconds"), b.ResponseTimeout)
	notNegative(v, at.with("response_timeout_milliseconds"), b.ResponseTimeoutMS)
	notNegative(v, at.with("max_response_size_bytes"), b.MaxResponseSize)
	notNegative(v, at.with("max_retries"), b.MaxRetries)
	notNegative(v, at.with("out_of_service_seconds"), b.OutOfService)
	notNegative(v, at.with("max_degraded_latency_threshold"), b.MaxDegradedLatency)
	notNegative(v, at.with("max_latency_threshold"), b.MaxLatency)
	notNegative(v, at.with("max_error_rate_threshold"), b.MaxErrorRate)
	if b.DialTimeout <= 0 {
		v.fault(at.with("dial_timeout"), "must be longer than zero")
	}
	if b.OutOfServiceAfter < 1 {
		v.fault(at.with("out_of_service_after"), "must be at least 1")
	}
	if b.MaxErrorRate > 1 {
		v.warn(at.with("max_error_rate_threshold"), "is more than 1, the rate of a backend that always fails: it is never reached")
	}
	notNegative(v, path{"batch", "max_size"}, v.c.Batch.MaxSize)
	if v.c.Batch.MaxSize > MaxBatchSize {
		v.warn(path{"batch", "max_size"}, "is more than %d, which is used", MaxBatchSize)
		v.c.Batch.MaxSize = MaxBatchSize
	}
	for _, r := range []struct {
		at path
		SenderRateLimit
	}{{path{"sender_rate_limit"}, v.c.SenderRateLimit}} {
		if r.Enabled && r.Interval < Duration(time.Second) {
			v.fault(r.at.with("interval"), "must be at least 1s when enabled")
		}
		if r.Enabled && r.Limit <= 0 {
			v.fault(r.at.with("limit"), "must be greater than 0 when enabled")
		}
	}
	if i := v.c.InteropValidation; i.MinResponses < 0 || i.MinResponses > len(i.URLs) {
		v.fault(path{"interop_validation", "min_responses"}, "must be between 1 and the number of urls")
	}
	for i, u := range v.c.InteropValidation.URLs {
		v.url(path{"interop_validation", "urls", index(i)}, u, "http", "https")
	}
	for i, id := range append(slices.Clone(v.c.SenderRateLimit.AllowedChainIDs), v.c.InteropValidation.SenderRateLimit.AllowedChainIDs...) {
		at := path{"sender_rate_limit", "allowed_chain_ids", index(i)}
		if n := len(v.c.SenderRateLimit.AllowedChainIDs); i >= n {
			at = path{"interop_validation", "sender_rate_limit", "allowed_chain_ids", index(i - n)}
		}
		switch id := id.(type) {
		case int64:
			notNegative(v, at, id)
		case string:
			if _, ok := new(big.Int).SetString(id, 0); !ok {
				v.fault(at, "must be a chain id")
			}
		default:
			v.fault(at, "must be a chain id")
		}
	}
	notNegative(v, path{"interop_validation", "load_balancing_unhealthiness_timeout"}, v.c.InteropValidation.UnhealthinessTimeout)
	notNegative(v, path{"interop_validation", "req_size_limit"}, v.c.InteropValidation.ReqSizeLimit)
	notNegative(v, path{"interop_validation", "access_list_size_limit"}, v.c.InteropValidation.AccessListSizeLimit)
	notNegative(v, path{"tx_validation_middleware", "timeout_seconds"}, v.c.TxValidation.Timeout)
	strategies := []string{"agreement", "first-filter", "first-supervisor", "multicall", "health-aware-load-balancing"}
	if s := v.c.InteropValidation.Strategy; !slices.Contains(strategies, s) {
		v.fault(path{"interop_validation", "strategy"}, "%q is not a strategy: must be one of %s", s, strings.Join(strategies, ", "))
	}
	switch t, at := v.c.TxValidation, (path{"tx_validation_middleware", "endpoint"}); {
	case t.Endpoint != "":
		v.url(at, t.Endpoint, "http", "https")
	case t.Enabled:
		v.fault(at, "is required when enabled")
	}
}
