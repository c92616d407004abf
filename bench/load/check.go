package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"gateway.internal/bench/internal/content"
)

// failure is an answer that is seen to be none: an HTTP error, a JSON-RPC error,
// a connection that breaks.
type failure string

func (e failure) Error() string { return string(e) }

// wrong is an answer that looks well and is not that to the call.
type wrong string

func (e wrong) Error() string { return string(e) }

// check compares a whole body with what the exchange must be answered. It
// returns nil, a failure or a wrong.
func (x *exchange) check(body []byte) error {
	if x.asExpected(body) {
		return nil
	}
	return x.explain(body)
}

// asExpected reports whether the body is the answer in one of the two spellings
// that nodes and gateways use: without spaces, the id before the result or
// after it, the answers of a batch in its order.
func (x *exchange) asExpected(body []byte) bool {
	rest, ok := body, true
	take := func(want string) {
		if ok = ok && len(rest) >= len(want) && string(rest[:len(want)]) == want; ok {
			rest = rest[len(want):]
		}
	}
	takeBytes := func(want []byte) {
		if ok = ok && bytes.HasPrefix(rest, want); ok {
			rest = rest[len(want):]
		}
	}
	if x.batch {
		take("[")
	}
	var room [256]byte
	for i := range x.calls {
		c := &x.calls[i]
		if i > 0 {
			take(",")
		}
		result, _ := content.AppendResult(room[:0], x.method, c.params)
		take(`{"jsonrpc":"2.0","`)
		if ok && rest[0] == 'i' {
			take(`id":`)
			takeBytes(c.id)
			take(`,"result":`)
			takeBytes(result)
		} else {
			take(`result":`)
			takeBytes(result)
			take(`,"id":`)
			takeBytes(c.id)
		}
		take("}")
		if !ok {
			return false
		}
	}
	if x.batch {
		take("]")
	}
	return ok && len(bytes.TrimSpace(rest)) == 0
}

// explain checks a body in any spelling and order of a batch, and says what is
// wrong with it.
func (x *exchange) explain(body []byte) error {
	if !x.batch {
		var a answer
		if err := json.Unmarshal(body, &a); err != nil {
			return wrong(fmt.Sprintf("answer of %d bytes is cut short or no JSON", len(body)))
		}
		return a.check(x.method, &x.calls[0])
	}
	var answers []answer
	if err := json.Unmarshal(body, &answers); err != nil {
		var a answer
		if json.Unmarshal(body, &a) == nil && a.Error != nil {
			return a.failure()
		}
		return wrong(fmt.Sprintf("answer of %d bytes to a batch is cut short or no JSON array", len(body)))
	}
	if len(answers) != len(x.calls) {
		return wrong(fmt.Sprintf("%d answers to %d calls", len(answers), len(x.calls)))
	}
	byID := make(map[string]*call, len(x.calls))
	for i := range x.calls {
		byID[string(x.calls[i].id)] = &x.calls[i]
	}
	for i := range answers {
		c := byID[string(answers[i].ID)]
		if c == nil {
			return wrong("an id in a batch that was not asked, or is answered twice")
		}
		delete(byID, string(answers[i].ID))
		if err := answers[i].check(x.method, c); err != nil {
			return err
		}
	}
	return nil
}

// answer is a JSON-RPC answer.
type answer struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result"`
	Error   *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

func (a *answer) failure() error {
	return failure(fmt.Sprintf("JSON-RPC error %d: %s", a.Error.Code, a.Error.Message))
}

func (a *answer) check(method string, c *call) error {
	switch {
	case a.Error != nil:
		return a.failure()
	case a.Version != "2.0":
		return wrong("answer without jsonrpc 2.0")
	case !bytes.Equal(a.ID, c.id):
		return wrong("answer with the id of another call")
	}
	want, _ := content.AppendResult(nil, method, c.params)
	switch {
	case len(a.Result) != len(want):
		return wrong(fmt.Sprintf("result of %d bytes instead of %d", len(a.Result), len(want)))
	case !bytes.Equal(a.Result, want):
		return wrong("result with other bytes than expected")
	}
	return nil
}
