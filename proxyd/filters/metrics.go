package filters

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the series of filters.
type Metrics struct {
	mu      sync.Mutex
	ledgers []*ledger // one for each New

	expired, evicted, refused, gaps prometheus.Counter
}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "proxyd", Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	m := &Metrics{
		expired: counter("filters_expired_total", "Filters that were not used for too long."),
		evicted: counter("filters_evicted_total", "Filters that were given up for newer ones, for want of room."),
		refused: counter("filters_refused_total", "Filters that were refused because their client had too many."),
		gaps:    counter("filters_gaps_total", "Reorganisations that reached behind what a filter remembered, so that its client was not told of all of it."),
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "proxyd", Name: "filters", Help: "Filters that were made through this gateway and live."}, m.live))
	return m
}

// watch lets the gauge count what is in l.
func (m *Metrics) watch(l *ledger) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ledgers = append(m.ledgers, l)
}

func (m *Metrics) live() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, l := range m.ledgers {
		n += l.len()
	}
	return float64(n)
}
