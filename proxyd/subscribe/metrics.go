package subscribe

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the series of subscriptions.
type Metrics struct {
	subscriptions *prometheus.GaugeVec
	upstream      *prometheus.GaugeVec
	notifications *prometheus.CounterVec
	moves         *prometheus.CounterVec
	replayed      *prometheus.CounterVec
	duplicates    *prometheus.CounterVec
	gaps          *prometheus.CounterVec
	followed      *prometheus.GaugeVec
	outage        *prometheus.GaugeVec
}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "proxyd", Name: name, Help: help}, labels)
		reg.MustRegister(g)
		return g
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	return &Metrics{
		subscriptions: gauge("subscriptions", "Subscriptions of clients.", "kind"),
		upstream:      gauge("backend_subscriptions", "Subscriptions at a backend, which those of clients share.", "backend_name"),
		notifications: counter("rpc_notifications_total", "Notifications to clients, by the backend whose events they are.", "backend_name", "kind"),
		moves:         counter("subscription_moves_total", "Times the subscriptions of a group left a backend, and why.", "backend_group_name", "backend_name", "reason"),
		replayed:      counter("subscription_replayed_total", "Events that were fetched because no subscription brought them.", "kind"),
		duplicates:    counter("subscription_duplicates_total", "Events that clients knew already and were not told again.", "kind"),
		gaps:          counter("subscription_gaps_total", "Gaps that could not be closed: events were lost.", "backend_group_name"),
		outage:        gauge("subscription_outage", "1 while subscriptions wait because no backend of the group can be followed.", "backend_group_name"),
		followed:      gauge("subscription_backend", "1 for the backend that a group's subscriptions follow.", "backend_group_name", "backend_name"),
	}
}
