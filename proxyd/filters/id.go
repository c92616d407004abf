package filters

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"gateway.internal/proxyd/jsonrpc"
)

// An id is "0x", a digit for its kind that is never 0, so that nobody normalises
// anything away, and what the kind needs. There is one id for each filter.
//
//	0xb TAG DIGITS   lives in a backend, where its id is "0x" and the digits
//	0xc TAG HEX      lives in a backend, where its id is another JSON string or a
//	                 number, whose bytes the hex digits are
//	0xf RANDOM       lives in the gateway: 31 digits that nobody guesses
//
// TAG names the backend. It protects nothing: who knows a node's own id of a filter
// can make the gateway's, as they could at the node.
const (
	kindHex  = 'b'
	kindJSON = 'c'
	kindOwn  = 'f'
)

const (
	ownDigits = 31
	// maxNodeID is the longest id of a node, in bytes of JSON. Known ones take up
	// to 34 digits.
	maxNodeID = 128
	tagWidth  = 8 // digits, more only when two names need them
)

// address is where a filter lives.
type address struct {
	backend string // its name, "" for the gateway itself
	id      string // the id there, as JSON; "" in the gateway
}

// tags are short names of backends that follow from their names alone.
type tags struct {
	width     int
	ofBackend map[string]string
	backend   map[string]string
}

// newTags returns the tags of the backends: the first digits of a hash of the name,
// for all as many as are needed to tell them apart.
func newTags(backends []string) tags {
	backends = slices.Compact(slices.Sorted(slices.Values(backends)))
	for width := tagWidth; ; width += tagWidth {
		t := tags{width, make(map[string]string, len(backends)), make(map[string]string, len(backends))}
		for _, name := range backends {
			sum := sha256.Sum256([]byte(name))
			tag := hex.EncodeToString(sum[:])[:width]
			t.ofBackend[name], t.backend[tag] = tag, name
		}
		if len(t.backend) == len(backends) || width == 2*sha256.Size {
			return t
		}
	}
}

// encode returns the gateway's id of a filter that has the id raw, as JSON, in the
// backend. ok is false for an unknown backend, and where raw is no id.
func (t tags) encode(backend string, raw []byte) (id string, ok bool) {
	tag, ok := t.ofBackend[backend]
	if !ok || !isNodeID(raw) {
		return "", false
	}
	if digits, plain := hexDigits(raw); plain {
		return "0x" + string(kindHex) + tag + digits, true
	}
	return "0x" + string(kindJSON) + tag + hex.EncodeToString(raw), true
}

// decode returns where the filter with the id lives. ok is false for what encode
// and newOwnID never return.
func (t tags) decode(id string) (at address, ok bool) {
	if len(id) < 3 || id[:2] != "0x" || len(id) > 3+t.width+2*maxNodeID {
		return at, false
	}
	kind, rest := id[2], id[3:]
	if kind == kindOwn {
		return at, len(rest) == ownDigits && isLowerHex(rest)
	}
	if len(rest) < t.width {
		return at, false
	}
	at.backend, ok = t.backend[rest[:t.width]]
	if rest = rest[t.width:]; !ok {
		return address{}, false
	}
	switch kind {
	case kindHex:
		at.id = `"0x` + rest + `"`
		_, plain := hexDigits([]byte(at.id))
		ok = plain && len(at.id) <= maxNodeID
	case kindJSON:
		raw, err := hex.DecodeString(rest)
		_, plain := hexDigits(raw)
		at.id = string(raw)
		ok = err == nil && isLowerHex(rest) && !plain && isNodeID(raw)
	default:
		ok = false
	}
	if !ok {
		return address{}, false
	}
	return at, true
}

// newOwnID returns an id for a filter of the gateway.
func newOwnID() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return "0x" + string(kindOwn) + hex.EncodeToString(random[:])[1:]
}

// isNodeID reports whether raw is a JSON string or number, and nothing else: it
// goes into a request, and a client may have made it up.
func isNodeID(raw []byte) bool {
	if len(raw) == 0 || len(raw) > maxNodeID || !jsonrpc.Valid(raw) {
		return false
	}
	first, last := raw[0], raw[len(raw)-1]
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	return first == '"' && last == '"' || (first == '-' || digit(first)) && digit(last)
}

// hexDigits returns the digits of a JSON string of "0x" and nothing but digits.
func hexDigits(raw []byte) (digits string, ok bool) {
	if len(raw) < 4 || string(raw[:3]) != `"0x` || raw[len(raw)-1] != '"' {
		return "", false
	}
	digits = string(raw[3 : len(raw)-1])
	return digits, isHex(digits)
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; (s[i] < '0' || s[i] > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isLowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
