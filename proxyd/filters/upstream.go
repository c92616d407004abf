package filters

import (
	"context"
	"errors"
	"slices"

	"gateway.internal/proxyd/jsonrpc"
)

// reader asks next what a filter of the gateway needs to know, on behalf of the
// client that looks.
type reader struct {
	f     *Filters
	next  jsonrpc.Handler
	asker *jsonrpc.Call // the client's call
	// pinned asks everything of the backend that gave the head, so that no other,
	// which may be behind, answers with less than there is.
	pinned  bool
	backend string // who gave the head, "" until then
}

// failure is a call of the gateway's own that was answered with an error, or not
// at all. The client is told just that.
type failure struct{ call *jsonrpc.Call }

func (e *failure) Error() string {
	if e.call.Err != nil {
		return e.call.Method + ": " + e.call.Err.Error()
	}
	return e.call.Method + ": " + string(e.call.Answer.Error)
}

// Unwrap returns why nobody answered, nil when somebody did.
func (e *failure) Unwrap() error { return e.call.Err }

// tell ends the client's call with err.
func tell(c *jsonrpc.Call, err error) {
	var failed *failure
	if errors.As(err, &failed) {
		c.Answer, c.Err = failed.call.Answer, failed.call.Err
		return
	}
	c.Err = err
}

var errNoAnswer = errors.New("no answer")

// call builds a call of the gateway's own.
func (r *reader) call(method string, params []byte) *jsonrpc.Call {
	row, _ := r.f.opts.Table.Lookup(method)
	return &jsonrpc.Call{Method: method, Params: params, ID: []byte("1"), Row: row, Label: method, Epoch: r.asker.Epoch, Client: r.asker.Client}
}

// ask asks the backend only, "" for any.
func (r *reader) ask(ctx context.Context, method string, params []byte, only string) (*jsonrpc.Answer, error) {
	c := r.call(method, params)
	c.Only = only
	r.next.ServeRPC(ctx, []*jsonrpc.Call{c})
	return answerOf(c)
}

func answerOf(c *jsonrpc.Call) (*jsonrpc.Answer, error) {
	if !c.Done() {
		c.Err = errNoAnswer
	}
	if c.Err != nil || c.Answer.Error != nil {
		return nil, &failure{c}
	}
	return c.Answer, nil
}

// only is the backend that must answer what follows the head.
func (r *reader) only() string {
	if _, known := r.f.tags.ofBackend[r.backend]; !known || !r.pinned {
		return ""
	}
	return r.backend
}

// head asks for the block that the tag names. ok is false when there is none.
func (r *reader) head(ctx context.Context, tag string) (b block, ok bool, err error) {
	answer, err := r.ask(ctx, "eth_getBlockByNumber", []byte(`["`+tag+`",false]`), "")
	if err != nil {
		return b, false, err
	}
	r.backend = answer.Backend
	return parseBlock(answer)
}

// block asks for the block of that number. ok is false when there is none.
func (r *reader) block(ctx context.Context, number uint64, only string) (b block, ok bool, err error) {
	answer, err := r.ask(ctx, "eth_getBlockByNumber", numberParams(number), only)
	if err != nil {
		return b, false, err
	}
	b, ok, err = parseBlock(answer)
	return b, ok && b.number == number, err
}

// blocks asks for the blocks from the one up to before the other at once. ok is
// false when one is missing.
func (r *reader) blocks(ctx context.Context, from, before uint64) (blocks []block, ok bool, err error) {
	var calls []*jsonrpc.Call
	for n := from; n < before; n++ {
		calls = append(calls, r.call("eth_getBlockByNumber", numberParams(n)))
	}
	if len(calls) == 0 {
		return nil, true, nil
	}
	r.next.ServeRPC(ctx, slices.Clone(calls))
	for i, c := range calls {
		answer, err := answerOf(c)
		if err != nil {
			return nil, false, err
		}
		b, ok, err := parseBlock(answer)
		if err != nil || !ok || b.number != from+uint64(i) {
			return nil, false, err
		}
		blocks = append(blocks, b)
	}
	return blocks, true, nil
}

func numberParams(number uint64) []byte {
	return []byte(`["` + hexNumber(number) + `",false]`)
}
