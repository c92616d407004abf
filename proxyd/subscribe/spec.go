package subscribe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gateway.internal/proxyd/jsonrpc"
)

// kind tells subscriptions apart by what can be done for them.
type kind uint8

const (
	heads   kind = iota // replayed by number, told apart by hash
	logs                // replayed by range, told apart by block hash and index
	pending             // a node's own pool: there is nothing to replay
	syncing             // a state: the next one stands for all before
	other               // unknown: passed on, and cannot be replayed
)

var kindNames = [...]string{"newHeads", "logs", "newPendingTransactions", "syncing", "other"}

func (k kind) String() string { return kindNames[k] }

// spec is what a client subscribes to.
type spec struct {
	kind kind
	// key is the same for equal subscriptions.
	key string
	// params are those of eth_subscribe upstream.
	params string
	// members are the filter's members for eth_getLogs, with a comma before each,
	// for logs.
	members string
}

var headsSpec = spec{kind: heads, key: `["newHeads"]`, params: `["newHeads"]`}

// maxParams bounds the params of a subscription in bytes: a filter is kept as long
// as it lasts.
const maxParams = 32 << 10

// subscriptionID reads the params of eth_unsubscribe.
func subscriptionID(params []byte) (id string, ok bool) {
	n := 0
	jsonrpc.Elements(params, func(value []byte) bool {
		id, ok = jsonrpc.Text(value)
		n++
		return n < 2
	})
	return id, ok && n == 1
}

// parseSpec reads the params of eth_subscribe. An error is an rpcError.
func parseSpec(params []byte) (spec, error) {
	var list []json.RawMessage
	if len(params) > maxParams {
		return spec{}, rpcError{-32602, fmt.Sprintf("invalid params: longer than %d bytes", maxParams)}
	}
	if json.Unmarshal(params, &list) != nil || len(list) == 0 {
		return spec{}, rpcError{-32602, "invalid params: want the name of a subscription, and its options"}
	}
	name, ok := jsonrpc.Text(bytes.TrimSpace(list[0]))
	if !ok || !jsonrpc.ValidMethod(name) {
		return spec{}, rpcError{-32602, "invalid params: the name of a subscription must be a string of letters, digits and _"}
	}
	options := list[1:]
	s := spec{kind: other}
	switch name {
	case "newHeads":
		s.kind = heads
	case "syncing":
		s.kind = syncing
	case "newPendingTransactions":
		s.kind = pending
	case "logs":
		return logsSpec(options)
	}
	if s.kind == heads || s.kind == syncing {
		options = nil // nodes take none
	}
	if s.kind == pending && len(options) > 0 && (string(options[0]) == "false" || string(options[0]) == "null") {
		options = nil // the default
	}
	var b bytes.Buffer
	b.WriteString(`["` + name + `"`)
	for _, o := range options {
		b.WriteByte(',')
		if err := json.Compact(&b, o); err != nil {
			return spec{}, rpcError{-32602, "invalid params"}
		}
	}
	b.WriteByte(']')
	s.params = b.String()
	s.key = s.params
	return s, nil
}

// logsSpec reads a log filter and writes it in one way, so that equal filters are
// equal texts.
func logsSpec(options []json.RawMessage) (spec, error) {
	invalid := func(format string, args ...any) (spec, error) {
		return spec{}, rpcError{-32602, "invalid params: filter: " + fmt.Sprintf(format, args...)}
	}
	var in struct {
		FromBlock, ToBlock, BlockHash json.RawMessage
		Address                       json.RawMessage
		Topics                        []json.RawMessage
	}
	if len(options) > 1 {
		return invalid("want one object")
	}
	if len(options) == 1 && string(options[0]) != "null" {
		if options[0][0] != '{' || json.Unmarshal(options[0], &in) != nil {
			return invalid("want an object with address and topics")
		}
	}
	for name, bound := range map[string]json.RawMessage{"fromBlock": in.FromBlock, "toBlock": in.ToBlock, "blockHash": in.BlockHash} {
		switch string(bound) {
		case "", "null", `"latest"`, `"pending"`:
		default:
			return invalid("%s does not go with a subscription, which begins now: ask eth_getLogs for what was before", name)
		}
	}
	addresses, any, ok := words(in.Address, 20)
	if any && len(in.Address) > 0 && in.Address[0] == '[' || !ok {
		return invalid("address must be an address or a list of them")
	}
	if len(in.Topics) > 4 {
		return invalid("more than 4 topics")
	}
	var members []string
	if len(addresses) > 0 {
		members = append(members, `"address":`+list(addresses))
	}
	if len(in.Topics) > 0 {
		topics := make([]string, len(in.Topics))
		for i, t := range in.Topics {
			alternatives, any, ok := words(t, 32)
			if !ok {
				return invalid("topics[%d] must be null, a topic or a list of them", i)
			}
			if topics[i] = "null"; !any && len(alternatives) > 0 {
				topics[i] = list(alternatives)
			}
		}
		members = append(members, `"topics":[`+strings.Join(topics, ",")+`]`)
	}
	s := spec{kind: logs, params: `["logs",{` + strings.Join(members, ",") + `}]`}
	s.key = s.params
	for _, m := range members {
		s.members += "," + m
	}
	return s, nil
}

// words reads null, a hexadecimal string of so many bytes, or a list of them, in
// order and without repetitions. any says that there was a null.
func words(raw json.RawMessage, size int) (list []string, any, ok bool) {
	word := func(value []byte) bool {
		if string(value) == "null" {
			any = true
			return true
		}
		text, isText := jsonrpc.Text(value)
		text = strings.ToLower(text)
		if !isText || len(text) != 2+2*size || !strings.HasPrefix(text, "0x") || strings.Trim(text[2:], "0123456789abcdef") != "" {
			return false
		}
		list = append(list, text)
		return true
	}
	raw = bytes.TrimSpace(raw)
	switch {
	case len(raw) == 0:
		return nil, true, true
	case raw[0] != '[':
		ok = word(raw)
		return list, any, ok
	}
	ok = true
	isList := jsonrpc.Elements(raw, func(value []byte) bool {
		ok = word(value)
		return ok
	})
	slices.Sort(list)
	return slices.Compact(list), any, ok && isList
}

// list writes words as a JSON array; a single one too.
func list(words []string) string { return `["` + strings.Join(words, `","`) + `"]` }
