package frame

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// sizes are those around which frames have other heads.
var sizes = []int{0, 1, 125, 126, 1000, 1<<16 - 1, 1 << 16}

func TestAFrameIsReadOnlyWhenItIsComplete(t *testing.T) {
	for _, size := range sizes {
		text := bytes.Repeat([]byte("x"), size)
		for name, whole := range map[string][]byte{"server": AppendText(nil, text), "client": AppendMasked(nil, Text, text)} {
			for _, n := range []int{0, 1, 2, 3, 5, 9, len(whole) - 1} {
				if n >= len(whole) {
					continue
				}
				if _, _, used, err := First(bytes.Clone(whole[:n])); used != 0 || err != nil {
					t.Errorf("%s, %d of %d bytes: %d used, %v", name, n, len(whole), used, err)
				}
			}
			op, payload, used, err := First(append(bytes.Clone(whole), 0x81, 1, 'y'))
			if op != Text || !bytes.Equal(payload, text) || used != len(whole) || err != nil {
				t.Errorf("%s, %d bytes: opcode %d, %d bytes, %d used of %d, %v", name, size, op, len(payload), used, len(whole), err)
			}
		}
	}
}

func TestWhatIsNoPlainFrameIsAnError(t *testing.T) {
	for what, b := range map[string][]byte{
		"extension":    {0xc1, 0},
		"part":         {0x01, 0},
		"continuation": {0x80, 0},
		"opcode":       {0x83, 0},
		"too large":    {0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0},
	} {
		if _, _, _, err := First(b); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestALibraryUnderstandsTheClientSide(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		for {
			_, text, err := c.Read(context.Background())
			if err != nil || c.Write(context.Background(), websocket.MessageText, text) != nil {
				return
			}
		}
	}))
	defer s.Close()
	addr := strings.TrimPrefix(s.URL, "http://")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(AppendUpgrade(nil, addr, "X-Some: thing\r\n")); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 0, 4096)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		n, err := c.Read(head[len(head) : len(head)+1])
		if err != nil {
			t.Fatal(err)
		}
		head = head[:len(head)+n]
	}
	if err := Upgraded(head); err != nil {
		t.Fatalf("%v in\n%s", err, head)
	}
	for _, size := range sizes {
		text := bytes.Repeat([]byte("äb"), size)
		go c.Write(AppendMasked(nil, Text, text))
		back := make([]byte, len(AppendText(nil, text)))
		if _, err := io.ReadFull(c, back); err != nil {
			t.Fatal(err)
		}
		if _, got, _, err := First(back); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d bytes came back as %d, %v", len(text), len(got), err)
		}
	}
}

func TestALibraryUnderstandsTheServerSide(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 1<<20)
		n, _ := c.Read(buf)
		answer, ok := AppendAnswer(nil, buf[:n])
		if !ok {
			answer = fmt.Appendf(nil, "HTTP/1.1 400 Bad Request\r\n\r\n")
		}
		_, _ = c.Write(append(AppendText(answer, []byte("hello")), AppendPong(nil, []byte("?"))...))
		_, _ = io.Copy(io.Discard, c)
	}()
	c, _, err := websocket.Dial(t.Context(), "ws://"+l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if _, text, err := c.Read(t.Context()); err != nil || string(text) != "hello" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestRefusedUpgradesSayWhy(t *testing.T) {
	good := "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + accept([]byte(clientKey)) + "\r\n"
	if err := Upgraded([]byte(good + "\r\n")); err != nil {
		t.Fatal(err)
	}
	for want, head := range map[string]string{
		"status 503":  "HTTP/1.1 503 Service Unavailable\r\n\r\n",
		"no HTTP":     "\r\n\r\n",
		"another key": "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n",
		"extensions":  good + "sec-websocket-extensions: permessage-deflate\r\n\r\n",
	} {
		if err := Upgraded([]byte(head)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", head, err)
		}
	}
	if dst, ok := AppendAnswer(nil, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); ok || dst != nil {
		t.Errorf("an answer to no request for a WebSocket: %s", dst)
	}
}
