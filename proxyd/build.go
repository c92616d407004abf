package proxyd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/cache"
	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/config"
	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/jsonrpc"
	"gateway.internal/proxyd/ratelimit"
	"gateway.internal/proxyd/server"
)

// graph is what a configuration becomes: the objects that answer calls. Building
// it starts nothing and dials nobody.
type graph struct {
	backends []*backend.Backend
	groups   []*group.Group // sorted by name
	cache    *cache.Cache
	front    *server.Server
}

// metrics are the series of all packages, registered once.
type metrics struct {
	backend   *backend.Metrics
	group     *group.Metrics
	cache     *cache.Metrics
	ratelimit *ratelimit.Metrics
	server    *server.Metrics
	registry  prometheus.Registerer
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		backend: backend.NewMetrics(reg), group: group.NewMetrics(reg), cache: cache.NewMetrics(reg),
		ratelimit: ratelimit.NewMetrics(reg), server: server.NewMetrics(reg), registry: reg,
	}
}

// builder translates a configuration into the options of each package.
type builder struct {
	c       *config.Config
	o       Options
	metrics *metrics
	log     *slog.Logger
}

func (b *builder) build() (*graph, error) {
	table, err := jsonrpc.NewTable(b.c.Methods)
	if err != nil {
		return nil, err
	}
	g := &graph{}
	byName, err := b.backends(g)
	if err != nil {
		return nil, err
	}
	groups, err := b.groups(g, byName)
	if err != nil {
		return nil, err
	}
	g.cache = b.cache()
	limits, err := b.limiter()
	if err != nil {
		return nil, err
	}
	routes := server.NewRoutes(table)
	targets := make(map[string]*server.Target, len(groups))
	for name, gr := range groups {
		targets[name] = &server.Target{Group: name, Handler: jsonrpc.Chain(gr, limits, g.cache.Middleware)}
	}
	for method, name := range b.c.RPCMethodMappings {
		if name == config.Refuse {
			routes.Map(method, &server.Target{})
			continue
		}
		t, ok := targets[name]
		if !ok {
			return nil, fmt.Errorf("rpc_method_mappings.%s: there is no backend group %q", method, name)
		}
		routes.Map(method, t)
	}
	g.front, err = b.front(routes, g)
	return g, err
}

func (b *builder) backends(g *graph) (map[string]*backend.Backend, error) {
	rules := make([]classify.OperatorRule, len(b.c.ErrorRules))
	for i, r := range b.c.ErrorRules {
		rules[i] = classify.OperatorRule{Match: r.Match, Code: r.Code, Status: r.Status, Backend: r.Backend, Class: r.Class}
	}
	errorTable, err := classify.New(rules)
	if err != nil {
		return nil, err
	}
	var slots *backend.Slots
	// More slots than sockets are no limit; the incumbent's largest number is.
	if n := b.c.Server.MaxConcurrentRPCs; n > 0 && n < 1<<20 && !b.c.Server.DisableSemaphore {
		slots = backend.NewSlots(int(n), b.c.Server.QueueTimeout.D())
	}
	accounts := map[string]*backend.Account{}
	byName := make(map[string]*backend.Backend, len(b.c.Backends))
	d := b.c.Backend
	for _, name := range slices.Sorted(maps.Keys(b.c.Backends)) {
		c := b.c.Backends[name]
		tlsConfig, err := tlsConfig(c)
		if err != nil {
			return nil, fmt.Errorf("backend %s: %w", name, err)
		}
		if c.Provider != "" && accounts[c.Provider] == nil {
			accounts[c.Provider] = new(backend.Account)
		}
		headers := make(map[string]string, len(c.Headers))
		for k, v := range c.Headers {
			headers[k] = v.Reveal()
		}
		timeout, retries := d.ResponseTimeout, d.MaxRetries
		if c.ResponseTimeoutMS > 0 {
			timeout = c.ResponseTimeoutMS
		}
		if c.MaxRetries != nil {
			retries = *c.MaxRetries
		}
		be, err := backend.New(backend.Options{
			Name: name, URL: c.RPCURL.Reveal(), Username: c.Username.Reveal(), Password: c.Password.Reveal(), Headers: headers, TLS: tlsConfig,
			StripTrailingXFF: c.StripTrailingXFF, ProxyIP: b.o.ProxyIP, Gzip: c.Gzip, HTTP2: c.HTTP2,
			ResponseTimeout: timeout.D(), DialTimeout: d.DialTimeout.D(), MaxResponseSize: d.MaxResponseSize,
			AllowedStatuses: c.AllowedStatusCodes, MaxRetries: retries, MaxRPS: c.MaxRPS, MaxRPSStrict: c.MaxRPSStrict,
			OutAfter: d.OutOfServiceAfter, OutFor: d.OutOfService.D(), MaxErrorRate: d.MaxErrorRate, MaxLatency: d.MaxLatency.D(),
			DegradedLatency: d.MaxDegradedLatency.D(), Account: accounts[c.Provider], Slots: slots, Classify: errorTable,
			Metrics: b.metrics.backend, Log: b.log,
		})
		if err != nil {
			return nil, err
		}
		byName[name] = be
		g.backends = append(g.backends, be)
	}
	return byName, nil
}

// tlsConfig returns the TLS settings of a backend, nil for the system's.
func tlsConfig(c config.Backend) (*tls.Config, error) {
	if c.CAFile == "" && c.ClientCertFile == "" {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no certificate", c.CAFile)
		}
	}
	if c.ClientCertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.ClientCertFile, c.ClientKeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func (b *builder) groups(g *graph, byName map[string]*backend.Backend) (map[string]*group.Group, error) {
	groups := make(map[string]*group.Group, len(b.c.BackendGroups))
	for _, name := range slices.Sorted(maps.Keys(b.c.BackendGroups)) {
		c := b.c.BackendGroups[name]
		members := make([]*group.Member, 0, len(c.Backends))
		for _, n := range c.Backends {
			be, ok := byName[n]
			if !ok {
				return nil, fmt.Errorf("backend_groups.%s: there is no backend %q", name, n)
			}
			m := &group.Member{Backend: be, Weight: b.c.Backends[n].Weight}
			if slices.Contains(c.Fallbacks, n) {
				m.Tier = 1
			}
			members = append(members, m)
		}
		strategy := c.RoutingStrategy
		if config.Inactive(strategy) {
			strategy = "" // the operator was told at the start
		}
		gr, err := group.New(group.Options{
			Name: name, Members: members, Strategy: strategy, Weighted: c.WeightedRouting, MaxBatch: b.c.Server.MaxUpstreamBatchSize,
			MaxAttempts: c.MaxAttempts, MaxRetries: c.RetryCount, RetryDelay: (*time.Duration)(c.RetryDelay), Metrics: b.metrics.group, Log: b.log,
		})
		if err != nil {
			return nil, err
		}
		groups[name] = gr
		g.groups = append(g.groups, gr)
	}
	return groups, nil
}

func (b *builder) cache() *cache.Cache {
	c := b.c.Cache
	o := cache.Options{
		TTL: c.TTL.D(), Coalesce: c.Coalesce, MaxBatch: b.c.Server.MaxUpstreamBatchSize, Metrics: b.metrics.cache, Log: b.log,
		// A little less than a client has, so that what was answered in time
		// reaches it.
		Timeout: b.c.Server.Timeout.D() * 49 / 50,
	}
	if c.Enabled && c.MaxSizeBytes > 0 {
		memory := cache.NewMemory(c.MaxSizeBytes)
		cache.WatchSize(b.metrics.registry, memory)
		o.Store = memory
	}
	for _, r := range c.Rules {
		for _, m := range r.Methods {
			o.Rules = append(o.Rules, cache.Rule{Method: m, TTL: r.TTL.D()})
		}
	}
	return cache.New(o)
}

// limiter returns the rate limit stage, nil when there is no limit.
func (b *builder) limiter() (jsonrpc.Middleware, error) {
	c := b.c.RateLimit
	methods := make(map[string]ratelimit.Limit, len(c.MethodOverrides))
	for m, o := range c.MethodOverrides {
		methods[m] = ratelimit.Limit{Calls: o.Limit, Interval: o.Interval.D(), Global: o.Global, Shared: o.Shared}
	}
	origins, err := compile(c.ExemptOrigins)
	if err != nil {
		return nil, err
	}
	agents, err := compile(c.ExemptUserAgents)
	if err != nil {
		return nil, err
	}
	l := ratelimit.New(ratelimit.Options{
		Base:    ratelimit.Limit{Calls: c.BaseRate, Interval: c.BaseInterval.D(), Shared: c.Shared},
		Methods: methods, Key: ratelimit.Key(c.Key), ExemptOrigins: origins, ExemptUserAgents: agents,
		Store: ratelimit.NewMemory(c.MaxKeys), Metrics: b.metrics.ratelimit, Log: b.log,
	})
	if !l.Limits() {
		return nil, nil
	}
	return l.Middleware, nil
}

func compile(exprs []string) ([]*regexp.Regexp, error) {
	out := make([]*regexp.Regexp, len(exprs))
	for i, expr := range exprs {
		re, err := regexp.Compile(expr)
		if err != nil {
			return nil, err
		}
		out[i] = re
	}
	return out, nil
}

func (b *builder) front(routes *server.Routes, g *graph) (*server.Server, error) {
	c := b.c.Server
	trusted := make([]netip.Prefix, len(c.TrustedProxies))
	for i, text := range c.TrustedProxies {
		p, err := config.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("server.trusted_proxies: %w", err)
		}
		trusted[i] = p
	}
	logBodies := 0
	if c.EnableRequestLog {
		logBodies = c.MaxRequestBodyLogLen
	}
	return server.New(server.Options{
		Routes: routes, Ready: g.ready,
		Keys: b.c.Authentication, APIKeys: b.o.APIKeys, PublicAccess: c.PublicAccess,
		AddressHeader: b.c.RateLimit.IPHeaderOverride, TrustedProxies: trusted,
		MaxBody: c.MaxBodySizeBytes, MaxBatch: b.c.Batch.MaxSize, Timeout: c.Timeout.D(), Gzip: c.Gzip,
		WriteTimeout: c.WriteTimeout.D(), MaxStreams: c.MaxStreamsPerClient,
		CORS:     server.CORS{Origins: c.CORSAllowedOrigins, Methods: c.CORSAllowedMethods, Headers: c.CORSAllowedHeaders, MaxAge: c.CORSMaxAge.D()},
		ServedBy: c.EnableServedByHeader, LogBodies: logBodies,
		WhitelistMessage: b.c.WhitelistErrorMessage, BatchMessage: b.c.Batch.ErrorMessage, RateLimitMessage: b.c.RateLimit.ErrorMessage,
		Metrics: b.metrics.server, Log: b.log,
	}), nil
}
