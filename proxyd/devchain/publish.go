package devchain

import (
	"encoding/json"
	"slices"
)

// The kinds of what can be subscribed to, by the name that eth_subscribe reads.
const (
	newHeads   = "newHeads"
	newLogs    = "logs"
	newPending = "newPendingTransactions"
	syncing    = "syncing"
)

// interest is what a subscription or a filter wants to hear of.
type interest struct {
	kind string
	logs filter // of newLogs
	full bool   // of newPending: whole transactions instead of their hashes
}

// news is one thing that happened, in the forms in which it goes out: notice to subscriptions, change to filters, full instead of both to
// those who want whole transactions.
type news struct {
	kind                 string
	event                *event // of newLogs
	notice, change, full *form
}

// form is a value that is encoded when somebody wants it, and once for all of them.
type form struct {
	value any
	json  json.RawMessage
}

func (f *form) encoded() json.RawMessage {
	if f.json == nil {
		f.json, _ = json.Marshal(f.value) // views and hashes: cannot fail
	}
	return f.json
}

func (n news) concerns(i interest) bool {
	return n.kind == i.kind && (n.event == nil || i.logs.follows(n.event))
}

// publish tells of blocks that were replaced and of those that came, both oldest first, in geth's order: the logs that are gone, the latest
// first, and then the new blocks. b.mu is held.
func (b *Backend) publish(gone, come []*block) {
	for _, one := range slices.Backward(gone) {
		for _, e := range slices.Backward(one.events()) {
			b.publishLog(e, true)
		}
	}
	for _, one := range come {
		b.deliver(news{kind: newHeads, notice: &form{value: viewHeader(one)}, change: &form{value: one.hash}})
		for _, e := range one.events() {
			b.publishLog(e, false)
		}
	}
}

func (b *Backend) publishLog(e *event, removed bool) {
	log := &form{value: viewLog(e, removed)}
	b.deliver(news{kind: newLogs, event: e, notice: log, change: log})
}

// pooled implements watcher.
func (b *Backend) pooled(t *transaction) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := &form{value: t.hash}
	b.deliver(news{kind: newPending, notice: id, change: id, full: &form{value: b.horizon().chain.viewTx(t)}})
}

// deliver hands news to all whom it concerns. Filters hear of it whatever the fault is: they are asked, not told.
func (b *Backend) deliver(n news) {
	for id, f := range b.filters {
		if !n.concerns(f.interest) {
			continue
		}
		if len(f.changes) >= maxChanges {
			b.forget(id)
			continue
		}
		f.changes = append(f.changes, n.in(n.change, f.interest).encoded())
	}
	if b.fault.silences() {
		return
	}
	for s := range b.sockets {
		for id, i := range s.subscriptions {
			if n.concerns(i) {
				s.notify(id, n.in(n.notice, i).encoded())
			}
		}
	}
}

// in is the form in which the news goes out to one who usually gets the usual one.
func (n news) in(usual *form, i interest) *form {
	if i.full {
		return n.full
	}
	return usual
}
