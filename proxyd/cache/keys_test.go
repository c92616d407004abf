package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gateway.internal/proxyd/jsonrpc"
)

// The keys of a batch are parts of one string: each must be what the call would
// have alone.
func TestKeysOfABatchAreThoseOfItsCalls(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	params := []string{
		"", "[]", " [ ] ", "null", "{}", "[null]", `["a"]`, `[ "a" ]`, "[\n1,\t2 ]", `[" a ","\" b\\"]`, `["[]"]`, `[[]]`,
		`["` + strings.Repeat("x", directKey-4) + `"]`, `["` + strings.Repeat("x", directKey-3) + `"]`, `[ "` + strings.Repeat("x", directKey-4) + `" ]`,
		`["` + strings.Repeat("x", directKey) + `"]`, `["` + strings.Repeat("y", 5000) + `"]`, `["` + strings.Repeat(" ", 5000) + `"]`,
	}
	for _, namespace := range []string{"", "n:"} {
		c := newCache(t, func(o *Options) { o.Namespace = namespace })
		for range 200 {
			calls := make([]*jsonrpc.Call, 1+random.IntN(12))
			for i := range calls {
				calls[i] = &jsonrpc.Call{Method: []string{"eth_call", "eth_chainId", "eth_c"}[random.IntN(3)], Params: []byte(params[random.IntN(len(params))]), Client: &jsonrpc.Client{Archive: random.IntN(2) == 0}}
			}
			named := func(call *jsonrpc.Call) bool { return call.Method != "eth_chainId" }
			before := []string{"before"}
			got := c.keys(slices.Clone(before), calls, named)
			if len(got) != len(calls)+1 || got[0] != "before" {
				t.Fatalf("%d keys for %d calls: %q", len(got)-1, len(calls), got)
			}
			for i, call := range calls {
				want := ""
				if named(call) {
					want = c.key(call)
				}
				if got[i+1] != want {
					t.Errorf("key %d of %d calls: %.60q, want %.60q", i, len(calls), got[i+1], want)
				}
			}
		}
	}
}

// Two calls have one key only where their params say the same.
func TestKeysTellCallsApart(t *testing.T) {
	c := newCache(t, nil)
	seen := map[string]string{}
	for _, archive := range []bool{false, true} {
		for _, method := range []string{"eth_call", "eth_cal", "eth_calll"} {
			for n := range 500 {
				p := fmt.Sprintf(`["%s"]`, strings.Repeat("x", n))
				key := c.key(&jsonrpc.Call{Method: method, Params: []byte(p), Client: &jsonrpc.Client{Archive: archive}})
				if old, ok := seen[key]; ok {
					t.Fatalf("%s %s, archive %v, and %s have one key", method, p, archive, old)
				}
				seen[key] = fmt.Sprint(method, " ", p, ", archive ", archive)
				if len(key) > len(method)+1+max(directKey, 33) {
					t.Errorf("%d bytes of params have a key of %d", len(p), len(key))
				}
			}
		}
	}
}

// What ends the method in a key stands in no method's name.
func TestMarksOfKeysAreInNoMethod(t *testing.T) {
	for _, mark := range []byte{':', archiveMark} {
		if jsonrpc.ValidMethod([]byte{'a', mark}) {
			t.Errorf("%q may stand in a method", mark)
		}
	}
}
