package filters

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"gateway.internal/proxyd/jsonrpc"
)

// block is what is known of a block.
type block struct {
	number       uint64
	hash, parent hash
}

// parseBlock reads a block. ok is false for null.
func parseBlock(a *jsonrpc.Answer) (b block, ok bool, err error) {
	if string(a.Result) == "null" {
		return b, false, nil
	}
	var hasNumber, hasHash, hasParent bool
	jsonrpc.Members(a.Result, func(name, value []byte) {
		switch string(name) {
		case "number":
			text, _ := jsonrpc.Text(value)
			b.number, hasNumber = quantity(text)
		case "hash":
			b.hash, hasHash = parseHash(value)
		case "parentHash":
			b.parent, hasParent = parseHash(value)
		}
	})
	if !hasNumber || !hasHash || !hasParent {
		return b, false, fmt.Errorf("eth_getBlockByNumber: backend %q answered with no block", a.Backend)
	}
	return b, true, nil
}

// quantity reads a number in hex behind 0x, of 63 bits at most, so that sums of two
// fit.
func quantity(text string) (n uint64, ok bool) {
	if len(text) < 3 || text[:2] != "0x" || !isHex(text[2:]) {
		return 0, false
	}
	n, err := strconv.ParseUint(text[2:], 16, 63)
	return n, err == nil
}

func hexNumber(n uint64) string { return "0x" + strconv.FormatUint(n, 16) }

// isBytes reports whether text is that many bytes in hex behind 0x.
func isBytes(text string, size int) bool {
	return len(text) == 2+2*size && text[:2] == "0x" && isHex(text[2:])
}

// hash is a block's.
type hash [32]byte

func (h hash) String() string { return "0x" + hex.EncodeToString(h[:]) }

// parseHash reads the JSON string of a hash.
func parseHash(raw []byte) (h hash, ok bool) {
	text, ok := jsonrpc.Text(raw)
	if !ok || !isBytes(text, len(h)) {
		return h, false
	}
	_, err := hex.Decode(h[:], []byte(text[2:]))
	return h, err == nil
}
