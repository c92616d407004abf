package proxyd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// heap is how many bytes live objects take.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one's finalizers and pools let go
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// counting counts what is written.
type counting struct {
	net.Conn
	n *atomic.Int64
}

func (c counting) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		var k int
		k, err = c.Conn.Write(p[:min(len(p), 32<<10)])
		n, p = n+k, p[k:]
		c.n.Add(int64(k))
	}
	return n, err
}

// calm waits until a number has stopped to grow.
func calm(t testing.TB, what string, n *atomic.Int64, least int64) {
	t.Helper()
	last, since := int64(-1), time.Now()
	becomes(t, what, func() bool {
		if now := n.Load(); now != last {
			last, since = now, time.Now()
		}
		return last >= least && time.Since(since) > 150*time.Millisecond
	})
}

// Not parallel: it measures the memory of the process.
func TestSlowClientsHoldNoMemoryAndSlowNobody(t *testing.T) {
	const clients, size = 8, 16 << 20
	for _, how := range []string{"sized", "chunked", "sized, through net/http"} {
		t.Run(how, func(t *testing.T) {
			result := large(size)
			var sent atomic.Int64
			serve := func(v *visit) bool {
				if v.params != `["large"]` {
					return v.small(`"0x1"`)
				}
				v.Conn = counting{v.Conn, &sent}
				front, back := []byte(`{"jsonrpc":"2.0","id":`+v.id+`,"result":`), []byte("}\n")
				if strings.HasPrefix(how, "chunked") {
					return v.head("Transfer-Encoding: chunked") && v.chunk(front) && v.chunk(result) && v.chunk(back) && v.say("0\r\n\r\n")
				}
				return v.head(fmt.Sprint("Content-Length: ", len(front)+len(result)+len(back))) && v.write(front, result, back)
			}
			o, keys := newOrigin(t, serve), ""
			if strings.HasSuffix(how, "net/http") {
				keys = "http2 = true"
			}
			g := start(t, keyed(keys, "[server]\ntimeout_seconds = 60\n[backend]\nresponse_timeout_seconds = 60", o.url), nil)
			if _, _, _, err := g.post("/", call(`["small"]`, "1")); err != nil {
				t.Fatal(err)
			}
			before := heap()
			var slow []*bufio.Reader
			var last *net.TCPConn
			for range clients {
				last = g.dial(t, call(`["large"]`, "7"))
				in := bufio.NewReaderSize(last, 1<<10)
				if _, err := in.Peek(1 << 10); err != nil {
					t.Fatal(err)
				}
				slow = append(slow, in)
			}
			calm(t, "all wait for their clients", &sent, clients*(64<<10))
			if held := heap() - before; held > size {
				t.Errorf("%d slow clients hold %d MiB of the heap", clients, held>>20)
			} else {
				t.Logf("%d slow clients hold %d KiB of the heap, %d MiB were sent", clients, held>>10, sent.Load()>>20)
			}

			var wg sync.WaitGroup
			began := time.Now()
			for range 8 {
				wg.Go(func() {
					for range 25 {
						status, _, body, err := g.post("/", call(`["small"]`, "1"))
						if err != nil || status != 200 || !strings.Contains(body, `"0x1"`) {
							t.Errorf("%d %s %v", status, body, err)
						}
					}
				})
			}
			wg.Wait()
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("200 small calls took %v beside slow clients", took)
			}

			_ = last.SetReadBuffer(4 << 20)
			res, err := http.ReadResponse(slow[clients-1], nil)
			if err != nil {
				t.Fatal(err)
			}
			brings(t, res.Body, result, "7")
		})
	}
}

func TestClientMayPauseForLongerThanABackendMay(t *testing.T) {
	t.Parallel()
	result := large(12 << 20) // more than sockets keep for a client that pauses
	body := idFirst.around("1", result)
	gzipped(body) // in time
	inSmallChunks(body)
	var wg sync.WaitGroup // beside one another, since they only wait
	for _, how := range []string{"sized", "chunked", "chunked, in small chunks", "without a length", "gzip", "sized over TLS", "chunked, in small chunks over TLS", "sized through net/http", "chunked through net/http"} {
		way, through := strings.CutSuffix(strings.TrimSuffix(how, " over TLS"), " through net/http")
		var sent atomic.Bool
		serve := func(v *visit) bool {
			v.keepLittle()
			keep := delivered[way](v, body)
			sent.Store(true)
			return keep
		}
		keys := "gzip = true"
		var o *origin
		if strings.HasSuffix(how, "TLS") {
			o, keys = tlsOrigin(t, serve)
		} else {
			o = newOrigin(t, serve)
		}
		if through {
			keys = "http2 = true"
		}
		g := start(t, keyed(keys, "[server]\ntimeout_seconds = \"1500ms\"\nwrite_timeout = \"60s\"\n[backend]\nresponse_timeout_milliseconds = 1500", o.url), nil)
		wg.Go(func() {
			c := g.dial(t, call("[]", "7"))
			in := bufio.NewReaderSize(c, 1<<10)
			if begin, err := in.Peek(1 << 10); err != nil {
				t.Errorf("%s: %q %v", how, begin, err)
				return
			}
			<-time.After(2000 * time.Millisecond) // the client's pause
			_ = c.SetReadBuffer(4 << 20)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Errorf("%s: %v", how, err)
				return
			}
			if sent.Load() {
				t.Logf("%s: the sockets kept everything: this shows nothing", how)
			}
			brings(t, res.Body, result, "7")
			if g.warned("b1") {
				t.Errorf("%s: the log warns of the backend: %s", how, g.log)
			}
		})
	}
	wg.Wait()
}

func TestBackendMayPauseForLongerThanAClientMay(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup // beside one another, since they only wait
	for _, how := range []string{"sized", "chunked", "gzip", "without a length", "sized over TLS", "chunked over TLS", "sized, through net/http", "sized, to a client with gzip"} {
		way, _, _ := strings.Cut(how, ", ")
		deliver := inTwo(strings.TrimSuffix(way, " over TLS"), func(v *visit) bool {
			select {
			case <-time.After(2000 * time.Millisecond): // the provider's pause
			case <-v.origin.over:
			}
			return true
		})
		body := idFirst.around("1", large(1<<20))
		gzipped(body) // in time
		serve := func(v *visit) bool { return deliver(v, body) }
		keys, server := "gzip = true", "[server]\ntimeout_seconds = 5\nwrite_timeout = \"1500ms\"\n"
		var o *origin
		if strings.HasSuffix(how, "TLS") {
			o, keys = tlsOrigin(t, serve)
		} else {
			o = newOrigin(t, serve)
		}
		var headers []string
		switch {
		case strings.HasSuffix(how, "net/http"):
			keys = "http2 = true"
		case strings.HasSuffix(how, "client with gzip"):
			server, headers = server+"gzip = true\n", []string{"Accept-Encoding", "gzip"}
		}
		g := start(t, keyed(keys, server+"[backend]\nresponse_timeout_seconds = 30", o.url), nil)
		wg.Go(func() {
			_, _, body, err := g.post("/", call("[]", "7"), headers...)
			if err != nil {
				t.Errorf("%s: %v after %d bytes: %s", how, err, len(body), g.log)
			} else if headers == nil {
				answers(t, []byte(body), large(1<<20), "7")
			}
		})
	}
	wg.Wait()
}

func TestClientThatTakesNothingIsCutAndNoBackendBlamed(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"sized", "chunked", "sized, through net/http"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			ended := make(chan bool, 1)
			o := newOrigin(t, func(v *visit) bool {
				if v.params != `["large"]` {
					return v.small(`"0x1"`)
				}
				way, _, _ := strings.Cut(how, ", ")
				return endless(v, way, ended)
			})
			keys := ""
			if strings.HasSuffix(how, "net/http") {
				keys = "http2 = true"
			}
			g := start(t, keyed(keys, "[server]\ntimeout_seconds = 5\nwrite_timeout = \"1500ms\"\nmax_concurrent_rpcs = 1\n[backend]\nresponse_timeout_seconds = 60", o.url), nil)
			c := g.dial(t, call(`["large"]`, "7"))
			in := bufio.NewReaderSize(c, 1<<10)
			if _, err := in.Peek(1 << 10); err != nil {
				t.Fatal(err)
			}
			select {
			case whole := <-ended:
				if whole {
					t.Error("the upstream could send everything to a client that takes nothing")
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the upstream still sends to a client that takes nothing")
			}
			g.unblamed(t, "b1")
			_ = c.SetReadBuffer(4 << 20)
			if res, err := http.ReadResponse(in, nil); err == nil {
				n, err := io.Copy(io.Discard, res.Body)
				if err == nil {
					t.Errorf("the client saw a whole answer of %d bytes", n)
				}
			}
			// The time to write may be short for a busy machine, so that it may try again.
			becomes(t, "the next call is answered", func() bool {
				status, _, _, err := g.post("/", call(`["small"]`, "1"))
				return err == nil && status == 200
			})
		})
	}
}
