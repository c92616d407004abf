package cache

import (
	"bytes"
	"hash/maphash"
	"math/bits"

	"gateway.internal/proxyd/jsonrpc"
)

// twins finds equal reads of a batch that no send stands between.
type twins struct {
	seed  maphash.Seed
	calls []*jsonrpc.Call
	keys  []string // of the calls, "" for those that have none
	// table holds the place of each call that was looked at, counted from 1, by
	// its hash or in the next free slot.
	table []int32
}

// elder returns a read like calls[i] that was looked at before, nil when there is
// none. Where they have no key their params must be spelled equally.
func (t *twins) elder(i int) *jsonrpc.Call {
	if t.table == nil {
		t.table = make([]int32, 1<<bits.Len(uint(2*len(t.calls))))
	}
	slot := int(t.hash(i)) & (len(t.table) - 1)
	for t.table[slot] != 0 {
		if j := int(t.table[slot]) - 1; t.equal(i, j) {
			return t.calls[j]
		}
		slot = (slot + 1) & (len(t.table) - 1)
	}
	t.table[slot] = int32(i) + 1
	return nil
}

// hash covers all that equal compares, so that no batch can make the slots crowd.
func (t *twins) hash(i int) uint64 {
	c := t.calls[i]
	epoch := 0x9e3779b97f4a7c15 * uint64(c.Epoch)
	if t.keys[i] != "" {
		return epoch + maphash.String(t.seed, t.keys[i])
	}
	return epoch + 31*maphash.String(t.seed, c.Method) + maphash.Bytes(t.seed, c.Params)
}

func (t *twins) equal(i, j int) bool {
	a, b := t.calls[i], t.calls[j]
	return a.Epoch == b.Epoch && a.Method == b.Method && t.keys[i] == t.keys[j] &&
		(t.keys[i] != "" || bytes.Equal(a.Params, b.Params))
}
