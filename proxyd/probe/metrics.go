package probe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/backend"
)

// Metrics are the series of all probers. Those of probe_url are the incumbent's.
type Metrics struct {
	healthy        *prometheus.GaugeVec
	probes         *prometheus.CounterVec
	probeDuration  *prometheus.HistogramVec
	checks         *prometheus.CounterVec
	checkDuration  *prometheus.HistogramVec
	heads          *prometheus.GaugeVec
	references     *prometheus.GaugeVec
	lags           *prometheus.GaugeVec
	referenceFails *prometheus.CounterVec
}

var buckets = []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "proxyd", Name: name, Help: help}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: name, Help: help}, labels)
	}
	duration := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "proxyd", Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &Metrics{
		healthy:        gauge("backend_probe_healthy", "1 unless the probes of probe_url find the backend unfit.", "backend_name"),
		probes:         counter("backend_probe_checks_total", "Probes of probe_url, by result: success or failure.", "backend_name", "result"),
		probeDuration:  duration("backend_probe_duration_seconds", "Time of a probe of probe_url.", "backend_name"),
		checks:         counter("health_checks_total", "Calls of health checks, by method, or recovery for those after a rate limit, and by result: success, failure, or limited when the backend asked to be left alone.", "backend_name", "check", "result"),
		checkDuration:  duration("health_check_duration_seconds", "Time of a call of a health check.", "backend_name", "check"),
		heads:          gauge("backend_head", "Number of the latest block that a health check saw.", "backend_name"),
		references:     gauge("reference_head", "Number of the latest block of the group's reference.", "backend_group_name"),
		lags:           gauge("reference_lag_blocks", "How many blocks the group's best backend is behind the reference; absent when no health check has seen a head lately.", "backend_group_name"),
		referenceFails: counter("reference_errors_total", "Looks at the group's reference that brought no head.", "backend_group_name"),
	}
	reg.MustRegister(m.healthy, m.probes, m.probeDuration, m.checks, m.checkDuration, m.heads, m.references, m.lags, m.referenceFails)
	return m
}

func (m *Metrics) probeHealthy(name string, healthy bool) {
	value := 0.0
	if healthy {
		value = 1
	}
	m.healthy.WithLabelValues(name).Set(value)
}

// probed counts a probe of probe_url.
func (m *Metrics) probed(name string, took time.Duration, ok bool) {
	m.probes.WithLabelValues(name, result(ok)).Inc()
	m.probeDuration.WithLabelValues(name).Observe(took.Seconds())
}

// checked counts a call of a health check.
func (m *Metrics) checked(name, check string, reply backend.Reply, ok bool) {
	how := result(ok)
	if reply.Limited {
		how = "limited"
	}
	m.checks.WithLabelValues(name, check, how).Inc()
	m.checkDuration.WithLabelValues(name, check).Observe(reply.Took.Seconds())
}

func result(ok bool) string {
	if ok {
		return "success"
	}
	return "failure"
}

func (m *Metrics) head(name string, head uint64) { m.heads.WithLabelValues(name).Set(float64(head)) }

func (m *Metrics) referenceHead(group string, head uint64) {
	m.references.WithLabelValues(group).Set(float64(head))
}

// referenceLag sets the lag, or takes it away when it is not known.
func (m *Metrics) referenceLag(group string, blocks uint64, known bool) {
	if known {
		m.lags.WithLabelValues(group).Set(float64(blocks))
	} else {
		m.lags.DeleteLabelValues(group)
	}
}

func (m *Metrics) referenceFailed(group string) { m.referenceFails.WithLabelValues(group).Inc() }

// forget removes the gauges of what is not watched any more.
func (m *Metrics) forget(o Options) {
	for _, t := range o.Targets {
		m.healthy.DeleteLabelValues(t.Backend.Name())
		m.heads.DeleteLabelValues(t.Backend.Name())
	}
	for _, r := range o.References {
		m.references.DeleteLabelValues(r.Group)
		m.lags.DeleteLabelValues(r.Group)
	}
}
