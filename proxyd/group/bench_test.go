package group

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// instant is a connection to a provider that answers a request while it is written: without a goroutine, a socket or
// an allocation, so that what is left is the cost of the group and its backends.
type instant struct {
	net.Conn
	answer []byte
	id     []byte // the room for it in answer
	unread []byte
}

var idMember = []byte(`"id":`)

func newInstant() *instant {
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":%20s,"result":"0x0234c8a3397aab58"}`, "")
	c := &instant{answer: fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)}
	c.id = c.answer[bytes.Index(c.answer, idMember)+len(idMember):][:20]
	return c
}

// Write takes a whole request of one call: the backend sends it in one piece.
func (c *instant) Write(p []byte) (int, error) {
	_, id, _ := bytes.Cut(p, idMember)
	n := copy(c.id, id[:bytes.IndexAny(id, ",}")])
	copy(c.id[n:], "                    ")
	c.unread = c.answer
	return len(p), nil
}

func (c *instant) Read(p []byte) (int, error) {
	if len(c.unread) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

func (c *instant) Close() error                     { return nil }
func (c *instant) SetDeadline(time.Time) error      { return nil }
func (c *instant) SetReadDeadline(time.Time) error  { return nil }
func (c *instant) SetWriteDeadline(time.Time) error { return nil }

func listenInstant(testing.TB, http.Handler) (string, func(context.Context, string, string) (net.Conn, error)) {
	return "http://node.memory", func(context.Context, string, string) (net.Conn, error) {
		return newInstant(), nil
	}
}

func BenchmarkTrivialUpstream(b *testing.B) {
	w := newWorld(b, 2, setting{listen: listenInstant})
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	c := call("eth_getBalance", `["0xd8da6bf26964af9d7eed9e03e53415d37aa96045","latest"]`)
	calls := []*jsonrpc.Call{c}
	b.ReportAllocs()
	for b.Loop() {
		c.Answer = nil
		if w.ServeRPC(ctx, calls); c.Err != nil {
			b.Fatal(c.Err)
		}
	}
}
