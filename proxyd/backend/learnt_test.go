package backend

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// choosy takes batches of at most most calls and refuses larger ones with status
// and body.
func choosy(t *testing.T, most, status int, body string) (url string, sizes func() []int) {
	var mu sync.Mutex
	var all []int
	url = provider(t, func(w http.ResponseWriter, r *http.Request) {
		var raw json.RawMessage
		json.NewDecoder(r.Body).Decode(&raw)
		var calls []struct{ ID uint64 }
		single := json.Unmarshal(raw, &calls) != nil
		if single {
			calls = append(calls, struct{ ID uint64 }{})
			json.Unmarshal(raw, &calls[0])
		}
		mu.Lock()
		all = append(all, len(calls))
		mu.Unlock()
		switch {
		case len(calls) > most:
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		case single:
			fmt.Fprintf(w, `{"id":%d,"result":%d}`, calls[0].ID, calls[0].ID)
		default:
			out := "["
			for i, c := range calls {
				if i > 0 {
					out += ","
				}
				out += fmt.Sprintf(`{"id":%d,"result":%d}`, c.ID, c.ID)
			}
			fmt.Fprint(w, out+"]")
		}
	})
	return url, func() []int {
		mu.Lock()
		defer mu.Unlock()
		return append([]int(nil), all...)
	}
}

func batchOf(n int) []*jsonrpc.Call {
	calls := make([]*jsonrpc.Call, n)
	for i := range calls {
		calls[i] = call("eth_getBalance", fmt.Sprintf(`["%d"]`, i))
	}
	return calls
}

func TestRefusedBatchIsSplitAndTheSizeLearnt(t *testing.T) {
	for name, c := range map[string]struct {
		most, status int
		body         string
	}{
		"too large by status":         {3, 413, `<html>`},
		"too large by allowed status": {3, 413, `{"error":{"code":-32600,"message":"too large"}}`},
		"too large by an error":       {3, 200, `{"id":null,"error":{"code":-32600,"message":"Batch size too large"}}`},
		"no batches at all":           {1, 200, `{"id":null,"error":{"code":-32000,"message":"batch requests are not supported"}}`},
		"no batches by status":        {1, 500, `{"id":null,"error":{"code":-32000,"message":"batch requests are not supported"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			url, sizes := choosy(t, c.most, c.status, c.body)
			b := newBackend(t, url, nil)
			for range 2 {
				for i, r := range ask(t, b, batchOf(10)...) {
					if r.Err != nil {
						t.Fatalf("call %d: %v", i, r.Err)
					}
				}
			}
			state(t, b, Well)
			before := len(sizes())
			ask(t, b, batchOf(10)...)
			for _, n := range sizes()[before:] {
				if n > c.most {
					t.Errorf("a batch of %d was sent although %d is known to be too much", n, c.most+1)
				}
			}
		})
	}
}

func TestErrorThatOnlyEchoesTheWordBatchIsNoRefusal(t *testing.T) {
	url := answering(t, 200, `{"id":null,"error":{"code":-32602,"message":"invalid argument batch"}}`)
	for _, r := range ask(t, newBackend(t, url, nil), blockNumber(), call("eth_call", `["batch"]`)) {
		rpcError(t, r, `{"code":-32602,"message":"invalid argument batch"}`, 0, "bad_params")
	}
}

func TestLearntBatchSizeOnlyShrinksAndIsForgottenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l learnt
		l.refused(4)
		l.refused(100) // one that was under way
		if n := len(l.split(batchOf(4))); n != 2 {
			t.Fatalf("%d parts, want 2", n)
		}
		if parts := l.split(batchOf(5)); len(parts) != 3 || len(parts[2]) != 1 {
			t.Fatalf("%d parts", len(parts))
		}
		time.Sleep(relearnAfter + time.Second)
		if n := len(l.split(batchOf(100))); n != 1 {
			t.Fatalf("%d parts after it was forgotten", n)
		}
		l.refused(100)
		if n := len(l.split(batchOf(100))); n != 2 {
			t.Fatalf("%d parts, want 2", n)
		}
	})
}

func TestMethodThatABackendLacksIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u unsupported
		u.add("eth_foo")
		if !u.has("eth_foo") || u.has("eth_bar") {
			t.Fatal("it is not what was said")
		}
		u.remove("eth_foo")
		if u.has("eth_foo") {
			t.Fatal("an answer did not correct it")
		}
		u.add("eth_foo")
		time.Sleep(relearnAfter + time.Second)
		if u.has("eth_foo") {
			t.Fatal("it is never asked again")
		}
	})
}

func TestUnsupportedMethodMakesTheBackendNotSupportIt(t *testing.T) {
	node, url := chain(t)
	b := newBackend(t, url, nil)
	c := call("eth_getProof", "") // the dev chain lacks it
	ask(t, b, c)
	if b.Supports(c.Label) || !b.Supports("eth_blockNumber") {
		t.Error("it was not learnt")
	}
	state(t, b, Well)
	_ = node
}
