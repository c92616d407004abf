package cache

import (
	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/series"
)

// Metrics are the series of the cache, with the incumbent's names.
type Metrics struct {
	hits, misses, errors, coalesced *prometheus.CounterVec

	lookups series.Set[string, lookups] // by method
}

type lookups struct{ hits, misses prometheus.Counter }

func (m *Metrics) of(method string) lookups {
	return m.lookups.Get(method, func(method string) lookups {
		return lookups{m.hits.WithLabelValues(method), m.misses.WithLabelValues(method)}
	})
}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: name, Help: help}, []string{"method"})
		reg.MustRegister(c)
		return c
	}
	return &Metrics{
		hits:      counter("cache_hits_total", "Calls answered from the cache."),
		misses:    counter("cache_misses_total", "Cacheable calls that were not in the cache."),
		errors:    counter("cache_errors_total", "Failures of the cache's store."),
		coalesced: counter("coalesced_calls_total", "Calls that waited for an equal one in flight instead of asking."),
	}
}

// WatchSize publishes the size of a memory store.
func WatchSize(reg prometheus.Registerer, m *Memory) {
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "proxyd", Name: "cache_size_bytes", Help: "Bytes that the entries of the memory cache take."}, func() float64 { return float64(m.Size()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "proxyd", Name: "cache_entries", Help: "Entries of the memory cache."}, func() float64 { return float64(m.Len()) }),
	)
}
