package group

import (
	"encoding/hex"

	"golang.org/x/crypto/sha3"

	"gateway.internal/proxyd/jsonrpc"
)

// sendHash returns the hash of the transaction that a send carries as its first
// parameter, "" when it cannot be told.
func sendHash(c *jsonrpc.Call) string {
	var raw string
	jsonrpc.Strings(c.Params, func(text []byte) bool {
		raw = string(text)
		return false
	})
	if len(raw) < 4 || raw[0] != '0' || raw[1] != 'x' && raw[1] != 'X' {
		return ""
	}
	tx, err := hex.DecodeString(raw[2:])
	if err != nil {
		return ""
	}
	return txHash(tx)
}

// txHash returns the hash of a signed transaction in its network form, as in
// EIP-2718: keccak256 of its bytes. Of a blob transaction (EIP-4844) the
// sidecar is left out. For types that are not known no hash is invented.
func txHash(tx []byte) string {
	switch kind := tx[0]; {
	case kind >= 0xc0: // a list: a legacy transaction
		if _, rest, ok := rlpList(tx); !ok || len(rest) != 0 {
			return ""
		}
	case kind == 1, kind == 2, kind == 4: // EIP-2930, EIP-1559, EIP-7702
		if _, rest, ok := rlpList(tx[1:]); !ok || len(rest) != 0 {
			return ""
		}
	case kind == 3:
		outer, rest, ok := rlpList(tx[1:])
		if !ok || len(rest) != 0 {
			return ""
		}
		// With a sidecar the first item of the list is the transaction.
		if len(outer) > 0 && outer[0] >= 0xc0 {
			_, rest, ok := rlpList(outer)
			if !ok {
				return ""
			}
			tx = append([]byte{3}, outer[:len(outer)-len(rest)]...)
		}
	default:
		return ""
	}
	h := sha3.NewLegacyKeccak256()
	h.Write(tx)
	return "0x" + hex.EncodeToString(h.Sum(nil))
}

// rlpList splits b, which begins with an RLP list, into the list's payload and
// what follows it.
func rlpList(b []byte) (payload, rest []byte, ok bool) {
	if len(b) == 0 || b[0] < 0xc0 {
		return nil, nil, false
	}
	if b[0] <= 0xf7 {
		n := int(b[0] - 0xc0)
		if len(b)-1 < n {
			return nil, nil, false
		}
		return b[1 : 1+n], b[1+n:], true
	}
	width := int(b[0] - 0xf7)
	if len(b)-1 < width || width > 4 {
		return nil, nil, false
	}
	n := 0
	for _, c := range b[1 : 1+width] {
		n = n<<8 | int(c)
	}
	if len(b)-1-width < n {
		return nil, nil, false
	}
	return b[1+width : 1+width+n], b[1+width+n:], true
}
