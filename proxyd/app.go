// Package proxyd is the gateway as a whole: it turns a configuration into the
// objects that answer calls, listens, and takes everything down again in order.
package proxyd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gateway.internal/proxyd/config"
)

// Options are what does not stand in the configuration file.
type Options struct {
	// Log is where the program logs. Default: nowhere.
	Log *slog.Logger
	// Registry collects the metrics. Default: a new one with the Go and
	// process collectors.
	Registry *prometheus.Registry
	// RPCAddr, WSAddr and MetricsAddr replace the listeners' addresses of the file; ""
	// leaves them. Port 0 takes a free one.
	RPCAddr, WSAddr, MetricsAddr string
	// APIKeys free clients that send one as X-Api-Key from rate limits.
	APIKeys []string
	// ProxyIP is appended to the X-Forwarded-For header of upstream requests.
	ProxyIP string
}

// App is a gateway. New builds it, Start lets it listen, Stop ends it.
type App struct {
	config   *config.Config
	opts     Options
	log      *slog.Logger
	registry *prometheus.Registry
	graph    *graph
	up       prometheus.Gauge

	rpcAddr, wsAddr, metricsAddr net.Addr

	serving  sync.WaitGroup
	failed   chan error
	teardown []step // run backwards by Stop
	stop     sync.Once
	stopped  error
}

// step is one part of the teardown.
type step struct {
	name string
	run  func(context.Context) error
}

// New builds a gateway from a checked configuration. Nothing is started.
func New(c *config.Config, o Options) (*App, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
		o.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	a := &App{config: c, opts: o, log: o.Log, registry: o.Registry, failed: make(chan error, 4)}
	a.up = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "proxyd", Name: "up", Help: "1 while the gateway serves."})
	a.registry.MustRegister(a.up)
	g, err := newBuilder(c, o, a.registry).build()
	if err != nil {
		return nil, err
	}
	a.graph = g
	return a, nil
}

// Start listens and serves. When it fails, everything that was started is taken
// down again.
func (a *App) Start() error {
	a.onStop("graph", func(ctx context.Context) error { a.graph.close(ctx); return nil })
	a.graph.start()
	if err := a.listen(); err != nil {
		return errors.Join(err, a.Stop(context.Background()))
	}
	// Sockets are closed first: what HTTP calls take of the time must not cut them off.
	a.onStop("WebSocket clients", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, a.config.Server.ShutdownTimeout.D()/2)
		defer cancel()
		a.graph.front.CloseSockets(ctx)
		return nil
	})
	a.up.Set(1)
	a.onStop("up", func(context.Context) error { a.up.Set(0); return nil })
	attrs := []any{}
	if a.rpcAddr != nil {
		attrs = append(attrs, "rpc_addr", a.rpcAddr.String())
	}
	if a.wsAddr != nil {
		attrs = append(attrs, "ws_addr", a.wsAddr.String())
	}
	if a.metricsAddr != nil {
		attrs = append(attrs, "metrics_addr", a.metricsAddr.String())
	}
	a.log.Info("started proxyd", attrs...)
	return nil
}

func (a *App) onStop(name string, run func(context.Context) error) {
	a.teardown = append(a.teardown, step{name, run})
}

func (a *App) listen() (err error) {
	s := a.config.Server
	if addr := address(a.opts.MetricsAddr, a.config.Metrics.Host, a.config.Metrics.Port, a.config.Metrics.Enabled); addr != "" {
		// The answer is the same on every path, as the incumbent's.
		handler := promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{Registry: a.registry})
		if a.metricsAddr, err = a.serve("metrics", addr, &http.Server{Handler: handler}); err != nil {
			return err
		}
	}
	if s.EnablePprof {
		mux := http.NewServeMux()
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		if _, err = a.serve("pprof", s.PprofAddr, &http.Server{Handler: mux}); err != nil {
			return err
		}
	}
	if addr := address(a.opts.WSAddr, s.WSHost, s.WSPort, s.WSPort != 0); addr != "" {
		if a.wsAddr, err = a.serve("ws", addr, &http.Server{Handler: a.graph.front.Upgrades()}); err != nil {
			return err
		}
	}
	if addr := address(a.opts.RPCAddr, s.RPCHost, *s.RPCPort, *s.RPCPort != 0); addr != "" {
		a.rpcAddr, err = a.serve("rpc", addr, &http.Server{
			Handler: a.graph.front, ReadHeaderTimeout: s.ReadHeaderTimeout.D(), ReadTimeout: s.ReadTimeout.D(),
			WriteTimeout: s.WriteTimeout.D(), IdleTimeout: s.IdleTimeout.D(),
		})
	}
	return err
}

// address is where to listen, "" for nowhere.
func address(override, host string, port int, enabled bool) string {
	switch {
	case override != "":
		return override
	case !enabled:
		return ""
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// serve listens and serves until Stop.
func (a *App) serve(name, addr string, srv *http.Server) (net.Addr, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s listener: %w", name, err)
	}
	calls := newInFlight(srv.Handler)
	srv.Handler = calls
	srv.BaseContext = func(net.Listener) context.Context { return calls.base }
	srv.MaxHeaderBytes = 64 << 10
	if name != "rpc" {
		srv.ReadHeaderTimeout, srv.ReadTimeout, srv.IdleTimeout = 10*time.Second, 30*time.Second, 620*time.Second
	}
	srv.ErrorLog = slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)
	a.serving.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.failed <- fmt.Errorf("%s listener: %w", name, err)
		}
	})
	a.onStop(name+" listener", func(ctx context.Context) error {
		err := srv.Shutdown(ctx)
		if err != nil {
			err = errors.Join(fmt.Errorf("calls still in flight were cut off: %w", err), srv.Close())
		}
		calls.cut()
		return err
	})
	return l.Addr(), nil
}

// RPCAddr is where JSON-RPC is served, nil for nowhere.
func (a *App) RPCAddr() net.Addr { return a.rpcAddr }

// WSAddr is where only WebSocket connections are served, nil for nowhere.
func (a *App) WSAddr() net.Addr { return a.wsAddr }

// MetricsAddr is where metrics are served, nil for nowhere.
func (a *App) MetricsAddr() net.Addr { return a.metricsAddr }

// Failed receives an error when a listener ends by itself.
func (a *App) Failed() <-chan error { return a.failed }

// Drain makes the health checks fail, closes WebSocket connections one after another,
// and goes on serving HTTP for graceful_shutdown_seconds, or until the context ends.
func (a *App) Drain(ctx context.Context) {
	a.log.Info("draining", "seconds", a.config.Server.GracefulShutdown.D().Seconds())
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		a.graph.front.Drain(ctx, a.config.Server.GracefulShutdown.D())
	}()
	defer func() { <-drained }()
	t := time.NewTimer(a.config.Server.GracefulShutdown.D())
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Stop closes the listeners, waits for calls in flight until shutdown_timeout or
// the context's end, and takes everything down. Further calls return the result
// of the first.
func (a *App) Stop(ctx context.Context) error {
	a.stop.Do(func() {
		a.log.Info("shutting down proxyd")
		ctx, cancel := context.WithTimeout(ctx, a.config.Server.ShutdownTimeout.D())
		defer cancel()
		var errs []error
		for i := len(a.teardown) - 1; i >= 0; i-- {
			s := a.teardown[i]
			if err := s.run(ctx); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", s.name, err))
			}
		}
		a.serving.Wait()
		a.stopped = errors.Join(errs...)
	})
	return a.stopped
}

// Logger returns a logger that writes one JSON object a line, with the level
// names of the incumbent. An unknown level means info.
func Logger(w io.Writer, level string) *slog.Logger {
	l, ok := config.LogLevels[strings.ToLower(level)]
	if !ok {
		l = slog.LevelInfo
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l}))
}
