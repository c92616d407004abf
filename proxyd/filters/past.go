package filters

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sort"
)

const (
	// maxTold is how many blocks a filter remembers: reorganisations deeper than
	// that are not seen for what they are.
	maxTold = 128
	// maxToldBytes bounds the logs that one filter remembers. The oldest are
	// forgotten first.
	maxToldBytes = 1 << 20
)

// told is a block that a filter's client was told of.
type told struct {
	number uint64
	hash   hash
	logs   [][]byte // what was delivered of it, to be taken back
	forgot bool     // more was delivered than logs has, of it or of those before the first
}

// past is what a filter remembers of the chain, by number. The last block is the
// filter's position: everything up to it was delivered. A block that is not in it
// had nothing to deliver, or is too long ago.
type past []told

func (p past) last() told { return p[len(p)-1] }

// holding returns how many blocks of the past are still in the chain that ends with
// head. known is false when the reader's backend has not got that far.
func (p past) holding(ctx context.Context, r *reader, head block) (n int, known bool, err error) {
	missing := false
	// holds reports whether the block with index i is still there.
	holds := func(i int) bool {
		switch t := p[i]; {
		case t.number == head.number:
			return t.hash == head.hash
		case t.number+1 == head.number:
			return t.hash == head.parent
		case err != nil || missing:
			return false
		default:
			there, ok, failed := r.block(ctx, t.number, r.only())
			missing, err = !ok, failed
			return there.hash == t.hash
		}
	}
	n = len(p)
	if !holds(n - 1) {
		n = sort.Search(n-1, func(i int) bool { return !holds(i) })
	}
	return n, err == nil && !missing, err
}

// from is the first block behind the n blocks that hold.
func (p past) from(n int) uint64 {
	if n == 0 {
		return p[0].number
	}
	return p[n-1].number + 1
}

// removed returns the logs of the blocks behind the first n, oldest first. gap is
// true when more was delivered than is remembered.
func (p past) removed(n int) (logs [][]byte, gap bool) {
	for _, t := range p[n:] {
		logs = append(logs, t.logs...)
		gap = gap || t.forgot
	}
	return logs, gap
}

// with returns the first n blocks and news behind them, cut to what may be
// remembered. p stays as it is.
func (p past) with(n int, news []told) past {
	all := slices.Concat(p[:n], news)
	slices.SortStableFunc(all[n:], func(a, b told) int { return cmp.Compare(a.number, b.number) })
	if cut := len(all) - maxTold; cut > 0 {
		all, n = slices.Clone(all[cut:]), max(0, n-cut)
		all[0].forgot = true // there was more before it
	}
	total := all.bytes()
	for i := 0; i < len(all) && total > maxToldBytes; i++ {
		total -= all[i].bytes()
		all[i].forget()
	}
	for i := range all[n:] { // their answer must not stay for a few logs
		all[n+i].own()
	}
	return all
}

// forget keeps the block and gives up its logs.
func (t *told) forget() {
	t.forgot = t.forgot || len(t.logs) > 0
	t.logs = nil
}

// own gives the block copies of its logs.
func (t *told) own() {
	for i, log := range t.logs {
		t.logs[i] = bytes.Clone(log)
	}
}

func (t *told) bytes() (n int) {
	for _, log := range t.logs {
		n += len(log) + 24 // of the slice
	}
	return n
}

func (p past) bytes() (n int) {
	for i := range p {
		n += p[i].bytes()
	}
	return n
}
