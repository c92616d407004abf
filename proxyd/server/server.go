// Package server is the front: it reads HTTP requests, says who asks, routes each
// call to its handler, and writes the answers.
package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/rs/cors"

	"gateway.internal/proxyd/jsonrpc"
)

// Options configures a Server. Zero values mean the stated default.
type Options struct {
	// Routes says who answers which method at / and /{key}; nil when every path
	// must name a chain. WSRoutes says so for WebSocket connections there; nil
	// refuses them.
	Routes, WSRoutes *Routes
	// Chains are the chains served at /NAME and /NAME/{key}, beside the one of
	// Routes. With any of them, /{key} is served only for one of Keys.
	Chains map[string]Chain
	// Ready reports whether calls can be served, with a text for each group;
	// strict asks for every group. Required.
	Ready func(strict bool) (ok bool, groups []GroupStatus)

	// Keys are the keys that clients may show, with their aliases; none means
	// that no key is needed. APIKeys free a client from limits.
	Keys    map[string]string
	APIKeys []string
	// PublicAccess lets clients without a key in although there are Keys.
	PublicAccess bool

	// AddressHeader holds the client's address. Default X-Forwarded-For.
	AddressHeader string
	// TrustedProxies are the networks whose entries in it are believed; none
	// means that the first entry is used, whoever wrote it.
	TrustedProxies []netip.Prefix

	// MaxBody bounds a request's body in bytes, decompressed. Default 256 KiB.
	MaxBody int64
	// MaxBatch bounds the elements of a batch. Default 100.
	MaxBatch int
	// Timeout bounds the processing of a request up to the head of its answer.
	// Default 10 s.
	Timeout time.Duration
	// WriteTimeout bounds the writing of each piece of a large answer, after
	// which its client is given up; 0 is no bound.
	WriteTimeout time.Duration
	// MaxStreams bounds the large answers under way to one client; 0 is no bound.
	MaxStreams int
	// Gzip compresses answers for clients that accept it.
	Gzip bool
	// CORS answers browsers.
	CORS CORS
	// Sockets configures WebSocket connections.
	Sockets Sockets
	// ServedBy adds the X-Served-By header.
	ServedBy bool
	// LogBodies logs up to so many bytes of each request's body at info; 0 logs
	// none.
	LogBodies int
	// WhitelistMessage, BatchMessage and RateLimitMessage replace the texts of
	// the errors -32601, -32014 and -32016.
	WhitelistMessage, BatchMessage, RateLimitMessage string

	// Metrics count the calls of Routes and the requests of the whole process.
	// They and Log are required.
	Metrics *Metrics
	Log     *slog.Logger
}

// Chain is what one chain's calls are served by. Routes and Metrics are required;
// without WSRoutes there are no WebSocket connections.
type Chain struct {
	Routes, WSRoutes *Routes
	Metrics          *Metrics
}

// CORS says which web pages may ask; without Origins none may, and what a page can
// send without permission is refused.
type CORS struct {
	Origins, Methods, Headers []string
	MaxAge                    time.Duration
}

// GroupStatus is one group's line in the readiness answer.
type GroupStatus struct {
	// Chain is the chain that the group serves, "" for that of the top level.
	Chain    string          `json:"chain,omitempty"`
	Group    string          `json:"group"`
	Usable   bool            `json:"usable"`
	Backends []BackendStatus `json:"backends"`
}

// BackendStatus is one backend's part of it.
type BackendStatus struct {
	Backend string `json:"backend"`
	State   string `json:"state"`
	// Reason is why a health check finds the backend unfit, "" when it does not.
	Reason string `json:"reason,omitempty"`
	// Head is the backend's last known block, 0 when none is known.
	Head uint64 `json:"head,omitempty"`
	// WebSocket is how the backend's WebSocket connection fares: open, unused (it can be
	// opened when it is needed), or why it failed; "" where there is none.
	WebSocket string `json:"websocket,omitempty"`
	// Since is when the state began, Until when the backend may be asked
	// again; RFC 3339, "" where neither is known.
	Since string `json:"since,omitempty"`
	Until string `json:"until,omitempty"`
	// UnansweredInRow counts attempts without an answer since the last one,
	// whoever is to blame, and LastFailure says how the last one failed.
	UnansweredInRow int    `json:"unanswered_in_row,omitempty"`
	LastFailure     string `json:"last_failure,omitempty"`
}

// Server is the front. It is an http.Handler.
type Server struct {
	opts     Options
	keys     keyring
	apiKeys  keyring
	address  addressing
	handler  http.Handler
	top      *chain // at / and /{key}
	draining atomic.Bool
	streams  streams
	sockets  sockets
	upgraded http.Handler
}

// New builds the front.
func New(o Options) *Server {
	if o.AddressHeader == "" {
		o.AddressHeader = "X-Forwarded-For"
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 256 << 10
	}
	o.MaxBody = min(o.MaxBody, 1<<40) // a larger one could not be counted past
	if o.MaxBatch <= 0 {
		o.MaxBatch = 100
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	s := &Server{
		opts: o, keys: newKeyring(o.Keys), apiKeys: keyring{},
		streams: streams{most: o.MaxStreams}, address: addressing{header: http.CanonicalHeaderKey(o.AddressHeader), trusted: o.TrustedProxies},
		top: &chain{routes: o.Routes, metrics: o.Metrics, log: o.Log, top: true},
	}
	for _, key := range o.APIKeys {
		s.apiKeys[sum(key)] = "exempt"
	}
	s.sockets.init(&s.opts.Sockets)
	ws := chi.NewRouter() // upgrades alone
	r := chi.NewRouter()
	if o.Gzip {
		r.Use(middleware.Compress(5, "application/json"))
	}
	r.Post("/", s.serve(s.top))
	r.Post("/{key}", s.serve(s.top))
	upgrade := func(path string, routes *Routes, of *chain) {
		var ch *chain
		if routes != nil {
			ch = &chain{routes: routes, metrics: of.metrics, log: of.log, top: of.top}
		}
		for _, path := range []string{path + "/", path + "/{key}"} {
			r.Get(path, s.upgrades(ch, of))
			ws.Get(path, s.upgrades(ch, of))
		}
		if path != "" {
			r.Get(path, s.upgrades(ch, of))
			ws.Get(path, s.upgrades(ch, of))
		}
	}
	upgrade("", o.WSRoutes, s.top)
	for name, c := range o.Chains {
		ch := &chain{routes: c.Routes, metrics: c.Metrics, log: o.Log.With("chain", name)}
		h := s.serve(ch)
		r.Post("/"+name, h)
		r.Post("/"+name+"/", h)
		r.Post("/"+name+"/{key}", h)
		upgrade("/"+name, c.WSRoutes, ch)
	}
	s.upgraded = ws
	r.Get("/healthz", s.healthz)
	r.Get("/health", s.healthz)
	r.Get("/readyz", s.readyz)
	r.Get("/ready", s.readyz)
	r.NotFound(s.notFound)
	s.handler = r
	if len(o.CORS.Origins) == 0 {
		return s // the library takes none for all
	}
	s.handler = cors.New(cors.Options{
		AllowedOrigins: o.CORS.Origins, AllowedMethods: o.CORS.Methods, AllowedHeaders: o.CORS.Headers,
		ExposedHeaders: []string{"X-Request-Id", "Retry-After", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"},
		MaxAge:         int(o.CORS.MaxAge.Seconds()),
	}).Handler(r)
	return s
}

// notFound sends a path with empty segments to the one without, as the
// incumbent's router. Beside chains a call whose path begins otherwise is told
// that there is no such chain.
func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Path, "//") {
		to := url.URL{Path: collapsed(r.URL.Path), RawQuery: r.URL.RawQuery}
		w.Header().Set("Location", to.String())
		w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if _, ok := s.opts.Chains[first]; !ok && r.Method == http.MethodPost && len(s.opts.Chains) > 0 {
		s.refuse(w, s.top, &jsonrpc.Client{Source: "http"}, errUnknownChain)
		return
	}
	http.NotFound(w, r)
}

// collapsed returns a path without its empty segments.
func collapsed(p string) string {
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// Drain makes the health checks fail, so that load balancers look elsewhere, and
// closes WebSocket connections one after another within the time given, or until ctx
// ends. Calls over HTTP are served as before.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	s.draining.Store(true)
	s.sockets.drain(ctx, over)
}

// CloseSockets closes the WebSocket connections that are left, and waits for what
// they run. When ctx ends what is left is cut off.
func (s *Server) CloseSockets(ctx context.Context) { s.sockets.close(ctx) }

// Upgrades is the handler of a listener for WebSocket connections alone.
func (s *Server) Upgrades() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.timed(s.upgraded, w, r) })
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.timed(s.handler, w, r) }

func (s *Server) timed(h http.Handler, w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	defer func() { s.opts.Metrics.httpDuration.Observe(time.Since(started).Seconds()) }()
	h.ServeHTTP(w, r)
}
