package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// socketFront is a front whose sockets are open to clients.
type socketFront struct {
	*front
	addr string

	mu       sync.Mutex
	sessions []jsonrpc.Session // that have called eth_subscribe
}

// newSocketFront serves a front; eth_subscribe only remembers who asked.
func newSocketFront(t testing.TB, change func(*Options), answer func(context.Context, *jsonrpc.Call)) *socketFront {
	t.Helper()
	f := &socketFront{}
	f.front = newFront(t, func(o *Options) {
		o.WSRoutes = f.overSocket(o.Routes)
		if change != nil {
			change(o)
		}
	}, answer)
	server := httptest.NewServer(f)
	f.addr = server.Listener.Addr().String()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		endsWithin(t, 30*time.Second, "CloseSockets", func() { f.CloseSockets(ctx) })
		server.Close()
	})
	return f
}

func (f *socketFront) overSocket(routes *Routes) *Routes {
	return routes.OverWebSocket(nil, nil, &Target{Group: "main", Handler: jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) {
		for _, c := range calls {
			f.mu.Lock()
			f.sessions = append(f.sessions, c.Client.Session)
			f.mu.Unlock()
			c.Answer = &jsonrpc.Answer{Result: []byte(`"0x1"`), Backend: "b1", Group: "main"}
		}
	})})
}

// subscribed is the session that has subscribed last.
func (f *socketFront) subscribed() jsonrpc.Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sessions[len(f.sessions)-1]
}

// places returns how many sockets count for the limits, of how many clients, and how many are open.
func (f *socketFront) places() (count, clients, open int) {
	k := &f.Server.sockets
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.count, len(k.byClient), len(k.open)
}

// empties waits until nothing of any socket is left.
func (f *socketFront) empties(t testing.TB) {
	t.Helper()
	eventually(t, 10*time.Second, "sockets to be gone", func() error {
		if count, clients, open := f.places(); count != 0 || clients != 0 || open != 0 {
			return fmt.Errorf("%d places taken by %d clients, %d open", count, clients, open)
		}
		return nil
	})
}

// eventually asks until there is no error.
func eventually(t testing.TB, limit time.Duration, what string, ok func() error) {
	t.Helper()
	until := time.Now().Add(limit)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("waited %s for %s: %v", limit, what, err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// endsWithin fails the test when f takes longer.
func endsWithin(t testing.TB, limit time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Errorf("%s took longer than %s", what, limit)
	}
}

// rawSocket is a client that writes its frames by hand.
type rawSocket struct {
	net.Conn
	t      testing.TB
	r      *bufio.Reader
	header http.Header // of the answer to the upgrade
	silent bool        // it leaves a close frame without its answer
}

const wsKey = "dGhlIHNhbXBsZSBub25jZQ=="

// upgradeRequest is a good one, with more lines of the header.
func upgradeRequest(path string, lines ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + wsKey + "\r\n" +
		strings.Join(append(lines, ""), "\r\n") + "\r\n"
}

// handshake sends a request and reads the head of its answer.
func handshake(t testing.TB, addr, request string) (*rawSocket, *http.Response) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return handshakeOn(t, conn, request)
}

func handshakeOn(t testing.TB, conn net.Conn, request string) (*rawSocket, *http.Response) {
	t.Helper()
	k := &rawSocket{Conn: conn, t: t, r: bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(k.r, &http.Request{Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	k.header = resp.Header
	return k, resp
}

// open opens a socket.
func (f *socketFront) open(t testing.TB, path string, lines ...string) *rawSocket {
	t.Helper()
	k, resp := handshake(t, f.addr, upgradeRequest(path, lines...))
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("HTTP %d %v %s", resp.StatusCode, resp.Header, body)
	}
	return k
}

// Opcodes, and the bit of a message's last frame.
const (
	opCont, opText, opBinary, opClose, opPing, opPong = 0, 1, 2, 8, 9, 10
	fin                                               = 0x80
)

// frame builds a masked frame.
func frame(first byte, payload []byte) []byte {
	size := len(payload)
	switch {
	case size < 126:
		return masked([]byte{first, 0x80 | byte(size)}, payload)
	case size < 1<<16:
		return masked(binary.BigEndian.AppendUint16([]byte{first, 0x80 | 126}, uint16(size)), payload)
	}
	return masked(binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, uint64(size)), payload)
}

// masked puts a payload behind the first bytes of a frame, which say its length.
func masked(head, payload []byte) []byte {
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	head = append(head, mask[:]...)
	for i, c := range payload {
		head = append(head, c^mask[i%4])
	}
	return head
}

func textFrame(text string) []byte { return frame(fin|opText, []byte(text)) }

// closeFrame is one with a code and a reason.
func closeFrame(code uint16, reason string) []byte {
	return frame(fin|opClose, append(binary.BigEndian.AppendUint16(nil, code), reason...))
}

func (k *rawSocket) write(frames ...[]byte) {
	k.t.Helper()
	if _, err := k.Write(bytes.Join(frames, nil)); err != nil {
		k.t.Fatal(err)
	}
}

// next reads a frame. The gateway's are whole messages, and not masked.
func (k *rawSocket) next() (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(k.r, head[:]); err != nil {
		return 0, nil, err
	}
	if head[0]&0x70 != 0 || head[1]&0x80 != 0 {
		return 0, nil, fmt.Errorf("frame begins with %x", head)
	}
	size := uint64(head[1])
	if size >= 126 {
		var long [8]byte
		n := 2
		if size == 127 {
			n = 8
		}
		if _, err := io.ReadFull(k.r, long[8-n:]); err != nil {
			return 0, nil, err
		}
		size = binary.BigEndian.Uint64(long[:])
	}
	payload = make([]byte, size)
	if _, err = io.ReadFull(k.r, payload); err != nil {
		return 0, nil, err
	}
	if head[0]&fin == 0 {
		return 0, nil, errors.New("a fragment")
	}
	return head[0] & 15, payload, nil
}

// message reads the next message; pings are not answered.
func (k *rawSocket) message() (op byte, text string) {
	k.t.Helper()
	for {
		op, payload, err := k.next()
		switch {
		case err != nil:
			k.t.Fatal(err)
		case op == opClose:
			k.t.Fatalf("closed: %q", payload)
		case op == opText || op == opBinary:
			return op, string(payload)
		}
	}
}

// gets checks the next message.
func (k *rawSocket) gets(want string) {
	k.t.Helper()
	if op, got := k.message(); got != want || op != opText {
		k.t.Errorf("got %d %.300s\nwant %s", op, got, want)
	}
}

// lives checks that a call is answered.
func (k *rawSocket) lives() {
	k.t.Helper()
	k.write(textFrame(`{"jsonrpc":"2.0","method":"proxyd_healthz","id":"alive"}`))
	k.gets(`{"jsonrpc":"2.0","result":"OK","id":"alive"}`)
}

// ending reads up to the close frame, answers it, and reads to the end of the connection. Without a close frame the code
// is 1006, with one that has none 1005.
func (k *rawSocket) ending() (code int, reason string) {
	k.t.Helper()
	code = 1006
	for {
		op, payload, err := k.next()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				k.t.Errorf("the connection is still there: %v", err)
			}
			return code, reason
		}
		switch {
		case code != 1006:
			k.t.Errorf("frame %d %q behind the close frame", op, payload)
		case op != opClose:
			continue
		case len(payload) == 0:
			code = 1005
		default:
			code, reason = int(binary.BigEndian.Uint16(payload)), string(payload[2:])
		}
		if !k.silent {
			_, _ = k.Write(frame(fin|opClose, payload))
		}
	}
}

// closedWith checks how the socket ends.
func (k *rawSocket) closedWith(want int) {
	k.t.Helper()
	if code, reason := k.ending(); code != want {
		k.t.Errorf("closed with %d %q, want %d", code, reason, want)
	}
}

// reset ends the connection by a reset.
func (k *rawSocket) reset() {
	_ = k.Conn.(*net.TCPConn).SetLinger(0)
	_ = k.Close()
}

// pipes is a listener of connections in memory: what is written waits until it is read.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	over  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), over: make(chan struct{})} }

func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	select {
	case p.conns <- pipeConn{a}:
	case <-p.over:
	}
	return b
}

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error {
	p.once.Do(func() { close(p.over) })
	return nil
}

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

type pipeConn struct{ net.Conn }

// RemoteAddr implements net.Conn.
func (pipeConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2} }

// servePipes serves a front over pipes.
func (f *socketFront) servePipes(t testing.TB) *pipes {
	p := newPipes()
	server := &http.Server{Handler: f}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(p)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return p
}
