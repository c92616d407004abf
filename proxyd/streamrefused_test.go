package proxyd

import (
	"fmt"
	"io"
	"net/http"
	"testing"
)

// A large answer that is refused for the client's sake must not hold what it came
// on: neither the connection nor the slot of max_concurrent_rpcs.
func TestRefusedStreamReleasesItsUpstreamConnection(t *testing.T) {
	t.Parallel()
	gone := make(chan bool, 10)
	release := make(chan struct{})
	o := newOrigin(t, func(v *visit) bool {
		if v.params == `["held"]` {
			return inTwo("sized", func(v *visit) bool { return v.await(release) })(v, idFirst.around(v.id, large(1<<20)))
		}
		v.head("Content-Length: 16777216")
		v.write(idFirst.around(v.id, large(200<<10))) // and nothing more
		gone <- v.gone()
		return false
	})
	g := start(t, keyed("", "[server]\nmax_streams_per_client = 1\nmax_concurrent_rpcs = 1", o.url), nil)
	held := g.open(t, call(`["held"]`, "1"))
	for i := range 3 {
		status, _, body, err := g.post("/", call(`["refused"]`, fmt.Sprint(i)))
		if err != nil || status != http.StatusTooManyRequests {
			t.Errorf("HTTP %d %.100s, %v", status, body, err)
		}
		if !<-gone {
			t.Error("its upstream connection stays open")
		}
	}
	label := `backend_name="b1"`
	becomes(t, "only the first one is in flight", func() bool { return g.series(t, "proxyd_backend_in_flight", label) == 1 })
	if n := g.series(t, "proxyd_streamed_answers_total", label, `end="dropped"`); n != 3 {
		t.Errorf("%v streams were dropped, want 3", n)
	}
	close(release)
	brings(t, held.Body, large(1<<20), "1")
	_, _ = io.Copy(io.Discard, held.Body)
	g.unblamed(t, "b1")
}
