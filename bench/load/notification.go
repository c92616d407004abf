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
	own, result, err := parted(message)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(own, subscription):
		return wrong("notification to another subscription")
	}
	return h.set(result)
}

// parted reads whose notification a message is, and of what. The error is a failure
// or a wrong.
func parted(message []byte) (subscription, result []byte, err error) {
	if rest, ok := bytes.CutPrefix(message, []byte(opening)); ok {
		if subscription, rest, ok = bytes.Cut(rest, []byte(middle)); ok {
			if result, ok = bytes.CutSuffix(rest, []byte(closing)); ok && json.Valid(result) && json.Valid(subscription) {
				return subscription, result, nil
			}
		}
	}
	var n struct {
		Version string `json:"jsonrpc"`
		Method  string
		Error   json.RawMessage
		Params  struct{ Subscription, Result json.RawMessage }
	}
	switch err := json.Unmarshal(message, &n); {
	case err != nil:
		return nil, nil, wrong(fmt.Sprintf("message of %d bytes is no JSON object", len(message)))
	case n.Error != nil:
		return nil, nil, failure(fmt.Sprintf("error instead of a notification: %.200s", n.Error))
	case n.Version != "2.0" || n.Method != "eth_subscription":
		return nil, nil, wrong("message that is no notification")
	}
	return n.Params.Subscription, n.Params.Result, nil
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

// logged is a log that was announced, as it must be spelled.
type logged struct {
	number uint64
	text   []byte
}

// set makes it another log.
func (l *logged) set(text []byte) error {
	number, err := content.ReadLog(text)
	if err != nil {
		return wrong("notification without a log")
	}
	want := content.AppendLog(nil, number)
	if !bytes.Equal(text, want) && !same(text, want) {
		return wrong("log with other bytes than were published")
	}
	l.number, l.text = number, bytes.Clone(text)
	return nil
}

// same reports whether two events say the same, in whatever order and spelling.
func same(x, y []byte) bool {
	var a, b map[string]any
	return json.Unmarshal(x, &a) == nil && json.Unmarshal(y, &b) == nil && reflect.DeepEqual(a, b)
}
