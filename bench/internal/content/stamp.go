// Package content computes what the benchmark's upstream answers. The load
// generator computes the same from the call it sent, so that every byte of every
// answer can be compared: a result depends on its method and params, never on
// its id.
package content

import "encoding/binary"

// Methods of the benchmark's calls. They are real ones, so that a gateway treats
// them by its rules.
const (
	// Small is answered with a short string and is not cached with a block tag.
	Small = "eth_getBalance"
	// Chain is answered with a short string that never changes.
	Chain = "eth_chainId"
	// Block is answered with a short object that never changes.
	Block = "eth_getBlockByHash"
	// Logs is answered with an array of as many bytes as its params ask for.
	Logs = "eth_getLogs"
)

// Stamp marks a result as the answer to one method with certain params: 64
// lower-case hexadecimal digits.
type Stamp [64]byte

// StampOf computes the stamp of a call from the bytes of its method and params.
func StampOf[M ~string | ~[]byte](method M, params []byte) (s Stamp) {
	const odd = 0x9e3779b97f4a7c15
	h := mix(uint64(len(method))<<32 ^ uint64(len(params)))
	for i := range len(method) {
		h = (h ^ uint64(method[i])) * odd
	}
	for ; len(params) >= 8; params = params[8:] {
		h = mix(h ^ binary.LittleEndian.Uint64(params))
	}
	for _, c := range params {
		h = (h ^ uint64(c)) * odd
	}
	for part := range 4 {
		h += odd
		z := mix(h)
		for i := range 8 {
			copy(s[16*part+2*i:], pairs[byte(z)][:])
			z >>= 8
		}
	}
	return s
}

// mix is the finalizer of splitmix64: every bit of the result depends on all of
// z.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// pairs are the two digits of each byte.
var pairs = func() (t [256][2]byte) {
	const digits = "0123456789abcdef"
	for i := range t {
		t[i] = [2]byte{digits[i>>4], digits[i&15]}
	}
	return t
}()

// AppendResult appends the result of a call. ok is false for methods that the
// benchmark does not know.
func AppendResult[M ~string | ~[]byte](dst []byte, method M, params []byte) (_ []byte, ok bool) {
	s := StampOf(method, params)
	switch string(method) {
	case Small, Chain:
		dst = append(append(append(dst, `"0x`...), s[:]...), '"')
	case Block:
		dst = append(append(append(dst, `{"number":"0x10d4f","hash":"0x`...), s[:]...), `","size":"0x220","transactions":[]}`...)
	case Logs:
		size, ok := LogsSize(params)
		if !ok {
			return dst, false
		}
		l := NewLarge(size)
		l.Stamp(&s)
		dst = append(dst, l.Bytes()...)
	default:
		return dst, false
	}
	return dst, true
}
