package content

import (
	"bytes"
	"fmt"
	"strconv"
)

// MinLarge and MaxLarge bound the size of a result of eth_getLogs in bytes.
const (
	MinLarge = 1 << 10
	MaxLarge = 64 << 20
)

// room is kept free before and after a large result, so that what surrounds it
// goes out in the same write.
const room = 512

// Large is a result of eth_getLogs: an array of logs with one stamp in every
// eighth log (about 4 KiB) and its position in each, so that lost, doubled and
// foreign pieces are seen.
type Large struct {
	buf    []byte
	size   int
	stamps []int // offsets into buf
}

// LogsSize reads the size in bytes that the params of eth_getLogs ask for.
func LogsSize(params []byte) (size int, ok bool) {
	_, after, found := bytes.Cut(params, []byte(`"size":`))
	if !found {
		return 0, false
	}
	end := bytes.IndexFunc(after, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		return 0, false
	}
	size, err := strconv.Atoi(string(after[:end]))
	return size, err == nil && size >= MinLarge && size <= MaxLarge
}

// NewLarge makes a result of exactly size bytes, between MinLarge and MaxLarge.
func NewLarge(size int) *Large {
	if size < MinLarge || size > MaxLarge {
		panic(fmt.Sprintf("content: a large result has %d to %d bytes, not %d", MinLarge, MaxLarge, size))
	}
	l := &Large{buf: make([]byte, room, size+2*room), size: size}
	b := append(l.buf, '[')
	for i := 0; ; i++ {
		from := len(b)
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"address":"0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48","blockHash":"0x%064x","blockNumber":"0x%x","logIndex":"0x%x","removed":false,`, i*7919, 18_000_000+i/100, i)
		b = append(b, `"topics":["0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"],"transactionHash":"0x`...)
		if i%8 == 0 {
			l.stamps = append(l.stamps, len(b))
		}
		b = fmt.Appendf(b, `%064x","transactionIndex":"0x%x","data":"0x`, i, i%200)
		// The last log's data fills up what is left; it must fit in whole.
		const data, end = 64, `"}`
		left := room + size - len(b) - len(end) - len("]")
		if left < data+data+640 {
			if left < 0 {
				panic(fmt.Sprintf("content: log %d at %d does not fit into %d bytes", i, from-room, size))
			}
			b = append(b, bytes.Repeat([]byte("5"), left)...)
			b = append(b, end+"]"...)
			break
		}
		b = append(b, bytes.Repeat([]byte("a"), data)...)
		b = append(b, end...)
	}
	l.buf = b
	return l
}

// Stamp writes the stamp to all its places.
func (l *Large) Stamp(s *Stamp) {
	for _, at := range l.stamps {
		copy(l.buf[at:], s[:])
	}
}

// Bytes is the result. The next Stamp changes it.
func (l *Large) Bytes() []byte { return l.buf[room : room+l.size] }

// Framed is the result with head before and tail after it, in one piece. Both
// have at most 512 bytes.
func (l *Large) Framed(head, tail []byte) []byte {
	if len(head) > room || len(tail) > room {
		panic(fmt.Sprintf("content: head of %d and tail of %d bytes around a large result, at most %d fit", len(head), len(tail), room))
	}
	from := room - len(head)
	copy(l.buf[from:], head)
	return append(l.buf[:room+l.size], tail...)[from:]
}
