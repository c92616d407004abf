package devchain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

// client is the other end of a WebSocket. What it waits for fails the test when it does not come.
type client struct {
	t  *testing.T
	ws *websocket.Conn
}

func dial(t *testing.T, address string) *client {
	t.Helper()
	ws, _, err := websocket.Dial(t.Context(), address, nil)
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(-1)
	t.Cleanup(func() { ws.CloseNow() })
	return &client{t, ws}
}

// connect serves a Backend of chain and opens a WebSocket to it.
func connect(t *testing.T, chain *Chain) (*Backend, *client) {
	t.Helper()
	b := NewBackend(chain, "one")
	return b, dial(t, listen(t, b))
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.ws.Write(c.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) receive() (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	_, text, err := c.ws.Read(ctx)
	return string(text), err
}

func (c *client) read() string {
	c.t.Helper()
	text, err := c.receive()
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// ask sends a call; its answer must be the next message.
func (c *client) ask(method, params string) string {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, method, params))
	text := c.read()
	var r reply
	if err := json.Unmarshal([]byte(text), &r); err != nil || string(r.ID) != "1" {
		c.t.Fatalf("%s%s: %v in %s", method, params, err, text)
	}
	if r.Error != nil {
		return fmt.Sprint(r.Error.Code, " ", r.Error.Message)
	}
	return string(r.Result)
}

func (c *client) subscribe(params string) string {
	c.t.Helper()
	id := strings.Trim(c.ask("eth_subscribe", params), `"`)
	if len(id) != 34 || !strings.HasPrefix(id, "0x") {
		c.t.Fatalf("subscription %s", id)
	}
	return id
}

// eventually waits for what follows from something that another goroutine does.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10s: %s", what)
		}
	}
}

func TestWebSocketAnswersAsPostDoes(t *testing.T) {
	b, c := connect(t, New(Options{}))
	for _, body := range []string{
		chainIDCall,
		`[` + chainIDCall + `,7,{"jsonrpc":"2.0","id":"b","method":"eth_getLogs","params":[{"fromBlock":"0x1"}]}]`,
		`{"jsonrpc":"2.0","id":5,"method":"eth_nope"}`,
		`not JSON`,
		`[]`,
	} {
		c.send(`{"jsonrpc":"2.0","method":"eth_chainId"}`) // a notification, which gets no answer
		c.send(body)
		if got, want := c.read(), post(b, body).Body.String(); got != want {
			t.Errorf("%s\n got %s\nwant %s", body, got, want)
		}
	}
	if b.Requests() != 6 || b.CallsOf("eth_chainId") != 9 {
		t.Errorf("%d requests, %d calls of eth_chainId", b.Requests(), b.CallsOf("eth_chainId"))
	}
}

func TestWebSocketIsServedOnEveryPathAndForEveryOrigin(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	address := listen(t, b)
	if b.LastUpgrade() != nil {
		t.Error("a header without a request")
	}
	header := http.Header{"Origin": {"https://elsewhere.example"}, "Authorization": {"Bearer x"}}
	for _, path := range []string{"", "/", "/v3/key"} {
		ws, _, err := websocket.Dial(t.Context(), address+path, &websocket.DialOptions{HTTPHeader: header})
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
		defer ws.CloseNow()
	}
	if got := b.LastUpgrade().Get("Authorization"); got != "Bearer x" {
		t.Errorf("Authorization %q", got)
	}
	if _, response, err := websocket.Dial(t.Context(), address+"/fault", nil); err == nil || response.StatusCode != http.StatusOK {
		t.Errorf("/fault: %v, want its page", err)
	}
}

func TestMessagesAreLimited(t *testing.T) {
	_, c := connect(t, New(Options{}))
	c.send(chainIDCall + strings.Repeat(" ", maxBody-len(chainIDCall)))
	if got := c.read(); got != chainIDAnswer {
		t.Errorf("got %s", got)
	}
	c.ws.Write(t.Context(), websocket.MessageText, []byte(strings.Repeat(" ", maxBody+1)))
	if _, err := c.receive(); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("got %v, want status %d", err, websocket.StatusMessageTooBig)
	}
}

func TestSocketsAndSubscriptionsAreCounted(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	address := listen(t, b)
	first, second := dial(t, address), dial(t, address)
	first.subscribe(`["newHeads"]`)
	id := first.subscribe(`["logs",{}]`)
	second.subscribe(`["newHeads"]`)
	if b.Sockets() != 2 || b.Subscriptions() != 3 || b.SubscriptionsMade() != 3 {
		t.Errorf("%d sockets, %d subscriptions of %d", b.Sockets(), b.Subscriptions(), b.SubscriptionsMade())
	}
	first.ask("eth_unsubscribe", `["`+id+`"]`)
	if b.Subscriptions() != 2 || b.SubscriptionsMade() != 3 {
		t.Errorf("%d subscriptions of %d", b.Subscriptions(), b.SubscriptionsMade())
	}
	second.ws.Close(websocket.StatusNormalClosure, "")
	eventually(t, "the closed socket is gone", func() bool { return b.Sockets() == 1 && b.Subscriptions() == 1 })
	b.DropSockets()
	if b.Sockets() != 0 || b.Subscriptions() != 0 {
		t.Errorf("%d sockets, %d subscriptions", b.Sockets(), b.Subscriptions())
	}
	if _, err := first.receive(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %v, want a reset", err)
	}
	dial(t, address).subscribe(`["newHeads"]`)
}

func TestAReaderThatIsTooSlowIsDroppedAndBlocksNobody(t *testing.T) {
	chain := New(Options{})
	b := NewBackend(chain, "one")
	address := listen(t, b)
	slow, quick := dial(t, address), dial(t, address)
	for range 50 {
		slow.subscribe(`["newHeads"]`)
	}
	quick.subscribe(`["newHeads"]`)
	for n := range uint64(4000) {
		if b.Sockets() == 1 {
			break
		}
		chain.Mine(1)
		if got := quick.next().head(t); got != 17+n {
			t.Fatalf("the quick reader got head %d, want %d", got, 17+n)
		}
	}
	if b.Sockets() != 1 || b.Subscriptions() != 1 {
		t.Errorf("%d sockets, %d subscriptions: want the slow reader dropped", b.Sockets(), b.Subscriptions())
	}
}

func TestAnswersThatNobodyReadsHoldUpFurtherMessages(t *testing.T) {
	b, c := connect(t, New(Options{}))
	const calls, size = 40, 1_000_000 // together more than the network takes in
	for range calls {
		c.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"dev_payload","params":[%d]}`, size))
	}
	most := 0
	for range calls {
		b.mu.Lock()
		for s := range b.sockets {
			s.out.mu.Lock()
			most = max(most, s.out.answers)
			s.out.mu.Unlock()
		}
		b.mu.Unlock()
		if got := c.read(); len(got) < size {
			t.Fatalf("got %.80s", got)
		}
	}
	if most > maxAnswers+size+100 {
		t.Errorf("%d bytes waited, want at most one answer more than %d", most, maxAnswers)
	}
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	chain := New(Options{})
	b := NewBackend(chain, "one")
	server := httptest.NewServer(b)
	var clients []*client
	for range 5 {
		c := dial(t, server.URL)
		c.subscribe(`["newHeads"]`)
		clients = append(clients, c)
	}
	b.SetFault(Fault{Kind: FaultHang, Times: 1})
	clients[0].send(chainIDCall)
	eventually(t, "the fault is met", func() bool { return b.Fault().Kind == FaultNone })
	b.Close()
	b.Close()
	if b.Sockets() != 0 {
		t.Errorf("%d sockets after Close", b.Sockets())
	}
	for _, c := range clients {
		if _, err := c.receive(); err == nil {
			t.Error("a message after Close")
		}
		c.ws.CloseNow()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if ws, _, err := websocket.Dial(ctx, server.URL, nil); err == nil {
		if _, _, err := ws.Read(ctx); err == nil || ctx.Err() != nil {
			t.Error("a WebSocket is served after Close")
		}
		ws.CloseNow()
	}
	chain.Mine(1)
	server.Close()
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, before)
}

func TestEverythingAtOnce(t *testing.T) {
	chain, other := New(Options{}), New(Options{ChainID: 7})
	b := NewBackend(chain, "one")
	address := listen(t, b)
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range 5 {
				ws, _, err := websocket.Dial(t.Context(), address, nil)
				if err != nil {
					continue // dropped on its way
				}
				for _, body := range []string{`["newHeads"]`, `["logs",{}]`, `["newPendingTransactions",true]`, `["syncing"]`} {
					ws.Write(t.Context(), websocket.MessageText, []byte(`{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":`+body+`}`))
				}
				for range 10 {
					if _, _, err := ws.Read(t.Context()); err != nil {
						break
					}
				}
				ws.CloseNow()
			}
		})
	}
	left := make(chan struct{})
	go func() { defer close(left); clients.Wait() }()
	steps := []func(){
		func() { chain.Mine(3) }, func() { chain.Reorg(2, 3) }, func() { b.SetLag(2) }, func() { b.SetChain(other) }, func() { other.Mine(2) },
		func() { b.SetLag(0) }, func() { b.SetChain(chain) }, func() { b.DropSockets() }, func() { b.Sockets(); b.Subscriptions() },
		func() { post(b, `{"jsonrpc":"2.0","id":1,"method":"eth_newBlockFilter"}`) },
		func() { b.SetFault(Fault{Kind: FaultHang, Times: 2}) }, func() { b.SetFault(Fault{}) },
	}
	for i := 0; ; i++ {
		select {
		case <-left:
			return
		default:
			steps[i%len(steps)]()
		}
	}
}
