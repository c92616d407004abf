package server

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"gateway.internal/proxyd/jsonrpc"
)

func TestPagesThatNobodyAllowedAreRefused(t *testing.T) {
	answer := func(_ context.Context, c *jsonrpc.Call) { c.Answer = &jsonrpc.Answer{Result: []byte("1")} }
	for name, row := range map[string]struct {
		host, origin, kind string
		status             int
	}{
		"no page":               {"127.0.0.1:8545", "", "", 200},
		"a simple request":      {"127.0.0.1:8545", "https://evil.example", "text/plain", 403},
		"a form":                {"127.0.0.1:8545", "https://evil.example", "application/x-www-form-urlencoded", 403},
		"no type":               {"127.0.0.1:8545", "https://evil.example", "", 403},
		"asked for before":      {"127.0.0.1:8545", "https://app.example", "application/json; charset=utf-8", 200},
		"a name that points us": {"evil.example:8545", "http://evil.example:8545", "application/json", 403},
		"our own page":          {"127.0.0.1:8545", "http://127.0.0.1:8545", "application/json", 200},
		"our own page by name":  {"localhost:8545", "http://localhost:8545", "application/json", 200},
		"null":                  {"127.0.0.1:8545", "null", "text/plain", 403},
	} {
		t.Run(name, func(t *testing.T) {
			ask := func(change func(*Options)) int {
				f := newFront(t, change, answer)
				r := httptest.NewRequest("POST", "/", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"eth_call"}`))
				r.Host = row.host
				for header, value := range map[string]string{"Origin": row.origin, "Content-Type": row.kind} {
					if value != "" {
						r.Header.Set(header, value)
					}
				}
				w := httptest.NewRecorder()
				f.ServeHTTP(w, r)
				return w.Code
			}
			if status := ask(nil); status != row.status {
				t.Errorf("HTTP %d, want %d", status, row.status)
			}
			if status := ask(func(o *Options) { o.CORS = CORS{Origins: []string{"https://app.example"}} }); status != 200 {
				t.Errorf("HTTP %d although pages may ask", status)
			}
		})
	}
}
