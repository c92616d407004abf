package proxyd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gateway.internal/proxyd/devchain"
)

// socketClient is a client's WebSocket connection in a test.
type socketClient struct {
	*websocket.Conn
	t *testing.T
}

func dialSocket(t *testing.T, url string) *socketClient {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, strings.Replace(url, "http", "ws", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(64 << 20)
	t.Cleanup(func() { _ = c.CloseNow() })
	return &socketClient{c, t}
}

// message is an answer or a notification.
type message struct {
	ID     any             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	Method string `json:"method"`
	Params struct {
		Subscription string          `json:"subscription"`
		Result       json.RawMessage `json:"result"`
	} `json:"params"`
}

func (c *socketClient) send(text string) {
	c.t.Helper()
	if err := c.Write(c.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// receive returns the next message.
func (c *socketClient) receive() message {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	_, raw, err := c.Read(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	var m message
	if err := json.Unmarshal(raw, &m); err != nil {
		c.t.Fatalf("%s: %v", raw, err)
	}
	return m
}

// subscribe returns the id of a new subscription.
func (c *socketClient) subscribe(params string) string {
	c.t.Helper()
	c.send(`{"jsonrpc":"2.0","id":"s","method":"eth_subscribe","params":` + params + `}`)
	m := c.receive()
	var id string
	if json.Unmarshal(m.Result, &id) != nil || id == "" {
		c.t.Fatalf("eth_subscribe%s: %+v", params, m)
	}
	return id
}

type headOf struct{ Number, Hash, ParentHash string }

func TestSubscriptionsOutliveTheirBackend(t *testing.T) {
	chain := devchain.New(devchain.Options{})
	var backends [2]*devchain.Backend
	var servers [2]*httptest.Server
	for i := range backends {
		backends[i] = devchain.NewBackend(chain, fmt.Sprint(i))
		servers[i] = httptest.NewServer(backends[i])
		t.Cleanup(servers[i].Close)
		t.Cleanup(backends[i].Close)
	}
	ws := func(s *httptest.Server) string { return strings.Replace(s.URL, "http", "ws", 1) }
	g := start(t, fmt.Sprintf(`
ws_backend_group = "main"
[server]
rpc_port = 1
[backends.a]
rpc_url = %q
ws_url = %q
[backends.b]
rpc_url = %q
ws_url = %q
[backend_groups.main]
backends = ["a", "b"]
[rpc_method_mappings]
"*" = "main"
`, servers[0].URL, ws(servers[0]), servers[1].URL, ws(servers[1])), nil)
	c := dialSocket(t, "http://"+g.RPCAddr().String())
	heads := c.subscribe(`["newHeads"]`)
	chain.Mine(1)
	first := c.receive()
	if first.Params.Subscription != heads {
		t.Fatalf("%+v", first)
	}
	backends[0].SetFault(devchain.Fault{Kind: devchain.FaultDrop})
	chain.Mine(3) // while nobody is followed
	var h, before headOf
	_ = json.Unmarshal(first.Params.Result, &before)
	for range 3 {
		m := c.receive()
		if err := json.Unmarshal(m.Params.Result, &h); err != nil || h.ParentHash != before.Hash {
			t.Fatalf("%s behind %+v", m.Params.Result, before)
		}
		if strings.Contains(string(m.Params.Result), "transactions\"") {
			t.Errorf("replayed head has transactions: %s", m.Params.Result)
		}
		before = h
	}
}
