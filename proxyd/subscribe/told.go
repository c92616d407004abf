package subscribe

import (
	"bytes"
	"cmp"
	"slices"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// maxTold bounds the logs that one feed remembers, and their bytes.
const maxTold, maxToldBytes = 20_000, 8 << 20

// logEvent is one log as a backend sent it.
type logEvent struct {
	number, index uint64
	hash          string // of its block, a JSON string in lower case
	removed       bool
	raw           []byte
	source        int // which of the sources told of it
}

// parseLog reads a log.
func parseLog(raw []byte) (l logEvent, ok bool) {
	l.raw = raw
	number, index := false, false
	isObject := jsonrpc.Members(raw, func(name, value []byte) {
		switch string(name) {
		case "blockNumber":
			l.number, number = backend.Quantity(value)
		case "logIndex":
			l.index, index = backend.Quantity(value)
		case "blockHash":
			l.hash = string(bytes.ToLower(value))
		case "removed":
			l.removed = string(value) == "true"
		}
	})
	return l, isObject && number && index && len(l.hash) == 68
}

// told are the logs of the last blocks that the clients of a feed were told and that
// were not taken back since. It is bounded: of blocks up to floor nothing is known.
type told struct {
	logs  []logEvent // by block number, then in the order in which they were told
	bytes int
	floor uint64
}

// take reports whether an event is news, and remembers that it was told. A log that
// was not told cannot be taken back.
func (t *told) take(l logEvent) bool {
	at, known := t.find(l)
	if l.removed {
		if !known {
			return false
		}
		t.bytes -= len(t.logs[at].raw)
		t.logs = slices.Delete(t.logs, at, at+1)
		return true
	}
	if known {
		return false
	}
	t.logs = slices.Insert(t.logs, at, l)
	t.bytes += len(l.raw)
	for len(t.logs) > maxTold || t.bytes > maxToldBytes && len(t.logs) > 1 {
		t.forget(t.logs[0].number)
	}
	return true
}

// find returns where a log stands, or would.
func (t *told) find(l logEvent) (at int, known bool) {
	at, _ = slices.BinarySearchFunc(t.logs, l.number, func(k logEvent, number uint64) int { return cmp.Compare(k.number, number) })
	for ; at < len(t.logs) && t.logs[at].number == l.number; at++ {
		if k := t.logs[at]; k.index == l.index && k.hash == l.hash {
			return at, true
		}
	}
	return at, false
}

// forget drops what was told of blocks up to number.
func (t *told) forget(number uint64) {
	n := 0
	for n < len(t.logs) && t.logs[n].number <= number {
		t.bytes -= len(t.logs[n].raw)
		n++
	}
	t.logs = slices.Delete(t.logs, 0, n)
	t.floor = max(t.floor, number)
}

// orphans takes out the logs above a block in whose place the chain has another, in
// order. Of those that come before their block's head nothing is known yet. Logs of
// the present source are for it to take back.
func (t *told) orphans(above uint64, chain *blocks, present int) (gone []logEvent) {
	t.logs = slices.DeleteFunc(t.logs, func(l logEvent) bool {
		known, ok := chain.at(l.number)
		if l.number <= above || !ok || known.hash == l.hash || l.source == present {
			return false
		}
		t.bytes -= len(l.raw)
		gone = append(gone, l)
		return true
	})
	return gone
}

// takenBack is a log with removed set to true, as nodes tell that its block is no
// longer part of the chain.
func takenBack(raw []byte) []byte {
	out := make([]byte, 0, len(raw)+16)
	out = append(out, '{')
	jsonrpc.Members(raw, func(name, value []byte) {
		if string(name) == "removed" {
			return
		}
		out = append(append(append(append(out, '"'), name...), `":`...), value...)
		out = append(out, ',')
	})
	return append(out, `"removed":true}`...)
}
