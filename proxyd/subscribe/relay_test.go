package subscribe

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gateway.internal/proxyd/devchain"
)

// relay passes on what goes over the sockets of a dev chain, and may change it.
type relay struct {
	url string

	mu    sync.Mutex
	conns map[*relayed]struct{}
	// change is asked about every message of the node: what goes on in its place. cut
	// is that only half of the last one does, and then the connection is reset.
	change func(message string) (instead []string, cut bool)
}

type relayed struct {
	outer net.Conn
	ws    *websocket.Conn
}

func newRelay(t testing.TB, b *devchain.Backend) *relay {
	inner := httptest.NewServer(b)
	t.Cleanup(inner.Close)
	return &relay{url: strings.Replace(inner.URL, "http", "ws", 1), conns: make(map[*relayed]struct{})}
}

// changes sets what happens to the messages of the node; nil for nothing.
func (r *relay) changes(change func(message string) (instead []string, cut bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.change = change
}

type keptConn struct {
	http.ResponseWriter
	conn net.Conn
}

func (k *keptConn) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(k.ResponseWriter).Hijack()
	k.conn = conn
	return conn, buffered, err
}

func resetNow(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func resetConn(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		resetNow(conn)
	}
}

func (r *relay) serve(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dialing, stop := context.WithTimeout(ctx, 5*time.Second)
	in, _, err := websocket.Dial(dialing, r.url, nil)
	stop()
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer func() { _ = in.CloseNow() }()
	kept := &keptConn{ResponseWriter: w}
	out, err := websocket.Accept(kept, req, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	in.SetReadLimit(64 << 20)
	out.SetReadLimit(64 << 20)
	c := &relayed{outer: kept.conn, ws: out}
	r.mu.Lock()
	r.conns[c] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.conns, c)
		r.mu.Unlock()
		resetNow(kept.conn)
		_ = out.CloseNow()
	}()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer resetNow(kept.conn)
		defer cancel()
		r.down(ctx, in, out, kept.conn)
	})
	for {
		_, body, err := out.Read(ctx)
		if err != nil || in.Write(ctx, websocket.MessageText, body) != nil {
			break
		}
	}
	cancel()
	_ = in.CloseNow()
	wg.Wait()
}

func (r *relay) down(ctx context.Context, in, out *websocket.Conn, outer net.Conn) {
	for {
		_, body, err := in.Read(ctx)
		if err != nil {
			return
		}
		r.mu.Lock()
		change := r.change
		r.mu.Unlock()
		messages, cut := []string{string(body)}, false
		if change != nil {
			messages, cut = change(string(body))
		}
		for i, m := range messages {
			if cut && i == len(messages)-1 {
				n := len(m)
				frame := append([]byte{0x81, 127, 0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, m[:n/2]...)
				_, _ = outer.Write(frame)
				return
			}
			if out.Write(ctx, websocket.MessageText, []byte(m)) != nil {
				return
			}
		}
	}
}
