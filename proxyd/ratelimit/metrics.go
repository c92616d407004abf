package ratelimit

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the series of the limiter.
type Metrics struct {
	errors  prometheus.Counter
	refused *prometheus.CounterVec
}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		errors:  prometheus.NewCounter(prometheus.CounterOpts{Namespace: "proxyd", Name: "rate_limit_take_errors", Help: "Failures of the rate limit store."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: "rate_limited_calls_total", Help: "Calls refused for being over a rate limit."}, []string{"method_name"}),
	}
	reg.MustRegister(m.errors, m.refused)
	return m
}
