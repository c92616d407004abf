package proxyd

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"
)

// stalling begins an answer and leaves it at that.
func stalling(t *testing.T, warm bool) (g *gateway, begun <-chan struct{}, released <-chan bool) {
	began, gone := make(chan struct{}, 1), make(chan bool, 1)
	o := newOrigin(t, func(v *visit) bool {
		if v.params == `["warm"]` {
			return v.small(`"0x1"`)
		}
		v.head("Content-Length: 1000")
		v.say(`{"jsonrpc":"2.0","id":$,"result":"`)
		began <- struct{}{}
		gone <- v.gone()
		return false
	})
	g = start(t, conf("[server]\ntimeout_seconds = 8\nshutdown_timeout = \"100ms\"\n[backend]\nresponse_timeout_seconds = 8", o.url), nil)
	if warm { // so that the call that follows finds an idle connection
		if status, _, body, err := g.post("/", call(`["warm"]`, "1")); err != nil || status != 200 {
			t.Fatal(status, body, err)
		}
	}
	return g, began, gone
}

// A client that leaves ends its call at once, whoever makes the attempt.
func TestClientThatLeavesWithinASmallAnswerEndsItsCall(t *testing.T) {
	for _, warm := range []bool{false, true} {
		t.Run(fmt.Sprint("on an idle connection: ", warm), func(t *testing.T) {
			t.Parallel()
			g, begun, gone := stalling(t, warm)
			c := g.dial(t, call(`[]`, "7"))
			<-begun
			left := time.Now()
			_ = c.Close()
			if ok := <-gone; !ok || time.Since(left) > 3*time.Second {
				t.Errorf("the upstream's connection was released after %v", time.Since(left))
			}
		})
	}
}

// shutdown_timeout bounds what is waited for, whoever makes the attempt.
func TestStopCutsOffACallWithinASmallAnswer(t *testing.T) {
	for _, warm := range []bool{false, true} {
		t.Run(fmt.Sprint("on an idle connection: ", warm), func(t *testing.T) {
			t.Parallel()
			g, begun, _ := stalling(t, warm)
			c, err := net.Dial("tcp", g.RPCAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			body := call(`[]`, "7")
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			<-begun
			from := time.Now()
			_ = g.Stop(context.Background())
			if took := time.Since(from); took > 3*time.Second {
				t.Errorf("stopped after %v, of which shutdown_timeout is 100ms", took)
			}
		})
	}
}
