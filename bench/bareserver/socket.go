package main

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"gateway.internal/bench/internal/content"
)

// subscription is the id of everybody's, so that all are written the same.
const subscription = `"0x9ce59a13059e417087c02d3236a0b1cc"`

// server knows the WebSockets that have subscribed.
type server struct {
	mu        sync.Mutex
	listeners map[*websocket.Conn]bool
	latest    uint64
}

func newServer() *server {
	return &server{listeners: map[*websocket.Conn]bool{}, latest: content.FirstHead}
}

// socket answers the calls of a WebSocket. Its goroutine is that of the request,
// which waits in the reader.
func (s *server) socket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has been answered
	}
	defer c.CloseNow()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, c)
		s.mu.Unlock()
	}()
	ctx := context.Background()
	for {
		_, body, err := c.Read(ctx)
		var call request
		if err != nil || json.Unmarshal(body, &call) != nil {
			return
		}
		if err := c.Write(ctx, websocket.MessageText, call.appendAnswer(nil)); err != nil {
			return
		}
		if call.Method == "eth_subscribe" {
			s.mu.Lock()
			s.listeners[c] = true
			s.mu.Unlock()
		}
	}
}

func (s *server) publishEvery(interval time.Duration) {
	for range time.Tick(interval) {
		s.publish()
	}
}

// publish writes the next head to all that have subscribed, one after the other.
func (s *server) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest++
	text := content.AppendNotification(nil, []byte(subscription), content.AppendHead(nil, s.latest, time.Now()))
	for c := range s.listeners {
		_ = c.Write(context.Background(), websocket.MessageText, text) // its reader notices when it is gone
	}
}
