package filters

import (
	"context"
	"fmt"
	"slices"

	"gateway.internal/proxyd/jsonrpc"
)

// news is what an eth_getFilterChanges delivers, and what the filter remembers with
// it.
type news struct {
	result []byte
	past   past
	gap    bool // some logs may have to be taken back that are not remembered
}

// look finds out what is new since the filter's position. It returns nil when
// nothing can be said now: nothing is new, the backend is behind what was
// delivered, or the chain moved while it was read. w stays as it is.
func (f *Filters) look(ctx context.Context, r *reader, w *watch) (*news, error) {
	head, ok, err := r.head(ctx, w.criteria.headTag())
	if err != nil || !ok || head.number < w.past.last().number {
		return nil, err
	}
	holding, known, err := w.past.holding(ctx, r, head)
	if err != nil || !known {
		return nil, err
	}
	from := w.past.from(holding)
	if from > head.number {
		return nil, nil
	}
	if w.criteria == nil {
		return f.newBlocks(ctx, r, w, holding, from, head)
	}
	return f.newLogs(ctx, r, w, holding, from, head)
}

// blocksAtOnce bounds the blocks that one call on a filter of blocks delivers, since
// each is a call of the gateway's own. The next call goes on behind them.
const blocksAtOnce = 128

// newBlocks delivers the hashes of the blocks from..head that follow on the first
// holding blocks of the past.
func (f *Filters) newBlocks(ctx context.Context, r *reader, w *watch, holding int, from uint64, head block) (*news, error) {
	to := min(head.number, from-1+min(blocksAtOnce, f.opts.MaxBlocks))
	before := to + 1
	if to == head.number {
		before = to
	}
	blocks, ok, err := r.blocks(ctx, from, before)
	if err != nil || !ok {
		return nil, err
	}
	if to == head.number {
		blocks = append(blocks, head) // which is known
	}
	found := make([]told, len(blocks))
	result := []byte{'['}
	for i, b := range blocks {
		// Several backends may have answered: together it must be one chain.
		if i > 0 && b.parent != blocks[i-1].hash || i == 0 && holding > 0 && b.parent != w.past[holding-1].hash {
			return nil, nil
		}
		found[i] = told{number: b.number, hash: b.hash}
		result = fmt.Appendf(result, "%q,", b.hash)
	}
	result[len(result)-1] = ']'
	_, gap := w.past.removed(holding)
	return &news{result: result, past: w.past.with(holding, found), gap: gap}, nil
}

// newLogs takes back the logs of blocks behind the first holding ones of the past,
// and delivers those of the blocks from..head.
func (f *Filters) newLogs(ctx context.Context, r *reader, w *watch, holding int, from uint64, head block) (*news, error) {
	end, ok, err := head, true, error(nil)
	if to := from - 1 + f.opts.MaxBlocks; to < head.number {
		end, ok, err = r.block(ctx, to, r.only())
	}
	if err != nil || !ok {
		return nil, err
	}
	raw, found := []byte("[]"), []told(nil)
	if from, to := w.criteria.within(from, end.number); from <= to {
		answer, err := r.ask(ctx, "eth_getLogs", w.criteria.params(hexNumber(from), hexNumber(to)), r.only())
		if err != nil {
			return nil, err
		}
		raw = answer.Result
		if found, err = parseLogs(raw); err != nil {
			return nil, err
		}
		if ok, err := r.fits(ctx, answer, found, end); err != nil || !ok {
			return nil, err
		}
	}
	found = slices.DeleteFunc(found, func(t told) bool { return t.number < from || t.number > end.number })
	if !slices.ContainsFunc(found, func(t told) bool { return t.number == end.number }) {
		found = append(found, told{number: end.number, hash: end.hash})
	}
	removed, gap := w.past.removed(holding)
	return &news{result: joinLogs(removed, raw), past: w.past.with(holding, found), gap: gap}, nil
}

// fits reports whether the logs of the answer are those of the branch that ends with
// end: the chain may have moved since that was asked for, and another backend may
// have answered that is behind it.
func (r *reader) fits(ctx context.Context, answer *jsonrpc.Answer, found []told, end block) (ok bool, err error) {
	proven := false
	for i, t := range found {
		if t.number == end.number && t.hash != end.hash || i > 0 && t.number == found[i-1].number {
			return false, nil
		}
		proven = proven || t.number == end.number
	}
	only := answer.Backend
	if _, known := r.f.tags.ofBackend[only]; !known {
		only = ""
	}
	if proven || len(found) == 0 && (only == "" || only == r.backend) {
		return true, nil // without logs nothing wrong is delivered, and the next call notices the rest
	}
	there, ok, err := r.block(ctx, end.number, only)
	return ok && there.hash == end.hash, err
}
