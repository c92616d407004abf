package proxyd

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Not parallel: it looks for goroutines that stay.
func TestClientThatLeavesAStreamEndsItWithoutBlame(t *testing.T) {
	for _, how := range []string{"sized", "chunked", "without a length", "sized over TLS", "chunked, through net/http", "sized, upstream silent", "chunked, upstream silent", "chunked over TLS, upstream silent", "sized, upstream silent, reset", "chunked, reset", "sized, all sent and closed", "sized, all sent and closed, reset", "sized, pipelining", "sized, pipelining, reset", "chunked, pipelining"} {
		t.Run(how, func(t *testing.T) {
			ended := make(chan struct{})
			way, _, _ := strings.Cut(how, ", ")
			way = strings.TrimSuffix(way, " over TLS")
			serve := func(v *visit) bool {
				if v.params != `["large"]` {
					return v.small(`"0x1"`)
				}
				defer close(ended)
				if strings.Contains(how, "all sent") { // into the buffers of sockets
					return delivered["sized, then closed"](v, idFirst.around(v.id, large(6<<20)))
				}
				if !strings.Contains(how, "silent") {
					return endless(v, way, make(chan bool, 1))
				}
				// Nothing is written any more: only the client's end tells.
				front := []byte(`{"jsonrpc":"2.0","id":` + v.id + `,"result":"` + strings.Repeat("a", 200<<10))
				if way == "sized" {
					v.head("Content-Length: 16777216")
					v.write(front)
				} else {
					v.head("Transfer-Encoding: chunked")
					v.chunk(front)
				}
				if !v.gone() {
					t.Error("the upstream's connection stays open")
				}
				return false
			}
			leaks := goleak.IgnoreCurrent()
			t.Run("call", func(t *testing.T) {
				var o *origin
				keys := ""
				if strings.Contains(how, "TLS") {
					o, keys = tlsOrigin(t, serve)
				} else {
					o = newOrigin(t, serve)
				}
				if strings.Contains(how, "net/http") {
					keys = "http2 = true"
				}
				g := start(t, keyed(keys, "[server]\ntimeout_seconds = 60\nmax_concurrent_rpcs = 1\n[backend]\nmax_response_size_bytes = 2000000000\nresponse_timeout_seconds = 60", o.url), nil)
				c := g.dial(t, call(`["large"]`, "7"))
				in := bufio.NewReader(c)
				if strings.Contains(how, "pipelining") { // only writes tell then that the client has left
					_, _ = io.WriteString(c, "POST / ")
				}
				head, err := in.Peek(1000)
				if err != nil || !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
					t.Fatalf("%v %q", err, head)
				}
				if strings.Contains(how, "all sent") {
					select {
					case <-ended:
					case <-time.After(30 * time.Second):
						t.Fatal("the sockets do not keep what was sent")
					}
				}
				if strings.Contains(how, "reset") {
					_ = c.SetLinger(0)
				}
				_ = c.Close()
				select {
				case <-ended:
				case <-time.After(30 * time.Second):
					t.Fatal("the upstream's connection stays open when the client has left")
				}
				g.unblamed(t, "b1")
				if n := g.series(t, "proxyd_streamed_answers_total", `backend_name="b1"`, `end="client_left"`); n != 1 {
					t.Errorf("%v answers are counted as left", n)
				}
				// The only slot is free again.
				status, _, body, err := g.post("/", call(`["small"]`, "8"))
				if err != nil || status != 200 || !strings.Contains(body, `"0x1"`) {
					t.Errorf("the next call: %d %s %v", status, body, err)
				}
			})
			goleak.VerifyNone(t, leaks)
		})
	}
}
