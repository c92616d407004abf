package backend

import (
	"testing"
	"time"
)

// What a backend counts of one attempt for one call that was answered.
func BenchmarkMetrics(b *testing.B) {
	be := newBackend(b, answering(b, 200, `{"jsonrpc":"2.0","id":$0,"result":"0x1"}`), nil)
	a := try(b, be, Try{}, blockNumber())
	a.Settle(false)
	if a.Results[0].Err != nil {
		b.Fatal(a.Results[0].Err)
	}
	m := be.opts.Metrics
	b.ReportAllocs()
	for b.Loop() {
		m.status(a, a.Calls, 200)
		m.attempt(a, time.Millisecond)
	}
}
