package group

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// Calls are asked elsewhere as soon when an attempt is made in the caller's
// goroutine as when it is not.
func TestMemberThatFallsSilentWithinAHeadIsLeftAsSoonOnAnIdleConnection(t *testing.T) {
	for _, warm := range []bool{false, true} {
		t.Run(fmt.Sprint("idle connections: ", warm), func(t *testing.T) {
			streaming(t, 2, func(t *testing.T, s *streams) {
				now := make(chan struct{})
				if warm {
					s.nodes[0].speaks(small, now)
					var wg sync.WaitGroup
					for range 3 {
						wg.Go(func() { s.ServeRPC(t.Context(), []*jsonrpc.Call{call("eth_call", "[]")}) })
					}
					synctest.Wait()
					close(now)
					wg.Wait()
					if n := s.connections(0); n != 3 {
						t.Fatalf("%d connections", n)
					}
					time.Sleep(time.Millisecond)
				}
				s.nodes[0].does(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.ReadAll(r.Body)
					c, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
					_, _ = io.Copy(io.Discard, c) // until the gateway gives up
				})
				begun := time.Now()
				calls, wait := s.three(t.Context())
				wait()
				for _, c := range calls {
					if c.Err != nil || c.Answer.Backend != "b1" {
						t.Errorf("%+v, %v", c.Answer, c.Err)
					}
				}
				if took := time.Since(begun); took > 1500*time.Millisecond {
					t.Errorf("answered by the other member after %v", took)
				}
				s.state(0, backend.Suspect)
			})
		})
	}
}
