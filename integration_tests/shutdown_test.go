package integration_tests

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

func TestTermDrainsFirstAndFinishesCallsInFlight(t *testing.T) {
	t.Parallel()
	n := startAnvil(t)
	p := newProvider(t, n)
	g := startGateway(t, config{
		server:   "graceful_shutdown_seconds = 2",
		backends: []string{p.url("/")},
	}.String())
	if status, body, err := get(g.url + "/readyz"); status != 200 || err != nil {
		t.Fatalf("/readyz: %d %s %v, want 200", status, body, err)
	}

	release := p.hold("eth_gasPrice")
	type late struct {
		answer answer
		err    error
	}
	inFlight := make(chan late, 1)
	go func() {
		a, err := g.client.send(request(`"late"`, "eth_gasPrice", "[]"))
		inFlight <- late{a, err}
	}()
	eventually(t, 10*time.Second, "the slow call to reach the provider", func() error {
		if p.held() == 0 {
			return fmt.Errorf("nothing held")
		}
		return nil
	})

	g.terminate(t)
	eventually(t, 2*time.Second, "/readyz to say 503", func() error {
		status, _, err := get(g.url + "/readyz")
		if err == nil && status != 503 {
			err = fmt.Errorf("status %d", status)
		}
		return err
	})
	for _, c := range []*rpcClient{g.client, newRPCClient(t, g.url)} { // on a kept connection and on a new one
		if _, err := c.call("eth_chainId", "[]"); err != nil {
			t.Errorf("while draining: %v", err)
		}
	}

	eventually(t, 15*time.Second, "the listener to close", func() error {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err != nil {
			return nil
		}
		conn.Close()
		return fmt.Errorf("still accepts")
	})
	release()
	got := <-inFlight
	if got.err != nil || got.answer.Result == nil || string(got.answer.ID) != `"late"` {
		t.Errorf("call in flight: id %s, result %s, error %s, %v", got.answer.ID, got.answer.Result, got.answer.Error, got.err)
	}
	g.stop(t) // waits; the harness wants exit code 0
	if !strings.Contains(g.output(), `"msg":"shutting down proxyd"`) {
		t.Error("no line says shutting down proxyd")
	}
}

func TestTermRightAfterTheStartedLineEndsInOrder(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			startGateway(t, config{backends: []string{"http://127.0.0.1:1"}}.String()).stop(t) // the harness wants exit code 0
		})
	}
}
