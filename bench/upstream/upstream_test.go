package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gateway.internal/bench/internal/content"
)

// over runs the upstream on a connection in memory.
func over(t testing.TB, u *upstream) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	if u.ports == nil {
		u.ports = make([]port, 1)
	}
	go func() { defer close(done); u.serve(server, &u.ports[0]) }()
	t.Cleanup(func() { client.Close(); <-done })
	return client
}

// post sends a body and returns the answer's.
func post(t *testing.T, c net.Conn, body string) string {
	t.Helper()
	go fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\ncontent-length: %d\r\n\r\n%s", len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func result(method, params string) string {
	r, _ := content.AppendResult(nil, method, []byte(params))
	return string(r)
}

func TestAnswersHaveTheIDAndTheResultOfTheirCalls(t *testing.T) {
	params := `[{"a":"\"]}","size":5000}]`
	for _, tc := range []struct {
		name, body, want string
		idLast           bool
	}{
		{"single", `{"jsonrpc":"2.0","id":"a\"1","method":"eth_getBalance","params":["0x1"]}`,
			`{"jsonrpc":"2.0","id":"a\"1","result":` + result(content.Small, `["0x1"]`) + `}`, false},
		{"spaces and order", ` { "params" : [ 1 ] , "method" : "eth_chainId" , "id" : 7 , "jsonrpc" : "2.0" } `,
			`{"jsonrpc":"2.0","id":7,"result":` + result(content.Chain, `[ 1 ]`) + `}`, false},
		{"id last", `{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}`,
			`{"jsonrpc":"2.0","result":` + result(content.Chain, `[]`) + `,"id":1}`, true},
		{"large", `{"jsonrpc":"2.0","id":1,"method":"eth_getLogs","params":` + params + `}`,
			`{"jsonrpc":"2.0","id":1,"result":` + result(content.Logs, params) + `}`, false},
		{"large, id last", `{"jsonrpc":"2.0","id":1,"method":"eth_getLogs","params":` + params + `}`,
			`{"jsonrpc":"2.0","result":` + result(content.Logs, params) + `,"id":1}`, true},
		{"batch", `[{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]},{"jsonrpc":"2.0","id":2,"method":"eth_getBalance","params":[]}]`,
			`[{"jsonrpc":"2.0","id":1,"result":` + result(content.Chain, `[]`) + `},{"jsonrpc":"2.0","id":2,"result":` + result(content.Small, `[]`) + `}]`, false},
		{"unknown method", `{"jsonrpc":"2.0","id":1,"method":"eth_mining","params":[]}`,
			`{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"the upstream of the benchmark does not know this call"}}`, false},
		{"no JSON", `{"jsonrpc":`, parseError, false},
		{"open batch", `[{"jsonrpc":"2.0"`, parseError, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := over(t, &upstream{idLast: tc.idLast})
			for range 2 {
				if got := post(t, c, tc.body); got != tc.want {
					t.Errorf("got %.300s, want %.300s", got, tc.want)
				}
			}
		})
	}
}

func TestChunkedRequestsAreRefusedWithAReason(t *testing.T) {
	c := over(t, new(upstream))
	go io.WriteString(c, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 400 {
		t.Fatalf("%v, %v", resp, err)
	}
}

func TestScannerNeverReadsPastTheEnd(t *testing.T) {
	whole := `[{"jsonrpc":"2.0","id":"\\","method":"m","params":[{"a":"]\""},[]]}]`
	for n := range len(whole) {
		s := scanner{b: []byte(whole[:n])}
		var r request
		s.batch()
		s.request(&r)
		s.more()
		s.end()
	}
	s := scanner{b: []byte(whole)}
	var r request
	if !s.batch() || !s.request(&r) || string(r.params) != `[{"a":"]\""},[]]` || string(r.id) != `"\\"` {
		t.Errorf("read %q %q", r.params, r.id)
	}
}

func BenchmarkBatchOf100(b *testing.B) {
	var body bytes.Buffer
	for i := range 100 {
		body.WriteString(",[")
		body.Truncate(body.Len() - 1)
		fmt.Fprintf(&body, `{"jsonrpc":"2.0","id":%d,"method":"eth_getBalance","params":["0x%040x","latest"]}`, 1<<50+i, i)
	}
	text := []byte("[" + strings.TrimPrefix(body.String(), ",") + "]")
	if !json.Valid(text) {
		b.Fatal("no JSON")
	}
	u := new(upstream)
	out := make([]byte, 0, 64<<10)
	for b.Loop() {
		out, _ = u.answer(discard{}, text, out)
	}
}

type discard struct{ net.Conn }

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func TestRequestsAreCountedByPortAndHealthChecksAreNot(t *testing.T) {
	u := &upstream{ports: make([]port, 3)}
	c := over(t, u)
	const body = `{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}`
	post(t, c, body)
	post(t, c, body)
	for range 2 {
		if got := get(t, c, countsPath); got != "[2,0,0]" {
			t.Errorf("counted %s", got)
		}
		if got := get(t, c, "/"); got != "ok" {
			t.Errorf("health check: %s", got)
		}
	}
}

func get(t *testing.T, c net.Conn, path string) string {
	t.Helper()
	go fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestDelaysAreThoseOfThePorts(t *testing.T) {
	u := &upstream{ports: make([]port, 2)}
	for _, bad := range []string{"", "5", "-1ms", "1ms,2ms,3ms", "1ms,"} {
		if err := u.setDelays(bad); err == nil {
			t.Errorf("-delay %q was taken", bad)
		}
	}
	if err := u.setDelays("30ms"); err != nil || u.ports[1].delay != 30*time.Millisecond {
		t.Errorf("one for all: %v, %v", u.ports[1].delay, err)
	}
	if err := u.setDelays("5ms,1h"); err != nil || u.ports[1].delay != time.Hour {
		t.Errorf("one for each: %v, %v", u.ports[1].delay, err)
	}
	// The timers must be good enough for the figures that are made with them.
	c := over(t, u)
	least := time.Hour
	for range 20 {
		from := time.Now()
		post(t, c, `{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}`)
		least = min(least, time.Since(from))
	}
	if least < 5*time.Millisecond || least > 7*time.Millisecond {
		t.Errorf("a delay of 5 ms takes %v at the least", least)
	}
}

func TestABrokenOneAnswers503(t *testing.T) {
	c := over(t, &upstream{broken: true})
	go fmt.Fprint(c, "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("%v, %v", resp, err)
	}
}
