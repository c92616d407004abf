// Package measure is what the load generator found out in one run, as it tells
// the benchmark.
package measure

// Result is one run against one gateway.
type Result struct {
	// Requests is how many HTTP requests, or messages over WebSockets, were
	// answered in the window, or notifications came in it; a batch is one.
	Requests int `json:"requests"`
	// Seconds is how long the window was.
	Seconds float64 `json:"seconds"`
	// CPU is the processor time of the gateway in the window in seconds, user
	// and system, its children included.
	CPU float64 `json:"cpu_seconds"`
	// P50, P99 and Max are latencies in microseconds. In an open loop they
	// count from when a call was due, for subscribers from when the upstream
	// published a head until the last of them had it.
	P50 float64 `json:"p50_us"`
	P99 float64 `json:"p99_us"`
	Max float64 `json:"max_us"`
	// Slow counts calls that took longer than a second.
	Slow int `json:"slow"`
	// Failed counts by reason the requests that were seen to fail: refused, cut
	// off, an HTTP or JSON-RPC error.
	Failed map[string]int `json:"failed,omitempty"`
	// Wrong counts by reason the answers that looked well and were not those to
	// the calls.
	Wrong map[string]int `json:"wrong,omitempty"`
	// Sent and Received are the mean sizes of a request's and of an answer's
	// body in bytes.
	Sent     float64 `json:"sent_bytes"`
	Received float64 `json:"received_bytes"`
	// Asked is how many requests the client sent in the window, where that was
	// counted, and Upstream how many of them, hedges and repetitions included,
	// came to each upstream.
	Asked    int   `json:"asked,omitempty"`
	Upstream []int `json:"upstream_requests,omitempty"`
	// PerConnection is the gateway's memory for each idle connection in bytes.
	PerConnection float64 `json:"bytes_per_connection,omitempty"`
	// Goroutines are those for each idle connection, and IdleCPU is the
	// processor's time with all of them in percent of a core, where the
	// gateway says how many it has.
	Goroutines float64 `json:"goroutines_per_connection,omitempty"`
	IdleCPU    float64 `json:"idle_cpu_percent,omitempty"`
	// Heads are those that came to all subscribers in the window, and
	// Subscriptions is how many were made at the upstreams from before the
	// first client's on.
	Heads         int `json:"heads,omitempty"`
	Subscriptions int `json:"upstream_subscriptions,omitempty"`
	// Listeners are the WebSockets that listened to heads and logs while upstreams
	// were killed. Closed are those that did not stay open; Missed, Twice and
	// Disordered are the events that the others did not get, got more than once or
	// after later ones. All of these are also in Failed or Wrong.
	Listeners  int `json:"listeners,omitempty"`
	Closed     int `json:"closed,omitempty"`
	Missed     int `json:"missed,omitempty"`
	Twice      int `json:"twice,omitempty"`
	Disordered int `json:"disordered,omitempty"`
	// Felt is for each upstream that was killed how much longer than between two
	// blocks a listener waited for an event at most, in microseconds; Calm is that
	// while none was down.
	Felt []float64 `json:"felt_us,omitempty"`
	Calm float64   `json:"calm_us,omitempty"`
}

// Sum adds up counts.
func Sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}
