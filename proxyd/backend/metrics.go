package backend

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/jsonrpc"
	"gateway.internal/proxyd/series"
)

// Metrics are the series that all backends feed. Names and labels are the
// incumbent's where it has them; its summaries are histograms here.
type Metrics struct {
	forwards  *prometheus.CounterVec
	statuses  *prometheus.CounterVec
	errors    *prometheus.CounterVec
	special   *prometheus.CounterVec
	providers *prometheus.CounterVec
	durations *prometheus.HistogramVec
	overload  *prometheus.CounterVec
	ejections *prometheus.CounterVec
	streams   *prometheus.CounterVec
	sockets   *prometheus.GaugeVec
	sockFails *prometheus.CounterVec

	// Those that every call counts in, by their labels.
	statusSeries   series.Set[statusKey, prometheus.Counter]
	durationSeries series.Set[durationKey, prometheus.Observer]
	forwardSeries  series.Set[forwardKey, prometheus.Counter]

	mu       sync.Mutex
	backends map[*Backend]struct{}
	gauges   map[string]*prometheus.Desc
	states   *prometheus.Desc
}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	m := &Metrics{
		forwards: counter("rpc_forwards_total", "Calls sent to a backend, one for each attempt.", "auth", "backend_name", "method_name", "source"),
		statuses: counter("rpc_backend_http_response_codes_total", "HTTP statuses of backends.", "auth", "backend_name", "method_name", "status_code", "batched"),
		errors:   counter("rpc_errors_total", "Errors of backends by JSON-RPC code; -1 when there was none.", "auth", "backend_name", "method_name", "error_code"),
		special:  counter("rpc_special_errors_total", "JSON-RPC errors whose text names a well-known cause.", "auth", "backend_name", "method_name", "error_type"),
		providers: counter("provider_errors_total", "What each provider answered when it was not a result: JSON-RPC code (none without one), HTTP status (none without one) and class.",
			"backend_name", "method_name", "error_code", "status_code", "class"),
		overload:  counter("too_many_request_errors_total", "Attempts that found no free slot of max_concurrent_rpcs in time.", "backend_name"),
		ejections: counter("backend_out_of_service_total", "Times a backend was taken out of service.", "backend_name"),
		streams:   counter("streamed_answers_total", "Large answers passed on while they came, by how they ended: whole, backend_broke (the client saw the answer break off), client_left (or took nothing for write_timeout), or dropped (nobody read it).", "backend_name", "end"),
		sockFails: counter("backend_ws_failures_total", "WebSocket connections to a backend that could not be opened, or broke.", "backend_name"),
		sockets:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "proxyd", Name: "active_backend_ws_conns", Help: "Open WebSocket connections to a backend."}, []string{"backend_name"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "proxyd", Name: "rpc_backend_request_duration_seconds", Help: "Time of an attempt.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"backend_name", "method_name", "batched"}),
		backends: make(map[*Backend]struct{}),
		gauges:   make(map[string]*prometheus.Desc),
	}
	for name, help := range map[string]string{
		"backend_avg_latency":       "Mean latency of successes over five minutes, in milliseconds.",
		"backend_degraded":          "1 while the mean latency is at or over max_degraded_latency_threshold.",
		"backend_error_rate":        "Share of failures over five minutes; 0 below ten attempts.",
		"backend_in_flight":         "Attempts under way.",
		"backend_usable":            "1 while the backend is asked in its turn; 0 while out of service, held off, suspect, unfit or on another chain.",
		"backend_out_of_service":    "1 while the backend is out of service.",
		"backend_unanswered_in_row": "Attempts in a row that brought no answer, whoever is to blame.",
		"backend_held_off":          "1 while the backend is left alone because it asked for it.",
	} {
		m.gauges[name] = prometheus.NewDesc("proxyd_"+name, help, []string{"backend_name"}, nil)
	}
	m.states = prometheus.NewDesc("proxyd_backend_state", "1 for the state that the backend is in.", []string{"backend_name", "state"}, nil)
	reg.MustRegister(m.durations, m.sockets, gaugeCollector{m})
	return m
}

func (m *Metrics) watch(b *Backend) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.backends[b] = struct{}{}
}

// forget removes the gauges of a backend.
func (m *Metrics) forget(b *Backend) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.backends, b)
}

func (m *Metrics) socketOpened(name string) { m.sockets.WithLabelValues(name).Inc() }
func (m *Metrics) socketClosed(name string) { m.sockets.WithLabelValues(name).Dec() }
func (m *Metrics) socketFailed(name string) { m.sockFails.WithLabelValues(name).Inc() }

func (m *Metrics) ejected(name string)    { m.ejections.WithLabelValues(name).Inc() }
func (m *Metrics) overloaded(name string) { m.overload.WithLabelValues(name).Inc() }

type statusKey struct {
	auth, backend, method string
	status                int
	batched               bool
}

func (m *Metrics) statusFor(k statusKey) prometheus.Counter {
	return m.statuses.WithLabelValues(k.auth, k.backend, k.method, StatusLabel(k.status), strconv.FormatBool(k.batched))
}

type durationKey struct {
	backend, method string
	batched         bool
}

func (m *Metrics) durationFor(k durationKey) prometheus.Observer {
	return m.durations.WithLabelValues(k.backend, k.method, strconv.FormatBool(k.batched))
}

type forwardKey struct{ auth, backend, method, source string }

func (m *Metrics) forwardFor(k forwardKey) prometheus.Counter {
	return m.forwards.WithLabelValues(k.auth, k.backend, k.method, k.source)
}

// status counts an HTTP status.
func (m *Metrics) status(a *Attempt, calls []*jsonrpc.Call, status int) {
	key := statusKey{authOf(calls[0]), a.Backend.opts.Name, attemptLabel(calls), boundedStatus(status), len(calls) > 1}
	m.statusSeries.Get(key, m.statusFor).Inc()
}

// attempt counts an attempt that has ended.
func (m *Metrics) attempt(a *Attempt, took time.Duration) {
	name := a.Backend.opts.Name
	m.durationSeries.Get(durationKey{name, a.label, len(a.Calls) > 1}, m.durationFor).Observe(took.Seconds())
	for i := 0; i < len(a.Calls); {
		c, r := a.Calls[i], &a.Results[i]
		if r.Err != nil && r.Err.Kind == Overloaded {
			i++
			continue // it was never sent
		}
		n := 1 // in a batch the next ones are often alike
		if r.isResult() {
			for i+n < len(a.Calls) && a.Calls[i+n].Label == c.Label && a.Calls[i+n].Client == c.Client && a.Results[i+n].isResult() {
				n++
			}
		}
		source := "http"
		if c.Client != nil && c.Client.Source != "" {
			source = c.Client.Source
		}
		m.forwardSeries.Get(forwardKey{authOf(c), name, c.Label, source}, m.forwardFor).Add(float64(n))
		m.failure(a, c, r)
		i += n
	}
}

func (r *Result) isResult() bool { return r.Err == nil && r.Answer.Error == nil }

// failure counts a result that is an error.
func (m *Metrics) failure(a *Attempt, c *jsonrpc.Call, r *Result) {
	name, auth := a.Backend.opts.Name, authOf(c)
	switch {
	case r.Err != nil && r.Err.Kind == Canceled:
	case r.Err != nil:
		code, raw := "-1", "none"
		if r.Err.RPC {
			code = a.Backend.labels.label(r.Err.Code)
			raw = code
		}
		m.errors.WithLabelValues(auth, name, c.Label, code).Inc()
		m.providers.WithLabelValues(name, c.Label, raw, StatusLabel(r.Err.HTTP), r.Outcome.Class).Inc()
	case r.Answer.Error != nil:
		code := a.Backend.labels.label(r.Answer.Code)
		m.errors.WithLabelValues(auth, name, c.Label, code).Inc()
		m.providers.WithLabelValues(name, c.Label, code, StatusLabel(max(200, r.Answer.Status)), r.Outcome.Class).Inc()
		if kind := specialError(r.Answer.Error); kind != "" {
			m.special.WithLabelValues(auth, name, c.Label, kind).Inc()
		}
	}
}

// How a streamed answer can end.
const (
	streamWhole   = "whole"
	streamBroken  = "backend_broke"
	streamLeft    = "client_left"
	streamDropped = "dropped"
)

// streamed counts a streamed answer that has ended.
func (m *Metrics) streamed(name, how string) { m.streams.WithLabelValues(name, how).Inc() }

func authOf(c *jsonrpc.Call) string {
	if c.Client == nil || c.Client.Auth == "" {
		return "none"
	}
	return c.Client.Auth
}

// specialErrors are the phrases that the incumbent counts.
var specialErrors = []string{
	"nonce too low", "gas price too high", "gas price too low", "invalid parameters", "txpool is full", "pool is full", "pool overflow",
	"transaction pool is full", "insufficient funds", "replacement underpriced", "replacement transaction underpriced", "already known",
	"max initcode size exceeded", "insufficient balance", "gas limit exceeded", "intrinsic gas too low",
}

func specialError(raw []byte) string {
	text := strings.ToLower(string(raw[:min(len(raw), 1024)]))
	for _, phrase := range specialErrors {
		if strings.Contains(text, phrase) {
			return phrase
		}
	}
	return ""
}

// gaugeCollector reads the backends' state when Prometheus asks.
type gaugeCollector struct{ m *Metrics }

func (g gaugeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range g.m.gauges {
		ch <- d
	}
	ch <- g.m.states
}

func (g gaugeCollector) Collect(ch chan<- prometheus.Metric) {
	g.m.mu.Lock()
	defer g.m.mu.Unlock()
	for b := range g.m.backends {
		set := func(name string, v float64) {
			ch <- prometheus.MustNewConstMetric(g.m.gauges[name], prometheus.GaugeValue, v, b.opts.Name)
		}
		flag := func(name string, on bool) {
			if on {
				set(name, 1)
			} else {
				set(name, 0)
			}
		}
		b.health.mu.Lock()
		s := b.health.window.sums(time.Now())
		b.health.mu.Unlock()
		state := b.Standing().State
		for i, name := range stateNames {
			if State(i) != Lagging { // which is a group's to say
				value := 0.0
				if State(i) == state {
					value = 1
				}
				ch <- prometheus.MustNewConstMetric(g.m.states, prometheus.GaugeValue, value, b.opts.Name, name)
			}
		}
		set("backend_avg_latency", float64(s.latency())/float64(time.Millisecond))
		set("backend_error_rate", s.errorRate())
		set("backend_in_flight", float64(b.flights.len()))
		flag("backend_degraded", s.latency() >= b.opts.DegradedLatency)
		set("backend_unanswered_in_row", float64(b.Trouble().InRow))
		flag("backend_usable", state <= Trial)
		flag("backend_out_of_service", state == Out)
		flag("backend_held_off", state == Held)
	}
}
