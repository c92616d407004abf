package proxyd

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestStopWaitsForAStream(t *testing.T) {
	for _, how := range []string{"sized", "chunked", "sized over TLS"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			deliver := inTwo(strings.TrimSuffix(how, " over TLS"), func(v *visit) bool { return v.await(release) })
			serve := func(v *visit) bool { return deliver(v, idFirst.around(v.id, large(2<<20))) }
			var o *origin
			keys := ""
			if strings.HasSuffix(how, "TLS") {
				o, keys = tlsOrigin(t, serve)
			} else {
				o = newOrigin(t, serve)
			}
			g := start(t, keyed(keys, "", o.url), nil)
			res := g.open(t, call("[]", "7"))
			stopped := make(chan error, 1)
			go func() { stopped <- g.Stop(context.Background()) }()
			becomes(t, "the listener is closed", func() bool {
				c, err := net.Dial("tcp", g.RPCAddr().String())
				if err == nil {
					_ = c.Close()
				}
				return err != nil
			})
			select {
			case err := <-stopped:
				t.Fatal("stopped within a stream:", err)
			default:
			}
			close(release)
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			answers(t, body, large(2<<20), "7")
			if err := <-stopped; err != nil {
				t.Error(err)
			}
		})
	}
}

// Not parallel: it looks for goroutines that stay.
func TestStopCutsOffAStreamThatDoesNotEnd(t *testing.T) {
	for _, how := range []string{"sized", "chunked", "sized over TLS", "sized, a client that takes nothing", "chunked, a client that takes nothing"} {
		t.Run(how, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			t.Run("call", func(t *testing.T) {
				way, idle, _ := strings.Cut(how, ", ")
				way = strings.TrimSuffix(way, " over TLS")
				closed := make(chan bool, 1)
				serve := func(v *visit) bool {
					if idle != "" {
						v.keepLittle()
						_ = delivered[way](v, idFirst.around(v.id, large(12<<20)))
					} else {
						_ = inTwo(way, func(*visit) bool { return false })(v, idFirst.around(v.id, large(1<<20)))
					}
					closed <- v.gone()
					return false
				}
				var o *origin
				keys := ""
				if strings.HasSuffix(how, "TLS") {
					o, keys = tlsOrigin(t, serve)
				} else {
					o = newOrigin(t, serve)
				}
				g := start(t, keyed(keys, "[server]\ntimeout_seconds = 60\nshutdown_timeout = \"100ms\"\n[backend]\nresponse_timeout_seconds = 60", o.url), nil)
				c := g.dial(t, call("[]", "7"))
				if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil {
					t.Fatal(err)
				}
				err := g.Stop(context.Background())
				if err == nil || !strings.Contains(err.Error(), "cut off") || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("stop: %v", err)
				}
				if !<-closed {
					t.Error("the upstream's connection stays open")
				}
				rest, err := io.ReadAll(c)
				if err == nil && strings.HasSuffix(strings.TrimSpace(string(rest)), `,"id":7}`) {
					t.Error("the client saw a whole answer")
				}
			})
			goleak.VerifyNone(t, leaks)
		})
	}
}
