package server

import (
	"strconv"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
	"gateway.internal/proxyd/series"
)

// Metrics are the series of the front. Names and labels are the incumbent's
// where it has them; its summaries are histograms here.
type Metrics struct {
	calls         *prometheus.CounterVec
	callDuration  *prometheus.HistogramVec
	httpStatuses  *prometheus.CounterVec
	httpDuration  prometheus.Histogram
	requestSizes  *prometheus.HistogramVec
	responseSizes *prometheus.HistogramVec
	batchSizes    prometheus.Histogram
	shortCircuits prometheus.Counter
	forwards      *prometheus.CounterVec
	sockets       *prometheus.GaugeVec
	closes        *prometheus.CounterVec
	refusals      *prometheus.CounterVec
	messages      *prometheus.CounterVec
	slowReaders   prometheus.Counter

	// Those that every call counts in, by their labels.
	callSeries                                    series.Set[callKey, prometheus.Counter]
	statusSeries                                  series.Set[int, prometheus.Counter]
	receivedSeries, sentSeries                    series.Set[string, prometheus.Counter]
	durationSeries, requestSeries, responseSeries series.Set[string, prometheus.Observer]
}

var durationBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	sizes := []float64{10, 50, 100, 500, 1e3, 5e3, 1e4, 1e5, 1e6}
	m := &Metrics{
		calls:         prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: "rpc_calls_total", Help: "Calls of clients by who answered and with what status: that of the gateway's error, 400 for a backend's JSON-RPC error."}, []string{"backend_name", "method_name", "status_code", "transport"}),
		callDuration:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "proxyd", Name: "rpc_call_duration_seconds", Help: "Time from a client's request to its answer, by method; a batch counts under <batch>.", Buckets: durationBuckets}, []string{"method_name"}),
		httpStatuses:  prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: "http_response_codes_total", Help: "HTTP statuses of answers to JSON-RPC requests."}, []string{"status_code"}),
		httpDuration:  prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "proxyd", Name: "http_request_duration_seconds", Help: "Time of all HTTP requests.", Buckets: durationBuckets}),
		requestSizes:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "proxyd", Name: "request_payload_sizes", Help: "Bytes of request bodies.", Buckets: sizes}, []string{"auth"}),
		responseSizes: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "proxyd", Name: "response_payload_sizes", Help: "Bytes of answers.", Buckets: sizes}, []string{"auth"}),
		batchSizes:    prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "proxyd", Name: "batch_size_summary", Help: "Elements of clients' batches.", Buckets: []float64{1, 5, 10, 25, 50, 100}}),
		shortCircuits: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "proxyd", Name: "batch_rpc_short_circuits_total", Help: "Batches in which the deadline left elements without an answer."}),
		forwards:      prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: "rpc_local_answers_total", Help: "Calls that the gateway answered itself."}, []string{"method_name"}),
	}
	m.sockets = prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "proxyd", Name: "active_client_ws_conns", Help: "Open WebSocket connections of clients."}, []string{"auth"})
	m.closes = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: "client_ws_closes_total", Help: "WebSocket connections of clients that ended, by close code; 1006 for those that broke."}, []string{"code"})
	m.refusals = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: "client_ws_refused_total", Help: "Upgrades to WebSocket that were refused, by HTTP status."}, []string{"status_code"})
	m.messages = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: "ws_messages_total", Help: "WebSocket messages of clients (source client) and answers to them (source backend)."}, []string{"auth", "backend_name", "source"})
	m.slowReaders = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "proxyd", Name: "client_ws_slow_readers_total", Help: "WebSocket connections closed because their client read too slowly."})
	reg.MustRegister(m.sockets, m.closes, m.refusals, m.messages, m.slowReaders)
	reg.MustRegister(m.calls, m.callDuration, m.httpStatuses, m.httpDuration, m.requestSizes, m.responseSizes, m.batchSizes, m.shortCircuits, m.forwards)
	return m
}

// calledBy counts n calls that the client saw answered alike: by a backend, the
// cache or the gateway itself.
func (m *Metrics) calledBy(c *jsonrpc.Call, by string, status, n int) {
	m.callSeries.Get(callKey{by, c.Label, c.Client.Source, status}, m.callsFor).Add(float64(n))
}

// callKey names a series of calls; status is one of those that judge gives.
type callKey struct {
	by, method, source string
	status             int
}

func (m *Metrics) callsFor(k callKey) prometheus.Counter {
	return m.calls.WithLabelValues(k.by, k.method, backend.StatusLabel(k.status), k.source)
}

func (m *Metrics) took(label string, d time.Duration) {
	m.durationSeries.Get(label, func(l string) prometheus.Observer { return m.callDuration.WithLabelValues(l) }).Observe(d.Seconds())
}

func (m *Metrics) requestSize(auth string, n int) {
	m.requestSeries.Get(auth, func(a string) prometheus.Observer { return m.requestSizes.WithLabelValues(a) }).Observe(float64(n))
}

// answered counts an HTTP answer.
func (m *Metrics) answered(auth string, status int, size int64) {
	m.statusSeries.Get(status, func(s int) prometheus.Counter { return m.httpStatuses.WithLabelValues(backend.StatusLabel(s)) }).Inc()
	m.responseSeries.Get(auth, func(a string) prometheus.Observer { return m.responseSizes.WithLabelValues(a) }).Observe(float64(size))
}

func (m *Metrics) socketOpened(auth string) { m.sockets.WithLabelValues(auth).Inc() }

func (m *Metrics) socketClosed(auth string, code websocket.StatusCode) {
	m.sockets.WithLabelValues(auth).Dec()
	label := "other" // clients may choose from 3000 on
	if code < 1016 {
		label = strconv.Itoa(int(code))
	}
	m.closes.WithLabelValues(label).Inc()
}

func (m *Metrics) socketRefused(status int) {
	m.refusals.WithLabelValues(backend.StatusLabel(status)).Inc()
}

// received counts a message of a client.
func (m *Metrics) received(auth string, n int) {
	m.receivedSeries.Get(auth, func(a string) prometheus.Counter { return m.messages.WithLabelValues(a, "proxyd", "client") }).Inc()
	m.requestSize(auth, n)
}

// sent counts an answer over WebSocket.
func (m *Metrics) sent(auth string, n int) {
	m.sentSeries.Get(auth, func(a string) prometheus.Counter { return m.messages.WithLabelValues(a, "proxyd", "backend") }).Inc()
	m.responseSeries.Get(auth, func(a string) prometheus.Observer { return m.responseSizes.WithLabelValues(a) }).Observe(float64(n))
}
