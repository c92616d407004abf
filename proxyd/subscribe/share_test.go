package subscribe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

func TestEqualSubscriptionsShareOneUpstream(t *testing.T) {
	w := newWorld(t, 2, setting{})
	var all []*sub
	ids := make(map[string]bool)
	for range 100 {
		s := w.session()
		for _, params := range []string{`["newHeads"]`, everyLog} {
			u := s.subscribe(params)
			if ids[u.id] {
				t.Fatalf("id %s twice", u.id)
			}
			ids[u.id] = true
			all = append(all, u)
		}
	}
	w.mine(5, all...)
	if n := w.nodes[0].SubscriptionsMade() + w.nodes[1].SubscriptionsMade(); n != 2 {
		t.Errorf("%d subscriptions upstream, want 2", n)
	}
	if n := w.metric("subscriptions"); n != 200 {
		t.Errorf("%v subscriptions in metrics", n)
	}
	if n := w.metric("backend_subscriptions"); n != 2 {
		t.Errorf("%v upstream subscriptions in metrics", n)
	}
	for _, u := range all {
		if u.seen != 5 {
			t.Errorf("%s: %d notifications, want 5", u.params, u.seen)
		}
	}
}

func TestOneSessionMaySubscribeTwice(t *testing.T) {
	w := newWorld(t, 1, setting{})
	s := w.session()
	a, b := s.subscribe(`["newHeads"]`), s.subscribe(`["newHeads"]`)
	if a.id == b.id {
		t.Fatal("one id for both")
	}
	w.mine(2, a, b)
	s.unsubscribe(a.id)
	w.mine(2, b)
	if got := len(s.told(a.id)); got != 2 {
		t.Errorf("%d notifications, want 2: it unsubscribed", got)
	}
}

func TestUnsubscribeFreesAfterTheGrace(t *testing.T) {
	w := newWorld(t, 1, setting{hub: func(o *Options) { o.Grace = 300 * time.Millisecond }})
	s := w.session()
	kept := s.subscribe(`["newHeads"]`)
	u := s.subscribe(everyLog)
	counts(t, "upstream subscriptions", 2, w.nodes[0].Subscriptions)
	left := time.Now()
	if c := s.unsubscribe(u.id); c.Answer == nil || string(c.Answer.Result) != "true" {
		t.Fatalf("%+v", c.Answer)
	}
	again := w.session().subscribe(everyLog)
	if time.Since(left) < 300*time.Millisecond && w.nodes[0].SubscriptionsMade() != 2 {
		t.Error("subscribed again within the grace")
	}
	w.mine(2, kept, again)
	if c := s.unsubscribe(u.id); c.Answer == nil || c.Answer.Code != -32000 {
		t.Errorf("unsubscribed twice: %+v", c.Answer)
	}
	if c := s.unsubscribe(again.id); c.Answer == nil || c.Answer.Code != -32000 {
		t.Errorf("unsubscribed another session's: %+v", c.Answer)
	}
	left = time.Now()
	again.session.end()
	counts(t, "upstream subscriptions", 1, w.nodes[0].Subscriptions)
	if took := time.Since(left); took < 300*time.Millisecond {
		t.Errorf("the grace was %v", took)
	}
	s.unsubscribe(kept.id)
	counts(t, "upstream subscriptions", 0, w.nodes[0].Subscriptions)
	counts(t, "subscriptions in metrics", 0, func() float64 { return w.metric("subscriptions") })
	counts(t, "upstream subscriptions in metrics", 0, func() float64 { return w.metric("backend_subscriptions") })
	counts(t, "followed in metrics", 0, func() float64 { return w.metric("subscription_backend") })
	w.mine(1)
	one := w.session().subscribe(`["newHeads"]`)
	w.mine(2, one)
}

func TestSessionEndFreesEverything(t *testing.T) {
	w := newWorld(t, 1, setting{})
	for range 5 {
		s := w.session()
		for i := range 20 {
			s.subscribe(fmt.Sprintf(`["logs",{"address":"0x%040x"}]`, i))
		}
		w.Hub.mu.Lock()
		n := len(w.Hub.sessions[s])
		w.Hub.mu.Unlock()
		if n != 20 {
			t.Errorf("%d subscriptions of the session", n)
		}
		s.end()
	}
	counts(t, "upstream subscriptions", 0, w.nodes[0].Subscriptions)
	counts(t, "sessions", 0, func() int {
		w.Hub.mu.Lock()
		defer w.Hub.mu.Unlock()
		return len(w.Hub.sessions) + len(w.Hub.feeds)
	})
}

func TestSessionThatEndsWhileItSubscribesFreesEverything(t *testing.T) {
	w := newWorld(t, 1, setting{})
	stays := w.session().subscribe(`["newHeads"]`)
	w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 200 * time.Millisecond, Method: "eth_subscribe"})
	s := w.session()
	var wg sync.WaitGroup
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.call(ctx, "eth_subscribe", everyLog)
	})
	eventually(t, "it subscribes", func() error {
		w.Hub.mu.Lock()
		defer w.Hub.mu.Unlock()
		return is(1, len(w.Hub.sessions[s]))
	})
	s.end()
	wg.Wait()
	w.nodes[0].is(devchain.FaultNone)
	late := s.call(context.Background(), "eth_subscribe", `["newHeads"]`) // as of a call that was read before
	_ = late
	counts(t, "upstream subscriptions", 1, w.nodes[0].Subscriptions)
	counts(t, "sessions", 1, func() int {
		w.Hub.mu.Lock()
		defer w.Hub.mu.Unlock()
		return len(w.Hub.sessions)
	})
	w.mine(2, stays)
}

func TestClientThatGivesUpWhileItSubscribesFreesEverything(t *testing.T) {
	w := newWorld(t, 1, setting{})
	stays := w.session().subscribe(`["newHeads"]`)
	w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 300 * time.Millisecond, Method: "eth_subscribe"})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if c := w.session().call(ctx, "eth_subscribe", everyLog); c.Err == nil && c.Answer.Error == nil {
		t.Errorf("%+v", c.Answer)
	}
	counts(t, "upstream subscriptions", 1, w.nodes[0].Subscriptions)
	w.nodes[0].is(devchain.FaultNone)
	w.mine(2, stays)
}

func TestLimits(t *testing.T) {
	w := newWorld(t, 1, setting{hub: func(o *Options) { o.MaxPerSession, o.MaxFeeds = 3, 4 }})
	refused := func(s *session, params string, code int64) {
		t.Helper()
		c := s.call(context.Background(), "eth_subscribe", params)
		if c.Answer == nil || c.Answer.Code != code {
			t.Errorf("%s: answer %+v, error %v, want code %d", params, c.Answer, c.Err, code)
		}
	}
	filter := func(i int) string { return fmt.Sprintf(`["logs",{"address":"0x%040x"}]`, i) }
	a, b := w.session(), w.session()
	first := a.subscribe(filter(1))
	a.subscribe(filter(1))
	a.subscribe(filter(2))
	refused(a, filter(1), -32005)
	a.unsubscribe(first.id)
	a.subscribe(filter(3))
	b.subscribe(`["newHeads"]`)
	refused(b, filter(5), -32005) // a fifth feed
	b.subscribe(filter(1))
	a.end()
	eventually(t, "room for another feed", func() error {
		_, err := b.trySubscribe(filter(6))
		return err
	})
}

func TestHubRefuses(t *testing.T) {
	w := newWorld(t, 1, setting{})
	overHTTP := &jsonrpc.Call{Method: "eth_subscribe", Params: []byte(`["newHeads"]`), Client: &jsonrpc.Client{Source: "http"}}
	w.ServeRPC(context.Background(), []*jsonrpc.Call{overHTTP})
	if overHTTP.Answer == nil || overHTTP.Answer.Code != -32601 {
		t.Errorf("over HTTP: %+v", overHTTP.Answer)
	}
	s := w.session()
	for params, code := range map[string]int64{
		``: -32602, `[]`: -32602, `{}`: -32602, `["a b"]`: -32602, `[1]`: -32602, `["logs",[]]`: -32602, `["logs",{},{}]`: -32602,
		`["logs",{"address":"0x12"}]`: -32602, `["logs",{"address":5}]`: -32602, `["logs",{"topics":["0x12"]}]`: -32602,
		`["logs",{"topics":{}}]`: -32602, `["logs",{"topics":[null,null,null,null,null]}]`: -32602, `["logs",{"fromBlock":"0x1"}]`: -32602,
		`["logs",{"blockHash":"0x1"}]`: -32602, `["logs",{"address":["` + devchain.TokenAddress + `",5]}]`: -32602,
		`["logs",{"address":"0x` + strings.Repeat("g", 40) + `"}]`: -32602,
		`["noSuchThing"]`: -32601, // the upstream's word
	} {
		c := s.call(context.Background(), "eth_subscribe", params)
		if c.Answer == nil || c.Answer.Code != code {
			t.Errorf("%s: answer %+v, error %v, want code %d", params, c.Answer, c.Err, code)
		}
	}
	c := s.call(context.Background(), "eth_subscribe", `["noSuchThing"]`)
	var e struct{ Message string }
	if json.Unmarshal(c.Answer.Error, &e) != nil || e.Message != `no "noSuchThing" subscription in eth namespace` || c.Answer.Backend != "b0" {
		t.Errorf("%s by %s", c.Answer.Error, c.Answer.Backend)
	}
	for _, params := range []string{``, `[]`, `[5]`, `["a","b"]`} {
		c := s.call(context.Background(), "eth_unsubscribe", params)
		if c.Answer == nil || c.Answer.Code != -32602 {
			t.Errorf("eth_unsubscribe%s: %+v", params, c.Answer)
		}
	}
	counts(t, "sessions' subscriptions", 0, func() int {
		w.Hub.mu.Lock()
		defer w.Hub.mu.Unlock()
		return len(w.Hub.sessions[s])
	})
}

func TestNullAmongAddressesIsRefused(t *testing.T) {
	w := newWorld(t, 1, setting{})
	for _, params := range []string{`["logs",{"address":[null]}]`, `["logs",{"address":[null,"` + devchain.TokenAddress + `"]}]`} {
		c := w.session().call(context.Background(), "eth_subscribe", params)
		if c.Answer == nil || c.Answer.Code != -32602 {
			t.Errorf("%s: answer %+v, error %v", params, c.Answer, c.Err)
		}
	}
}

func TestEqualFiltersShareOneFeed(t *testing.T) {
	w := newWorld(t, 1, setting{})
	a, b := devchain.TokenAddress, devchain.EchoAddress
	upper := func(s string) string { return "0x" + strings.ToUpper(s[2:]) }
	for _, same := range [][]string{
		{`["logs"]`, `["logs",null]`, `["logs",{}]`, `["logs",{"address":[]}]`, `["logs",{"address":null,"topics":[]}]`, `["logs",{"fromBlock":"latest"}]`, ` [ "logs" , { } ] `},
		{`["logs",{"address":"` + a + `"}]`, `["logs",{"address":["` + a + `"]}]`, `["logs",{"address":["` + upper(a) + `","` + a + `"]}]`},
		{`["logs",{"address":["` + a + `","` + b + `"]}]`, `["logs",{"address":["` + b + `","` + upper(a) + `","` + b + `"],"x":1}]`},
		{`["logs",{"topics":["` + devchain.TransferTopic + `"]}]`, `["logs",{"topics":[["` + upper(devchain.TransferTopic) + `"]],"toBlock":null}]`},
		{`["logs",{"topics":[null,null]}]`, `["logs",{"topics":[[],[null]]}]`},
		{`["newHeads"]`, `["newHeads",{}]`, `["newHeads",true]`},
		{`["newPendingTransactions"]`, `["newPendingTransactions",false]`, `["newPendingTransactions", null]`},
	} {
		before := w.nodes[0].SubscriptionsMade()
		var subs []*sub
		for _, params := range same {
			subs = append(subs, w.session().subscribe(params))
		}
		made := w.nodes[0].SubscriptionsMade() - before
		want := int64(1)
		if before == 0 {
			want = 2 // with the one of heads
		} else if same[0] == `["newHeads"]` {
			want = 0
		}
		if made != want {
			t.Errorf("%d subscriptions for %q", made, same)
		}
		w.mine(4, subs...)
	}
}

func TestSubscriptionsOfABatch(t *testing.T) {
	w := newWorld(t, 1, setting{})
	s := w.session()
	var calls []*jsonrpc.Call
	for i := range 20 {
		params := `["newHeads"]`
		if i%2 == 1 {
			params = fmt.Sprintf(`["logs",{"address":["%s","0x%040x"]}]`, devchain.TokenAddress, i)
		}
		calls = append(calls, &jsonrpc.Call{Method: "eth_subscribe", Params: []byte(params), Client: &jsonrpc.Client{Session: s}})
	}
	w.ServeRPC(context.Background(), calls)
	var subs []*sub
	for _, c := range calls {
		if c.Answer == nil || c.Then == nil {
			t.Fatalf("%+v %v", c.Answer, c.Err)
		}
		id, _ := jsonrpc.Text(c.Answer.Result)
		s.mu.Lock()
		s.begun[id] = true
		s.mu.Unlock()
		subs = append(subs, &sub{session: s, id: id, params: string(c.Params), since: w.chain.Head(), standing: make(map[string]bool), kind: must(parseSpec(c.Params)).kind})
	}
	w.chain.Mine(2) // nobody knows an id yet
	counts(t, "heads seen", uint64(18), func() uint64 { n, _ := w.members[0].Head(); return n })
	for i, c := range calls {
		subs[i].since = w.chain.Head()
		c.Then()
	}
	w.mine(3, subs...)
}

func TestHubClosesWithLiveSubscriptions(t *testing.T) {
	w := newWorld(t, 2, setting{})
	s := w.session()
	u := s.subscribe(`["newHeads"]`)
	s.subscribe(everyLog)
	w.mine(1, u)
	begun := time.Now()
	w.Hub.Close()
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
	counts(t, "upstream subscriptions", 0, w.nodes[0].Subscriptions)
	if _, err := s.trySubscribe(`["newHeads"]`); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestHubClosesWhileItsBackendHangs(t *testing.T) {
	w := newWorld(t, 1, setting{hub: func(o *Options) { o.CallTimeout, o.ReplayTimeout = 30*time.Second, 30*time.Second }})
	w.nodes[0].is(devchain.FaultHang)
	done := make(chan error, 1)
	s := w.session()
	go func() {
		_, err := s.trySubscribe(`["newHeads"]`)
		done <- err
	}()
	eventually(t, "it subscribes", func() error {
		w.Hub.mu.Lock()
		defer w.Hub.mu.Unlock()
		return is(1, len(w.Hub.sessions))
	})
	begun := time.Now()
	w.Hub.Close()
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
	if err := <-done; err == nil {
		t.Error("subscribed at a hub that is closed")
	}
	w.nodes[0].is(devchain.FaultNone)
}

func TestNoBackendIsAPromptError(t *testing.T) {
	w := newWorld(t, 2, setting{})
	for _, n := range w.nodes {
		n.goDown()
	}
	for range 3 {
		begun := time.Now()
		_, err := w.session().trySubscribe(`["newHeads"]`)
		if took := time.Since(begun); err == nil || took > 3*time.Second {
			t.Errorf("error %v after %v", err, took)
		}
	}
	for _, n := range w.nodes {
		n.comeBack()
	}
	var u *sub
	eventually(t, "subscribe", func() (err error) {
		u, err = w.session().trySubscribe(`["newHeads"]`)
		return err
	})
	w.mine(2, u)
}

func TestSlowSessionHoldsUpNobody(t *testing.T) {
	w := newWorld(t, 1, setting{})
	a, b := w.session(), w.session()
	u, gone := a.subscribe(`["newHeads"]`), b.subscribe(`["newHeads"]`)
	b.end()
	w.mine(50, u)
	if n := len(b.told(gone.id)); n != 0 {
		t.Errorf("%d notifications to a socket that has ended", n)
	}
}
