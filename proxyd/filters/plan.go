package filters

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"gateway.internal/proxyd/jsonrpc"
)

const (
	newFilter        = "eth_newFilter"
	newBlockFilter   = "eth_newBlockFilter"
	newPendingFilter = "eth_newPendingTransactionFilter"
	getChanges       = "eth_getFilterChanges"
	getLogs          = "eth_getFilterLogs"
	uninstall        = "eth_uninstallFilter"
)

// concerns reports whether the call is one of a filter and still open.
func concerns(c *jsonrpc.Call) bool {
	switch c.Method {
	case newFilter, newBlockFilter, newPendingFilter, getChanges, getLogs, uninstall:
		return !c.Done()
	}
	return false
}

// plan is what becomes of the calls of one slice.
type plan struct {
	rest  []*jsonrpc.Call // goes on as it is
	made  []*jsonrpc.Call // those of rest that make a filter in a backend
	lines []line          // run beside each other and beside rest
}

// line is the calls on one filter, in the order of the client.
type line []step

// step is one call that is answered here or by the filter's backend.
type step struct {
	call *jsonrpc.Call
	id   string  // of the filter as the client knows it, "" for a new one
	at   address // where that lives
}

// plan sorts the calls. What can be answered at once is.
func (f *Filters) plan(calls []*jsonrpc.Call) (p plan) {
	lines := make(map[string]int) // of filters, by id
	for _, c := range calls {
		if !concerns(c) {
			p.rest = append(p.rest, c)
			continue
		}
		switch c.Method {
		case newFilter, newBlockFilter, newPendingFilter:
			if !f.ledger.reserve(c.Client.Key) {
				f.refuse(c)
			} else if f.opts.Mode == ModeGateway && c.Method != newPendingFilter {
				p.lines = append(p.lines, line{{call: c}})
			} else {
				c.MayStream = false // the id is changed
				p.rest, p.made = append(p.rest, c), append(p.made, c)
			}
			continue
		}
		value, fault := onlyParam(c.Params)
		if fault != "" {
			answerError(c, codeInvalidParams, fault)
			continue
		}
		id, at, ok := f.find(value)
		if !ok {
			answerUnknown(c)
			continue
		}
		i, known := lines[id]
		if !known {
			i = len(p.lines)
			lines[id] = i
			p.lines = append(p.lines, nil)
		}
		p.lines[i] = append(p.lines[i], step{call: c, id: id, at: at})
	}
	return p
}

// find returns where the filter with the id, a JSON value, lives.
func (f *Filters) find(value []byte) (id string, at address, ok bool) {
	id, ok = jsonrpc.Text(value)
	if !ok {
		return "", at, false
	}
	at, ok = f.tags.decode(id)
	return id, at, ok
}

// linesAtOnce bounds what one client's batch keeps under way.
const linesAtOnce = 16

// carryOut runs the lines beside each other and beside the rest.
func (f *Filters) carryOut(ctx context.Context, p *plan, next jsonrpc.Handler) {
	lines := p.lines
	if len(p.rest) == 0 && len(lines) == 1 {
		f.run(ctx, lines[0], next)
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if len(lines) > 0 {
		todo := make(chan line, len(lines))
		for _, l := range lines {
			todo <- l
		}
		close(todo)
		for range min(len(lines), linesAtOnce) {
			wg.Go(func() {
				for l := range todo {
					f.run(ctx, l, next)
				}
			})
		}
	}
	if len(p.rest) > 0 {
		next.ServeRPC(ctx, p.rest)
	}
}

// run carries out one call after the other.
func (f *Filters) run(ctx context.Context, l line, next jsonrpc.Handler) {
	for _, s := range l {
		f.step(ctx, s, next)
	}
}

func (f *Filters) step(ctx context.Context, s step, next jsonrpc.Handler) {
	defer func() {
		if p := recover(); p != nil {
			f.opts.Log.Error("panic in a filter", "method", s.call.Label, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if !s.call.Done() {
				s.call.Err = errPanic
			}
		}
	}()
	switch {
	case s.at.backend != "":
		f.forward(ctx, s, next)
	case s.id == "":
		f.open(ctx, s.call, next)
	default:
		f.serveOwn(ctx, s, next)
	}
}
