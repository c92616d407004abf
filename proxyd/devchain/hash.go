package devchain

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"

	"golang.org/x/crypto/sha3"
)

// hash is a Keccak-256 digest, written as 0x and 64 digits.
type hash [32]byte

// address is an account, written as 0x and 40 digits.
type address [20]byte

// hexBytes is binary data, written as 0x and two digits per byte.
type hexBytes []byte

// quantity is a number, written as 0x and digits without leading zeros.
type quantity uint64

func (h hash) MarshalText() ([]byte, error)     { return appendHex(nil, h[:]), nil }
func (a address) MarshalText() ([]byte, error)  { return appendHex(nil, a[:]), nil }
func (b hexBytes) MarshalText() ([]byte, error) { return appendHex(nil, b), nil }
func (q quantity) MarshalText() ([]byte, error) {
	return strconv.AppendUint([]byte("0x"), uint64(q), 16), nil
}

func appendHex(dst, src []byte) []byte {
	return hex.AppendEncode(append(dst, "0x"...), src)
}

func keccak(parts ...[]byte) hash {
	d := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		d.Write(p)
	}
	var h hash
	d.Sum(h[:0])
	return h
}

// label derives a hash that depends on a purpose and on everything in parts.
func label(purpose string, parts ...[]byte) hash {
	return keccak(append([][]byte{[]byte("devchain " + purpose)}, parts...)...)
}

func word(n uint64) []byte {
	return binary.BigEndian.AppendUint64(nil, n)
}

// padded is n as a 32-byte big-endian word.
func padded(n uint64) hash {
	var h hash
	binary.BigEndian.PutUint64(h[24:], n)
	return h
}

// topic is the address as an indexed log argument.
func (a address) topic() hash {
	var h hash
	copy(h[12:], a[:])
	return h
}

// bloom is the 2048-bit log filter of a receipt or a block (Yellow Paper, section 4.3.1).
type bloom [256]byte

func (b *bloom) add(item []byte) {
	h := keccak(item)
	for i := 0; i < 6; i += 2 {
		bit := binary.BigEndian.Uint16(h[i:]) & 2047
		b[255-bit/8] |= 1 << (bit % 8)
	}
}

func (b bloom) MarshalText() ([]byte, error) { return appendHex(nil, b[:]), nil }
