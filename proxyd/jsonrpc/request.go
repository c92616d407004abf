package jsonrpc

import (
	"errors"
	"unicode/utf8"
)

// What can be wrong with a request before anybody is asked. The front maps
// each to its code and HTTP status.
var (
	ErrParse      = errors.New("parse error")
	ErrVersion    = errors.New("invalid JSON-RPC version")
	ErrNoMethod   = errors.New("no method specified")
	ErrID         = errors.New("invalid ID")
	ErrMember     = errors.New("duplicate or misspelled envelope member")
	ErrEmptyBatch = errors.New("must specify at least one batch call")
	ErrBatchSize  = errors.New("too many RPC calls in batch request")
	ErrNotAllowed = errors.New("rpc method is not whitelisted")
)

// Healthz is the pseudo method that asks whether the gateway serves at all. Its
// call keeps its id whatever else is wrong with it.
const Healthz = "proxyd_healthz"

// MaxMethodLen is the longest method name that is looked at, in bytes.
const MaxMethodLen = 64

// Parse reads one HTTP body or WebSocket frame: a request object or an array of
// them. The calls' Params and ID point into body. A call that is wrong in itself
// comes back with its Err set and no ID, as the incumbent answers it; an error
// is returned for a body that is wrong as a whole. maxBatch bounds the elements
// of an array; it is exceeded with ErrBatchSize before the rest is read.
func Parse(body []byte, maxBatch int) (calls []*Call, batch bool, err error) {
	i := skipSpace(body, 0)
	if i >= len(body) {
		return nil, false, ErrParse
	}
	if body[i] != '[' {
		one := new(struct {
			call  Call
			slice [1]*Call
		})
		end, err := parseCall(body, i, 0, &one.call, "")
		if err != nil || skipSpace(body, end) != len(body) {
			return nil, false, ErrParse
		}
		one.slice[0] = &one.call
		return one.slice[:], false, nil
	}
	i = skipSpace(body, i+1)
	if i < len(body) && body[i] == ']' {
		if skipSpace(body, i+1) != len(body) {
			return nil, true, ErrParse
		}
		return nil, true, ErrEmptyBatch
	}
	var block []Call // calls are allocated in blocks, not one by one
	method := ""     // of the call before, which is often the same
	for {
		if len(calls) == maxBatch {
			return nil, true, ErrBatchSize
		}
		if len(block) == 0 {
			block = make([]Call, 16)
		}
		c := &block[0]
		block = block[1:]
		end, err := parseCall(body, i, 1, c, method)
		if err != nil {
			return nil, true, ErrParse
		}
		if calls == nil {
			calls = make([]*Call, 0, min(maxBatch, 16))
		}
		calls, method = append(calls, c), c.Method
		i = skipSpace(body, end)
		if i >= len(body) {
			return nil, true, ErrParse
		}
		switch body[i] {
		case ',':
			i = skipSpace(body, i+1)
		case ']':
			if skipSpace(body, i+1) != len(body) {
				return nil, true, ErrParse
			}
			return calls, true, nil
		default:
			return nil, true, ErrParse
		}
	}
}

// parseCall reads the value that begins at b[i] as a request into c. An error
// is returned for broken JSON only. around is how many arrays it stands in; likely
// is a method that it may well have.
func parseCall(b []byte, i, around int, c *Call, likely string) (end int, err error) {
	if i >= len(b) {
		return 0, errSyntax
	}
	if b[i] != '{' {
		start, end, err := scanValue(b, i, around)
		if err == nil {
			c.Err = ErrParse
			if string(b[start:end]) == "null" {
				c.Err = ErrVersion
			}
		}
		return end, err
	}
	var version, method, params, id []byte
	end, err = scanMembers(b, i, around, func(name, value []byte) error {
		var part *[]byte
		switch string(name) {
		case "jsonrpc":
			part = &version
		case "method":
			part = &method
		case "params":
			part = &params
		case "id":
			part = &id
		default:
			return refuseLookalike(name)
		}
		if *part != nil {
			return ErrMember
		}
		*part = value
		return nil
	})
	switch {
	case errors.Is(err, ErrMember):
		c.Err = ErrMember
		return end, nil
	case err != nil:
		return 0, err
	}
	c.Params, c.ID = params, id
	if c.Err = c.check(version, method, likely); c.Err != nil && c.Method != Healthz {
		c.Method, c.ID = "", nil
	}
	return end, nil
}

// check validates the scanned members and sets the method.
func (c *Call) check(version, method []byte, likely string) error {
	isString := func(v []byte) bool { return len(v) > 0 && v[0] == '"' }
	null := func(v []byte) bool { return v == nil || string(v) == "null" }
	if isString(method) {
		// A name that no method can have is refused like one that is not
		// mapped, with the id, and never travels further.
		raw := method[1 : len(method)-1]
		if string(raw) == likely {
			c.Method = likely
		} else if name := unquote(raw); ValidMethod(name) {
			c.Method = string(name)
		}
	}
	switch {
	case !null(version) && !isString(version), !null(method) && !isString(method):
		return ErrParse
	case string(version) != `"2.0"` && (null(version) || string(unquote(version[1:len(version)-1])) != "2.0"):
		return ErrVersion
	case null(method) || len(method) == 2:
		return ErrNoMethod
	case c.ID == nil || c.ID[0] == '{' || c.ID[0] == '[' || string(c.ID) == `""`:
		return ErrID
	}
	return nil
}

// ValidMethod reports whether name matches ^[A-Za-z0-9_]{1,64}$.
func ValidMethod[T string | []byte](name T) bool {
	if len(name) == 0 || len(name) > MaxMethodLen {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_') {
			return false
		}
	}
	return true
}

// refuseLookalike returns ErrMember when a decoder that ignores case, or one
// that resolves escapes, would take name for an envelope member. Of the letters
// in those only s has a fold outside of ASCII.
func refuseLookalike(name []byte) error {
	var room [len("jsonrpc")]byte
	plain := room[:0]
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRune(name[i:])
		if r == '\\' {
			if name[i+1] != 'u' {
				return nil // no member has a character with a short escape
			}
			r, size = hexRune(name[i+2:i+6]), 6
		}
		i += size
		switch {
		case r >= 'A' && r <= 'Z':
			r += 'a' - 'A'
		case r == 'ſ':
			r = 's'
		}
		if r < 'a' || r > 'z' || len(plain) == cap(plain) {
			return nil
		}
		plain = append(plain, byte(r))
	}
	switch string(plain) {
	case "jsonrpc", "method", "params", "id":
		return ErrMember
	}
	return nil
}

// hexRune reads the four digits of an escape that the scanner has accepted.
func hexRune(digits []byte) (r rune) {
	for _, c := range digits {
		r <<= 4
		switch {
		case c <= '9':
			r |= rune(c - '0')
		default:
			r |= rune(c|0x20-'a') + 10
		}
	}
	return r
}

// AppendRequest appends the request that goes upstream for c: built from its
// parts with the gateway's own id, never the client's object.
func AppendRequest(dst []byte, c *Call, id uint64) []byte {
	dst = append(dst, `{"jsonrpc":"2.0","method":"`...)
	dst = append(dst, c.Method...)
	dst = append(dst, '"')
	if c.Params != nil {
		dst = append(dst, `,"params":`...)
		dst = append(dst, c.Params...)
	}
	dst = append(dst, `,"id":`...)
	dst = appendUint(dst, id)
	return append(dst, '}')
}
