package proxyd

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestClientIsSentOnlySoManyLargeAnswersAtOnce(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	deliver := inTwo("sized", func(v *visit) bool { return v.await(release) })
	o := newOrigin(t, func(v *visit) bool {
		switch v.params {
		case `["small"]`:
			return v.small(`"0x1"`)
		case `["held"]`:
			return deliver(v, idFirst.around(v.id, large(1<<20)))
		}
		return delivered["sized"](v, idFirst.around(v.id, large(1<<20)))
	})
	g := start(t, keyed("", "[server]\nmax_streams_per_client = 2", o.url), nil)
	held := []*http.Response{g.open(t, call(`["held"]`, "1")), g.open(t, call(`["held"]`, "2"))}
	for range 3 { // and none of them takes a place for good
		status, h, body, err := g.post("/", call(`["large"]`, "3"))
		if err != nil || status != 429 || !strings.HasPrefix(body, `{"jsonrpc":"2.0","error":{"code":-32024,`) || !strings.HasSuffix(body, `,"id":3}`+"\n") || h.Get("Retry-After") == "" {
			t.Errorf("a third one: %d %v %.300s %v", status, h, body, err)
		}
	}
	if n := g.series(t, "proxyd_rpc_calls_total", `method_name="eth_call"`, `status_code="429"`); n != 3 {
		t.Errorf("%v calls are counted as refused, want 3", n)
	}
	if n := g.series(t, "proxyd_streamed_answers_total", `end="client_left"`); n != 0 {
		t.Errorf("%v refused calls are counted as left by their clients", n)
	}
	if status, _, body, err := g.post("/", call(`["small"]`, "4")); err != nil || status != 200 {
		t.Errorf("a small one: %d %s %v", status, body, err)
	}
	if status, _, body, err := g.post("/", call(`["large"]`, "5"), "X-Forwarded-For", "9.9.9.9"); err != nil || status != 200 {
		t.Errorf("another client: %d %.300s %v", status, body, err)
	}
	close(release)
	for i, res := range held {
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		answers(t, body, large(1<<20), fmt.Sprint(i+1))
	}
	becomes(t, "there is room again", func() bool {
		status, _, _, err := g.post("/", call(`["large"]`, "6"))
		return err == nil && status == 200
	})
	for _, name := range []string{"proxyd_rpc_errors_total", "proxyd_provider_errors_total", "proxyd_backend_unanswered_in_row"} {
		if n := g.series(t, name, `backend_name="b1"`); n != 0 {
			t.Errorf("%s is %v", name, n)
		}
	}
}
