package subscribe

import (
	"bytes"
	"cmp"
	"slices"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// maxTold bounds the logs that one feed remembers, maxToldBytes what they and those
// of the hub's other feeds take together, in bytes.
const maxTold, maxToldBytes = 20_000, 64 << 20

// toldRoom is what a log takes besides its own bytes.
const toldRoom = 256

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
	return l, isObject && number && index && len(l.hash) == 68 && l.number < mostNumber
}

// told are the logs of the last blocks that the clients of a feed were told and that
// were not taken back since. It is bounded: of blocks up to floor nothing is known.
type told struct {
	logs  []logEvent // by block number, then in the order in which they were told
	bytes int
	all   *int // bytes that the logs of all feeds take
	floor uint64
	// back is the lowest block of which the source took a log back, and which it has not
	// told of another for yet; 0 for none. Another source may still have it.
	back uint64
}

// take reports whether an event is news, and remembers that it was told. A log that
// was not told cannot be taken back.
func (t *told) take(l logEvent) bool {
	if t.all == nil {
		t.all = new(int)
	}
	at, known := t.find(l)
	if l.removed {
		if !known {
			return false
		}
		t.release(t.logs[at])
		t.logs = slices.Delete(t.logs, at, at+1)
		if t.back == 0 || l.number < t.back {
			t.back = l.number
		}
		return true
	}
	if known {
		return false
	}
	l.raw = bytes.Clone(l.raw) // it stands in something larger
	t.logs = slices.Insert(t.logs, at, l)
	t.bytes += len(l.raw) + toldRoom
	*t.all += len(l.raw) + toldRoom
	if len(t.logs) > maxTold {
		t.forgetOldest()
	}
	return true
}

func (t *told) release(l logEvent) {
	t.bytes -= len(l.raw) + toldRoom
	*t.all -= len(l.raw) + toldRoom
}

// forgetOldest drops what was told of the oldest block, unless that is the newest too.
func (t *told) forgetOldest() {
	if oldest := t.logs[0].number; oldest < t.logs[len(t.logs)-1].number {
		t.forget(oldest)
	}
}

// replaced notes that clients were told of a block in the place of another.
func (t *told) replaced(number uint64) {
	if number <= t.back {
		t.back = 0
	}
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
		t.release(t.logs[n])
		n++
	}
	t.logs = slices.Delete(t.logs, 0, n)
	t.floor = max(t.floor, number)
}

// orphans takes out the logs that are no longer part of the chain, in order: those in
// whose block's place another stands, and those above the tip whose head was told before,
// which the chain has lost. Of others above the tip nothing is known yet: logs may come
// before their head. What the present source told is for it to take back, unless it is
// known to have missed events, or has had the time to.
func (t *told) orphans(before, chain *blocks, present int, missed bool) (gone []logEvent) {
	tip, _ := chain.tip()
	t.logs = slices.DeleteFunc(t.logs, func(l logEvent) bool {
		own := l.source == present && !missed
		known, ok := chain.at(l.number)
		switch {
		case ok && known.hash == l.hash, !ok && l.number <= tip.number:
			return false
		case ok && own && tip.number < l.number+overlap:
			return false
		case !ok && (own || !before.has(block{number: l.number, hash: l.hash})):
			return false
		}
		t.release(l)
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
