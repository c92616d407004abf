package group

import (
	"slices"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

// Final says which errors are the client's at once, without asking another
// member: those with one of the codes, of one of the classes, or with one of the
// texts in their message.
type Final struct {
	Codes   []int64
	Classes []string
	Texts   classify.Texts
}

func (f *Final) empty() bool { return len(f.Codes)+len(f.Classes)+len(f.Texts) == 0 }

// final reports whether a JSON-RPC error is the client's at once.
func (g *Group) final(c *jsonrpc.Call, result *backend.Result) bool {
	if g.finals != nil && g.finals.final(result.Outcome, result.Answer.Status) {
		return true
	}
	f := &g.opts.Final
	switch {
	case f.empty():
		return false
	case slices.Contains(f.Codes, result.Answer.Code) || slices.Contains(f.Classes, result.Outcome.Class):
		return true
	case len(f.Texts) == 0:
		return false
	}
	e, err := jsonrpc.ParseError(result.Answer.Error)
	if err != nil {
		return false
	}
	return f.Texts.In(classify.Evidence{Message: e.Message, Method: c.Method, Params: c.Params})
}
