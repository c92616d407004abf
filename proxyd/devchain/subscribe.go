package devchain

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
)

// maxSubscriptions bounds what lives on one WebSocket.
const maxSubscriptions = 10_000

// newID names a subscription or a filter: 0x and 32 digits.
func newID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	return string(appendHex(nil, id[:]))
}

// subscribe makes a subscription that begins when it is answered.
func subscribe(b *Backend, p *params) (any, *rpcError) {
	if p.turn == nil {
		return nil, &rpcError{Code: codeNoMethod, Message: "notifications not supported"}
	}
	var wanted interest
	if !p.has(0) || json.Unmarshal(p.list[0], &wanted.kind) != nil {
		return nil, invalidParams("expected subscription name as first argument")
	}
	most := 1
	switch wanted.kind {
	case newHeads, syncing:
	case newLogs:
		most = 2
		if !p.has(1) {
			return nil, invalidParams("missing value for required argument 1")
		}
		f, err := decodeFilter(p.list[1])
		p.reject(1, err)
		wanted.logs = f
	case newPending:
		most = 2
		if p.has(1) {
			wanted.full = p.bool(1)
		}
	default:
		return nil, &rpcError{Code: codeNoMethod, Message: fmt.Sprintf("no %q subscription in eth namespace", wanted.kind)}
	}
	if len(p.list) > most {
		return nil, invalidParams("too many arguments, want at most %d", most)
	}
	if p.fail != nil {
		return nil, p.fail
	}
	id := newID()
	if !p.turn.add(id, wanted) {
		return nil, &rpcError{Code: codeLimit, Message: fmt.Sprintf("more than %d subscriptions", maxSubscriptions)}
	}
	return id, nil
}

func unsubscribe(_ *Backend, p *params) (any, *rpcError) {
	id := p.string(0)
	if p.fail != nil {
		return nil, p.fail
	}
	if p.turn == nil || !p.turn.remove(id) {
		return nil, &rpcError{Code: codeServer, Message: "subscription not found"}
	}
	return true, nil
}

// turn is one message of a WebSocket while it is answered. What it subscribes to is kept here until then, so that no notification goes out
// ahead of the answer with the subscription's id.
type turn struct {
	socket *socket
	made   map[string]interest
}

func (t *turn) add(id string, i interest) bool {
	b := t.socket.backend
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(t.socket.subscriptions)+len(t.made) >= maxSubscriptions {
		return false
	}
	if t.made == nil {
		t.made = make(map[string]interest)
	}
	t.made[id] = i
	b.subscribed.Add(1)
	return true
}

func (t *turn) remove(id string) bool {
	b := t.socket.backend
	b.mu.Lock()
	defer b.mu.Unlock()
	_, before := t.socket.subscriptions[id]
	_, now := t.made[id]
	delete(t.socket.subscriptions, id)
	delete(t.made, id)
	return before || now
}

// end sends the answer and begins the subscriptions.
func (t *turn) end(answer item) {
	b := t.socket.backend
	b.mu.Lock()
	defer b.mu.Unlock()
	t.socket.out.put(answer)
	for id, i := range t.made {
		t.socket.subscriptions[id] = i
		if i.kind == syncing && !b.fault.silences() {
			t.socket.notify(id, json.RawMessage("false"))
		}
	}
}

// Subscriptions is how many subscriptions there are now, on all WebSockets together.
func (b *Backend) Subscriptions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for s := range b.sockets {
		n += len(s.subscriptions)
	}
	return n
}

// SubscriptionsMade is how many subscriptions were ever made, with those that are gone.
func (b *Backend) SubscriptionsMade() int64 { return b.subscribed.Load() }
