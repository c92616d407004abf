package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gateway.internal/bench/internal/content"
	"gateway.internal/bench/internal/measure"
)

// gatewayLike answers single calls; spoil may change what is written.
func gatewayLike(t *testing.T, spoil func(w http.ResponseWriter, id, result string) bool) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct {
			ID, Params json.RawMessage
			Method     string
		}
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		result, _ := content.AppendResult(nil, call.Method, call.Params)
		if spoil == nil || !spoil(w, string(call.ID), string(result)) {
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, call.ID, result)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// measured asks for a moment.
func measured(t *testing.T, target string, o *options, loop func(*options, []int) (*measure.Result, error)) *measure.Result {
	t.Helper()
	o.target, o.connections, o.window = target, 2, 50*time.Millisecond
	o.calls.host = target
	r, err := loop(o, []int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLoopsCountRightAnswers(t *testing.T) {
	for name, loop := range map[string]func(*options, []int) (*measure.Result, error){"closed": closedLoop, "open": openLoop, "idle": idle} {
		for _, method := range []string{content.Small, content.Logs} { // the long ones are answered in chunks
			o := options{rate: 200, idle: 3}
			o.calls.method, o.calls.size = method, 50_000
			if name == "idle" && method == content.Logs {
				continue
			}
			r := measured(t, gatewayLike(t, nil), &o, loop)
			if r.Requests == 0 || measure.Sum(r.Failed)+measure.Sum(r.Wrong) > 0 || r.Received < 50 {
				t.Errorf("%s, %s: %+v", name, method, r)
			}
		}
	}
}

func TestLoopsTellWrongAnswersFromFailedOnes(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil  func(w http.ResponseWriter, id, result string) bool
		failed string // the reason to be counted, "" for a wrong answer
	}{
		"wrong id": {func(w http.ResponseWriter, _, result string) bool {
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":1,"result":%s}`, result)
			return true
		}, ""},
		"wrong byte": {func(w http.ResponseWriter, id, result string) bool {
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, id, strings.ToUpper(result[:len(result)/2])+result[len(result)/2:])
			return true
		}, ""},
		"short": {func(w http.ResponseWriter, id, result string) bool {
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s`, id, result)
			return true
		}, ""},
		"cut off": {func(w http.ResponseWriter, id, result string) bool {
			w.Header().Set("Content-Length", "100000")
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s`, id, result)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, errCutOff.Error()},
		"cut off in chunks": {func(w http.ResponseWriter, id, result string) bool {
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s`, id, result)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, errCutOff.Error()},
		"no answer": {func(http.ResponseWriter, string, string) bool { panic(http.ErrAbortHandler) }, errNoAnswer.Error()},
		"502": {func(w http.ResponseWriter, _, _ string) bool {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}, "HTTP status 502"},
		"error": {func(w http.ResponseWriter, id, _ string) bool {
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"error":{"code":-32011,"message":"nobody"}}`, id)
			return true
		}, "JSON-RPC error -32011: nobody"},
	} {
		for _, method := range []string{content.Small, content.Logs} {
			o := options{rate: 200}
			o.calls.method, o.calls.size = method, 50_000
			target := gatewayLike(t, tc.spoil)
			for loopName, loop := range map[string]func(*options, []int) (*measure.Result, error){"closed": closedLoop, "open": openLoop} {
				r := measured(t, target, &o, loop)
				counted := measure.Sum(r.Wrong)
				if tc.failed != "" {
					counted = r.Failed[tc.failed]
				}
				if all := measure.Sum(r.Wrong) + measure.Sum(r.Failed); r.Requests > 0 || counted == 0 || counted != all {
					t.Errorf("%s, %s, %s loop: %+v", name, method, loopName, r)
				}
			}
		}
	}
}

func TestAClosedLoopCountsWhatComesToTheUpstreams(t *testing.T) {
	var came atomic.Int64
	target := gatewayLike(t, func(http.ResponseWriter, string, string) bool { came.Add(1); return false })
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/requests" {
			http.NotFound(w, r)
			return
		}
		n := came.Load()
		fmt.Fprintf(w, "[%d,%d]", n, 2*n)
	}))
	t.Cleanup(upstream.Close)
	o := options{counts: strings.TrimPrefix(upstream.URL, "http://"), warmup: 10 * time.Millisecond}
	o.calls.method = content.Small
	o.calls.sequence.Store(1 << 40)
	r := measured(t, target, &o, closedLoop)
	// The two counts are taken one after the other, while requests go on: what
	// comes between them on a busy machine is a small part of all.
	if len(r.Upstream) != 2 {
		t.Fatalf("counts %v", r.Upstream)
	}
	between := o.connections + r.Upstream[0]/4
	if r.Upstream[0] == 0 || r.Upstream[1] != 2*r.Upstream[0] || r.Asked < r.Upstream[0]-between || r.Asked > r.Upstream[0]+between {
		t.Errorf("%d asked, %v came", r.Asked, r.Upstream)
	}
	o = options{counts: strings.TrimPrefix(target, "http://")} // no counts there
	o.calls.method = content.Small
	o.target, o.connections, o.calls.host = target, 1, target
	if _, err := closedLoop(&o, []int{os.Getpid()}); err == nil {
		t.Error("counts that cannot be had are no error")
	}
}
