package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gateway.internal/bench/internal/content"
	"gateway.internal/bench/internal/measure"
)

// socketsLike answers each message over a WebSocket with what answer makes of its
// call, "" to close it. Elsewhere it says how many goroutines it has.
func socketsLike(t *testing.T, answer func(id, result string) string) string {
	t.Helper()
	var open atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			fmt.Fprintf(w, "# HELP go_goroutines Some.\ngo_goroutines %d\n", 7+3*open.Load())
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		open.Add(1)
		defer open.Add(-1)
		for {
			var call struct {
				ID, Params json.RawMessage
				Method     string
			}
			_, body, err := c.Read(context.Background())
			if err != nil || json.Unmarshal(body, &call) != nil {
				return
			}
			result, _ := content.AppendResult(nil, call.Method, call.Params)
			text := answer(string(call.ID), string(result))
			if text == "" {
				_ = c.Close(websocket.StatusTryAgainLater, "busy")
				return
			}
			if c.Write(context.Background(), websocket.MessageText, []byte(text)) != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func rightly(id, result string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":%s}`, id, result)
}

func TestLoopsAskOverWebSockets(t *testing.T) {
	target := socketsLike(t, rightly)
	for name, loop := range map[string]func(*options, []int) (*measure.Result, error){"closed": closedLoop, "open": openLoop, "idle": idle} {
		for _, silent := range []bool{false, true} {
			o := options{rate: 200, idle: 5, ws: true, silent: silent, metrics: target}
			o.calls.method = content.Small
			r := measured(t, target, &o, loop)
			if r.Requests == 0 || measure.Sum(r.Failed)+measure.Sum(r.Wrong) > 0 || r.Received < 50 != (silent && name == "idle") {
				t.Errorf("%s, silent %v: %+v", name, silent, r)
			}
			if name == "idle" && r.Goroutines != 3 {
				t.Errorf("%g goroutines each, want 3: %+v", r.Goroutines, r)
			}
		}
	}
}

func TestFaultsOverWebSocketsAreTold(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(id, result string) string
		failed string // the reason to be counted, "" for a wrong answer
	}{
		"wrong id":   {func(_, result string) string { return rightly("1.5", result) }, ""},
		"wrong byte": {func(id, result string) string { return rightly(id, strings.Replace(result, "0x", "0y", 1)) }, ""},
		"no JSON":    {func(string, string) string { return "?" }, ""},
		"error": {func(id, _ string) string {
			return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32011,"message":"nobody"}}`, id)
		}, "JSON-RPC error -32011: nobody"},
		"closed": {func(string, string) string { return "" }, "WebSocket closed by the gateway: status 1013 busy"},
	} {
		o := options{ws: true}
		o.calls.method = content.Small
		r := measured(t, socketsLike(t, tc.answer), &o, closedLoop)
		counted := measure.Sum(r.Wrong)
		if tc.failed != "" {
			counted = r.Failed[tc.failed]
		}
		if all := measure.Sum(r.Wrong) + measure.Sum(r.Failed); r.Requests > 0 || counted == 0 || counted != all {
			t.Errorf("%s: %+v", name, r)
		}
	}
	o := options{ws: true}
	o.calls.method = content.Small
	if r := measured(t, gatewayLike(t, nil), &o, closedLoop); r.Failed["HTTP status 400 instead of a WebSocket"] == 0 {
		t.Errorf("one that takes no WebSockets: %+v", r)
	}
}

func TestPingsAreAnswered(t *testing.T) {
	ponged := make(chan error, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			ponged <- err
			return
		}
		defer c.CloseNow()
		ctx := c.CloseRead(context.Background())
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		ponged <- c.Ping(ctx)
		_ = c.Write(ctx, websocket.MessageText, []byte("go on"))
	}))
	defer s.Close()
	c, err := dialSocket(strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	if text, err := c.next(); err != nil || string(text) != "go on" {
		t.Errorf("%q, %v", text, err)
	}
	if err := <-ponged; err != nil {
		t.Error(err)
	}
}

func TestAGatewayThatDoesNotSayItsGoroutinesIsAnError(t *testing.T) {
	o := options{idle: 1, metrics: gatewayLike(t, nil)}
	o.calls.method = content.Small
	o.target = o.metrics
	if r, err := idle(&o, []int{os.Getpid()}); err == nil {
		t.Errorf("%+v", r)
	}
}
