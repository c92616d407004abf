package cache

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"gateway.internal/proxyd/jsonrpc"
)

// newArchiveCall is newCall for a client that wants archive backends.
func newArchiveCall(t testing.TB, method, params string) *jsonrpc.Call {
	t.Helper()
	c := newCall(t, method, params)
	c.Client.Archive = true
	return c
}

func TestArchiveCallsShareNoKeptAnswerWithOthers(t *testing.T) {
	for _, archiveFirst := range []bool{false, true} {
		n := 0
		up := &upstream{}
		up.answer = func(_ context.Context, c *jsonrpc.Call) {
			n++
			c.Answer = &jsonrpc.Answer{Result: fmt.Append(nil, n)}
		}
		h := newCache(t, nil).Middleware(up)
		ask := func(archive bool) string {
			c := newCall(t, "eth_chainId", "")
			c.Client.Archive = archive
			h.ServeRPC(t.Context(), []*jsonrpc.Call{c})
			return string(c.Answer.Result)
		}
		for range 3 {
			if first, second := ask(archiveFirst), ask(!archiveFirst); first != "1" || second != "2" {
				t.Errorf("archive first %v: answers %s and %s, want 1 and 2", archiveFirst, first, second)
			}
		}
	}
}

func TestArchiveCallsShareNoAttemptWithOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := newHeld()
		c := newCache(t, func(o *Options) { o.Coalesce = []string{"eth_call"} })
		h := c.Middleware(up)
		for range 5 {
			for _, method := range []string{"eth_chainId", "eth_call"} { // kept, and listed
				go h.ServeRPC(t.Context(), []*jsonrpc.Call{newCall(t, method, "[1]")})
				go h.ServeRPC(t.Context(), []*jsonrpc.Call{newArchiveCall(t, method, "[1]")})
			}
		}
		synctest.Wait()
		if up.count() != 4 {
			t.Errorf("asked %d times, want 2 methods, each with and without archive", up.count())
		}
		close(up.release)
		c.Close()
	})
}

// A batch comes from one client, so that this can only be seen where keys decide.
func TestArchiveCallsAreNoTwinsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &upstream{}
		c := newCache(t, func(o *Options) { o.Coalesce = []string{"eth_call"} })
		var calls []*jsonrpc.Call
		for range 3 {
			for _, method := range []string{"eth_chainId", "eth_call"} {
				calls = append(calls, newCall(t, method, "[1]"), newArchiveCall(t, method, "[1]"))
			}
		}
		c.Middleware(up).ServeRPC(t.Context(), calls)
		if up.count() != 4 {
			t.Errorf("asked %d times, want 2 methods, each with and without archive", up.count())
		}
		c.Close()
	})
}

func TestKeyOfAnArchiveCallAllocatesNoMore(t *testing.T) {
	c := newCache(t, nil)
	plain, archive := newCall(t, "eth_call", "[1]"), newArchiveCall(t, "eth_call", "[1]")
	want := testing.AllocsPerRun(100, func() { _ = c.key(plain) })
	if got := testing.AllocsPerRun(100, func() { _ = c.key(archive) }); got > want {
		t.Errorf("%v allocations, %v without archive", got, want)
	}
}
