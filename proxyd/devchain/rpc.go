package devchain

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

const (
	maxBatch  = 1000     // calls in one batch
	maxAnswer = 64 << 20 // bytes of one batch's answers, after which the rest of its calls are refused

	codeParse          = -32700
	codeInvalidRequest = -32600
	codeNoMethod       = -32601
	codeInvalidParams  = -32602
	codeServer         = -32000
	codeTooLarge       = -32003
	codeLimit          = -32005
	codeReverted       = 3
)

// rpcError is the error object of a JSON-RPC 2.0 answer.
type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    any    `json:"data,omitempty"`
}

// call is one element of a request. One without an id is a notification and gets no answer, unless it is invalid.
type call struct {
	id     json.RawMessage
	method string
	params json.RawMessage
	valid  bool
}

// request is the body of one HTTP request, or one message of a WebSocket. With fail set it could not be read, and that is its answer.
type request struct {
	batch bool
	calls []call
	fail  *rpcError
}

func parseRequest(body []byte) request {
	body = bytes.TrimSpace(body)
	if !json.Valid(body) {
		return request{fail: &rpcError{Code: codeParse, Message: "parse error"}}
	}
	if body[0] != '[' {
		return request{calls: []call{parseCall(body)}}
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(body, &elements); err != nil {
		return request{fail: &rpcError{Code: codeParse, Message: "parse error"}}
	}
	if len(elements) == 0 {
		return request{fail: &rpcError{Code: codeInvalidRequest, Message: "empty batch"}}
	}
	if len(elements) > maxBatch {
		return request{fail: &rpcError{Code: codeInvalidRequest, Message: "batch too large"}}
	}
	r := request{batch: true, calls: make([]call, 0, len(elements))}
	for _, e := range elements {
		r.calls = append(r.calls, parseCall(e))
	}
	return r
}

// parseCall keeps the id's bytes as they came. An id that is not a string, a number or null makes the call invalid and is not repeated.
func parseCall(raw []byte) call {
	var in struct {
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Method  string          `json:"method"`
		Params  json.RawMessage `json:"params"`
	}
	err := json.Unmarshal(raw, &in) // after a field of the wrong type it still fills the others, among them the id
	c := call{id: in.ID, method: in.Method, params: in.Params}
	c.valid = err == nil && in.Version == "2.0" && in.Method != ""
	if len(c.id) > 0 && bytes.IndexByte([]byte("{[tf"), c.id[0]) >= 0 {
		c.id, c.valid = nil, false
	}
	return c
}

// respond answers every call, in order. Without anything to answer the body is empty. t is nil for calls that came by POST.
func (b *Backend) respond(ctx context.Context, r request, f Fault, t *turn) []byte {
	if r.fail != nil {
		return appendAnswer(nil, nil, nil, r.fail)
	}
	var out []byte
	for _, c := range r.calls {
		if ctx.Err() != nil {
			return nil
		}
		if c.valid && c.id == nil && c.method != "eth_sendRawTransaction" {
			continue // a notification, and nothing that it could change
		}
		var result any
		var fail *rpcError
		if len(out) < maxAnswer {
			result, fail = b.answer(c, f, t)
		} else {
			fail = &rpcError{Code: codeTooLarge, Message: "response too large"}
		}
		if c.valid && c.id == nil {
			continue
		}
		if r.batch && len(out) > 0 {
			out = append(out, ',')
		} else if r.batch {
			out = append(out, '[')
		}
		id := c.id
		if f.Kind == FaultWrongID && f.hits(c) {
			id = otherID(id)
		}
		out = appendAnswer(out, id, result, fail)
	}
	if r.batch && len(out) > 0 {
		out = append(out, ']')
	}
	return out
}

// answer works out one call.
func (b *Backend) answer(c call, f Fault, t *turn) (any, *rpcError) {
	if !c.valid {
		return nil, &rpcError{Code: codeInvalidRequest, Message: "invalid request"}
	}
	if f.Kind == FaultRPCError && f.hits(c) {
		return nil, &rpcError{Code: f.RPCCode, Message: f.RPCMessage}
	}
	m, ok := methods[c.method]
	if !ok {
		return nil, &rpcError{Code: codeNoMethod, Message: fmt.Sprintf("the method %s does not exist/is not available", c.method)}
	}
	p, fail := parseParams(c.params, m.least, m.most)
	if fail != nil {
		return nil, fail
	}
	p.turn = t
	result, fail := m.run(b, p)
	if p.fail != nil {
		return nil, p.fail
	}
	return result, fail
}

// encoded is a result that is JSON already.
type encoded []byte

func appendAnswer(dst []byte, id json.RawMessage, result any, fail *rpcError) []byte {
	if id == nil {
		id = json.RawMessage("null")
	}
	dst = append(dst, `{"jsonrpc":"2.0","id":`...)
	dst = append(dst, id...)
	body, ready := result.(encoded)
	if fail == nil && !ready {
		var err error
		if body, err = json.Marshal(result); err != nil {
			fail = &rpcError{Code: codeServer, Message: "encode result: " + err.Error()}
		}
	}
	name := `,"result":`
	if fail != nil {
		name = `,"error":`
		body, _ = json.Marshal(fail) // an int and strings: cannot fail
	}
	dst = append(dst, name...)
	dst = append(dst, body...)
	return append(dst, '}')
}

// otherID is an id that the client did not send.
func otherID(id json.RawMessage) json.RawMessage {
	const other = `"devchain-wrong-id"`
	if string(id) == other {
		return json.RawMessage(`"devchain-wrong-id-2"`)
	}
	return json.RawMessage(other)
}
