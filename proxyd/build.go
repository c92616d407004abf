package proxyd

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"regexp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/cache"
	"gateway.internal/proxyd/config"
	"gateway.internal/proxyd/filters"
	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/jsonrpc"
	"gateway.internal/proxyd/probe"
	"gateway.internal/proxyd/ratelimit"
	"gateway.internal/proxyd/server"
	"gateway.internal/proxyd/subscribe"
)

// graph is what a configuration becomes: the objects that answer calls. Building
// it starts nothing and dials nobody.
type graph struct {
	backends []*backend.Backend
	groups   []groupOf // sorted by chain and name
	caches   []*cache.Cache
	probers  []*probe.Prober
	hubs     []*subscribe.Hub
	front    *server.Server
}

// groupOf is a group and the chain that it serves, "" for the top level's.
type groupOf struct {
	*group.Group
	chain string
}

// metrics are the series of all packages for one chain, registered once.
type metrics struct {
	backend   *backend.Metrics
	group     *group.Metrics
	cache     *cache.Metrics
	probe     *probe.Metrics
	ratelimit *ratelimit.Metrics
	server    *server.Metrics
	subscribe *subscribe.Metrics
	filters   *filters.Metrics
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		backend: backend.NewMetrics(reg), group: group.NewMetrics(reg), cache: cache.NewMetrics(reg),
		ratelimit: ratelimit.NewMetrics(reg), probe: probe.NewMetrics(reg), server: server.NewMetrics(reg),
		subscribe: subscribe.NewMetrics(reg), filters: filters.NewMetrics(reg),
	}
}

// builder translates a configuration into the options of each package.
type builder struct {
	c        *config.Config
	o        Options
	registry prometheus.Registerer
	log      *slog.Logger

	metrics map[string]*metrics // by chain
	byName  map[string]*backend.Backend
	chainOf map[string]string // of each backend
	memory  cache.Store       // nil for none; all chains share it
	limits  *ratelimit.Memory
}

func newBuilder(c *config.Config, o Options, reg prometheus.Registerer) *builder {
	b := &builder{c: c, o: o, registry: reg, log: o.Log, metrics: make(map[string]*metrics), chainOf: make(map[string]string)}
	b.metrics[""] = newMetrics(b.labelled(""))
	for name := range c.Chains {
		b.metrics[name] = newMetrics(b.labelled(name))
	}
	return b
}

// labelled returns the registry for one chain's series: they have a label chain
// only when there are chains beside the top level.
func (b *builder) labelled(chain string) prometheus.Registerer {
	if len(b.c.Chains) == 0 {
		return b.registry
	}
	return prometheus.WrapRegistererWith(prometheus.Labels{"chain": chain}, b.registry)
}

// chains are all chains by name, the top level's as "".
func (b *builder) chains() map[string]config.Chain {
	chains := map[string]config.Chain{"": {
		ChainID: b.c.ChainID, RPCMethodMappings: b.c.RPCMethodMappings, BackendGroups: b.c.BackendGroups,
		WSBackendGroup: b.c.WSBackendGroup, WSMethodWhitelist: b.c.WSMethodWhitelist,
	}}
	maps.Copy(chains, b.c.Chains)
	return chains
}

func (b *builder) build() (*graph, error) {
	table, err := jsonrpc.NewTable(b.c.Methods)
	if err != nil {
		return nil, err
	}
	g := &graph{}
	chains := b.chains()
	for name, chain := range chains {
		for _, gr := range chain.BackendGroups {
			for _, n := range gr.Backends {
				b.chainOf[n] = name
			}
		}
	}
	if err := b.backends(g, chains); err != nil {
		return nil, err
	}
	if c := b.c.Cache; c.Enabled && c.MaxSizeBytes > 0 {
		memory := cache.NewMemory(c.MaxSizeBytes)
		cache.WatchSize(b.labelled(""), memory)
		b.memory = memory
	}
	b.limits = ratelimit.NewMemory(b.c.RateLimit.MaxKeys)
	routes := make(map[string]routes, len(chains))
	for _, name := range slices.Sorted(maps.Keys(chains)) {
		if routes[name], err = b.chain(g, table, name, chains[name]); err != nil {
			return nil, err
		}
	}
	if g.probers, err = b.probers(g); err != nil {
		return nil, err
	}
	g.front, err = b.front(routes, g)
	return g, err
}

// routes are the ways of one chain's calls over HTTP and over WebSocket; the latter
// nil for a chain without.
type routes struct{ http, socket *server.Routes }

// chain builds what one chain's calls go through, and says which way they go.
func (b *builder) chain(g *graph, table *jsonrpc.Table, name string, c config.Chain) (r routes, err error) {
	groups, err := b.groups(g, name, c.BackendGroups)
	if err != nil {
		return r, err
	}
	answers := b.cache(name)
	g.caches = append(g.caches, answers)
	limits, err := b.limiter(name)
	if err != nil {
		return r, err
	}
	r.http = server.NewRoutes(table)
	kept := b.filters(name, table)
	targets := make(map[string]*server.Target, len(groups))
	for name, gr := range groups {
		targets[name] = &server.Target{Group: name, Handler: jsonrpc.Chain(gr, limits, answers.Middleware, kept.Middleware)}
	}
	for method, group := range c.RPCMethodMappings {
		if group == config.Refuse {
			r.http.Map(method, &server.Target{})
			continue
		}
		t, ok := targets[group]
		if !ok {
			return r, fmt.Errorf("rpc_method_mappings.%s: there is no backend group %q", method, group)
		}
		r.http.Map(method, t)
	}
	if c.WSBackendGroup == "" {
		return r, nil
	}
	gr, ok := groups[c.WSBackendGroup]
	if !ok {
		return r, fmt.Errorf("ws_backend_group: there is no backend group %q", c.WSBackendGroup)
	}
	hub := b.hub(name, gr)
	g.hubs = append(g.hubs, hub)
	subscriptions := &server.Target{Group: c.WSBackendGroup, Handler: jsonrpc.Chain(hub, limits)}
	r.socket = r.http.OverWebSocket(c.WSMethodWhitelist, targets[c.WSBackendGroup], subscriptions)
	return r, nil
}

// filters returns what serves one chain's filters.
func (b *builder) filters(chain string, table *jsonrpc.Table) *filters.Filters {
	var backends []string
	for name := range b.c.Backends {
		if b.chainOf[name] == chain {
			backends = append(backends, name)
		}
	}
	slices.Sort(backends)
	c := b.c.Filters
	return filters.New(filters.Options{
		Mode: filters.Mode(c.Mode), Backends: backends, Expiry: c.Expiry.D(), MaxPerClient: c.MaxPerClient, Table: table,
		Metrics: b.metrics[chain].filters, Log: b.chainLog(chain),
	})
}

// hub returns what serves one chain's subscriptions.
func (b *builder) hub(chain string, gr *group.Group) *subscribe.Hub {
	c := b.c.Server
	return subscribe.New(subscribe.Options{
		Group: gr, PollInterval: c.WSPollInterval.D(), HeadStall: c.WSHeadStall.D(), ReplayBlocks: c.WSReplayBlocks, CountGaps: c.WSGap == "count",
		MaxPerSession: c.MaxWSSubscriptions, Metrics: b.metrics[chain].subscribe, Log: b.chainLog(chain),
	})
}

func (b *builder) cache(chain string) *cache.Cache {
	c := b.c.Cache
	o := cache.Options{
		TTL: c.TTL.D(), Coalesce: c.Coalesce, MaxBatch: b.c.Server.MaxUpstreamBatchSize, Metrics: b.metrics[chain].cache, Log: b.chainLog(chain),
		// A little less than a client has, so that what was answered in time
		// reaches it.
		Timeout: b.c.Server.Timeout.D() * 49 / 50,
	}
	if b.memory != nil {
		o.Store = b.memory
	}
	if chain != "" {
		o.Namespace = chain + "/"
	}
	for _, r := range c.Rules {
		for _, m := range r.Methods {
			o.Rules = append(o.Rules, cache.Rule{Method: m, TTL: r.TTL.D()})
		}
	}
	return cache.New(o)
}

// limiter returns the rate limit stage, nil when there is no limit.
func (b *builder) limiter(chain string) (jsonrpc.Middleware, error) {
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
		Store: b.limits, Metrics: b.metrics[chain].ratelimit, Log: b.chainLog(chain),
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

func (b *builder) front(routes map[string]routes, g *graph) (*server.Server, error) {
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
	top := routes[""]
	if len(b.c.RPCMethodMappings) == 0 {
		top.http = nil
	}
	chains := make(map[string]server.Chain, len(b.c.Chains))
	for name := range b.c.Chains {
		chains[name] = server.Chain{Routes: routes[name].http, WSRoutes: routes[name].socket, Metrics: b.metrics[name].server}
	}
	return server.New(server.Options{
		Routes: top.http, WSRoutes: top.socket, Chains: chains, Ready: g.ready,
		Keys: b.c.Authentication, APIKeys: b.o.APIKeys, PublicAccess: c.PublicAccess,
		AddressHeader: b.c.RateLimit.IPHeaderOverride, TrustedProxies: trusted,
		MaxBody: c.MaxBodySizeBytes, MaxBatch: b.c.Batch.MaxSize, Timeout: c.Timeout.D(), Gzip: c.Gzip,
		WriteTimeout: c.WriteTimeout.D(), MaxStreams: c.MaxStreamsPerClient,
		CORS: server.CORS{Origins: c.CORSAllowedOrigins, Methods: c.CORSAllowedMethods, Headers: c.CORSAllowedHeaders, MaxAge: c.CORSMaxAge.D()},
		Sockets: server.Sockets{
			MaxCalls: int(max(0, c.MaxConcurrentWSRPCs)), Max: c.MaxClientWSConns, MaxPerClient: c.MaxWSConnsPerClient,
			PingInterval: c.WSPingInterval.D(), AllowAllOrigins: c.AllowAllOrigins,
		},
		ServedBy: c.EnableServedByHeader, LogBodies: logBodies,
		WhitelistMessage: b.c.WhitelistErrorMessage, BatchMessage: b.c.Batch.ErrorMessage, RateLimitMessage: b.c.RateLimit.ErrorMessage,
		Metrics: b.metrics[""].server, Log: b.log,
	}), nil
}
