package filters

import (
	"fmt"
	"strconv"

	"gateway.internal/proxyd/jsonrpc"
)

const (
	codeNotFound      = -32000 // as geth
	codeLimit         = -32005 // EIP-1474: limit exceeded
	codeInvalidParams = -32602

	self = "proxyd" // Answer.Backend of what the gateway answers itself
)

// answerError answers with a JSON-RPC error of the gateway's own.
func answerError(c *jsonrpc.Call, code int64, message string) {
	raw := append([]byte(`{"code":`), strconv.FormatInt(code, 10)...)
	raw = jsonrpc.AppendString(append(raw, `,"message":`...), message)
	c.Answer = &jsonrpc.Answer{Error: append(raw, '}'), Code: code, Backend: self}
}

func answerResult(c *jsonrpc.Call, result []byte) {
	c.Answer = &jsonrpc.Answer{Result: result, Backend: self}
}

// answerUnknown answers what geth answers for a filter that it does not have.
func answerUnknown(c *jsonrpc.Call) {
	if c.Method == uninstall {
		answerResult(c, []byte("false"))
		return
	}
	answerError(c, codeNotFound, "filter not found")
}

// refuse answers a client that has too many filters.
func (f *Filters) refuse(c *jsonrpc.Call) {
	f.opts.Metrics.refused.Inc()
	answerError(c, codeLimit, fmt.Sprintf("too many filters: at most %d per client; uninstall some or wait for them to expire", f.opts.MaxPerClient))
}

// onlyParam returns the one parameter in params, or says what is wrong, in geth's
// words.
func onlyParam(params []byte) (value []byte, fault string) {
	n := 0
	if params != nil && string(params) != "null" {
		ok := jsonrpc.Elements(params, func(v []byte) bool {
			if n++; n == 1 {
				value = v
			}
			return n < 2
		})
		if !ok {
			return nil, "non-array args"
		}
	}
	switch {
	case n == 0 || string(value) == "null":
		return nil, "missing value for required argument 0"
	case n > 1:
		return nil, "too many arguments, want at most 1"
	}
	return value, ""
}
