package group

import (
	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/jsonrpc"
)

// Metrics are the series of all groups.
type Metrics struct {
	unserviceable *prometheus.CounterVec
	requests      prometheus.Counter
	retries       *prometheus.CounterVec
	failovers     *prometheus.CounterVec
	lookups       *prometheus.CounterVec
}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		unserviceable: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: "unserviceable_requests_total", Help: "Calls that nobody answered."}, []string{"auth", "request_source"}),
		requests:      prometheus.NewCounter(prometheus.CounterOpts{Namespace: "proxyd", Name: "rpc_requests_total", Help: "Upstream requests that groups set out to make: single calls and upstream batches, not their repetitions."}),
		retries:       prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: "group_retries_total", Help: "Attempts in a second or later round."}, []string{"backend_group_name"}),
		failovers:     prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: "group_failovers_total", Help: "Attempts at a further backend in the same round."}, []string{"backend_group_name"}),
		lookups:       prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: "group_send_lookups_total", Help: "Look-ups of a transaction whose send had an ambiguous outcome, by result: found or unknown."}, []string{"backend_group_name", "result"}),
	}
	reg.MustRegister(m.unserviceable, m.requests, m.retries, m.failovers, m.lookups)
	return m
}

func (m *Metrics) unserviceableCall(c *jsonrpc.Call) {
	auth, source := "none", "http"
	if c.Client != nil {
		auth, source = c.Client.Auth, c.Client.Source
	}
	m.unserviceable.WithLabelValues(auth, source).Inc()
}
