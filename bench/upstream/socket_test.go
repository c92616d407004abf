package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gateway.internal/bench/internal/content"
)

// dialled opens a WebSocket to an upstream.
func dialled(t *testing.T, u *upstream) *websocket.Conn {
	t.Helper()
	u.ports = make([]port, 1)
	failed := make(chan error, 1)
	addr, err := u.listen("serve", "127.0.0.1:0", &u.ports[0], nil, failed)
	if err != nil {
		t.Fatal(err)
	}
	return dial(t, addr)
}

func dial(t *testing.T, addr string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	c, _, err := websocket.Dial(ctx, "ws://"+addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func say(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, text, err := c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAnswersOverAWebSocketAreThoseOverHTTP(t *testing.T) {
	u := new(upstream)
	c := dialled(t, u)
	for body, want := range map[string]string{
		`{"jsonrpc":"2.0","id":7,"method":"eth_getBalance","params":["0x1"]}`:     `{"jsonrpc":"2.0","id":7,"result":` + result(content.Small, `["0x1"]`) + `}`,
		`[{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}]`:           `[{"jsonrpc":"2.0","id":1,"result":` + result(content.Chain, `[]`) + `}]`,
		`{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}`: `{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"the upstream of the benchmark does not know this call"}}`,
		`{"jsonrpc":`: parseError,
	} {
		say(t, c, body)
		if got := hear(t, c); got != want {
			t.Errorf("%s: got %s, want %s", body, got, want)
		}
	}
	if n := u.ports[0].requests.Load(); n != 4 {
		t.Errorf("%d requests were counted", n)
	}
}

func TestALongMessageIsReadAsAWhole(t *testing.T) {
	c := dialled(t, new(upstream))
	params := `["` + strings.Repeat("x", 100_000) + `"]`
	say(t, c, `{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":`+params+`}`)
	if got, want := hear(t, c), `{"jsonrpc":"2.0","id":1,"result":`+result(content.Small, params)+`}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestHeadsArePublishedUntilUnsubscribed(t *testing.T) {
	u := &upstream{chain: newChain()}
	c := dialled(t, u)
	say(t, c, `{"jsonrpc":"2.0","id":"s","method":"eth_subscribe","params":["newHeads"]}`)
	var answer struct{ Result string }
	if err := json.Unmarshal([]byte(hear(t, c)), &answer); err != nil || len(answer.Result) != 34 {
		t.Fatalf("%+v, %v", answer, err)
	}
	for n := range uint64(3) {
		u.chain.publish(time.Now())
		head := u.chain.appendHead(nil, content.FirstHead+1+n)
		if got, want := hear(t, c), string(content.AppendNotification(nil, []byte(`"`+answer.Result+`"`), head)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for _, want := range []string{`"result":true`, `subscription not found`} {
		say(t, c, fmt.Sprintf(`{"jsonrpc":"2.0","id":2,"method":"eth_unsubscribe","params":[%q]}`, answer.Result))
		if got := hear(t, c); !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	u.chain.publish(time.Now())
	say(t, c, `{"jsonrpc":"2.0","id":3,"method":"eth_subscribe","params":["newPendingTransactions"]}`)
	if got := hear(t, c); !strings.Contains(got, "-32602") {
		t.Errorf("heard %s", got)
	}
	if n := u.chain.subscriptions(); n != 1 {
		t.Errorf("%d subscriptions were counted", n)
	}
}

func TestASocketThatIsGoneListensNoMore(t *testing.T) {
	u := &upstream{chain: newChain()}
	c := dialled(t, u)
	say(t, c, `{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}`)
	hear(t, c)
	_ = c.CloseNow()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		u.chain.mu.Lock()
		left := len(u.chain.listeners)
		u.chain.mu.Unlock()
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d still listen", left)
		}
	}
}

func TestTheChainAnswersAsItPublishes(t *testing.T) {
	u := &upstream{chain: newChain()}
	u.chain.publish(time.Now())
	u.chain.publish(time.Now())
	c := over(t, u)
	ask := func(method, params string) string {
		return post(t, c, `{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":`+params+`}`)
	}
	hash := content.BlockHash(content.FirstHead + 2)
	latest := string(u.chain.appendHead(nil, content.FirstHead+2))
	for _, tc := range [][3]string{
		{"eth_chainId", `[]`, `"result":"0x1"}`},
		{"eth_blockNumber", `[]`, fmt.Sprintf(`"result":"0x%x"}`, content.FirstHead+2)},
		{"eth_getBlockByNumber", `["latest",false]`, latest[:len(latest)-1]},
		{"eth_getBlockByNumber", fmt.Sprintf(`["0x%x",false]`, content.FirstHead+2), latest[:len(latest)-1]},
		{"eth_getBlockByNumber", fmt.Sprintf(`["0x%x",false]`, content.FirstHead+3), `"result":null}`},
		{"eth_getBlockByNumber", `["some",false]`, `"error"`},
		{"eth_getBlockByHash", fmt.Sprintf(`["0x%s",false]`, hash[:]), latest[:len(latest)-1]},
		{"eth_getBlockByHash", fmt.Sprintf(`["0x%064x",false]`, 1), `"result":null}`},
		{"eth_getLogs", `[{"address":["` + strings.ToUpper(content.LogAddress) + `"],"toBlock":"latest"}]`, `"result":[` + string(content.AppendLog(nil, content.FirstHead+2)) + `]}`},
		{"eth_getLogs", fmt.Sprintf(`[{"fromBlock":"0x%x","toBlock":"0x%x"}]`, content.FirstHead+1, content.FirstHead+9),
			`"result":[` + string(content.AppendLog(nil, content.FirstHead+1)) + `,` + string(content.AppendLog(nil, content.FirstHead+2)) + `]}`},
		{"eth_getLogs", fmt.Sprintf(`[{"blockHash":"0x%s","address":null}]`, hash[:]), `"result":[` + string(content.AppendLog(nil, content.FirstHead+2)) + `]}`},
		{"eth_getLogs", fmt.Sprintf(`[{"address":"0x%040x","fromBlock":"earliest"}]`, 1), `"result":[]}`},
		{"eth_getLogs", `[{"fromBlock":"some"}]`, `"error"`},
		{"eth_getLogs", `[{"address":7}]`, `"error"`},
		{"eth_getBalance", `[1]`, result(content.Small, `[1]`)},
		{"eth_subscribe", `["newHeads"]`, `"error"`}, // not over HTTP
	} {
		if got := ask(tc[0], tc[1]); !strings.Contains(got, tc[2]) || !json.Valid([]byte(got)) {
			t.Errorf("%s%s: no %s in %s", tc[0], tc[1], tc[2], got)
		}
	}
	if got := get(t, c, subscriptionsPath); got != "0" {
		t.Errorf("%s subscriptions", got)
	}
}

func TestABrokenOneTakesNoWebSockets(t *testing.T) {
	c := over(t, &upstream{broken: true})
	go fmt.Fprint(c, "GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n")
	var b [12]byte
	if _, err := net.Conn.Read(c, b[:]); err != nil || string(b[:]) != "HTTP/1.1 200" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestLogsArePublishedToThoseWhoWantThem(t *testing.T) {
	u := &upstream{chain: newChain()}
	c := dialled(t, u)
	subscribed := func(params string) string {
		say(t, c, `{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":`+params+`}`)
		var answer struct{ Result json.RawMessage }
		if err := json.Unmarshal([]byte(hear(t, c)), &answer); err != nil || len(answer.Result) != 36 {
			t.Fatalf("%s: %+v, %v", params, answer, err)
		}
		return string(answer.Result)
	}
	heads, logs := subscribed(`["newHeads"]`), subscribed(`["logs",{"address":["`+content.LogAddress+`"]}]`)
	subscribed(`["logs",{"address":"0x0000000000000000000000000000000000000001"}]`)
	if n := u.chain.listening(); n != 3 {
		t.Errorf("%d listen", n)
	}
	for n := range uint64(4) {
		u.chain.publish(time.Now())
		number := content.FirstHead + 1 + n
		want := []string{
			string(content.AppendNotification(nil, []byte(heads), u.chain.appendHead(nil, number))),
			string(content.AppendNotification(nil, []byte(logs), content.AppendLog(nil, number))),
		}
		if number%2 == 0 {
			slices.Reverse(want)
		}
		for _, w := range want {
			if got := hear(t, c); got != w {
				t.Errorf("got %s, want %s", got, w)
			}
		}
	}
}

func TestChainsOfOneEpochAgree(t *testing.T) {
	const interval = 20 * time.Millisecond
	epoch := time.Now().Add(-100*interval - interval/2)
	first := chainSince(epoch, interval)
	if n := first.latest(); n < content.FirstHead+100 {
		t.Errorf("the head is %d", n)
	}
	go first.publishWhenDue(interval)
	time.Sleep(5 * interval)
	second := chainSince(epoch, interval) // as one that was started again
	number := second.latest()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		first.mu.Lock()
		there := first.latest() >= number
		first.mu.Unlock()
		if there {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("block %d does not come", number)
		}
	}
	first.mu.Lock()
	defer first.mu.Unlock()
	for n := uint64(content.FirstHead); n <= number; n++ {
		if x, y := first.appendHead(nil, n), second.appendHead(nil, n); string(x) != string(y) {
			t.Fatalf("%s and %s", x, y)
		}
	}
}
