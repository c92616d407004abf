package cache

import (
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// DefaultTTL is how long immutable answers are kept by default.
const DefaultTTL = time.Hour

// Rule keeps the answers of a method, or of a pattern of methods, for a time.
type Rule struct {
	Method string
	TTL    time.Duration
}

// ttl returns for how long an answer to the call may be kept, 0 for not at all.
// The method table has the last word on what may be cached at all.
func (c *Cache) ttl(call *jsonrpc.Call) time.Duration {
	if c.opts.Store == nil || call.Row.Class != jsonrpc.Read || !call.Row.Cacheable {
		return 0
	}
	if rule, _, ok := c.rules.Lookup(call.Method); ok {
		return rule
	}
	switch call.Row.Immutable {
	case jsonrpc.Always:
		return c.opts.TTL
	case jsonrpc.ByHash:
		if onlyBlockHash(call.Params) {
			return c.opts.TTL
		}
	}
	return 0
}

// onlyBlockHash reports whether params is an array of exactly one block hash.
func onlyBlockHash(params []byte) bool {
	if len(params) > 4096 {
		return false
	}
	p := appendCanonical(make([]byte, 0, 80), params)
	if len(p) != 70 || string(p[:4]) != `["0x` || string(p[68:]) != `"]` {
		return false
	}
	for _, c := range p[4:68] {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return true
}

// storable reports whether an answer may be kept: never an error or null, nor an
// empty array where that means "not there yet".
func storable(row *jsonrpc.Row, a *jsonrpc.Answer) bool {
	if a.Error != nil || a.Status != 0 {
		return false
	}
	switch string(a.Result) {
	case "null":
		return false
	case "[]":
		return !row.EmptyIsNull
	}
	return true
}
