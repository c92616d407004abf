package proxyd

import (
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strings"
	"testing"
)

// shapes are the ways in which members may stand around a result.
var shapes = map[string]shape{
	"id first":                  idFirst,
	"id last":                   idLast,
	"id before jsonrpc":         {`{"id":$,"jsonrpc":"2.0","result":`, `}`},
	"id last, odd white space":  {"\r\n\t { \n\"jsonrpc\" :\t\"2.0\" , \"result\"\n:\r\n ", "\r\n\t , \"id\"\n:\t$\r\n }\n\n \t"},
	"id first, odd white space": {" {\t\"id\":\n$ ,\n \"jsonrpc\":\"2.0\",\t\"result\" :\n\n", "\n\n\t}\r\n \n"},
	"jsonrpc last":              {`{"id":$,"result":`, `,"jsonrpc":"2.0"}`},
	"both last":                 {`{"result":`, `,"jsonrpc":"2.0","id":$}`},
	"both last, id before":      {`{"result":`, `,"id":$,"jsonrpc":"2.0"}`},
	"trailing newline":          {`{"jsonrpc":"2.0","id":$,"result":`, "}\n"},
	"error null behind":         {`{"jsonrpc":"2.0","id":$,"result":`, `,"error":null}`},
	"error null between":        {`{"jsonrpc":"2.0","result":`, `,"error":null,"id":$}` + "\n"},
	"error null in front":       {`{"error":null,"jsonrpc":"2.0","id":$,"result":`, `}`},
	"id as a string":            {`{"jsonrpc":"2.0","id":"$","result":`, `}`},
	"id as a string, last":      {`{"jsonrpc":"2.0","result":`, `,"id":"$"}`},
	"id with a fraction, last":  {`{"jsonrpc":"2.0","result":`, `,"id":$.0}`},
	"other members in front":    {`{"x":{"id":0,"result":[1]},"jsonrpc":"2.0","cost":"{\"id\":9,","id":$,"result":`, `}`},
}

// answering is an origin that answers with a body of the size, or with what of
// it makes such a body.
func answering(t testing.TB, s shape, result []byte, deliver func(*visit, []byte) bool) *origin {
	return newOrigin(t, func(v *visit) bool { return deliver(v, s.around(v.id, result)) })
}

func call(params, id string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","method":"eth_call","params":%s,"id":%s}`, params, id)
}

func TestLargeResultKeepsItsBytesWhateverStandsAroundIt(t *testing.T) {
	for name, s := range shapes {
		for how, size := range map[string]int{"sized": 600 << 10, "chunked": 100 << 10} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				o := answering(t, s, large(size), delivered[how])
				g := start(t, keyed("", "", o.url), nil)
				for range 2 { // the second on the same connections
					status, h, body, err := g.post("/", call("[]", `"a\u00e9"`))
					if err != nil || status != 200 || h.Get("Content-Type") != "application/json" {
						t.Fatalf("%d %v %v", status, h, err)
					}
					answers(t, []byte(body), large(size), `"a\u00e9"`)
				}
			})
		}
	}
}

func TestLargeResultKeepsItsBytesHoweverItComes(t *testing.T) {
	for how, deliver := range delivered {
		for keys, c := range map[string]struct {
			shape
			size int
		}{
			"":             {idFirst, 1 << 20},
			"gzip = true":  {idLast, 100 << 10},
			"http2 = true": {idLast, 200 << 10}, // without TLS: net/http's own client
		} {
			t.Run(how+", "+keys, func(t *testing.T) {
				t.Parallel()
				o := answering(t, c.shape, large(c.size), deliver)
				g := start(t, keyed(keys, "", o.url), nil)
				_, _, body, err := g.post("/", call("[]", "7"))
				if err != nil {
					t.Fatal(err)
				}
				answers(t, []byte(body), large(c.size), "7")
			})
		}
	}
}

func TestResultOf16MiBKeepsItsBytes(t *testing.T) {
	for how, s := range map[string]shape{"sized": idFirst, "chunked": idLast, "gzip": idFirst} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			o := answering(t, s, large(16<<20), delivered[how])
			g := start(t, keyed("gzip = true", "", o.url), nil)
			brings(t, g.open(t, call("[]", "-1.5e300")).Body, large(16<<20), "-1.5e300")
		})
	}
}

// tlsOrigin is an origin over TLS and the key that lets a gateway trust it.
func tlsOrigin(t *testing.T, serve func(*visit) bool) (o *origin, key string) {
	ca := newAuthority(t)
	caFile, _ := files(t, ca.cert, ca.key)
	cert, private := ca.issue(t, "server", false)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: private}}})
	return originOn(t, l, "https", serve), fmt.Sprintf("ca_file = %q", caFile)
}

func TestLargeResultKeepsItsBytesOverTLS(t *testing.T) {
	for _, how := range []string{"sized", "sized, in one write with its head", "sized, in tiny pieces at both ends", "chunked", "gzip", "without a length"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{100 << 10, 3 << 20} {
				o, key := tlsOrigin(t, func(v *visit) bool { return delivered[how](v, idLast.around(v.id, large(size))) })
				g := start(t, keyed(key, "", o.url), nil)
				for range 2 {
					_, _, body, err := g.post("/", call("[]", "7"))
					if err != nil {
						t.Fatal(err)
					}
					answers(t, []byte(body), large(size), "7")
				}
			}
		})
	}
}

// http2Serving is a backend that speaks HTTP/2, and the keys for it.
func http2Serving(t *testing.T, h http.HandlerFunc) (url, keys string) {
	ca := newAuthority(t)
	caFile, _ := files(t, ca.cert, ca.key)
	cert, private := ca.issue(t, "server", false)
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: private}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, fmt.Sprintf("http2 = true\nca_file = %q", caFile)
}

func TestLargeResultKeepsItsBytesOverHTTP2(t *testing.T) {
	t.Parallel()
	for _, sized := range []bool{true, false} {
		url, keys := http2Serving(t, func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 2 {
				t.Errorf("asked over %s", r.Proto)
			}
			var asked struct{ ID json.RawMessage }
			_ = json.NewDecoder(r.Body).Decode(&asked)
			body := idLast.around(string(asked.ID), large(3<<20))
			if sized {
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			}
			_, _ = w.Write(body)
		})
		g := start(t, keyed(keys, "", url), nil)
		_, _, body, err := g.post("/", call("[]", "7"))
		if err != nil {
			t.Fatal(err)
		}
		answers(t, []byte(body), large(3<<20), "7")
	}
}

func TestLargeResultIsCompressedForAClientThatAcceptsIt(t *testing.T) {
	for _, how := range []string{"sized", "chunked", "gzip", "without a length"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			o := answering(t, idFirst, large(300<<10), delivered[how])
			g := start(t, keyed("gzip = true", "[server]\ngzip = true", o.url), nil)
			for _, accepted := range []string{"gzip", "identity"} {
				res := g.open(t, call("[]", "7"), "Accept-Encoding", accepted)
				var in io.Reader = res.Body
				if (res.Header.Get("Content-Encoding") == "gzip") != (accepted == "gzip") {
					t.Errorf("a client that accepts %s gets %q", accepted, res.Header.Get("Content-Encoding"))
				}
				if res.Header.Get("Content-Encoding") == "gzip" {
					z, err := gzip.NewReader(in)
					if err != nil {
						t.Fatal(err)
					}
					in = z
				}
				body, err := io.ReadAll(in)
				if err != nil {
					t.Fatal(err)
				}
				answers(t, body, large(300<<10), "7")
			}
		})
	}
}

func TestLargeResultHasThreeMembersAndNoMore(t *testing.T) {
	t.Parallel()
	for name, s := range shapes {
		o := answering(t, s, large(100<<10), delivered["sized"])
		g := start(t, keyed("", "", o.url), nil)
		_, _, body, err := g.post("/", call("[]", "7"))
		if err != nil {
			t.Fatal(name, err)
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal([]byte(body), &members); err != nil || len(members) != 3 {
			t.Errorf("%s: %d members, %v", name, len(members), err)
		}
		for _, m := range []string{"jsonrpc", "result", "id"} {
			if members[m] == nil {
				t.Errorf("%s: no %s", name, m)
			}
		}
	}
}

// Strings, numbers and what stands at the edge of where streaming begins.
func TestResultOfAnyKindAndSizeKeepsItsBytes(t *testing.T) {
	results := map[string][]byte{
		"a string":                      []byte(`"` + strings.Repeat("0123456789abcdef", 10<<10) + `"`),
		"a string of backslashes":       []byte(`"` + strings.Repeat(`\\`, 100<<10) + `"`),
		"a string of quotes":            []byte(`"` + strings.Repeat(`\"`, 100<<10) + `"`),
		"a string that looks like ends": []byte(`"` + strings.Repeat(`}`, 100<<10) + `,\"id\":1}"`),
		"deep":                          []byte(strings.Repeat("[", 500) + strings.Repeat(" ", 100<<10) + strings.Repeat("]", 500)),
		"an object that ends like one":  []byte(`{"a":"` + strings.Repeat("a", 100<<10) + `","jsonrpc":"2.0","error":null,"id":1}`),
		"a long number":                 []byte("1" + strings.Repeat("0", 100<<10)),
		"many spaces at the end":        []byte(`["` + strings.Repeat("a", 100<<10) + `"` + strings.Repeat(" ", 3000) + `]`),
	}
	for _, n := range []int{-100, -50, -40, -2, -1, 0, 1, 2, 50, 100, 4096, 65536 - 40} { // around 64 KiB
		results[fmt.Sprint("64 KiB and ", n)] = []byte(`"` + strings.Repeat("a", 64<<10+n-2) + `"`)
	}
	for name, result := range results {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, s := range []shape{idFirst, idLast} {
				for _, how := range []string{"sized", "chunked"} {
					o := answering(t, s, result, delivered[how])
					g := start(t, keyed("", "", o.url), nil)
					_, _, body, err := g.post("/", call("[]", "1"))
					if err != nil {
						t.Fatal(err)
					}
					answers(t, []byte(body), result, "1")
				}
			}
		})
	}
}

// inTwo is a delivery that sends most of a body, and the rest after between, which
// may end it there.
func inTwo(how string, between func(*visit) (goOn bool)) func(*visit, []byte) (keep bool) {
	return func(v *visit, body []byte) bool {
		if how == "gzip" {
			body = gzipped(body)
		}
		cut := len(body) * 3 / 4
		switch how {
		case "sized":
			v.head(lengthLine(body))
		case "gzip":
			v.head("Content-Encoding: gzip", lengthLine(body))
		case "without a length":
			v.head("Connection: close")
		case "chunked":
			v.head("Transfer-Encoding: chunked")
			return v.chunk(body[:cut]) && between(v) && v.chunk(body[cut:]) && v.say("0\r\n\r\n")
		}
		return v.write(body[:cut]) && between(v) && v.write(body[cut:]) && how != "without a length"
	}
}

func TestLargeResultReachesTheClientBeforeItIsComplete(t *testing.T) {
	for _, how := range []string{"sized", "chunked", "gzip", "without a length", "sized over TLS", "sized, through net/http", "sized, to a client with gzip"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			seen := make(chan struct{})
			way, _, _ := strings.Cut(how, ", ")
			deliver := inTwo(strings.TrimSuffix(way, " over TLS"), func(v *visit) bool {
				if !v.await(seen) {
					t.Error("the client has seen nothing of three quarters of the answer")
				}
				return true
			})
			serve := func(v *visit) bool { return deliver(v, idFirst.around(v.id, large(2<<20))) }
			keys, more := "gzip = true", ""
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
				more, headers = "[server]\ngzip = true", []string{"Accept-Encoding", "gzip"}
			}
			g := start(t, keyed(keys, more, o.url), nil)
			res := g.open(t, call("[]", "7"), headers...)
			first := make([]byte, 1000)
			if _, err := io.ReadFull(res.Body, first); err != nil {
				t.Fatal(err)
			}
			close(seen)
			rest, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if headers == nil {
				answers(t, slices.Concat(first, rest), large(2<<20), "7")
			}
		})
	}
}

func TestStreamHasALengthWhereTheUpstreamHadOne(t *testing.T) {
	t.Parallel()
	for how, known := range map[string]bool{"sized": true, "chunked": false, "gzip": false, "without a length": false} {
		for _, s := range []shape{idFirst, shapes["id last, odd white space"]} {
			o := answering(t, s, large(200<<10), delivered[how])
			g := start(t, keyed("gzip = true", "", o.url), nil)
			res := g.open(t, call("[]", "7"), "Accept-Encoding", "identity")
			if got := res.ContentLength >= 0; got != known || known == slices.Contains(res.TransferEncoding, "chunked") {
				t.Errorf("%s: Content-Length %d, coding %v", how, res.ContentLength, res.TransferEncoding)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			answers(t, body, large(200<<10), "7")
		}
	}
}

func TestClientOfHTTP10GetsALargeResult(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"sized", "chunked"} {
		o := answering(t, idFirst, large(1<<20), delivered[how])
		g := start(t, keyed("", "", o.url), nil)
		c, err := net.Dial("tcp", g.RPCAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		body := call("[]", "7")
		fmt.Fprintf(c, "POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		raw, err := io.ReadAll(c)
		head, answer, ok := strings.Cut(string(raw), "\r\n\r\n")
		if err != nil || !ok || strings.Contains(head, "chunked") {
			t.Fatalf("%v %.200q", err, raw)
		}
		answers(t, []byte(answer), large(1<<20), "7")
	}
}

func TestStreamedAnswerHasTheHeaderOfAnyOther(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"sized", "chunked"} {
		o := answering(t, idFirst, large(1<<20), delivered[how])
		g := start(t, keyed("", "[server]\nenable_served_by_header = true\n[cache]\nenabled = true", o.url), nil)
		status, h, _, err := g.post("/", call("[]", "7"), "X-Request-Id", "mine", "Origin", "https://x.example")
		if status != 200 || err != nil {
			t.Fatal(status, err)
		}
		for name, want := range map[string]string{
			"Content-Type": "application/json", "X-Request-Id": "mine", "X-Served-By": "main/b1", "X-Proxyd-Cache-Status": "MISS", "Access-Control-Allow-Origin": "*",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", how, name, h.Get(name), want)
			}
		}
	}
}

func TestStreamIsCountedLikeAnyOtherAnswer(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"sized", "chunked"} {
		o := answering(t, idFirst, large(1<<20), delivered[how])
		g := start(t, keyed("", "", o.url), nil)
		if _, _, _, err := g.post("/", call("[]", "7")); err != nil {
			t.Fatal(err)
		}
		for line, want := range map[string]float64{
			`proxyd_rpc_calls_total{backend_name="b1",method_name="eth_call",status_code="200",transport="http"}`:                                  1,
			`proxyd_http_response_codes_total{status_code="200"}`:                                                                                  1,
			`proxyd_rpc_forwards_total{auth="none",backend_name="b1",method_name="eth_call",source="http"}`:                                        1,
			`proxyd_rpc_backend_http_response_codes_total{auth="none",backend_name="b1",batched="false",method_name="eth_call",status_code="200"}`: 1,
			`proxyd_rpc_backend_request_duration_seconds_count{backend_name="b1",batched="false",method_name="eth_call"}`:                          1,
			`proxyd_rpc_call_duration_seconds_count{method_name="eth_call"}`:                                                                       1,
			`proxyd_response_payload_sizes_count{auth="none"}`:                                                                                     1,
			`proxyd_streamed_answers_total{backend_name="b1",end="whole"}`:                                                                         1,
			`proxyd_http_request_duration_seconds_count`:                                                                                           1,
		} {
			name, labels, _ := strings.Cut(strings.TrimSuffix(line, "}"), "{")
			becomes(t, line, func() bool { return g.series(t, name, strings.Split(labels, ",")...) == want })
		}
		if n := g.series(t, "proxyd_response_payload_sizes_sum"); n < 1<<20 {
			t.Errorf("%s: %v bytes are counted", how, n)
		}
		g.unblamed(t, "b1")
	}
}

func TestConnectionsAreUsedAgainAfterAStream(t *testing.T) {
	for _, how := range []string{"sized", "chunked", "chunked, with extensions and a trailer", "gzip", "chunked gzip"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			o := answering(t, shapes["trailing newline"], large(300<<10), delivered[how])
			g := start(t, keyed("gzip = true", "", o.url), nil)
			clients := 0
			for range 12 {
				req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
					if !c.Reused {
						clients++
					}
				}}), "POST", "http://"+g.RPCAddr().String(), strings.NewReader(call("[]", "7")))
				res, err := g.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				answers(t, body, large(300<<10), "7")
			}
			// A call may begin before the connection of the one before is back.
			if n := o.conns.Load(); n > 4 || clients > 1 {
				t.Errorf("12 calls took %d connections upstream and %d of the client", n, clients)
			}
		})
	}
}
