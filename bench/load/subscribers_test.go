package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gateway.internal/bench/internal/content"
	"gateway.internal/bench/internal/measure"
)

// publisher writes heads to all that subscribe, with ids of their own. spoil may
// change what the n-th message to the i-th of them is.
type publisher struct {
	mu    sync.Mutex
	conns []*websocket.Conn
	spoil func(c *websocket.Conn, i, n int, text string) string
}

func (p *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/subscriptions" {
		p.mu.Lock()
		defer p.mu.Unlock()
		fmt.Fprint(w, len(p.conns)+3)
		return
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	ctx := context.Background()
	_, body, err := c.Read(ctx)
	var call struct{ ID json.RawMessage }
	if err != nil || json.Unmarshal(body, &call) != nil {
		return
	}
	p.mu.Lock()
	err = c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":%s}`, call.ID, idOf(len(p.conns))))
	p.conns = append(p.conns, c)
	p.mu.Unlock()
	if err != nil {
		return
	}
	for {
		if _, _, err := c.Read(ctx); err != nil {
			return
		}
	}
}

func idOf(i int) string { return fmt.Sprintf(`"0x%032x"`, i+1) }

// publish writes heads until the context ends.
func (p *publisher) publish(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		head := content.AppendHead(nil, content.FirstHead+uint64(n), time.Now())
		p.mu.Lock()
		for i, c := range p.conns {
			text := string(content.AppendNotification(nil, []byte(idOf(i)), head))
			if p.spoil != nil {
				text = p.spoil(c, i, n, text)
			}
			if text != "" {
				_ = c.Write(ctx, websocket.MessageText, []byte(text))
			}
		}
		p.mu.Unlock()
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// subscribed has a few subscribe for a moment.
func subscribed(t *testing.T, p *publisher, o *options) *measure.Result {
	t.Helper()
	s := httptest.NewServer(p)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.publish(ctx) }()
	t.Cleanup(func() { cancel(); <-done; s.CloseClientConnections(); s.Close() })
	o.target = strings.TrimPrefix(s.URL, "http://")
	o.counts = o.target
	if o.patience == 0 {
		o.patience = 30 * time.Second
	}
	r, err := subscribe(o, []int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSubscribersGetEveryHeadOnce(t *testing.T) {
	r := subscribed(t, new(publisher), &options{subscribers: 20, window: 100 * time.Millisecond, warmup: 20 * time.Millisecond})
	if measure.Sum(r.Failed)+measure.Sum(r.Wrong) > 0 || r.Heads == 0 || r.Requests < 20*(r.Heads-1) || r.Received < 600 || r.Seconds < 0.1 {
		t.Errorf("%+v", r)
	}
	if r.P50 <= 0 || r.P50 > r.Max || r.Subscriptions != 20 {
		t.Errorf("p50 %g, max %g, %d subscriptions", r.P50, r.Max, r.Subscriptions)
	}
}

func TestHeadsMayBeSpelledOtherwise(t *testing.T) {
	p := &publisher{spoil: func(_ *websocket.Conn, i, n int, text string) string {
		var m struct {
			Params struct {
				Subscription string
				Result       map[string]string
			}
		}
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			return ""
		}
		sorted, _ := json.MarshalIndent(m.Params.Result, "", " ")
		return fmt.Sprintf(` { "method" : "eth_subscription" , "params":{"result": %s, "subscription":%q},"jsonrpc":"2.0"}`, sorted, m.Params.Subscription)
	}}
	r := subscribed(t, p, &options{subscribers: 3, window: 50 * time.Millisecond})
	if measure.Sum(r.Failed)+measure.Sum(r.Wrong) > 0 || r.Heads == 0 {
		t.Errorf("%+v", r)
	}
}

func TestWhatIsWrongWithNotificationsIsSeen(t *testing.T) {
	// From the eighth message on all subscribers are there.
	once := func(change func(text string) string) func(*websocket.Conn, int, int, string) string {
		var seen int
		return func(_ *websocket.Conn, i, _ int, text string) string {
			if i == 2 {
				if seen++; seen == 8 {
					return change(text)
				}
			}
			return text
		}
	}
	for name, tc := range map[string]struct {
		spoil func(*websocket.Conn, int, int, string) string
		want  string
	}{
		"one missing": {once(func(string) string { return "" }), "gap before a head"},
		"one changed": {once(func(s string) string { return strings.Replace(s, `"gasLimit":"0x2`, `"gasLimit":"0x3`, 1) }), "head with other bytes than were published"},
		"another's":   {once(func(s string) string { return strings.Replace(s, idOf(2), idOf(1), 1) }), "notification to another subscription"},
		"no JSON":     {once(func(s string) string { return s[:len(s)-1] }), "is no JSON object"},
		"no head": {once(func(s string) string {
			return `{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":` + idOf(2) + `,"result":{}}}`
		}), "notification without a head"},
		"no notification":  {once(func(s string) string { return `{"jsonrpc":"2.0","id":1,"result":true}` }), "message that is no notification"},
		"no version":       {once(func(s string) string { return strings.Replace(s, `"2.0"`, `"1.0"`, 1) }), "message that is no notification"},
		"error":            {once(func(string) string { return `{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"too slow"}}` }), "too slow"},
		"much too long":    {once(func(s string) string { return s + strings.Repeat(" ", 100_000) }), "message of more than"},
		"closed by server": {once(func(s string) string { return "close" }), "WebSocket closed by the gateway: status 1008 slow"},
		"twice": {func(c *websocket.Conn, i, n int, text string) string {
			if i == 2 {
				_ = c.Write(context.Background(), websocket.MessageText, []byte(text))
			}
			return text
		}, "head that came twice or late"},
	} {
		spoiled := false
		p := &publisher{spoil: func(c *websocket.Conn, i, n int, text string) string {
			was := text
			if text = tc.spoil(c, i, n, text); text != was || name == "twice" {
				spoiled = true
			}
			if text == "close" {
				go c.Close(websocket.StatusPolicyViolation, "slow")
				return ""
			}
			return text
		}}
		r := subscribed(t, p, &options{subscribers: 4, window: 300 * time.Millisecond})
		p.mu.Lock()
		early := !spoiled // a machine so busy that the message was not reached
		p.mu.Unlock()
		if early {
			t.Logf("%s: too busy to see", name)
			continue
		}
		found := false
		for _, counts := range []map[string]int{r.Failed, r.Wrong} {
			for reason := range counts {
				found = found || strings.Contains(reason, tc.want)
			}
		}
		if !found || r.Heads == 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestSilenceIsAFault(t *testing.T) {
	p := &publisher{spoil: func(_ *websocket.Conn, i, _ int, text string) string {
		if i == 1 {
			return ""
		}
		return text
	}}
	r := subscribed(t, p, &options{subscribers: 2, window: 10 * time.Millisecond, patience: 100 * time.Millisecond})
	if measure.Sum(r.Failed) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestRefusedSubscriptionsAreCounted(t *testing.T) {
	target := socketsLike(t, func(id, _ string) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no subscriptions"}}`, id)
	})
	o := options{subscribers: 3, target: target, patience: time.Hour}
	r, err := subscribe(&o, []int{os.Getpid()})
	if err != nil || r.Failed["subscribe: JSON-RPC error -32601: no subscriptions"] != 3 || len(r.Failed) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}
