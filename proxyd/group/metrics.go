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

	calls, successes, failures       *prometheus.CounterVec
	hedges, hedgesWon, spent         *prometheus.CounterVec
	preferred, scores                *prometheus.GaugeVec
	multicallRequests, multicallEnds *prometheus.CounterVec
}

// counts are the series of one group, found once.
type counts struct {
	calls, successes, failures, failovers, retries prometheus.Counter
	hedges, hedgesWon, spentRetries, spentHedges   prometheus.Counter
}

func (m *Metrics) countsOf(group string) counts {
	return counts{
		calls: m.calls.WithLabelValues(group), successes: m.successes.WithLabelValues(group), failures: m.failures.WithLabelValues(group),
		failovers: m.failovers.WithLabelValues(group), retries: m.retries.WithLabelValues(group),
		hedges: m.hedges.WithLabelValues(group), hedgesWon: m.hedgesWon.WithLabelValues(group),
		spentRetries: m.spent.WithLabelValues(group, "retry"), spentHedges: m.spent.WithLabelValues(group, "hedge"),
	}
}

// prefers shows whether a sticky group prefers a backend.
func (m *Metrics) prefers(group, backend string, preferred bool) {
	value := 0.0
	if preferred {
		value = 1
	}
	m.preferred.WithLabelValues(group, backend).Set(value)
}

// score shows a member's score; method is "" where it is for all.
func (m *Metrics) score(group, backend, method string, score float64) {
	m.scores.WithLabelValues(group, backend, method).Set(score)
}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "proxyd", Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		c := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "proxyd", Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	m := &Metrics{
		unserviceable: counter("unserviceable_requests_total", "Calls that nobody answered.", "auth", "request_source"),
		requests:      prometheus.NewCounter(prometheus.CounterOpts{Namespace: "proxyd", Name: "rpc_requests_total", Help: "Upstream requests that groups set out to make: single calls and upstream batches, not their repetitions."}),
		retries:       counter("group_retries_total", "Attempts in a second or later round.", "backend_group_name"),
		failovers:     counter("group_failovers_total", "Attempts at a further backend in the same round.", "backend_group_name"),
		lookups:       counter("group_send_lookups_total", "Look-ups of a transaction whose send had an ambiguous outcome, by result: found or unknown.", "backend_group_name", "result"),
		calls:         counter("group_calls_total", "Calls that came to a group, batch elements too.", "backend_group_name"),
		successes:     counter("group_successes_total", "Calls that a backend of the group answered, with a result or with an error about the call.", "backend_group_name"),
		failures:      counter("group_failures_total", "Calls that no backend of the group answered.", "backend_group_name"),
		hedges:        counter("group_hedges_total", "Second attempts while the first still ran.", "backend_group_name"),
		hedgesWon:     counter("group_hedges_won_total", "Hedges that answered first.", "backend_group_name"),
		spent:         counter("group_budget_spent_total", "Retries and hedges that were not made because the budget was spent, by kind.", "backend_group_name", "kind"),
		preferred:     gauge("group_preferred_backend", "1 for the backend that a sticky group prefers.", "backend_group_name", "backend_name"),
		scores:        gauge("group_score", "Score of a backend in a ranked or scored group, 1 is best; by method where it is scored.", "backend_group_name", "backend_name", "method_name"),

		multicallRequests: counter("backend_group_multicall_request_counter", "Transactions sent to each backend of a multicall group.", "backend_group", "backend_name"),
		multicallEnds:     counter("backend_group_multicall_completion_counter", "How they ended: nil for a hash, else a class or kind of error.", "backend_group", "backend_name", "error"),
	}
	reg.MustRegister(m.requests)
	return m
}

func (m *Metrics) unserviceableCall(c *jsonrpc.Call) {
	auth, source := "none", "http"
	if c.Client != nil {
		auth, source = c.Client.Auth, c.Client.Source
	}
	m.unserviceable.WithLabelValues(auth, source).Inc()
}
