package filters

import (
	"bytes"
	"fmt"

	"gateway.internal/proxyd/jsonrpc"
)

const (
	maxTopics = 4
	// maxAlternatives is the most addresses, or topics at one position: geth's
	// bound too.
	maxAlternatives = 1000
	// maxCriteria bounds the addresses and topics that a filter keeps, in bytes.
	maxCriteria = 128 << 10
)

// criteria are what a filter of logs looks for.
type criteria struct {
	from, to  bound
	blockHash string // "" for none; then from and to are not set
	// address and topics are the client's JSON, nil for none.
	address, topics []byte
}

// bound is one end of a range of blocks.
type bound struct {
	tag    string // "" for a number, or for nothing
	number uint64
	set    bool
}

// parseCriteria reads the filter object of eth_newFilter. fault says what is wrong
// with it, "" for nothing. Members that it does not know are left out, as nodes do.
func parseCriteria(raw []byte) (c *criteria, fault string) {
	c = new(criteria)
	note := func(what string) {
		if fault == "" {
			fault = what
		}
	}
	isObject := jsonrpc.Members(raw, func(name, value []byte) {
		if string(value) == "null" {
			return
		}
		switch string(name) {
		case "address":
			c.address = value
			note(checkAlternatives(value, "address", 20, false))
		case "topics":
			c.topics = value
			note(checkTopics(value))
		case "fromBlock":
			note(c.from.parse(value, "fromBlock"))
		case "toBlock":
			note(c.to.parse(value, "toBlock"))
		case "blockHash":
			if c.blockHash, _ = jsonrpc.Text(value); !isBytes(c.blockHash, 32) {
				note("invalid blockHash: must be 32 bytes in hex")
			}
		}
	})
	switch {
	case !isObject:
		note("invalid filter: must be an object")
	case c.blockHash != "" && (c.from.set || c.to.set):
		note("cannot specify both blockHash and fromBlock/toBlock, choose one or the other")
	case c.from.isNumber() && c.to.isNumber() && c.from.number > c.to.number:
		note("invalid block range: fromBlock is after toBlock")
	case len(c.address)+len(c.topics) > maxCriteria:
		note(fmt.Sprintf("filter too large: address and topics take more than %d bytes", maxCriteria))
	}
	if fault != "" {
		return nil, fault
	}
	// The client's whole request must not stay for these.
	c.address, c.topics = bytes.Clone(c.address), bytes.Clone(c.topics)
	return c, ""
}

func (b *bound) isNumber() bool { return b.set && b.tag == "" }

// parse reads a block number or tag.
func (b *bound) parse(value []byte, name string) (fault string) {
	text, _ := jsonrpc.Text(value)
	*b = bound{set: true}
	switch text {
	case "latest", "pending", "earliest", "safe", "finalized":
		b.tag = text
		return ""
	}
	n, ok := quantity(text)
	if !ok {
		return "invalid " + name + ": must be a block number in hex or one of latest, pending, earliest, safe, finalized"
	}
	b.number = n
	return ""
}

// text is the bound as a request spells it.
func (b *bound) text() string {
	switch {
	case !b.set:
		return "latest"
	case b.tag != "":
		return b.tag
	}
	return hexNumber(b.number)
}

func checkTopics(value []byte) (fault string) {
	n := 0
	isArray := jsonrpc.Elements(value, func(v []byte) bool {
		if n++; n > maxTopics {
			fault = "invalid topics: at most 4 positions"
		} else if string(v) != "null" {
			fault = checkAlternatives(v, "topic", 32, true)
		}
		return fault == ""
	})
	if !isArray {
		return "invalid topics: must be an array"
	}
	return fault
}

// checkAlternatives checks bytes in hex, or a list of such. Where wild is true a
// null in the list stands for anything.
func checkAlternatives(value []byte, name string, size int, wild bool) (fault string) {
	wrong := fmt.Sprintf("invalid %s: must be %d bytes in hex or a list of such", name, size)
	if text, ok := jsonrpc.Text(value); ok {
		if !isBytes(text, size) {
			return wrong
		}
		return ""
	}
	n := 0
	isArray := jsonrpc.Elements(value, func(v []byte) bool {
		text, _ := jsonrpc.Text(v)
		if n++; n > maxAlternatives {
			fault = fmt.Sprintf("invalid %s: at most %d in a list", name, maxAlternatives)
		} else if !isBytes(text, size) && !(wild && string(v) == "null") {
			fault = wrong
		}
		return fault == ""
	})
	if !isArray {
		return wrong
	}
	return fault
}

// params are the params of an eth_getLogs for these criteria from one block to
// another, each as a request spells it.
func (c *criteria) params(from, to string) []byte {
	b := append(make([]byte, 0, 96+len(c.address)+len(c.topics)), `[{`...)
	if c.blockHash != "" {
		b = jsonrpc.AppendString(append(b, `"blockHash":`...), c.blockHash)
	} else {
		b = jsonrpc.AppendString(append(b, `"fromBlock":`...), from)
		b = jsonrpc.AppendString(append(b, `,"toBlock":`...), to)
	}
	if c.address != nil {
		b = append(append(b, `,"address":`...), c.address...)
	}
	if c.topics != nil {
		b = append(append(b, `,"topics":`...), c.topics...)
	}
	return append(b, `}]`...)
}

// within cuts the blocks from..to down to those that the criteria allow for news.
// A tag for fromBlock is behind whatever is new.
func (c *criteria) within(from, to uint64) (uint64, uint64) {
	if c.from.isNumber() {
		from = max(from, c.from.number)
	}
	if c.to.isNumber() || c.to.tag == "earliest" {
		to = min(to, c.to.number)
	}
	return from, to
}

// headTag is the block up to which news go: a filter up to what is safe or final
// hears of logs when they are.
func (c *criteria) headTag() string {
	if c != nil && (c.to.tag == "safe" || c.to.tag == "finalized") {
		return c.to.tag
	}
	return "latest"
}

// blocks is how many blocks the range as the client gave it has, as far as it can be
// told with a head seen before.
func (c *criteria) blocks(head uint64) uint64 {
	at := func(b bound) uint64 {
		if b.isNumber() || b.tag == "earliest" {
			return b.number
		}
		return head
	}
	from, to := at(c.from), at(c.to)
	if c.blockHash != "" || from > to {
		return 1
	}
	return to - from + 1
}
