package main

import (
	"fmt"
	"strconv"
	"sync/atomic"

	"gateway.internal/bench/internal/content"
)

// calls makes the requests of a run. No two calls of it are the same, unless
// the method is one whose answers are cached.
type calls struct {
	host     string
	method   string
	size     int
	batch    int
	clients  int
	sequence atomic.Uint64
}

// differentBlocks is how many blocks are asked for by hash.
const differentBlocks = 100

// call is one JSON-RPC call under way. The id is a number or a string by turns.
type call struct {
	id     []byte
	params []byte
}

// exchange is one HTTP request and what must be answered. It is used again and
// again by one connection.
type exchange struct {
	method  string
	batch   bool
	calls   []call
	request []byte // the whole HTTP request
	body    []byte
	large   *content.Large
}

// next makes the exchange a new one.
func (c *calls) next(x *exchange) {
	n := max(c.batch, 1)
	x.method, x.batch = c.method, c.batch > 0
	if x.calls == nil {
		x.calls = make([]call, n)
	}
	first := c.sequence.Add(uint64(n)) - uint64(n)
	x.body = x.body[:0]
	for i := range x.calls {
		k := &x.calls[i]
		seq := first + uint64(i)
		if seq%2 == 0 {
			k.id = strconv.AppendUint(k.id[:0], seq, 10)
		} else {
			k.id = append(strconv.AppendUint(append(k.id[:0], `"call-`...), seq, 10), '"')
		}
		k.params = c.appendParams(k.params[:0], seq)
		switch {
		case x.batch && i == 0:
			x.body = append(x.body, '[')
		case i > 0:
			x.body = append(x.body, ',')
		}
		x.body = append(append(x.body, `{"jsonrpc":"2.0","id":`...), k.id...)
		x.body = append(append(x.body, `,"method":"`...), c.method...)
		x.body = append(append(append(x.body, `","params":`...), k.params...), '}')
	}
	if x.batch {
		x.body = append(x.body, ']')
	}
	if c.method == content.Logs {
		if x.large == nil {
			x.large = content.NewLarge(c.size)
		}
		s := content.StampOf(c.method, x.calls[0].params)
		x.large.Stamp(&s)
	}
	c.frame(x, first)
}

// frame puts the HTTP head before the body.
func (c *calls) frame(x *exchange, seq uint64) {
	b := append(x.request[:0], "POST / HTTP/1.1\r\nHost: "...)
	b = append(append(b, c.host...), "\r\nUser-Agent: bench\r\nContent-Type: application/json\r\n"...)
	if c.clients > 0 {
		k := seq % uint64(c.clients)
		b = fmt.Appendf(b, "X-Forwarded-For: 10.%d.%d.%d\r\n", k>>16&255, k>>8&255, k&255)
	}
	b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(x.body)), 10)
	x.request = append(append(b, "\r\n\r\n"...), x.body...)
}

// appendParams appends the params of the call with a number.
func (c *calls) appendParams(dst []byte, seq uint64) []byte {
	switch c.method {
	case content.Chain:
		return append(dst, "[]"...)
	case content.Block:
		dst = append(dst, `["0x5aab1edf0d2c7b9a`...)
		return append(appendHex(dst, seq%differentBlocks, 48), `",false]`...)
	case content.Logs:
		dst = append(dst, `[{"fromBlock":"0x10d4f","toBlock":"0x10d8f","address":"0x`...)
		dst = append(appendHex(dst, seq, 40), `","size":`...)
		return append(strconv.AppendInt(dst, int64(c.size), 10), "}]"...)
	}
	return append(appendHex(append(dst, `["0x`...), seq, 40), `","latest"]`...)
}

// appendHex appends n in so many hexadecimal digits, 16 to 48 of them.
func appendHex(dst []byte, n uint64, digits int) []byte {
	const zeros = "00000000000000000000000000000000"
	dst = append(dst, zeros[:digits-16]...)
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[n>>shift&15])
	}
	return dst
}
