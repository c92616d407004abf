package main

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gateway.internal/bench/internal/content"
)

func TestSubscribersAreWrittenEveryHead(t *testing.T) {
	s := newServer()
	web := httptest.NewServer(s)
	defer web.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var conns []*websocket.Conn
	hear := func(c *websocket.Conn) string {
		_, text, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	ask := func(c *websocket.Conn, method string) string {
		if err := c.Write(ctx, websocket.MessageText, []byte(`{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":["x"]}`)); err != nil {
			t.Fatal(err)
		}
		return hear(c)
	}
	for range 3 {
		c, _, err := websocket.Dial(ctx, web.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		if got := ask(c, "eth_subscribe"); got != `{"jsonrpc":"2.0","id":1,"result":`+subscription+`}` {
			t.Fatal(got)
		}
		ask(c, content.Small) // answered when the subscription is noted
		conns = append(conns, c)
	}
	for n := range uint64(2) {
		s.publish()
		for _, c := range conns {
			text := hear(c)
			_, head, ok := strings.Cut(text, `"result":`)
			number, published, err := content.ReadHead([]byte(strings.TrimSuffix(head, "}}")))
			if !ok || err != nil || number != content.FirstHead+1+n || time.Since(published) > time.Hour {
				t.Errorf("%s: number %d, %v, %v", text, number, published, err)
			}
		}
	}
	_ = conns[0].CloseNow()
	for gone := false; !gone; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		gone = len(s.listeners) == 2
		s.mu.Unlock()
		if ctx.Err() != nil {
			t.Fatal("one that has left is still written to")
		}
	}
}
