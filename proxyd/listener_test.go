package proxyd

import (
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// closedByServer sends text on a new connection and reports whether the gateway
// closes it within a generous time.
func closedByServer(t *testing.T, addr, text string) (answer string, closed bool) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(15 * time.Second))
	raw, err := io.ReadAll(c)
	return string(raw), !os.IsTimeout(err)
}

func TestListenerEndsConnectionsThatKeepItWaiting(t *testing.T) {
	n := newNode(t, "n")
	for name, c := range map[string]struct{ key, text, answer string }{
		"a head that does not end": {"read_header_timeout", "POST / HTTP/1.1\r\nHost: x\r\n", ""},
		"a body that does not end": {"read_timeout", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", "408"},
		"an idle connection":       {"idle_timeout", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t, strings.Replace(conf("[server]", n.URL), "[server]", "[server]\n"+c.key+" = \"200ms\"", 1), nil)
			answer, closed := closedByServer(t, g.RPCAddr().String(), c.text)
			if !closed {
				t.Errorf("%s does not close the connection", c.key)
			}
			if !strings.Contains(answer, c.answer) {
				t.Errorf("answered %q, want %q", answer, c.answer)
			}
		})
	}
}

func TestHeadThatIsTooLargeIsRefused(t *testing.T) {
	g := start(t, conf("[server]", newNode(t, "n").URL), nil)
	answer, _ := closedByServer(t, g.RPCAddr().String(), "POST / HTTP/1.1\r\nHost: x\r\nX-A: "+strings.Repeat("a", 100<<10)+"\r\n\r\n")
	if !strings.Contains(answer, " 431 ") {
		t.Errorf("answered %.60q, want 431", answer)
	}
}

func TestClientThatDoesNotReadIsLeft(t *testing.T) {
	large := strings.Repeat("x", 32<<20) // more than the sockets' buffers take
	url := serving(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, id, _ := strings.Cut(string(body), `"id":`)
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":`+strings.TrimSuffix(id, "}")+`,"result":"`+large+`"}`)
	})
	g := start(t, conf("[server]\nwrite_timeout = \"2s\"\ntimeout_seconds = 1", url), nil)
	c, err := net.Dial("tcp", g.RPCAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body := request("eth_call", "[]")
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	const counted = "proxyd_http_response_codes_total{" // written when the answer's write has ended
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, text := g.get(t, g.MetricsAddr(), "/"); strings.Contains(text, counted) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the gateway still writes to a client that does not read")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
