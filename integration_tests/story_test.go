package integration_tests

import (
	"fmt"
	"testing"
	"time"
)

// The story of the gateway's first users: calls go to the first backend; when it fails they go to the second for
// out_of_service_seconds; then the first is tried again. Clients see nothing of it.
func TestCallsGoToSecondBackendForOutOfServiceSecondsAndThenBack(t *testing.T) {
	t.Parallel()
	const outOfService = 2 * time.Second
	faults := map[string]func(*faultyListener){
		"first refuses": (*faultyListener).refuse,
		"first hangs":   func(l *faultyListener) { l.become(hanging) },
	}
	for name, fail := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startAnvil(t)
			first, second := newFaultyListener(t, n.addr), newFaultyListener(t, n.addr)
			g := startGateway(t, config{
				backend:  "response_timeout_seconds = 1\nmax_retries = 3\nout_of_service_seconds = 2",
				backends: []string{first.url(), second.url()},
			}.String())

			calls := 0
			read := func() {
				t.Helper()
				calls++
				params := fmt.Sprintf(`["0x%040x","latest"]`, calls) // each call another: nothing to share or to cache
				if _, err := g.client.call("eth_getBalance", params); err != nil {
					t.Fatalf("call %d: %v", calls, err)
				}
			}
			for range 5 {
				read()
			}
			if first.seen().answers == 0 || second.seen().answers != 0 {
				t.Fatalf("before the fault: first %+v, second %+v", first.seen(), second.seen())
			}

			fail(first)
			failed := time.Now()
			// Out of service: ten calls in a row leave the first alone.
			eventually(t, 60*time.Second, "the first to be left alone", func() error {
				before := first.seen().requests
				for range 10 {
					read()
				}
				if first.seen().requests != before || second.seen().answers < 10 {
					return fmt.Errorf("first %+v, second %+v", first.seen(), second.seen())
				}
				return nil
			})
			if last := first.seen().lastRequest; last.After(failed) {
				failed = last
			}

			first.restore(t)
			before := first.seen()
			eventually(t, 20*time.Second, "the first to serve again", func() error {
				read()
				if first.seen().answers == before.answers {
					return fmt.Errorf("no answer by the first in %s", time.Since(failed))
				}
				return nil
			})
			if rest := time.Since(failed); rest < outOfService {
				t.Errorf("the first was asked again after %s, out of service are %s", rest, outOfService)
			}
			aside := second.seen().answers
			for range 10 {
				read()
			}
			if got := second.seen().answers; got != aside {
				t.Errorf("the second still answered %d of 10 calls after the first was back", got-aside)
			}
		})
	}
}
