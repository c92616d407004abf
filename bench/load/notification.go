package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"gateway.internal/bench/internal/content"
)

// head is a head that was announced, as it must be spelled.
type head struct {
	number    uint64
	published time.Time
	text      []byte
}

// What surrounds the parts of a notification.
const (
	opening = `{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":`
	middle  = `,"result":`
	closing = `}}`
)

// read reads a notification to a subscription: all that it says must be what the
// head with its number and time does. Most are byte by byte the one before, which
// makes it cheap; whatever passes is JSON, since the expected text is. It returns
// nil, a failure or a wrong.
func (h *head) read(message, subscription []byte) error {
	rest, ok := bytes.CutPrefix(message, []byte(opening))
	if ok {
		rest, ok = bytes.CutPrefix(rest, subscription)
	}
	if ok {
		rest, ok = bytes.CutPrefix(rest, []byte(middle))
	}
	if ok {
		rest, ok = bytes.CutSuffix(rest, []byte(closing))
	}
	if ok && bytes.Equal(rest, h.text) {
		return nil
	}
	var n struct {
		Version string `json:"jsonrpc"`
		Method  string
		Error   json.RawMessage
		Params  struct{ Subscription, Result json.RawMessage }
	}
	err := json.Unmarshal(message, &n)
	switch {
	case err != nil:
		return wrong(fmt.Sprintf("message of %d bytes is no JSON object", len(message)))
	case n.Error != nil:
		return failure(fmt.Sprintf("error instead of a notification: %.200s", n.Error))
	case n.Version != "2.0" || n.Method != "eth_subscription":
		return wrong("message that is no notification")
	case !bytes.Equal(n.Params.Subscription, subscription):
		return wrong("notification to another subscription")
	}
	return h.set(n.Params.Result)
}

// set makes it another head.
func (h *head) set(text []byte) error {
	number, published, err := content.ReadHead(text)
	if err != nil {
		return wrong("notification without a head")
	}
	want := content.AppendHead(nil, number, published)
	if !bytes.Equal(text, want) && !same(text, want) {
		return wrong("head with other bytes than were published")
	}
	h.number, h.published, h.text = number, published, bytes.Clone(text)
	return nil
}

// same reports whether two heads say the same, in whatever order and spelling.
func same(x, y []byte) bool {
	var a, b map[string]any
	return json.Unmarshal(x, &a) == nil && json.Unmarshal(y, &b) == nil && reflect.DeepEqual(a, b)
}
