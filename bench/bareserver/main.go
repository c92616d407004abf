// Command bareserver is net/http with a handler that does next to nothing: what
// an idle connection costs any Go program.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"

	"gateway.internal/bench/internal/content"
)

func main() {
	listen := flag.String("listen", "", "address to listen on")
	flag.Parse()
	err := fmt.Errorf("-listen is missing, like -listen 127.0.0.1:8000")
	if *listen != "" {
		err = http.ListenAndServe(*listen, http.HandlerFunc(answer))
	}
	fmt.Fprintf(os.Stderr, "bareserver: %v\n", err)
	os.Exit(1)
}

// answer answers a single call.
func answer(w http.ResponseWriter, r *http.Request) {
	var call struct {
		ID     json.RawMessage `json:"id"`
		Method string          `json:"method"`
		Params json.RawMessage `json:"params"`
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(body, &call)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := append(append([]byte(`{"jsonrpc":"2.0","id":`), call.ID...), `,"result":`...)
	out, _ = content.AppendResult(out, call.Method, call.Params)
	out = append(out, '}')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	_, _ = w.Write(out) // a client that has left
}
