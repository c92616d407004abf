package integration_tests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gateway.internal/proxyd/devchain"
)

// churnSockets is how many clients there are at any time.
const churnSockets = 500

// churnTime is how long clients come and go.
func churnTime(t *testing.T) time.Duration {
	seconds := 5
	if os.Getenv("CI") == "true" {
		seconds = 60
	}
	if text := os.Getenv("CHURN_SECONDS"); text != "" {
		var err error
		if seconds, err = strconv.Atoi(text); err != nil || seconds < 1 {
			t.Fatalf("CHURN_SECONDS=%q, want whole seconds", text)
		}
	}
	return time.Duration(seconds) * time.Second
}

// churn is what clients do to a gateway for some time, and what they have seen.
type churn struct {
	t     *testing.T
	addr  string
	chain *devchain.Chain

	opened, vanished, events, heads, calls, refusals, failures, lost atomic.Int64

	mu    sync.Mutex
	codes map[int]int // how often a call was refused with which

	graves sync.WaitGroup // connections whose clients have vanished
}

// TestChurnLeavesNothingBehind has clients connect, subscribe, call and die in every way while backends lose their
// sockets. It is not parallel: it counts what the program uses.
func TestChurnLeavesNothingBehind(t *testing.T) {
	chain := devchain.New(devchain.Options{})
	var backends [3]*devchain.Backend
	var servers [3]*httptest.Server
	var tables strings.Builder
	for i := range backends {
		backends[i] = devchain.NewBackend(chain, fmt.Sprint(i))
		servers[i] = httptest.NewServer(backends[i])
		defer servers[i].Close()
		defer backends[i].Close()
		fmt.Fprintf(&tables, "[backends.b%d]\nws_url = %q\n", i, strings.Replace(servers[i].URL, "http", "ws", 1))
		if i == 0 { // calls go to the others over WebSocket
			fmt.Fprintf(&tables, "rpc_url = %q\n", servers[i].URL)
		}
	}
	pprof := freeAddr(t)
	g := startGateway(t, fmt.Sprintf(`
ws_backend_group = "main"
[server]
rpc_host = "127.0.0.1"
log_level = "info"
ws_ping_interval = "2s"
enable_pprof = true
pprof_addr = %q
[backend]
max_retries = 2
out_of_service_seconds = 1
%s
[backend_groups.main]
backends = ["b0", "b1", "b2"]
[rpc_method_mappings]
"*" = "main"
`, pprof, tables.String()))
	c := &churn{t: t, addr: strings.TrimPrefix(g.url, "http://"), chain: chain, codes: make(map[int]int)}

	// What the program holds once it has served as many, and nobody is there. Go keeps what it needed for the most
	// goroutines that there ever were.
	first, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	c.run(first, churnSockets, func() {})
	cancel()
	drop := func() {
		for i := range servers {
			servers[i].CloseClientConnections()
			backends[i].DropSockets()
		}
	}
	emptied := func(limit time.Duration) map[string]float64 {
		t.Helper()
		var now map[string]float64
		eventually(t, limit, "clients and subscriptions to be gone", func() error {
			now = g.samples(t)
			for _, name := range []string{"proxyd_active_client_ws_conns", "proxyd_subscriptions", "proxyd_backend_subscriptions"} {
				if now[name] != 0 {
					return fmt.Errorf("%s is %v", name, now[name])
				}
			}
			return nil
		})
		return now
	}
	// A client that vanished is dead after ping interval and 10 s, its subscription's grace is 10 s more.
	const patience = 45 * time.Second
	emptied(patience)
	c.graves.Wait()
	drop()
	before := g.settled(t, pprof)

	c = &churn{t: t, addr: c.addr, chain: chain, codes: make(map[int]int)}
	duration := churnTime(t)
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	n := 0
	c.run(ctx, churnSockets, func() {
		switch n++; n % 10 {
		case 3:
			backends[n/10%3].DropSockets()
		case 7:
			backends[n/10%3].SetFault(devchain.Fault{Kind: devchain.FaultDrop})
		case 9:
			backends[n/10%3].SetFault(devchain.Fault{})
			if n%100 == 9 {
				backends[0].SetFault(devchain.Fault{Kind: devchain.FaultStatus, Times: 50})
			}
		}
	})
	for i := range backends {
		backends[i].SetFault(devchain.Fault{})
	}
	emptied(patience)
	drop()
	c.graves.Wait()
	var after map[string]float64
	defer func() {
		if t.Failed() {
			_, stacks, _ := get("http://" + pprof + "/debug/pprof/goroutine?debug=1")
			t.Logf("goroutines at the end:\n%.6000s", stacks)
		}
	}()
	eventually(t, 30*time.Second, "what clients used", func() error {
		after = g.settled(t, pprof)
		for name, more := range map[string]float64{"go_goroutines": 2, "process_open_fds": 2, "go_memstats_heap_alloc_bytes": 3 << 20, "go_memstats_heap_inuse_bytes": 8 << 20} {
			if os.Getenv("PROXYD_RACE") == "1" && strings.Contains(name, "heap") {
				continue // the race detector keeps memory of its own
			}
			if after[name] > before[name]+more {
				return fmt.Errorf("%s is %v, before it was %v", name, after[name], before[name])
			}
		}
		return nil
	})
	t.Logf("%s: %d sockets opened, of which %d vanished, %d calls answered, %d events of which %d heads; %d calls refused %v, %d upgrades failed, %d sockets closed behind a gap",
		duration, c.opened.Load(), c.vanished.Load(), c.calls.Load(), c.events.Load(), c.heads.Load(), c.refusals.Load(), c.codes, c.failures.Load(), c.lost.Load())
	for _, name := range []string{"go_goroutines", "process_open_fds", "go_memstats_heap_alloc_bytes", "go_memstats_heap_inuse_bytes", "process_resident_memory_bytes"} {
		t.Logf("%s: %v before, %v after", name, before[name], after[name])
	}
	if least := int64(duration.Seconds() * 20); c.opened.Load() < least || c.events.Load() < least || c.calls.Load() < least {
		t.Errorf("hardly anything happened")
	}
	if failed := c.failures.Load(); failed > 0 {
		t.Errorf("%d upgrades failed", failed)
	}
	for _, name := range []string{"proxyd_client_ws_closes_total", "proxyd_rpc_notifications_total"} {
		if after[name] <= before[name] {
			t.Errorf("%s did not grow", name)
		}
	}
}

// run keeps so many clients alive until ctx ends; meanwhile blocks come, and trouble is called ten times a second.
func (c *churn) run(ctx context.Context, clients int, trouble func()) {
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				c.life(ctx)
			}
		})
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-tick.C:
			trouble()
			if i%3 == 0 {
				c.chain.Mine(1)
			}
		case <-ctx.Done():
		}
	}
	wg.Wait()
}

// churnClient is one client's socket.
type churnClient struct {
	*websocket.Conn
	under *mortalConn
}

// mortalConn is a connection that a client can leave without a word.
type mortalConn struct {
	*net.TCPConn
	gone atomic.Bool
}

// Read implements net.Conn.
func (c *mortalConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if c.gone.Load() {
		return 0, net.ErrClosed
	}
	return n, err
}

// Close implements net.Conn.
func (c *mortalConn) Close() error {
	if c.gone.Load() {
		return nil
	}
	return c.TCPConn.Close()
}

func (c *churn) dial(ctx context.Context) (*churnClient, error) {
	k := &churnClient{}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		if conn, err = dialer.DialContext(ctx, network, addr); err == nil {
			k.under = &mortalConn{TCPConn: conn.(*net.TCPConn)}
			conn = k.under
		}
		return conn, err
	}}
	conn, _, err := websocket.Dial(ctx, "ws://"+c.addr, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(1 << 20)
	k.Conn = conn
	return k, nil
}

// life is that of one client.
func (c *churn) life(ctx context.Context) {
	dialling, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	k, err := c.dial(dialling)
	cancel()
	if err != nil {
		if c.failures.Add(1) == 1 {
			c.t.Logf("dial: %v", err)
		}
		return
	}
	c.opened.Add(1)
	defer k.CloseNow()
	kinds := []string{`["newHeads"]`, `["logs",{}]`, `["newPendingTransactions"]`, `["newHeads"]`, fmt.Sprintf(`["logs",{"topics":["0x%064x"]}]`, rand.IntN(50))}
	rand.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	wanted := rand.IntN(len(kinds))
	for i := range wanted {
		k.say(fmt.Sprintf(`{"jsonrpc":"2.0","id":"s","method":"eth_subscribe","params":%s}`, kinds[i]))
	}
	over := make(chan struct{})
	var dying sync.WaitGroup
	defer dying.Wait()
	defer close(over)
	dying.Go(func() {
		life := time.NewTimer(time.Duration(100+rand.IntN(3000)) * time.Millisecond)
		defer life.Stop()
		select {
		case <-life.C:
		case <-ctx.Done():
		case <-over:
			return
		}
		c.die(k)
	})
	// Until its time has come it reads, and calls now and then.
	for i := 0; ; i++ {
		if i%4 == 0 {
			k.say([]string{
				`{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber"}`,
				`[{"jsonrpc":"2.0","id":1,"method":"eth_chainId"},{"jsonrpc":"2.0","id":2,"method":"eth_gasPrice"}]`,
				fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"eth_sendRawTransaction","params":["0x%016x"]}`, rand.Uint64()),
				fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":["0x%040x","latest"]}`, rand.IntN(1000)),
				`{"jsonrpc":`,
			}[rand.IntN(5)])
		}
		_, raw, err := k.Read(context.Background())
		if err != nil {
			if websocket.CloseStatus(err) == websocket.StatusTryAgainLater {
				c.lost.Add(1)
			}
			return
		}
		c.hear(k, raw)
	}
}

func (k *churnClient) say(text string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_ = k.Write(ctx, websocket.MessageText, []byte(text))
}

// hear counts a message.
func (c *churn) hear(k *churnClient, raw []byte) {
	if bytes.HasPrefix(raw, []byte("[")) {
		c.calls.Add(1)
		return
	}
	var m struct {
		ID     any             `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  *struct{ Code int }
		Params struct {
			Subscription string          `json:"subscription"`
			Result       json.RawMessage `json:"result"`
		} `json:"params"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		c.t.Errorf("%s: %v", raw, err)
		return
	}
	switch {
	case m.Params.Subscription != "":
		c.events.Add(1)
		var head struct{ Number, ParentHash string }
		if json.Unmarshal(m.Params.Result, &head) == nil && head.ParentHash != "" {
			c.heads.Add(1)
		}
	case m.Error != nil:
		c.refusals.Add(1)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.codes[m.Error.Code]++
	case m.ID == "s":
		var id string
		_ = json.Unmarshal(m.Result, &id)
		c.calls.Add(1)
		if rand.IntN(4) == 0 { // and that was it
			k.say(fmt.Sprintf(`{"jsonrpc":"2.0","id":"u","method":"eth_unsubscribe","params":[%q]}`, id))
		}
	default:
		c.calls.Add(1)
	}
}

// die ends a client's connection in one of all ways.
func (c *churn) die(k *churnClient) {
	tcp := k.under.TCPConn
	part := []byte{0x81, 0xfe, 0x10, 0, 1, 2, 3, 4, '{'} // of a frame of 4 KiB
	switch rand.IntN(15) / 2 {
	case 0:
		_ = k.Close(websocket.StatusNormalClosure, "")
	case 1:
		reset(tcp)
	case 2:
		_ = tcp.CloseWrite()
	case 3:
		_ = tcp.Close()
	case 4:
		_, _ = tcp.Write(part)
		reset(tcp)
	case 5:
		_, _ = tcp.Write(part)
		_ = tcp.CloseWrite()
	case 6:
		_, _ = tcp.Write(bytes.Repeat([]byte{0xff}, 20))
	default:
		c.vanish(k)
	}
}

// vanish leaves a connection open, of which nobody hears any more; the gateway must end it.
func (c *churn) vanish(k *churnClient) {
	k.under.gone.Store(true)
	tcp := k.under.TCPConn
	_ = tcp.SetReadDeadline(time.Now())
	c.vanished.Add(1)
	c.graves.Go(func() {
		defer tcp.Close()
		<-time.After(15 * time.Second) // pinged after 2 s, dead 10 s later
		_ = tcp.SetReadDeadline(time.Now().Add(15 * time.Second))
		_, err := io.Copy(io.Discard, tcp)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			c.t.Error("the connection of a client that vanished is still there")
		}
	})
}

// freeAddr is an address that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// samples are the values of the metrics, those of one name summed up.
func (g *gateway) samples(t *testing.T) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	lines := bufio.NewScanner(strings.NewReader(g.metrics(t)))
	for lines.Scan() {
		text := lines.Text()
		at := strings.LastIndexByte(text, ' ')
		if at < 0 || strings.HasPrefix(text, "#") {
			continue
		}
		name, _, _ := strings.Cut(text[:at], "{")
		if v, err := strconv.ParseFloat(text[at+1:], 64); err == nil {
			values[name] += v
		}
	}
	return values
}

// settled are the samples behind a few collections of garbage. A call makes a backend's pool throw out what is dead.
func (g *gateway) settled(t *testing.T, pprof string) map[string]float64 {
	t.Helper()
	if _, err := g.client.call("eth_blockNumber", "[]"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		status, _, err := get("http://" + pprof + "/debug/pprof/heap?gc=1")
		if err != nil || status != 200 {
			t.Fatalf("heap profile: HTTP %d, %v", status, err)
		}
	}
	return g.samples(t)
}
