package proxyd

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// reset ends the connection with a reset instead of an orderly end.
func (v *visit) reset() {
	raw := v.Conn
	if t, ok := raw.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	_ = raw.(*net.TCPConn).SetLinger(0)
	_ = raw.Close()
}

// fin ends it without a word of the layer above, as a process that dies.
func (v *visit) fin() {
	if t, ok := v.Conn.(*tls.Conn); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = v.Close()
}

func TestClientSeesACutResultAsAnError(t *testing.T) {
	const size = 16 << 20
	whole, compressible := idFirst.around("1", large(size)), idFirst.around("1", large(2<<20))
	for _, how := range []string{"sized", "chunked", "gzip", "without a length", "sized over TLS", "chunked over TLS", "without a length over TLS", "sized, through net/http", "sized, to a client with gzip"} {
		for _, end := range []string{"fin", "reset"} {
			t.Run(how+", "+end, func(t *testing.T) {
				t.Parallel()
				seen := make(chan struct{})
				answer := whole
				if strings.Contains(how, "gzip") {
					answer = compressible // in a sensible time
				}
				way, _, _ := strings.Cut(how, ", ")
				deliver := inTwo(strings.TrimSuffix(way, " over TLS"), func(v *visit) bool {
					v.await(seen)
					if end == "fin" {
						v.fin()
					} else {
						v.reset()
					}
					return false
				})
				serve := func(v *visit) bool {
					if v.params != `["large"]` {
						return v.small(`"0x1"`)
					}
					return deliver(v, answer)
				}
				keys, more := "gzip = true", ""
				var o *origin
				if strings.HasSuffix(how, "TLS") {
					o, keys = tlsOrigin(t, serve)
				} else {
					o = newOrigin(t, serve)
				}
				other := answering(t, idFirst, large(1<<20), delivered["sized"])
				var headers []string
				switch {
				case strings.HasSuffix(how, "net/http"):
					keys = "http2 = true"
				case strings.HasSuffix(how, "client with gzip"):
					more, headers = "[server]\ngzip = true", []string{"Accept-Encoding", "gzip"}
				}
				g := start(t, keyed(keys, more, o.url, other.url), nil)
				res := g.open(t, call(`["large"]`, "7"), headers...)
				first := make([]byte, 1000)
				if _, err := io.ReadFull(res.Body, first); err != nil {
					t.Fatal(err)
				}
				close(seen)
				n, err := io.Copy(io.Discard, res.Body)
				broken(t, first[:100], err)
				if n > size {
					t.Errorf("%d bytes came", n)
				}
				if a, b := o.asked.Load(), other.asked.Load(); a != 1 || b != 0 {
					t.Errorf("the backend was asked %d times, the other %d times", a, b)
				}
				for _, name := range []string{"proxyd_rpc_errors_total", "proxyd_provider_errors_total"} {
					becomes(t, name+" counts the backend", func() bool { return g.series(t, name, `backend_name="b1"`, `method_name="eth_call"`) == 1 })
					if n := g.series(t, name, `backend_name="b2"`); n != 0 {
						t.Errorf("%s counts %v for the other backend", name, n)
					}
				}
				if n := g.series(t, "proxyd_streamed_answers_total", `backend_name="b1"`, `end="backend_broke"`); n != 1 {
					t.Errorf("%v answers are counted as broken", n)
				}
				becomes(t, "the log warns of the backend", func() bool { return g.warned("b1") })
				if g.warned("b2") {
					t.Errorf("the log warns of the other backend: %s", g.log)
				}
				status, _, body, err := g.post("/", call(`["small"]`, "8"))
				if err != nil || status != 200 || !strings.HasPrefix(body, `{"jsonrpc":"2.0","result":"0x1","id":8}`) {
					t.Errorf("the next call: %d %s %v", status, body, err)
				}
				becomes(t, "nothing is in flight", func() bool { return g.series(t, "proxyd_backend_in_flight") == 0 })
			})
		}
	}
}

func TestAnotherBackendAnswersUntilTheFirstByteWentOut(t *testing.T) {
	const sized, chunked = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16777216\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	errorOf := func(code int, text string) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":$,"error":{"code":%d,"message":%q,"data":"%s"}}`, code, text, bytes.Repeat([]byte("d"), 200<<10))
	}
	// The gateway's first id has one digit, as the $ that stands for it.
	whole := func(status, body string) string {
		return fmt.Sprintf("HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
	}
	for name, said := range map[string]string{
		"before any byte":               "",
		"in the first line":             "HTTP/1.",
		"in the head":                   sized[:40],
		"behind the head":               sized,
		"behind the head, chunked":      chunked,
		"in the first chunk's size":     chunked + "40",
		"in the envelope":               sized + `{"jsonrpc":"2.0","id":$`,
		"in the name of the result":     sized + `{"jsonrpc":"2.0","id":$,"resu`,
		"in the envelope, chunked":      chunked + "20\r\n" + `{"jsonrpc":"2.0"`,
		"with a head that is none":      "HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\nNo colon\r\n\r\n",
		"with a length that is none":    "HTTP/1.1 200 OK\r\nContent-Length: 1677x\r\n\r\n",
		"with two lengths":              "HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\nContent-Length: 16777217\r\n\r\n",
		"with a gzip that is none":      "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 16777216\r\n\r\n" + strings.Repeat("x", 1000),
		"with a large page":             whole("200 OK", "<html>"+strings.Repeat("sorry ", 40<<10)),
		"with a large page and a 503":   whole("503 Service Unavailable", "<html>"+strings.Repeat("sorry ", 40<<10)),
		"with an array":                 whole("200 OK", `[{"jsonrpc":"2.0","id":$,"result":"`+strings.Repeat("x", 200<<10)+`"}]`),
		"with a large error of its own": whole("200 OK", errorOf(-32005, "rate limit exceeded")),
		"with result and error":         whole("200 OK", `{"jsonrpc":"2.0","id":$,"error":{"code":-32000,"message":"x"},"result":"`+strings.Repeat("x", 200<<10)+`"}`),
		"with another id":               whole("200 OK", `{"jsonrpc":"2.0","id":1$,"result":"`+strings.Repeat("x", 200<<10)+`"}`),
		"with a null id":                whole("200 OK", `{"jsonrpc":"2.0","id":null,"result":"`+strings.Repeat("x", 200<<10)+`"}`),
		"with an id that is an object":  whole("200 OK", `{"jsonrpc":"2.0","id":{"a":$},"result":"`+strings.Repeat("x", 200<<10)+`"}`),
		"with two ids":                  whole("200 OK", `{"jsonrpc":"2.0","id":$,"id":1$,"result":"`+strings.Repeat("x", 200<<10)+`"}`),
	} {
		for _, keys := range []string{"", "http2 = true"} {
			t.Run(name+keys, func(t *testing.T) {
				t.Parallel()
				o := newOrigin(t, func(v *visit) bool {
					v.say(said)
					return false
				})
				other := answering(t, idLast, large(1<<20), delivered["sized"])
				g := start(t, keyed(keys+"\ngzip = true", "", o.url, other.url), nil)
				status, _, body, err := g.post("/", call("[]", "7"))
				if err != nil || status != 200 {
					t.Fatalf("%d %.300s %v", status, body, err)
				}
				answers(t, []byte(body), large(1<<20), "7")
				if a, b := o.asked.Load(), other.asked.Load(); a != 1 || b != 1 {
					t.Errorf("the backend was asked %d times, the other %d times", a, b)
				}
				becomes(t, "proxyd_provider_errors_total counts the backend", func() bool {
					return g.series(t, "proxyd_provider_errors_total", `backend_name="b1"`) == 1
				})
			})
		}
	}
}

// Where the connection's end is the answer's, a cut one looks whole.
func TestClientOfHTTP10IsNotLeftWithAPartOfAResult(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"chunked", "gzip", "without a length"} {
		deliver := inTwo(how, func(*visit) bool { return false })
		o := newOrigin(t, func(v *visit) bool {
			_ = deliver(v, idFirst.around(v.id, large(1<<20)))
			return false
		})
		g := start(t, keyed("gzip = true", "", o.url), nil)
		c, err := net.Dial("tcp", g.RPCAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		body := call("[]", "7")
		fmt.Fprintf(c, "POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		raw, err := io.ReadAll(c)
		head, answer, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
		if err == nil && (bytes.Contains(head, []byte(" 200 ")) || !bytes.Contains(answer, []byte(`"error":`))) {
			t.Errorf("%s: %d bytes and an orderly end: %.300q", how, len(raw), raw)
		}
	}
}

func TestCompressedResultThatIsWrongIsCut(t *testing.T) {
	body := func(id string) []byte { return bytes.Clone(gzipped(idFirst.around(id, large(1<<20)))) }
	for name, spoil := range map[string]func([]byte) []byte{
		"a wrong checksum":   func(z []byte) []byte { z[len(z)-8] ^= 1; return z },
		"a wrong length":     func(z []byte) []byte { z[len(z)-1] ^= 1; return z },
		"no checksum":        func(z []byte) []byte { return z[:len(z)-8] },
		"an early end":       func(z []byte) []byte { return z[:len(z)/2] },
		"nonsense within":    func(z []byte) []byte { copy(z[len(z)/2:], bytes.Repeat([]byte{0xff}, 1000)); return z },
		"nonsense behind it": func(z []byte) []byte { return append(z, "nonsense"...) },
	} {
		for _, coding := range []string{"sized", "chunked"} {
			t.Run(name+", "+coding, func(t *testing.T) {
				t.Parallel()
				seen := make(chan struct{})
				deliver := inTwo(coding, func(v *visit) bool { v.await(seen); return true })
				o := newOrigin(t, func(v *visit) bool {
					v.Conn = zipHead{v.Conn}
					return deliver(v, spoil(body(v.id)))
				})
				g := start(t, keyed("gzip = true", "", o.url), nil)
				res := g.open(t, call("[]", "7"))
				begin := make([]byte, 1000)
				if _, err := io.ReadFull(res.Body, begin); err != nil {
					t.Fatal(err)
				}
				close(seen)
				rest, err := io.ReadAll(res.Body)
				broken(t, rest, err)
				becomes(t, "proxyd_provider_errors_total counts the backend", func() bool {
					return g.series(t, "proxyd_provider_errors_total", `backend_name="b1"`) == 1
				})
			})
		}
	}
}

// zipHead says that the body is compressed.
type zipHead struct{ net.Conn }

func (c zipHead) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("HTTP/1.1 200 OK\r\n")) {
		if _, err := c.Conn.Write(bytes.Replace(p, []byte("OK\r\n"), []byte("OK\r\nContent-Encoding: gzip\r\n"), 1)); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	return c.Conn.Write(p)
}
