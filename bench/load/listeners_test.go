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

// testInterval is that between blocks here.
const testInterval = 20 * time.Millisecond

// chainOf publishes heads and logs by the clock to all that subscribe, and takes what
// it is told about outages for done.
type chainOf struct {
	clients int // are there when events are spoilt
	// spoil may change what is sent instead of an event: that of a kind to the i-th
	// client of the n-th block since all clients were there.
	spoil   func(i, kind, n int, text string) []string
	refuses string // what it says to a kill
	kills   int

	mu    sync.Mutex
	conns []*heard
	since uint64 // the block after which all clients were there
}

// heard is a client of chainOf.
type heard struct {
	c    *websocket.Conn
	subs int // so many of the subscriptions in their order
}

func (p *chainOf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	switch {
	case r.URL.Path == "/kill" && p.refuses != "":
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, p.refuses)
		p.mu.Unlock()
		return
	case r.URL.Path != "/":
		if r.URL.Path == "/kill" {
			p.kills++
		}
		fmt.Fprint(w, time.Now().UnixNano())
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	ctx := context.Background()
	h := &heard{c: c}
	i := 0
	for {
		_, body, err := c.Read(ctx)
		var call struct {
			ID     json.RawMessage
			Params []any
		}
		if err != nil || json.Unmarshal(body, &call) != nil {
			return
		}
		p.mu.Lock()
		if h.subs == 0 {
			i = len(p.conns)
			p.conns = append(p.conns, h)
		}
		err = c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":%s}`, call.ID, subscriptionOf(i, h.subs)))
		h.subs++
		p.mu.Unlock()
		if err != nil || call.Params[0] != [...]string{"newHeads", "logs"}[h.subs-1] {
			return
		}
	}
}

func subscriptionOf(i, kind int) string { return idOf(10*i + kind) }

// publish announces blocks until the context ends.
func (p *chainOf) publish(ctx context.Context) {
	epoch := time.Now()
	for n := uint64(0); ctx.Err() == nil; n++ {
		due := epoch.Add(time.Duration(n) * testInterval)
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return
		}
		number := content.FirstHead + n
		events := [2][]byte{content.AppendHead(nil, number, due), content.AppendLog(nil, number)}
		p.mu.Lock()
		for i, h := range p.conns {
			for kind := range h.subs {
				texts := []string{string(content.AppendNotification(nil, []byte(subscriptionOf(i, kind)), events[kind]))}
				if p.spoil != nil && p.since != 0 {
					texts = p.spoil(i, kind, int(n-p.since), texts[0])
				}
				for _, text := range texts {
					if text == "close" {
						go h.c.Close(websocket.StatusTryAgainLater, "events were lost")
						continue
					}
					_ = h.c.Write(ctx, websocket.MessageText, []byte(text))
				}
			}
		}
		if len(p.conns) == p.clients && p.conns[p.clients-1].subs == 2 && p.since == 0 {
			p.since = n
		}
		p.mu.Unlock()
	}
}

// listened has a few listen to three outages.
func listened(t *testing.T, p *chainOf, patience time.Duration) *measure.Result {
	t.Helper()
	s := httptest.NewServer(p)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.publish(ctx) }()
	t.Cleanup(func() { cancel(); <-done; s.CloseClientConnections(); s.Close() })
	target := strings.TrimPrefix(s.URL, "http://")
	r, err := listen(&options{target: target, outages: target, listeners: p.clients, heads: testInterval, window: 12 * testInterval, patience: patience}, []int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestListenersGetEveryEventOnce(t *testing.T) {
	p := &chainOf{clients: 10}
	r := listened(t, p, 30*time.Second)
	if measure.Sum(r.Failed)+measure.Sum(r.Wrong) > 0 || r.Closed+r.Missed+r.Twice+r.Disordered > 0 {
		t.Errorf("%+v", r)
	}
	if r.Listeners != 10 || len(r.Felt) != kills || p.kills != kills || r.Requests < 10*2*(kills*leastCycle+calmBlocks) || r.Received < 600 || r.Seconds <= 0 {
		t.Errorf("%d kills: %+v", p.kills, r)
	}
}

func TestWhatIsWrongWithEventsIsSeen(t *testing.T) {
	held := ""
	of := func(kind int, change func(text string) []string) func(i, k, n int, text string) []string {
		return func(i, k, n int, text string) []string {
			if i == 2 && k == kind && n == 3 {
				return change(text)
			}
			if i == 2 && k == kind && n == 4 && held != "" {
				return []string{text, held}
			}
			return []string{text}
		}
	}
	change := func(from, to string) func(string) []string {
		return func(text string) []string { return []string{strings.Replace(text, from, to, 1)} }
	}
	type counts struct{ closed, missed, twice, disordered int }
	for name, tc := range map[string]struct {
		spoil  func(i, kind, n int, text string) []string
		want   string
		counts counts
	}{
		"head missing": {of(ofHeads, func(string) []string { return nil }), "head that did not come", counts{missed: 1}},
		"log missing":  {of(ofLogs, func(string) []string { return nil }), "log that did not come", counts{missed: 1}},
		"head twice":   {of(ofHeads, func(s string) []string { return []string{s, s} }), "head that came twice", counts{twice: 1}},
		"log twice":    {of(ofLogs, func(s string) []string { return []string{s, s} }), "log that came twice", counts{twice: 1}},
		"log late":     {of(ofLogs, func(s string) []string { held = s; return nil }), "log that came after a later one", counts{disordered: 1}},
		"log taken back": {of(ofLogs, func(s string) []string {
			return []string{s, strings.Replace(s, `"removed":false`, `"removed":true`, 1)}
		}), "log with other bytes than were published", counts{}},
		"head of another branch": {of(ofHeads, change(`"parentHash":"0x`, `"parentHash":"0xf`)), "head with other bytes than were published", counts{missed: 1}},
		"another's":              {of(ofHeads, change(subscriptionOf(2, ofHeads), subscriptionOf(1, ofHeads))), "notification to another subscription", counts{missed: 1}},
		"no JSON":                {of(ofLogs, func(s string) []string { return []string{s[:len(s)-1]} }), "is no JSON object", counts{missed: 1}},
		"closed":                 {of(ofLogs, func(string) []string { return []string{"close"} }), "WebSocket closed by the gateway: status 1013 events were lost", counts{closed: 1}},
	} {
		held = ""
		r := listened(t, &chainOf{clients: 4, spoil: tc.spoil}, 30*time.Second)
		found := false
		for _, reasons := range []map[string]int{r.Failed, r.Wrong} {
			for reason := range reasons {
				found = found || strings.Contains(reason, tc.want)
			}
		}
		if got := (counts{r.Closed, r.Missed, r.Twice, r.Disordered}); !found || got != tc.counts || len(r.Felt) != kills {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestWhatDoesNotComeAtTheEndIsMissed(t *testing.T) {
	p := &chainOf{clients: 3, spoil: func(i, kind, n int, text string) []string {
		if i == 1 && kind == ofLogs && n >= 3 {
			return nil
		}
		return []string{text}
	}}
	r := listened(t, p, 2*time.Second)
	if r.Missed < 3 || r.Wrong["log that did not come"] != r.Missed || len(r.Wrong) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestAnOutageThatCannotBeMadeIsAFault(t *testing.T) {
	r := listened(t, &chainOf{clients: 2, refuses: "no upstream has had subscriptions"}, 30*time.Second)
	if r.Failed["outage: no upstream has had subscriptions"] != 1 || len(r.Felt) != 0 || r.Requests == 0 {
		t.Errorf("%+v", r)
	}
}

func TestAChainWithoutHeadsIsAFault(t *testing.T) {
	target := socketsLike(t, func(id, _ string) string { return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":"0x1"}`, id) })
	r, err := listen(&options{target: target, outages: target, listeners: 2, heads: testInterval, patience: 50 * time.Millisecond}, []int{os.Getpid()})
	if err != nil || r.Failed["no head within 70ms"] != 1 || len(r.Failed) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}
