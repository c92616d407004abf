package backend

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestBackendIsForeignUntilItsChainIsKnown(t *testing.T) {
	var says atomic.Value
	url := provider(t, func(w http.ResponseWriter, r *http.Request) {
		id := firstID(r)
		if says.Load() == "" {
			w.WriteHeader(500)
			return
		}
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,%s}`, id, says.Load())
	})
	b := newBackend(t, url, func(o *Options) { o.ChainID, o.Verify = 10, true })
	ask := func(method, says1 string) {
		t.Helper()
		says.Store(says1)
		b.Own(t.Context(), method, "[]", time.Second)
	}
	want := func(state State, unverified bool, why string) {
		t.Helper()
		if got := b.Standing().State; got != state || b.Unverified() != unverified || b.Unfitness() != why {
			t.Fatalf("the backend is %s, unverified %t, %q", got, b.Unverified(), b.Unfitness())
		}
	}
	unknown := "its chain id has not been checked yet"
	want(Foreign, true, unknown)
	ask("eth_blockNumber", `"result":"0xa"`)
	want(Foreign, true, unknown)
	for _, says := range []string{"", `"error":{"code":-32601,"message":"no"}`, `"result":null`, `"result":"ten"`} {
		ask("eth_chainId", says)
		want(Foreign, true, unknown)
	}
	ask("eth_chainId", `"result":"0xb"`)
	want(Foreign, false, "serves chain id 11, not 10")
	ask("eth_chainId", `"result":"0xa"`)
	want(Well, false, "")
	ask("eth_chainId", "")
	want(Well, false, "") // what is known stays known
}

func TestBackendNeedsNoVerificationWithoutAChainOrAChecker(t *testing.T) {
	for _, change := range []func(*Options){func(o *Options) { o.ChainID = 10 }, func(o *Options) { o.Verify = true }, nil} {
		b := newBackend(t, "http://backend.invalid", change)
		if state(t, b, Well); b.Unverified() {
			t.Error("unverified")
		}
	}
}

func TestAnAnswerThatIsNoChainIDIsInvalid(t *testing.T) {
	for _, result := range []string{`6`, `"6"`, `"0x000000000000000000000006"`, `{"x":"0x6"}`, `"0X6"`, `""`, `" 0x6"`, `null`} {
		url := provider(t, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"result":%s}`, firstID(r), result)
		})
		b := newBackend(t, url, func(o *Options) { o.ChainID, o.Verify = 6, true })
		if reply := b.Own(t.Context(), "eth_chainId", "[]", time.Second); reply.Err == nil || !b.Unverified() {
			t.Errorf("%s is a chain id", result)
		}
	}
}

func TestOwnCallsTakeNoLargeAnswer(t *testing.T) {
	for size, taken := range map[int]bool{maxOwn / 2: true, 2 * maxOwn: false} {
		url := provider(t, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"result":"%s"}`, firstID(r), strings.Repeat("x", size))
		})
		b := newBackend(t, url, nil)
		if reply := b.Own(t.Context(), "optimism_syncStatus", "[]", 5*time.Second); (reply.Err == nil) != taken {
			t.Errorf("%d bytes: %v", size, reply.Err)
		}
	}
}
