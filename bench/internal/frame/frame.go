// Package frame is as much of the WebSocket protocol (RFC 6455) as the load
// generator and the upstream of the benchmark need, with as little work as it
// can: whole messages in single frames, no extensions.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Opcode says what a frame is.
type Opcode byte

// The opcodes that are used here.
const (
	Text  Opcode = 1
	Close Opcode = 8
	Ping  Opcode = 9
	Pong  Opcode = 10
)

// maxPayload bounds a frame's payload in bytes.
const maxPayload = 8 << 20

// key masks what clients send. A server cannot tell that it is always the same.
var key = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// AppendText appends a message as servers send it.
func AppendText(dst, text []byte) []byte { return appendFrame(dst, Text, text, 0) }

// AppendPong appends the answer of a server to a ping.
func AppendPong(dst, payload []byte) []byte { return appendFrame(dst, Pong, payload, 0) }

// AppendMasked appends a frame as clients send it.
func AppendMasked(dst []byte, op Opcode, payload []byte) []byte {
	dst = appendFrame(dst, op, payload, 0x80)
	mask(dst[len(dst)-len(payload):], key)
	return dst
}

func appendFrame(dst []byte, op Opcode, payload []byte, masked byte) []byte {
	dst = append(dst, 0x80|byte(op))
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, masked|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, masked|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, masked|127), uint64(n))
	}
	if masked != 0 {
		dst = append(dst, key[:]...)
	}
	return append(dst, payload...)
}

func mask(b []byte, key [4]byte) {
	for i := range b {
		b[i] ^= key[i&3]
	}
}

// First takes the first frame out of what was read: its payload, unmasked in
// place, and how many bytes the frame is, 0 when it is not complete yet.
func First(b []byte) (op Opcode, payload []byte, size int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	op = Opcode(b[0] & 0x0f)
	switch {
	case b[0]&0x70 != 0:
		return 0, nil, 0, errors.New("frame of an extension that was not agreed on")
	case b[0]&0x80 == 0 || op == 0:
		return 0, nil, 0, errors.New("message in several frames, which the benchmark does not read")
	case op != Text && op != Close && op != Ping && op != Pong:
		return 0, nil, 0, fmt.Errorf("frame with opcode %d", op)
	}
	at, length := 2, uint64(b[1]&0x7f)
	switch length {
	case 126:
		if at = 4; len(b) < at {
			return 0, nil, 0, nil
		}
		length = uint64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		if at = 10; len(b) < at {
			return 0, nil, 0, nil
		}
		length = binary.BigEndian.Uint64(b[2:])
	}
	if length > maxPayload {
		return 0, nil, 0, fmt.Errorf("frame of %d bytes, at most %d are read", length, maxPayload)
	}
	masked := b[1]&0x80 != 0
	if masked {
		at += len(key)
	}
	size = at + int(length)
	if len(b) < size {
		return 0, nil, 0, nil
	}
	payload = b[at:size:size]
	if masked {
		mask(payload, [4]byte(b[at-4:at]))
	}
	return op, payload, size, nil
}

// CloseReason is what the payload of a close frame says.
func CloseReason(payload []byte) string {
	if len(payload) < 2 {
		return "no status"
	}
	return fmt.Sprintf("status %d %s", binary.BigEndian.Uint16(payload), payload[2:])
}
