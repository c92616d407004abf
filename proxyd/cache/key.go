package cache

import (
	"crypto/sha256"

	"gateway.internal/proxyd/jsonrpc"
)

// directKey is the longest canonical params that stand in a key as they are;
// longer ones are hashed.
const directKey = 200

// key returns the name of a call's answer: equal for calls whose params differ
// only in white space, or in being absent, null or an empty array.
func (c *Cache) key(call *jsonrpc.Call) string {
	var room [directKey + 64]byte
	b := append(room[:0], c.opts.Namespace...)
	b = append(b, call.Method...)
	b = append(b, ':')
	head := len(b)
	b = appendCanonical(b, call.Params)
	if len(b)-head > directKey {
		sum := sha256.Sum256(b[head:])
		b = append(append(b[:head], '#'), sum[:]...)
	}
	return string(b)
}

// appendCanonical appends params without the white space between tokens, and
// nothing for params that say nothing. params must be valid JSON.
func appendCanonical(dst, params []byte) []byte {
	head := len(dst)
	inString := false
	for i := 0; i < len(params); i++ {
		switch c := params[i]; {
		case inString:
			dst = append(dst, c)
			if c == '\\' {
				i++
				dst = append(dst, params[i])
			} else if c == '"' {
				inString = false
			}
		case c == ' ' || c == '\n' || c == '\r' || c == '\t':
		default:
			inString = c == '"'
			dst = append(dst, c)
		}
	}
	switch string(dst[head:]) {
	case "[]", "null":
		return dst[:head]
	}
	return dst
}
