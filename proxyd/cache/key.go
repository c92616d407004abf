package cache

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"gateway.internal/proxyd/jsonrpc"
)

// directKey is the longest canonical params that stand in a key as they are;
// longer ones are hashed.
const directKey = 200

// archiveMark ends the method in the key of a call that only archive backends are
// asked for, instead of a colon. No method name has either in it.
const archiveMark = '!'

// key returns the name of a call's answer: equal for calls whose params differ
// only in white space, or in being absent, null or an empty array.
func (c *Cache) key(call *jsonrpc.Call) string {
	var room [directKey + 64]byte
	return string(c.appendKey(room[:0], call))
}

// keys appends the keys of the calls for which named is true, and "" for others, as
// parts of one string.
func (c *Cache) keys(dst []string, calls []*jsonrpc.Call, named func(*jsonrpc.Call) bool) []string {
	if len(calls) == 1 {
		if named(calls[0]) {
			return append(dst, c.key(calls[0]))
		}
		return append(dst, "")
	}
	dst = slices.Grow(dst, len(calls))
	var text []byte
	ends := make([]int, len(calls))
	for i, call := range calls {
		if named(call) {
			if text == nil {
				text = make([]byte, 0, len(calls)*(directKey/2))
			}
			text = c.appendKey(text, call)
		}
		ends[i] = len(text)
	}
	all, from := string(text), 0
	for _, end := range ends {
		dst, from = append(dst, all[from:end]), end
	}
	return dst
}

func (c *Cache) appendKey(dst []byte, call *jsonrpc.Call) []byte {
	dst = append(dst, c.opts.Namespace...)
	dst = append(dst, call.Method...)
	if call.Client.Archive {
		dst = append(dst, archiveMark)
	} else {
		dst = append(dst, ':')
	}
	head := len(dst)
	dst = appendCanonical(dst, call.Params)
	if len(dst)-head > directKey {
		sum := sha256.Sum256(dst[head:])
		dst = append(append(dst[:head], '#'), sum[:]...)
	}
	return dst
}

// appendCanonical appends params without the white space between tokens, and
// nothing for params that say nothing. params must be valid JSON.
func appendCanonical(dst, params []byte) []byte {
	head := len(dst)
	if hasSpace(params) {
		dst = appendTokens(dst, params)
	} else {
		dst = append(dst, params...)
	}
	switch string(dst[head:]) {
	case "[]", "null":
		return dst[:head]
	}
	return dst
}

// hasSpace reports whether any white space stands in params, within strings or
// between tokens.
func hasSpace(params []byte) bool {
	for _, space := range []byte(" \n\r\t") {
		if bytes.IndexByte(params, space) >= 0 {
			return true
		}
	}
	return false
}

// appendTokens appends params without the white space between tokens.
func appendTokens(dst, params []byte) []byte {
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
	return dst
}
