package proxyd

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestBodyThatTricklesIsCutWhileOthersAreServed(t *testing.T) {
	t.Parallel()
	g := start(t, keyed("", "[server]\nread_timeout = \"800ms\"", newNode(t, "n").URL), nil)
	c, err := net.Dial("tcp", g.RPCAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body := request("eth_call", `["`+strings.Repeat("a", 1000)+`"]`)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(body))
	began := time.Now()
	answered := make(chan string, 1)
	go func() {
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		raw, err := io.ReadAll(c)
		answered <- fmt.Sprintf("%s%v", raw, err)
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := range body {
		select {
		case <-tick.C:
			_, _ = io.WriteString(c, body[i:i+1])
			if status, _, answer, err := g.post("/", request("eth_chainId", "[]")); status != 200 || err != nil {
				t.Errorf("another client: %d %s %v", status, answer, err)
			}
			continue
		case answer := <-answered:
			if took := time.Since(began); took < 700*time.Millisecond || took > 20*time.Second {
				t.Errorf("cut after %v", took)
			}
			if strings.Contains(answer, "timeout") || strings.Contains(answer, " 200 ") || answer != "" && !strings.Contains(answer, " 408 ") && !strings.Contains(answer, "reset") && answer != "<nil>" {
				t.Errorf("answered %q", answer)
			}
		}
		return
	}
	t.Error("the whole body was taken")
}
