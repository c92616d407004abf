package server

import (
	"context"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

func TestCallsWaitForTheFirstRoundOfChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checked := make(chan struct{})
		f := newFront(t, func(o *Options) { o.Checked = []<-chan struct{}{checked}; o.Timeout = 5 * time.Second }, func(_ context.Context, c *jsonrpc.Call) {
			c.Answer = &jsonrpc.Answer{Result: []byte("1")}
		})
		body := `{"jsonrpc":"2.0","id":1,"method":"eth_call"}`
		is(t, f.post(body), 504, `{"jsonrpc":"2.0","error":{"code":-32015,"message":"gateway timeout"},"id":1}`+"\n")
		answer := make(chan *httptest.ResponseRecorder, 1)
		go func() { answer <- f.post(body) }()
		time.Sleep(4 * time.Second)
		select {
		case <-answer:
			t.Fatal("answered before the backends were checked")
		default:
		}
		close(checked)
		is(t, <-answer, 200, `{"jsonrpc":"2.0","result":1,"id":1}`+"\n")
	})
}
