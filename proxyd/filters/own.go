package filters

import (
	"context"
	"errors"
	"fmt"

	"gateway.internal/proxyd/jsonrpc"
)

// watch is a filter that lives in the gateway.
type watch struct {
	filter   *filter       // its place in the ledger
	criteria *criteria     // nil for a filter of blocks
	turn     chan struct{} // has room for the one who looks: past is theirs
	past     past
}

// watchBytes is about what a watch takes beside its criteria and logs: most of it
// are the blocks of its past.
const watchBytes = 10 << 10

var errNoHead = errors.New("no backend knows the latest block")

// open makes a filter in the gateway, in the place that was reserved for it.
func (f *Filters) open(ctx context.Context, c *jsonrpc.Call, next jsonrpc.Handler) {
	kept := false
	defer func() {
		if !kept {
			f.ledger.release(c.Client.Key)
		}
	}()
	w := &watch{turn: make(chan struct{}, 1)}
	size := watchBytes
	if c.Method == newFilter {
		object, fault := onlyParam(c.Params)
		if fault == "" {
			w.criteria, fault = parseCriteria(object)
		}
		if fault != "" {
			answerError(c, codeInvalidParams, fault)
			return
		}
		size += len(w.criteria.address) + len(w.criteria.topics)
	}
	// The block rather than its number alone, so that a reorganisation right behind
	// it is noticed too.
	r := &reader{f: f, next: next, asker: c}
	head, ok, err := r.head(ctx, "latest")
	if err == nil && !ok {
		err = errNoHead
	}
	if err != nil {
		tell(c, err)
		return
	}
	w.past = past{{number: head.number, hash: head.hash}}
	id := newOwnID()
	f.ledger.keep(id, c.Client.Key, w, size)
	kept = true
	answerResult(c, []byte(`"`+id+`"`))
}

// serveOwn answers a call on a filter that lives here, if it does.
func (f *Filters) serveOwn(ctx context.Context, s step, next jsonrpc.Handler) {
	c := s.call
	if c.Method == uninstall {
		answerResult(c, fmt.Append(nil, f.ledger.drop(s.id)))
		return
	}
	known := f.ledger.use(s.id)
	if known == nil || c.Method == getLogs && known.watch.criteria == nil {
		answerUnknown(c)
		return
	}
	w := known.watch
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		c.Err = ctx.Err()
		return
	}
	if c.Method == getLogs {
		f.allLogs(ctx, c, w, next)
		return
	}
	f.changes(ctx, c, w, next)
}

// allLogs answers eth_getFilterLogs: the range is the client's own, not what is new.
func (f *Filters) allLogs(ctx context.Context, c *jsonrpc.Call, w *watch, next jsonrpc.Handler) {
	if n := w.criteria.blocks(w.past.last().number); n > f.opts.MaxBlocks {
		answerError(c, codeLimit, fmt.Sprintf("block range too wide: %d blocks, at most %d are looked at", n, f.opts.MaxBlocks))
		return
	}
	r := &reader{f: f, next: next, asker: c}
	inner := r.call("eth_getLogs", w.criteria.params(w.criteria.from.text(), w.criteria.to.text()))
	inner.MayStream = c.MayStream
	next.ServeRPC(ctx, []*jsonrpc.Call{inner})
	c.Answer, c.Err = inner.Answer, inner.Err
}

// changes answers eth_getFilterChanges. The filter's position moves only when
// everything was answered, so that an error loses nothing.
func (f *Filters) changes(ctx context.Context, c *jsonrpc.Call, w *watch, next jsonrpc.Handler) {
	if w.criteria != nil && w.criteria.blockHash != "" {
		answerResult(c, []byte("[]")) // that block's logs are not news
		return
	}
	r := &reader{f: f, next: next, asker: c, pinned: true}
	n, err := f.look(ctx, r, w)
	if err != nil && r.only() != "" && ctx.Err() == nil {
		// The backend that gave the head failed behind it. Others may do better.
		r = &reader{f: f, next: next, asker: c}
		n, err = f.look(ctx, r, w)
	}
	if err != nil {
		tell(c, err)
		return
	}
	if n == nil {
		answerResult(c, []byte("[]"))
		return
	}
	if n.gap {
		f.opts.Metrics.gaps.Inc()
		f.opts.Log.Warn("a reorganisation reaches behind what a filter remembers", "block", n.past.last().number)
	}
	f.move(w, n.past)
	answerResult(c, n.result)
}

// move gives the filter its new past. Where there is no room for the logs, the
// blocks alone are remembered.
func (f *Filters) move(w *watch, to past) {
	was := w.past.bytes()
	if !f.ledger.grow(w.filter, to.bytes()-was) {
		for i := range to {
			to[i].forget()
		}
		f.ledger.grow(w.filter, -was)
	}
	w.past = to
}
