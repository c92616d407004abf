//go:build !race

package jsonrpc

import "testing"

// What the scanner may allocate for a small call and for the reply to it. Nothing of it is the tests'.
const (
	parseBudget = 5
	replyBudget = 2
)

func TestSmallCallKeepsToItsAllocations(t *testing.T) {
	body := []byte(smallCall)
	within(t, parseBudget, func() {
		if calls, _, err := Parse(body, 100); err != nil || calls[0].Err != nil {
			t.Fatal(err)
		}
	})
}

func TestSmallReplyKeepsToItsAllocations(t *testing.T) {
	body := []byte(`{"jsonrpc":"2.0","id":1,"result":"0x0234c8a3397aab58"}`)
	within(t, replyBudget, func() {
		if _, err := ParseReply(body); err != nil {
			t.Fatal(err)
		}
	})
}

func within(t *testing.T, budget float64, f func()) {
	t.Helper()
	n := testing.AllocsPerRun(200, f)
	if t.Logf("%v allocations", n); n > budget {
		t.Errorf("%v allocations, at most %v are allowed", n, budget)
	}
}
