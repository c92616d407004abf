package server

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/jsonrpc"
)

const tooLarge = `{"jsonrpc":"2.0","error":{"code":-32021,"message":"request body too large"},"id":null}` + "\n"

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return b.String()
}

// padded is a valid request of exactly n bytes.
func padded(n int) string { return chainID + strings.Repeat(" ", n-len(chainID)) }

func TestBodyLimitHoldsBeforeAndAfterInflating(t *testing.T) {
	const limit = 1000
	random := make([]byte, 3000) // does not compress
	for i, x := 0, uint32(1); i < len(random); i++ {
		x = x*1664525 + 1013904223
		random[i] = byte(x >> 24)
	}
	f := newFront(t, func(o *Options) { o.MaxBody = limit }, nil)
	for name, row := range map[string]struct {
		body   string
		gzip   bool
		status int
		answer string
	}{
		"at the limit":           {padded(limit), false, 200, okAnswer},
		"one over":               {padded(limit + 1), false, 413, tooLarge},
		"far over":               {padded(50 * limit), false, 413, tooLarge},
		"gzip":                   {zipped(chainID), true, 200, okAnswer},
		"gzip at the limit":      {zipped(padded(limit)), true, 200, okAnswer},
		"gzip one over":          {zipped(padded(limit + 1)), true, 413, tooLarge},
		"gzip bomb":              {zipped(strings.Repeat(" ", 500<<10)), true, 413, tooLarge},
		"gzip that is too long":  {zipped(string(random)), true, 413, tooLarge},
		"plain marked as gzip":   {chainID, true, 200, okAnswer},
		"gzip that is cut":       {zipped(chainID)[:20], true, 400, parseError + "\n"},
		"gzip with a wrong sum":  {zipped(chainID)[:len(zipped(chainID))-8] + "12345678", true, 400, parseError + "\n"},
		"gzip that is not told":  {zipped(chainID), false, 400, parseError + "\n"},
		"two gzip members":       {zipped(chainID) + zipped(" "), true, 200, okAnswer},
		"only the magic":         {"\x1f\x8b\x08", true, 400, parseError + "\n"},
		"empty, marked as gzip":  {"", true, 400, parseError + "\n"},
		"gzip of nothing":        {zipped(""), true, 400, parseError + "\n"},
		"gzip that is not JSON":  {zipped("{"), true, 400, parseError + "\n"},
		"gzip within gzip":       {zipped(zipped(chainID)), true, 400, parseError + "\n"},
		"byte order mark":        {"\xef\xbb\xbf" + chainID, false, 400, parseError + "\n"},
		"white space is allowed": {" \r\n\t" + chainID + "\n", false, 200, okAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			for _, known := range []bool{true, false} { // with Content-Length, and chunked
				r := httptest.NewRequest("POST", "/", strings.NewReader(row.body))
				if !known {
					r.ContentLength = -1
				}
				if row.gzip {
					r.Header.Set("Content-Encoding", "GZIP")
				}
				w := httptest.NewRecorder()
				f.ServeHTTP(w, r)
				is(t, w, row.status, row.answer)
			}
		})
	}
}

func TestGzipBombTakesNoMemory(t *testing.T) {
	f := newFront(t, func(o *Options) { o.MaxBody = 100 << 10 }, nil)
	bomb := zipped(strings.Repeat(" ", 32<<20)) // about 32 KiB
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	is(t, f.post(bomb, "Content-Encoding", "gzip"), 413, tooLarge)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("%d MiB were allocated", used>>20)
	}
}

func TestAnnouncedLengthTakesNoMemory(t *testing.T) {
	f := newFront(t, func(o *Options) { o.MaxBody = 1 << 30 }, nil)
	r := httptest.NewRequest("POST", "/", strings.NewReader(chainID))
	r.ContentLength = 1 << 30
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f.ServeHTTP(httptest.NewRecorder(), r)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("%d MiB were allocated for a length alone", used>>20)
	}
}

// listening serves f on a socket.
func listening(t *testing.T, f http.Handler, change func(*http.Server)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: f}
	if change != nil {
		change(srv)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return l.Addr().String()
}

// raw writes bytes on a connection of its own and returns the answer's status and body.
func raw(t *testing.T, addr, text string, thenClose bool) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if thenClose {
		return 0, ""
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(body)
}

func TestLyingContentLength(t *testing.T) {
	f := newFront(t, func(o *Options) { o.MaxBody = 1000 }, nil)
	addr := listening(t, f, nil)
	head := "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
	t.Run("too large is refused unread", func(t *testing.T) {
		status, body := raw(t, addr, head+"Content-Length: 99999999\r\n\r\n", false)
		if status != 413 || body != tooLarge {
			t.Errorf("%d %q", status, body)
		}
	})
	t.Run("shorter than the body cuts it", func(t *testing.T) {
		status, body := raw(t, addr, head+"Content-Length: 10\r\n\r\n"+chainID, false)
		if status != 400 || body != parseError+"\n" {
			t.Errorf("%d %q", status, body)
		}
	})
	t.Run("endless chunks", func(t *testing.T) {
		chunk := "100\r\n" + strings.Repeat(" ", 256) + "\r\n"
		status, body := raw(t, addr, head+"Transfer-Encoding: chunked\r\n\r\n"+strings.Repeat(chunk, 8), false)
		if status != 413 || body != tooLarge {
			t.Errorf("%d %q", status, body)
		}
	})
	t.Run("broken chunks", func(t *testing.T) {
		status, body := raw(t, addr, head+"Transfer-Encoding: chunked\r\n\r\nzz\r\n", false)
		if status != 400 || body != parseError+"\n" {
			t.Errorf("%d %q", status, body)
		}
	})
}

func TestSlowBodyIsATimeoutOfTheClient(t *testing.T) {
	f := newFront(t, nil, nil)
	addr := listening(t, f, func(s *http.Server) { s.ReadTimeout = 50 * time.Millisecond })
	status, body := raw(t, addr, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", false)
	if status != 408 || body != `{"jsonrpc":"2.0","error":{"code":-32015,"message":"request body came too slowly"},"id":null}`+"\n" {
		t.Errorf("%d %q", status, body)
	}
}

// ended is a handler that tells when a request is over.
func ended(h http.Handler) (http.Handler, chan struct{}) {
	done := make(chan struct{}, 10)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { done <- struct{}{} }()
		h.ServeHTTP(w, r)
	}), done
}

func TestClientThatLeavesInTheBodyIs499(t *testing.T) {
	f := newFront(t, nil, nil)
	h, done := ended(f)
	addr := listening(t, h, nil)
	raw(t, addr, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", true)
	<-done
	if !strings.Contains(f.metrics(), `proxyd_http_response_codes_total{status_code="499"} 1`) {
		t.Error(f.metrics())
	}
}

func TestClientThatLeavesWhileItsCallRunsIs499(t *testing.T) {
	asked := make(chan struct{})
	f := newFront(t, nil, func(ctx context.Context, c *jsonrpc.Call) {
		close(asked)
		<-ctx.Done()
		c.Err = context.Cause(ctx)
	})
	h, done := ended(f)
	addr := listening(t, h, nil)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(chainID), chainID)
	<-asked
	conn.Close()
	<-done
	for _, line := range []string{
		`proxyd_http_response_codes_total{status_code="499"} 1`,
		`proxyd_rpc_calls_total{backend_name="proxyd",method_name="eth_chainId",status_code="499",transport="http"} 1`,
	} {
		if !strings.Contains(f.metrics(), line) {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(f.log.String(), "WARN") {
		t.Error("a client that left is a warning")
	}
}

func TestDeadlineGivesUnfinishedElementsTheirErrorAndKeepsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, func(o *Options) { o.Timeout = 3 * time.Second }, func(ctx context.Context, c *jsonrpc.Call) {
			if string(c.Params) == `["slow"]` {
				<-ctx.Done()
				c.Err = group.ErrTimeout
				return
			}
			c.Answer = &jsonrpc.Answer{Result: []byte(`"ok"`)}
		})
		start := time.Now()
		timedOut := `{"jsonrpc":"2.0","error":{"code":-32015,"message":"gateway timeout"},"id":%s}`
		slow := `{"jsonrpc":"2.0","method":"net_peerCount","params":["slow"],"id":%s}`
		is(t, f.post("["+chainID+","+fmt.Sprintf(slow, `"a"`)+","+chainID+","+fmt.Sprintf(slow, "9")+`,{"jsonrpc":"2.0","method":"x","id":3}]`), 200,
			"["+strings.TrimSpace(okAnswer)+","+fmt.Sprintf(timedOut, `"a"`)+","+strings.TrimSpace(okAnswer)+","+fmt.Sprintf(timedOut, "9")+
				`,{"jsonrpc":"2.0","error":{"code":-32601,"message":"rpc method is not whitelisted"},"id":3}]`+"\n")
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		is(t, f.post(fmt.Sprintf(slow, "1")), 504, fmt.Sprintf(timedOut, "1")+"\n")
		if !strings.Contains(f.metrics(), "proxyd_batch_rpc_short_circuits_total 1\n") {
			t.Error("the batch is not counted as cut short")
		}
	})
}

func TestTargetsOfABatchAreAskedAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
			time.Sleep(time.Second)
			c.Answer = &jsonrpc.Answer{Result: []byte(`"ok"`)}
		})
		start := time.Now()
		f.post(`[` + chainID + `,{"jsonrpc":"2.0","method":"net_version","id":2}]`)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestBatchAnswersStandInOrderWithEqualIDsApart(t *testing.T) {
	f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) { c.Answer = &jsonrpc.Answer{Result: c.Params} })
	var in, out []string
	for i := range 100 {
		method := []string{"eth_call", "net_version"}[i%2]
		in = append(in, fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"params":[%d],"id":%d}`, method, i, i%3))
		out = append(out, fmt.Sprintf(`{"jsonrpc":"2.0","result":[%d],"id":%d}`, i, i%3))
	}
	is(t, f.post("["+strings.Join(in, ",")+"]"), 200, "["+strings.Join(out, ",")+"]\n")
	is(t, f.post("["+strings.Join(append(in, chainID), ",")+"]"), 413, `{"jsonrpc":"2.0","error":{"code":-32014,"message":"too many RPC calls in batch request"},"id":null}`+"\n")
}

func TestEpochsCountTheCallsThatAreNotReads(t *testing.T) {
	f := newFront(t, nil, nil)
	var calls []string
	for _, m := range []string{"eth_chainId", "eth_call", "eth_sendRawTransaction", "eth_call", "eth_newFilter", "eth_call", "eth_chainId"} {
		calls = append(calls, fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"id":1}`, m))
	}
	f.post("[" + strings.Join(calls, ",") + "]")
	var got []int
	for _, c := range f.asked {
		got = append(got, c.Epoch)
		if !c.Client.Batched {
			t.Error("not marked as part of a batch")
		}
	}
	if fmt.Sprint(got) != "[0 0 0 1 1 2 2]" {
		t.Errorf("%v", got)
	}
	f.post(chainID)
	if f.client(t).Batched {
		t.Error("a single call is marked as part of a batch")
	}
}

func TestServedGzip(t *testing.T) {
	large := `"` + strings.Repeat("abc", 1000) + `"`
	answer := func(_ context.Context, c *jsonrpc.Call) { c.Answer = &jsonrpc.Answer{Result: []byte(large)} }
	text := `{"jsonrpc":"2.0","result":` + large + `,"id":1}` + "\n"
	plain, compressing := newFront(t, nil, answer), newFront(t, func(o *Options) { o.Gzip = true }, answer)
	w := plain.post(chainID, "Accept-Encoding", "gzip")
	is(t, w, 200, text)
	if w.Header().Get("Content-Encoding") != "" {
		t.Error("compressed without being told to")
	}
	w = compressing.post(chainID)
	is(t, w, 200, text)
	if w.Header().Get("Content-Encoding") != "" || w.Header().Get("Content-Length") != fmt.Sprint(len(text)) {
		t.Errorf("for a client that does not accept gzip: %v", w.Header())
	}
	w = compressing.post(chainID, "Accept-Encoding", "gzip, br")
	if w.Header().Get("Content-Encoding") != "gzip" || w.Header().Get("Content-Length") != "" || w.Body.Len() > 1000 {
		t.Errorf("%d bytes, %v", w.Body.Len(), w.Header())
	}
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || string(got) != text {
		t.Errorf("%v %.60q", err, got)
	}
	w = compressing.do("GET", "/healthz", "", "Accept-Encoding", "gzip")
	is(t, w, 200, "OK")
}

func TestCORS(t *testing.T) {
	preflight := []string{"Origin", "https://app.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type,x-api-key"}
	usual := CORS{Origins: []string{"*"}, Methods: []string{"GET", "POST", "HEAD"}, Headers: []string{"Accept", "Content-Type", "X-Requested-With", "Authorization", "X-Api-Key"}}
	header := func(w *httptest.ResponseRecorder, name string) string { return w.Header().Get(name) }
	t.Run("default", func(t *testing.T) {
		f := newFront(t, func(o *Options) { o.CORS = usual; o.Keys = map[string]string{"k": "a"} }, nil)
		w := f.do("OPTIONS", "/", "", preflight...)
		if w.Code != 204 || header(w, "Access-Control-Allow-Origin") != "*" || header(w, "Access-Control-Allow-Headers") != "authorization,content-type,x-api-key" || header(w, "Access-Control-Max-Age") != "" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		w = f.do("OPTIONS", "/k", "", "Origin", "https://x", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-evil")
		if w.Code != 204 || header(w, "Access-Control-Allow-Origin") != "" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		w = f.do("POST", "/k", chainID, "Origin", "https://x")
		if header(w, "Access-Control-Allow-Origin") != "*" || header(w, "Vary") != "Origin" || !strings.Contains(header(w, "Access-Control-Expose-Headers"), "Retry-After") {
			t.Errorf("%v", w.Header())
		}
		w = f.do("POST", "/k", chainID)
		if header(w, "Access-Control-Allow-Origin") != "" || header(w, "Vary") != "Origin" {
			t.Errorf("without an origin: %v", w.Header())
		}
		w = f.do("POST", "/", chainID, "Origin", "https://x") // a page must be able to read why
		if w.Code != 401 || header(w, "Access-Control-Allow-Origin") != "*" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
	})
	t.Run("configured", func(t *testing.T) {
		f := newFront(t, func(o *Options) {
			o.CORS = CORS{Origins: []string{"https://app.example"}, Methods: []string{"POST"}, Headers: []string{"Content-Type"}, MaxAge: time.Hour}
		}, nil)
		ask := func(origin, headers string) *httptest.ResponseRecorder {
			return f.do("OPTIONS", "/", "", "Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", headers)
		}
		w := ask("https://app.example", "content-type")
		if header(w, "Access-Control-Allow-Origin") != "https://app.example" || header(w, "Access-Control-Max-Age") != "3600" {
			t.Errorf("%v", w.Header())
		}
		for _, w := range []*httptest.ResponseRecorder{ask("https://other.example", "content-type"), ask("https://app.example", "authorization"), ask("https://app.example.evil", "content-type")} {
			if header(w, "Access-Control-Allow-Origin") != "" {
				t.Errorf("%v", w.Header())
			}
		}
	})
	t.Run("none", func(t *testing.T) {
		f := newFront(t, nil, nil)
		if w := f.do("OPTIONS", "/", "", preflight...); w.Code != 405 || header(w, "Access-Control-Allow-Origin") != "" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		if w := f.post(chainID, "Origin", "https://x", "Content-Type", "application/json"); w.Code != 200 || header(w, "Access-Control-Allow-Origin") != "" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
	})
}

func TestMethodLabelsAreBounded(t *testing.T) {
	f := newFront(t, nil, nil)
	for i := range 500 {
		f.post(fmt.Sprintf(`{"jsonrpc":"2.0","method":"eth_hostile%d","id":1}`, i))
		f.post(fmt.Sprintf(`{"jsonrpc":"2.0","method":"hostile%d","id":1}`, i))
		f.post(fmt.Sprintf(`{"jsonrpc":"2.0","method":"%d","id":[]}`, i))
	}
	for line := range strings.Lines(f.metrics()) {
		if strings.Contains(line, "hostile") {
			t.Fatal(line)
		}
	}
	if !strings.Contains(f.metrics(), `method_name="eth_*",status_code="200",transport="http"} 500`) {
		t.Error("they are not counted under the pattern")
	}
}

func TestLargeResultIsWrittenAsItIs(t *testing.T) {
	for _, size := range []int{1, largeResult - 2, largeResult - 1, largeResult, 3 << 20} {
		large := `"` + strings.Repeat("x", size) + `"`
		f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
			c.Answer = &jsonrpc.Answer{Result: []byte(large), Status: 413}
		})
		want := `{"jsonrpc":"2.0","result":` + large + `,"id":"a b"}`
		request := `{"jsonrpc":"2.0","method":"eth_call","id":"a b"}`
		w := f.post(request)
		if w.Code != 413 || w.Body.String() != want+"\n" || w.Header().Get("Content-Length") != strconv.Itoa(len(want)+1) {
			t.Errorf("%d bytes: HTTP %d, %d bytes, Content-Length %s", size, w.Code, w.Body.Len(), w.Header().Get("Content-Length"))
		}
		if w = f.post("[" + request + "," + request + "]"); w.Body.String() != "["+want+","+want+"]\n" {
			t.Errorf("%d bytes: the batch has %d bytes", size, w.Body.Len())
		}
	}
}
