package proxyd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// batching is a provider of large results that takes batches; its results depend
// on the params, and only on them.
func batching(t testing.TB, result func(params string) []byte, asked func(body string)) string {
	return serving(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked(string(body))
		type one struct{ ID, Params json.RawMessage }
		var calls []one
		batch := bytes.HasPrefix(body, []byte("["))
		if !batch {
			body = append(append([]byte("["), body...), ']')
		}
		if err := json.Unmarshal(body, &calls); err != nil {
			t.Error(err)
		}
		var out [][]byte
		for _, c := range calls {
			out = append([][]byte{idLast.around(string(c.ID), result(string(c.Params)))}, out...) // not in their order
		}
		if batch {
			_, _ = fmt.Fprintf(w, "[%s]", bytes.Join(out, []byte(",")))
			return
		}
		_, _ = w.Write(out[0])
	})
}

// ofLength is a result of as many bytes as its params say.
func ofLength(params string) []byte {
	var n int
	_, _ = fmt.Sscanf(params, "[%d", &n)
	return []byte(`"` + strings.Repeat(fmt.Sprint(n%10), n) + `"`)
}

func TestBatchOfLargeResultsIsWhole(t *testing.T) {
	t.Parallel()
	var requests sync.Map
	url := batching(t, ofLength, func(body string) { requests.Store(body, true) })
	g := start(t, keyed("", "", url), nil)
	sizes := []int{1 << 20, 5, 100<<10 + 1, 70<<10 + 2, 1<<20 + 3}
	var calls, want []string
	for i, n := range sizes {
		id := fmt.Sprintf(`"n%d"`, i)
		calls = append(calls, call(fmt.Sprintf("[%d]", n), id))
		want = append(want, fmt.Sprintf(`{"jsonrpc":"2.0","result":%s,"id":%s}`, ofLength(fmt.Sprintf("[%d]", n)), id))
	}
	status, _, body, err := g.post("/", "["+strings.Join(calls, ",")+"]")
	if err != nil || status != 200 || body != "["+strings.Join(want, ",")+"]\n" {
		t.Errorf("%d, %d bytes %.300q %v", status, len(body), body, err)
	}
	status, _, body, err = g.post("/", "["+calls[0]+"]")
	if err != nil || status != 200 || body != "["+want[0]+"]\n" {
		t.Errorf("a batch of one: %d, %d bytes %.300q %v", status, len(body), body, err)
	}
}

func TestBatchWhoseUpstreamBreaksIsAskedElsewhere(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, func(v *visit) bool {
		v.head("Content-Length: 16777216")
		v.write([]byte(`[{"jsonrpc":"2.0","id":1,"result":`), large(1<<20))
		return false
	})
	url := batching(t, ofLength, func(string) {})
	g := start(t, keyed("", "", o.url, url), nil)
	_, _, body, err := g.post("/", "["+call("[300000]", "1")+","+call("[1]", "2")+"]")
	want := fmt.Sprintf(`[{"jsonrpc":"2.0","result":%s,"id":1},{"jsonrpc":"2.0","result":"1","id":2}]`+"\n", ofLength("[300000]"))
	if err != nil || body != want {
		t.Errorf("%d bytes %.300q %v", len(body), body, err)
	}
}

func TestLargeResultIsKeptInTheCache(t *testing.T) {
	t.Parallel()
	hash := fmt.Sprintf(`["0x%064x",true]`, 1)
	for _, how := range []string{"sized", "chunked", "gzip"} {
		o := answering(t, idLast, large(500<<10), delivered[how])
		g := start(t, keyed("gzip = true", "[cache]\nenabled = true", o.url), nil)
		for i, want := range []string{"MISS", "HIT", "HIT"} {
			id := fmt.Sprint(-i)
			_, h, body, err := g.post("/", fmt.Sprintf(`{"jsonrpc":"2.0","method":"eth_getBlockByHash","params":%s,"id":%s}`, hash, id))
			if err != nil {
				t.Fatal(err)
			}
			answers(t, []byte(body), large(500<<10), id)
			if got := h.Get("X-Proxyd-Cache-Status"); got != want {
				t.Errorf("%s, call %d: %s, want %s", how, i, got, want)
			}
		}
		if n := o.asked.Load(); n != 1 {
			t.Errorf("%s: asked %d times", how, n)
		}
	}
}

func TestCachedMethodWhoseUpstreamBreaksIsAskedElsewhere(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, func(v *visit) bool {
		v.head("Content-Length: 16777216")
		v.write([]byte(`{"jsonrpc":"2.0","id":1,"result":`), large(500<<10))
		return false
	})
	other := answering(t, idLast, large(500<<10), delivered["sized"])
	g := start(t, keyed("", "[cache]\nenabled = true", o.url, other.url), nil)
	for range 2 {
		_, _, body, err := g.post("/", request("eth_getBlockByHash", fmt.Sprintf(`["0x%064x",true]`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		answers(t, []byte(body), large(500<<10), "1")
	}
	if a, b := o.asked.Load(), other.asked.Load(); a != 1 || b != 1 {
		t.Errorf("the backends were asked %d and %d times", a, b)
	}
}

func TestCoalescedCallsShareALargeResult(t *testing.T) {
	t.Parallel()
	const callers = 10
	release := make(chan struct{})
	deliver := inTwo("sized", func(v *visit) bool { return v.await(release) })
	o := newOrigin(t, func(v *visit) bool { return deliver(v, idFirst.around(v.id, large(1<<20))) })
	g := start(t, keyed("", "[cache]\ncoalesce = [\"eth_call\"]", o.url), nil)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			id := fmt.Sprintf(`"c%d"`, i)
			_, _, body, err := g.post("/", call(`["same"]`, id))
			if err != nil {
				t.Error(err)
				return
			}
			answers(t, []byte(body), large(1<<20), id)
		})
	}
	becomes(t, "all wait for the first", func() bool { return g.series(t, "proxyd_coalesced_calls_total") == callers-1 })
	close(release)
	wg.Wait()
	if n := o.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestLargeErrorIsPassedOnWhole(t *testing.T) {
	data := strings.Repeat("0123456789abcdef", 200<<10/16)
	object := `{"code":3,"message":"execution reverted: no","data":"0x` + data + `"}`
	for name, text := range map[string]string{
		"error last":  `{"jsonrpc":"2.0","id":$,"error":` + object + `}`,
		"error first": `{"error":` + object + `,"id":$,"jsonrpc":"2.0"}`,
		"no id":       `{"jsonrpc":"2.0","id":null,"error":` + object + "}\n",
		"null result": `{"jsonrpc":"2.0","id":$,"result":null,"error":` + object + `}`,
	} {
		for _, how := range []string{"sized", "chunked", "gzip"} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				o := newOrigin(t, func(v *visit) bool { return delivered[how](v, []byte(strings.ReplaceAll(text, "$", v.id))) })
				g := start(t, keyed("gzip = true", "", o.url), nil)
				status, _, body, err := g.post("/", call("[]", "7"))
				if want := `{"jsonrpc":"2.0","error":` + object + `,"id":7}` + "\n"; err != nil || status != 200 || body != want {
					t.Errorf("%d, %d bytes %.300q %v", status, len(body), body, err)
				}
				if n := g.series(t, "proxyd_rpc_errors_total", `backend_name="b1"`, `error_code="3"`); n != 1 {
					t.Errorf("counted %v times", n)
				}
			})
		}
	}
}
