package devchain

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestFaultsThatAnswerOnAWebSocket(t *testing.T) {
	for _, test := range []struct {
		fault Fault
		want  string
	}{
		{Fault{}, chainIDAnswer},
		{Fault{Kind: FaultStatus}, chainIDAnswer},
		{Fault{Kind: FaultMute}, chainIDAnswer},
		{Fault{Kind: FaultGarbage}, garbage},
		{Fault{Kind: FaultRateLimited, RetryAfter: "7"}, `{"jsonrpc":"2.0","id":1,"error":{"code":-32005,"message":"too many requests"}}`},
		{Fault{Kind: FaultRateLimited, RPCCode: -32029, RPCMessage: "m"}, `{"jsonrpc":"2.0","id":1,"error":{"code":-32029,"message":"m"}}`},
		{Fault{Kind: FaultRPCError}, `{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"devchain fault"}}`},
		{Fault{Kind: FaultSlow, Delay: time.Nanosecond}, chainIDAnswer},
		{Fault{Kind: FaultWrongID}, `{"jsonrpc":"2.0","id":"devchain-wrong-id","result":"0x7a69"}`},
		{Fault{Kind: FaultTruncate}, chainIDAnswer[:len(chainIDAnswer)/2]},
		{Fault{Kind: FaultRPCError, Method: "eth_call"}, chainIDAnswer},
	} {
		t.Run(string(test.fault.Kind), func(t *testing.T) {
			b, c := connect(t, New(Options{}))
			b.SetFault(test.fault)
			c.send(chainIDCall)
			if got := c.read(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestTimesCountsMessagesThatTheFaultMet(t *testing.T) {
	b, c := connect(t, New(Options{}))
	b.SetFault(Fault{Kind: FaultGarbage, Times: 1})
	for _, want := range []string{garbage, chainIDAnswer} {
		c.send(chainIDCall)
		if got := c.read(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestCloseFaultResetsTheWebSocket(t *testing.T) {
	b, c := connect(t, New(Options{}))
	b.SetFault(Fault{Kind: FaultClose, Times: 1})
	c.send(chainIDCall)
	if text, err := c.receive(); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v, want a reset connection", text, err)
	}
	eventually(t, "the socket is gone", func() bool { return b.Sockets() == 0 })
}

func TestHangAnswersLateAndLosesNotifications(t *testing.T) {
	chain := New(Options{})
	b, c := connect(t, chain)
	c.subscribe(`["newHeads"]`)
	b.SetFault(Fault{Kind: FaultHang})
	c.send(chainIDCall)
	eventually(t, "the call came", func() bool { return b.CallsOf("eth_chainId") == 1 })
	chain.Mine(3)
	b.SetFault(Fault{})
	if got := c.read(); got != chainIDAnswer {
		t.Errorf("the first message after the hang is %s", got)
	}
	chain.Mine(1)
	if got := c.next().head(t); got != 20 {
		t.Errorf("head %d, want 20: those before are lost", got)
	}
}

func TestHangOfOneMethodHoldsUpNothingElse(t *testing.T) {
	chain := New(Options{})
	b, c := connect(t, chain)
	c.subscribe(`["newHeads"]`)
	b.SetFault(Fault{Kind: FaultHang, Method: "eth_blockNumber"})
	c.send(`{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber"}`)
	c.send(chainIDCall)
	if got := c.read(); got != chainIDAnswer {
		t.Errorf("got %s", got)
	}
	chain.Mine(1)
	if got := c.next().head(t); got != 17 {
		t.Errorf("head %d", got)
	}
}

func TestTooManyHeldMessagesDropTheWebSocket(t *testing.T) {
	b, c := connect(t, New(Options{}))
	b.SetFault(Fault{Kind: FaultHang})
	for range maxHeld + 1 {
		c.send(chainIDCall)
	}
	if _, err := c.receive(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestMuteAnswersCallsAndLosesNotifications(t *testing.T) {
	chain := New(Options{})
	b, c := connect(t, chain)
	filter := result(t, b, "eth_newBlockFilter", `[]`)
	c.subscribe(`["newHeads"]`)
	b.SetFault(Fault{Kind: FaultMute})
	chain.Mine(2)
	c.subscribe(`["syncing"]`)
	if got := c.ask("eth_blockNumber", `[]`); got != `"0x12"` {
		t.Errorf("block number %s", got)
	}
	b.SetFault(Fault{})
	chain.Mine(1)
	if got := c.next().head(t); got != 19 {
		t.Errorf("head %d, want 19: those before are lost", got)
	}
	if got := changes(t, b, filter); len(got) != 3 {
		t.Errorf("a filter missed blocks: %s", got)
	}
}

func TestDropRefusesWebSocketsOnly(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	address := listen(t, b)
	c := dial(t, address)
	b.SetFault(Fault{Kind: FaultDrop, Times: 2})
	if b.Sockets() != 0 {
		t.Errorf("%d sockets", b.Sockets())
	}
	if _, err := c.receive(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	if got := post(b, chainIDCall).Body.String(); got != chainIDAnswer {
		t.Errorf("by POST: %s", got)
	}
	for range 2 {
		if _, response, err := websocket.Dial(t.Context(), address, nil); err == nil || response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("got %v, want 503", err)
		}
	}
	dial(t, address)
}

func TestStatusRefusesNewWebSocketsOnly(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	address := listen(t, b)
	c := dial(t, address)
	b.SetFault(Fault{Kind: FaultStatus, Status: 401})
	if _, response, err := websocket.Dial(t.Context(), address, nil); err == nil || response.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %v, want 401", err)
	}
	if got := c.ask("eth_chainId", `[]`); got != `"0x7a69"` {
		t.Errorf("got %s", got)
	}
}

func TestHangHoldsUpNewWebSockets(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	address := listen(t, b)
	b.SetFault(Fault{Kind: FaultHang, Times: 1})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, _, err := websocket.Dial(ctx, address, nil)
		failed <- err
	}()
	eventually(t, "the fault is met", func() bool { return b.Fault().Kind == FaultNone })
	dial(t, address)
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSilenceIsExactlyBetweenTwoFaults(t *testing.T) {
	chain := New(Options{})
	b, c := connect(t, chain)
	c.subscribe(`["newHeads"]`)
	for range 20 {
		chain.Mine(1)
		b.SetFault(Fault{Kind: FaultMute})
		chain.Mine(1)
		b.SetFault(Fault{})
	}
	var want []uint64
	for n := range uint64(20) {
		want = append(want, 17+2*n)
	}
	if got := c.heads(20); !slices.Equal(got, want) {
		t.Errorf("heads %v, want %v", got, want)
	}
}

// FuzzMessage holds that a WebSocket gives to any message what POST gives, and subscribes at most once for each call.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{`["newHeads"]`, `["logs",{"address":[],"fromBlock":"0x1"}]`, `["newPendingTransactions",true]`, `["syncing",1]`, `[[]]`, `{}`} {
		f.Add(seed)
	}
	b := NewBackend(New(Options{}), "one")
	f.Fuzz(func(t *testing.T, params string) {
		if !json.Valid([]byte(params)) {
			t.Skip()
		}
		s := &socket{backend: b, out: newQueue(), subscriptions: map[string]interest{}}
		s.answer(t.Context(), parseRequest([]byte(`{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":`+params+`}`)), Fault{})
		it, _ := s.out.take(t.Context())
		var r reply
		if err := json.Unmarshal(it.text, &r); err != nil || (r.Error == nil) != (len(s.subscriptions) == 1) {
			t.Errorf("%v: %d subscriptions after %s", err, len(s.subscriptions), it.text)
		}
	})
}
