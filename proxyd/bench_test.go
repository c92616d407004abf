package proxyd

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// upstream is a provider that answers every call with the same bytes, apart from the id. It shares the process with
// what is measured, so it allocates when a connection comes and never for a call.
func upstream(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				answerAll(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return "http://" + l.Addr().String()
}

var idMember, headEnd, length = []byte(`"id":`), []byte("\r\n\r\n"), []byte("Content-Length: ")

// answerAll answers the single calls that come on a connection, until it ends.
func answerAll(c net.Conn) {
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":%20s,"result":"0x0234c8a3397aab58"}`, "")
	out := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	room := out[bytes.Index(out, idMember)+len(idMember):][:20]
	in := make([]byte, 16<<10)
	for n := 0; ; {
		k, err := c.Read(in[n:])
		if err != nil {
			return
		}
		n += k
		head, call, ok := bytes.Cut(in[:n], headEnd)
		if !ok || len(call) < contentLength(head) {
			continue
		}
		_, id, _ := bytes.Cut(call, idMember)
		k = copy(room, id[:bytes.IndexAny(id, ",}")])
		copy(room[k:], "                    ")
		if _, err := c.Write(out); err != nil {
			return
		}
		n = 0
	}
}

func contentLength(head []byte) int {
	_, value, _ := bytes.Cut(head, length)
	value, _, _ = bytes.Cut(value, headEnd[:2])
	n, _ := strconv.Atoi(string(value))
	return n
}

// asker sends the same request through the whole gateway again and again, without the HTTP server. The request, its
// body and the ResponseWriter are made once, so that all that is counted is the gateway's. The request, its header
// and its context, which net/http's server makes anew for each call, are not in it.
type asker struct {
	front   http.Handler
	request *http.Request
	text    string
	reader  strings.Reader
	header  http.Header
	status  int
	written int
}

func (a *asker) Read(p []byte) (int, error) { return a.reader.Read(p) }
func (a *asker) Close() error               { return nil }

func (a *asker) Header() http.Header    { return a.header }
func (a *asker) WriteHeader(status int) { a.status = status }
func (a *asker) Write(p []byte) (int, error) {
	a.written += len(p)
	return len(p), nil
}

// ask sends the request, and fails the test unless it is answered with a result.
func (a *asker) ask(t testing.TB) {
	a.reader.Reset(a.text)
	a.request.Body = a
	clear(a.header)
	a.status, a.written = 0, 0
	if a.front.ServeHTTP(a, a.request); a.status != 200 || a.written < 40 {
		t.Fatalf("status %d, %d bytes", a.status, a.written)
	}
}

// newAsker builds a gateway as an operator would who uses all of it (limits, cache, metrics, two backends), and
// warms it up. cache is what its answers must say of the cache.
func newAsker(t testing.TB, method, params, cache string) *asker {
	t.Helper()
	g := build(t, conf(`[cache]
enabled = true
[[cache.rules]]
methods = ["eth_gasPrice"]
ttl = "1ns" # kept, and gone before it is asked for again
[rate_limit]
base_rate = 1000000000
base_interval = "1s"`, upstream(t), upstream(t)), func(o *Options) { o.Log = nil })
	t.Cleanup(func() { g.graph.close(context.Background()) })
	ctx, cancel := context.WithCancel(context.Background()) // a server's can end
	t.Cleanup(cancel)
	a := &asker{front: g.graph.front, text: request(method, params), header: http.Header{}}
	a.request = httptest.NewRequestWithContext(ctx, "POST", "/", nil)
	a.request.Header.Set("Content-Type", "application/json")
	a.request.ContentLength = int64(len(a.text))
	for range 100 {
		a.ask(t)
	}
	if got := a.header.Get("X-Proxyd-Cache-Status"); got != cache {
		t.Fatalf("cache status %q, want %q", got, cache)
	}
	return a
}

func newHit(t testing.TB) *asker { return newAsker(t, "eth_chainId", "[]", "HIT") }

func newMiss(t testing.TB) *asker {
	return newAsker(t, "eth_getBalance", `["0xd8da6bf26964af9d7eed9e03e53415d37aa96045","latest"]`, "MISS")
}

// newKeptMiss asks for what may be kept: the call is shared with whoever asks the same meanwhile, and its answer put
// into the cache.
func newKeptMiss(t testing.TB) *asker { return newAsker(t, "eth_gasPrice", "[]", "MISS") }

func (a *asker) bench(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		a.ask(b)
	}
}

func BenchmarkHit(b *testing.B)      { newHit(b).bench(b) }
func BenchmarkMiss(b *testing.B)     { newMiss(b).bench(b) }
func BenchmarkKeptMiss(b *testing.B) { newKeptMiss(b).bench(b) }
