package proxyd

import (
	"fmt"
	"testing"
	"time"
)

// timeout_seconds ends with the head of an answer, also when the connection lay
// idle before and others ask the same backend.
func TestStreamOnAUsedConnectionOutlivesTheTimeoutOfItsCall(t *testing.T) {
	for _, warm := range []bool{false, true} {
		t.Run(fmt.Sprint("on a used connection: ", warm), func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			o := newOrigin(t, func(v *visit) bool {
				switch v.params {
				case `["large"]`:
					return inTwo("sized", func(v *visit) bool { return v.await(release) })(v, idFirst.around(v.id, large(1<<20)))
				case `["silent"]`:
					return !v.gone()
				}
				return v.small(`"0x1"`)
			})
			g := start(t, conf("[server]\ntimeout_seconds = \"300ms\"\n[backend]\nresponse_timeout_seconds = 60", o.url), nil)
			if warm {
				if status, _, body, err := g.post("/", call(`["small"]`, "1")); err != nil || status != 200 {
					t.Fatal(status, body, err)
				}
			}
			begun := time.Now()
			res := g.open(t, call(`["large"]`, "7"))
			for time.Since(begun) < time.Second { // each of them is owed an answer until its time is over
				if status, _, body, err := g.post("/", call(`["silent"]`, "8")); err != nil || status != 504 {
					t.Fatal(status, body, err)
				}
			}
			close(release)
			brings(t, res.Body, large(1<<20), "7")
		})
	}
}
