package proxyd

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// dripping sends an answer in pieces with a pause before each.
func dripping(v *visit, how string, body []byte, pieces int, pause time.Duration) bool {
	size := (len(body) - 100<<10) / pieces
	first, rest := body[:len(body)-pieces*size], body[len(body)-pieces*size:]
	send := v.chunk
	switch how {
	case "sized":
		v.head(lengthLine(body))
		send = func(p []byte) bool { return v.write(p) }
	default:
		v.head("Transfer-Encoding: chunked")
	}
	ok := send(first)
	for piece := range slices.Chunk(rest, size) {
		select {
		case <-time.After(pause): // the provider's own pace
		case <-v.origin.over:
		}
		ok = ok && send(piece)
	}
	return ok && (how == "sized" || v.say("0\r\n\r\n"))
}

func TestStreamThatProgressesOutlivesTheTimeoutOfACall(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup // beside one another, since they only wait
	for _, how := range []string{"sized", "chunked", "sized, through net/http", "sized over TLS", "chunked, to a client with gzip"} {
		for _, size := range []int{120 << 10, 2 << 20} { // pieces that fill no buffer, and pieces that do
			way, _, _ := strings.Cut(how, ", ")
			way = strings.TrimSuffix(way, " over TLS")
			serve := func(v *visit) bool {
				return dripping(v, way, idFirst.around(v.id, large(size)), 15, 200*time.Millisecond)
			}
			var o *origin
			keys, server := "", "[server]\n"
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
			other := answering(t, idFirst, large(size), delivered["sized"])
			g := start(t, keyed(keys, server+"timeout_seconds = 2\nwrite_timeout = \"2s\"\n[backend]\nresponse_timeout_seconds = 2", o.url, other.url), nil)
			wg.Go(func() {
				began := time.Now()
				status, _, body, err := g.post("/", call("[]", "7"), headers...)
				if err != nil || status != 200 {
					t.Errorf("%s, %d: %d, %d bytes, %v after %v", how, size, status, len(body), err, time.Since(began))
					return
				}
				if headers == nil {
					answers(t, []byte(body), large(size), "7")
				}
				if took := time.Since(began); took < 2500*time.Millisecond {
					t.Errorf("%s, %d: it took only %v", how, size, took)
				}
				if n := other.asked.Load(); n != 0 {
					t.Errorf("%s, %d: the other backend was asked %d times", how, size, n)
				}
			})
		}
	}
	wg.Wait()
}

func TestStreamThatStallsIsCutAfterTheResponseTimeout(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup // beside one another, since they only wait
	for _, how := range []string{"sized", "chunked", "gzip", "without a length", "sized over TLS", "chunked over TLS", "sized, through net/http", "sized, to a client with gzip"} {
		way, _, _ := strings.Cut(how, ", ")
		closed := make(chan bool, 1)
		stalled := make(chan time.Time, 1)
		deliver := inTwo(strings.TrimSuffix(way, " over TLS"), func(v *visit) bool {
			stalled <- time.Now()
			closed <- v.gone()
			return false
		})
		body := idFirst.around("1", large(300<<10))
		gzipped(body) // in time
		serve := func(v *visit) bool {
			defer func() { // a test may fail, but not hang
				select {
				case stalled <- time.Now():
				default:
				}
				select {
				case closed <- false:
				default:
				}
			}()
			return deliver(v, body)
		}
		keys, server := "gzip = true", "[server]\ntimeout_seconds = 30\n"
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
		other := answering(t, idFirst, large(100<<10), delivered["sized"])
		g := start(t, keyed(keys, server+"[backend]\nresponse_timeout_milliseconds = 1000", o.url, other.url), nil)
		wg.Go(func() {
			_, _, body, err := g.post("/", call("[]", "7"), headers...)
			took := time.Since(<-stalled)
			if err == nil {
				t.Errorf("%s: the client saw a whole answer of %d bytes", how, len(body))
			}
			if took < 800*time.Millisecond || took > 10*time.Second {
				t.Errorf("%s: cut after %v", how, took)
			}
			if !<-closed {
				t.Errorf("%s: the upstream's connection stays open", how)
			}
			if n := other.asked.Load(); n != 0 {
				t.Errorf("%s: the other backend was asked %d times", how, n)
			}
		})
		t.Cleanup(func() {
			for _, name := range []string{"proxyd_rpc_errors_total", "proxyd_provider_errors_total"} {
				if n := g.series(t, name, `backend_name="b1"`); n != 1 {
					t.Errorf("%s: %s is %v", how, name, n)
				}
			}
			if !g.warned("b1") {
				t.Errorf("%s: the log does not warn: %s", how, g.log)
			}
		})
	}
	wg.Wait()
}

// What a stall costs is the stream's own: a slow one holds no other up.
func TestStreamsDoNotWaitForOneAnother(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	o := newOrigin(t, func(v *visit) bool {
		if v.params == `["slow"]` {
			return inTwo("sized", func(v *visit) bool { return v.await(release) })(v, idFirst.around(v.id, large(300<<10)))
		}
		return delivered["sized"](v, idFirst.around(v.id, large(300<<10)))
	})
	g := start(t, keyed("", "", o.url), nil)
	slow := g.open(t, call(`["slow"]`, "1"))
	for i := range 10 {
		_, _, body, err := g.post("/", call(`["fast"]`, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		answers(t, []byte(body), large(300<<10), fmt.Sprint(i))
	}
	close(release)
	body, err := io.ReadAll(slow.Body)
	if err != nil {
		t.Fatal(err)
	}
	answers(t, body, large(300<<10), "1")
}
