// Command bareserver is net/http and, over it, coder/websocket with handlers that
// do next to nothing: what a connection and a notification cost any Go program.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"

	"gateway.internal/bench/internal/content"
)

func main() {
	listen := flag.String("listen", "", "address to listen on")
	interval := flag.Duration("heads", 0, "how often a head is written to all WebSockets that have subscribed, 0 for never")
	flag.Parse()
	err := fmt.Errorf("-listen is missing, like -listen 127.0.0.1:8000")
	if *listen != "" {
		s := newServer()
		if *interval > 0 {
			go s.publishEvery(*interval)
		}
		err = http.ListenAndServe(*listen, s)
	}
	fmt.Fprintf(os.Stderr, "bareserver: %v\n", err)
	os.Exit(1)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Upgrade") != "":
		s.socket(w, r)
	case r.URL.Path == "/metrics":
		fmt.Fprintf(w, "go_goroutines %d\n", runtime.NumGoroutine())
	default:
		answer(w, r)
	}
}

// answer answers a single call.
func answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	var call request
	if err == nil {
		err = json.Unmarshal(body, &call)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := call.appendAnswer(nil)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	_, _ = w.Write(out) // a client that has left
}

// request is a single call.
type request struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

func (c *request) appendAnswer(dst []byte) []byte {
	dst = append(append(append(dst, `{"jsonrpc":"2.0","id":`...), c.ID...), `,"result":`...)
	if c.Method == "eth_subscribe" {
		dst = append(dst, subscription...)
	} else {
		dst, _ = content.AppendResult(dst, c.Method, c.Params)
	}
	return append(dst, '}')
}
