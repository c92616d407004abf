package jsonrpc

import (
	"bytes"
	"io"
	"time"
)

// Stream is a result that is still coming from a backend. It is read once, by
// one goroutine; whoever does not read it to its end closes it.
type Stream interface {
	// AtMost is the size of the result in bytes or a little more, -1 when
	// nothing is known.
	AtMost() int64
	// Next writes the next piece of the result to w. It returns io.EOF when the
	// result was whole and its end is as it must be; any other error says that
	// it is broken for good, or that w is.
	Next(w Sink) (int64, error)
	// Interrupt makes Next return at once; others than the reader may call it.
	// The backend is not to blame then.
	Interrupt(cause error)
	// Close releases the connection. It may be called more than once.
	Close()
}

// Sink is where a stream goes: a client that may be slow.
type Sink interface {
	io.Writer
	// Kernel is a Writer to which the kernel can move what comes on a TCP
	// connection, nil when it cannot.
	Kernel() io.ReaderFrom
	// Renew gives the next write its time, and returns when that ends; the zero
	// time is never.
	Renew() time.Time
}

// Opening reads the members before the result in an answer object of which only
// the beginning has come. It returns the index of the first byte of the result,
// and the id when it stands there. ok is false when nothing can be said: there
// is no result that far, there is an error, or it is not JSON.
func Opening(b []byte) (at int, id []byte, ok bool) {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return 0, nil, false
	}
	for {
		i = skipSpace(b, i+1) // behind the brace or a comma
		nameAt := i
		valueAt, err := scanName(b, i)
		if err != nil {
			return 0, nil, false
		}
		name := b[nameAt+1 : nameAt+1+bytes.IndexByte(b[nameAt+1:valueAt], '"')]
		if string(name) == "result" {
			at = skipSpace(b, valueAt)
			return at, id, at < len(b)
		}
		start, end, err := scanValue(b, valueAt, 1)
		if err != nil {
			return 0, nil, false
		}
		switch string(name) {
		case "id":
			if id != nil {
				return 0, nil, false
			}
			id = b[start:end]
		case "error":
			if string(b[start:end]) != "null" {
				return 0, nil, false
			}
		}
		if i = skipSpace(b, end); i >= len(b) || b[i] != ',' {
			return 0, nil, false
		}
	}
}

// Closing reads the end of an answer object backwards, of which tail are the last
// bytes: the brace, and before it the members behind the result. It returns the
// index behind the result, and the id when it stands there. ok is false when no
// object ends there, or one with an error or a second result.
func Closing(tail []byte) (end int, id []byte, ok bool) {
	i := trimSpace(tail, len(tail))
	if i == 0 || tail[i-1] != '}' {
		return 0, nil, false
	}
	end = trimSpace(tail, i-1)
	for {
		name, value, at := lastMember(tail[:end])
		if at < 0 {
			return end, id, end > 0
		}
		switch string(name) {
		case "id":
			if id != nil {
				return 0, nil, false
			}
			id = value
		case "error":
			if string(value) != "null" {
				return 0, nil, false
			}
		case "result":
			return 0, nil, false
		}
		end = trimSpace(tail, at)
	}
}

// trimSpace returns the end of b[:end] without the white space behind it.
func trimSpace(b []byte, end int) int {
	for end > 0 && skipSpace(b[end-1:end], 0) == 1 {
		end--
	}
	return end
}

// lastMember takes a comma, a name, a colon and a value from the end of b. It
// returns the index of the comma, -1 when that does not stand there. The result
// itself never looks like that: it begins before b, so that going back over it
// leads out of b.
func lastMember(b []byte) (name, value []byte, at int) {
	valueAt := lastValue(b)
	i := trimSpace(b, max(0, valueAt))
	if valueAt < 0 || i == 0 || b[i-1] != ':' {
		return nil, nil, -1
	}
	nameEnd := trimSpace(b, i-1)
	if nameEnd < 2 || b[nameEnd-1] != '"' {
		return nil, nil, -1
	}
	nameAt := lastString(b[:nameEnd])
	if nameAt < 0 {
		return nil, nil, -1
	}
	if at = trimSpace(b, nameAt); at == 0 || b[at-1] != ',' {
		return nil, nil, -1
	}
	return b[nameAt+1 : nameEnd-1], b[valueAt:], at - 1
}

// lastValue returns the index where the value that ends b begins, -1 when that is
// not within b.
func lastValue(b []byte) int {
	depth := 0
	for i := len(b); i > 0; {
		switch c := b[i-1]; {
		case c == '"':
			if i = lastString(b[:i]); i < 0 {
				return -1
			}
		case c == '}' || c == ']':
			depth++
			i--
		case c == '{' || c == '[':
			depth--
			i--
		case depth > 0:
			i--
			continue
		case isSimple(c):
			for i > 0 && isSimple(b[i-1]) {
				i--
			}
		default:
			return -1
		}
		if depth <= 0 {
			return i
		}
	}
	return -1
}

// lastString returns the index of the opening quote of the string that ends b, -1
// when that is not within b.
func lastString(b []byte) int {
	for i := len(b) - 1; ; {
		if i = bytes.LastIndexByte(b[:i], '"'); i < 0 {
			return -1
		}
		slashes := i
		for slashes > 0 && b[slashes-1] == '\\' {
			slashes--
		}
		if (i-slashes)%2 == 0 && slashes > 0 {
			return i
		}
	}
}

// isSimple reports whether c may stand in a number, true, false or null.
func isSimple(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c == '.' || c == '-' || c == '+' || c == 'E'
}
