package devchain

import (
	"encoding/json"
	"slices"
)

const (
	maxFilters = 1000   // that a Backend keeps; the oldest is forgotten for a new one
	maxChanges = 10_000 // that wait for eth_getFilterChanges, before the filter is forgotten
)

// installed is a filter with what happened since it was asked last.
type installed struct {
	interest
	changes []json.RawMessage
}

func (b *Backend) install(i interest) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.filterOrder) >= maxFilters {
		b.forget(b.filterOrder[0])
	}
	id := newID()
	b.filters[id] = &installed{interest: i}
	b.filterOrder = append(b.filterOrder, id)
	return id
}

// forget removes a filter and reports whether it was there. b.mu is held.
func (b *Backend) forget(id string) bool {
	if b.filters[id] == nil {
		return false
	}
	delete(b.filters, id)
	i := slices.Index(b.filterOrder, id)
	b.filterOrder = slices.Delete(b.filterOrder, i, i+1)
	return true
}

func newFilter(b *Backend, p *params) (any, *rpcError) {
	f, err := decodeFilter(p.list[0])
	p.reject(0, err)
	if p.fail != nil {
		return nil, p.fail
	}
	return b.install(interest{kind: newLogs, logs: f}), nil
}

func newBlockFilter(b *Backend, _ *params) (any, *rpcError) {
	return b.install(interest{kind: newHeads}), nil
}

func newPendingFilter(b *Backend, p *params) (any, *rpcError) {
	full := p.has(0) && p.bool(0)
	if p.fail != nil {
		return nil, p.fail
	}
	return b.install(interest{kind: newPending, full: full}), nil
}

func filterNotFound() *rpcError { return &rpcError{Code: codeServer, Message: "filter not found"} }

func getFilterChanges(b *Backend, p *params) (any, *rpcError) {
	id := p.string(0)
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.filters[id]
	if f == nil {
		return nil, filterNotFound()
	}
	changes := f.changes
	f.changes = nil
	return append([]json.RawMessage{}, changes...), nil
}

func getFilterLogs(b *Backend, p *params) (any, *rpcError) {
	id := p.string(0)
	b.mu.Lock()
	f := b.filters[id]
	b.mu.Unlock()
	if f == nil || f.kind != newLogs {
		return nil, filterNotFound()
	}
	return b.logs(f.logs)
}

func uninstallFilter(b *Backend, p *params) (any, *rpcError) {
	id := p.string(0)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.forget(id), nil
}
