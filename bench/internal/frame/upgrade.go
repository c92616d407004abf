package frame

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
)

// clientKey is the key that all clients send. It only shows that who answers
// knows the protocol.
const clientKey = "YmVuY2htYXJrIGNsaWVudA=="

// AppendUpgrade appends a client's request to go on as a WebSocket; more are
// header lines, each with its end.
func AppendUpgrade(dst []byte, host, more string) []byte {
	return fmt.Appendf(dst, "GET / HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s\r\n", host, clientKey, more)
}

// Upgraded reads the head of the answer to it, with its last empty line.
func Upgraded(head []byte) error {
	status, _, _ := bytes.Cut(head, []byte("\r\n"))
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 101 ")) {
		if fields := bytes.Fields(status); len(fields) > 1 {
			return fmt.Errorf("HTTP status %s instead of a WebSocket", fields[1])
		}
		return errors.New("no HTTP answer to the request for a WebSocket")
	}
	if string(header(head, "Sec-WebSocket-Accept")) != accept([]byte(clientKey)) {
		return errors.New("WebSocket with another key than was asked for")
	}
	if header(head, "Sec-WebSocket-Extensions") != nil {
		return errors.New("WebSocket with extensions that were not asked for")
	}
	return nil
}

// AppendAnswer appends a server's answer to the head of such a request; ok is
// false, and nothing is appended, when it asks for no WebSocket.
func AppendAnswer(dst, head []byte) (_ []byte, ok bool) {
	key := header(head, "Sec-WebSocket-Key")
	if key == nil || !bytes.EqualFold(header(head, "Upgrade"), []byte("websocket")) {
		return dst, false
	}
	return fmt.Appendf(dst, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept(key)), true
}

// accept computes what a server answers to a key.
func accept(key []byte) string {
	sum := sha1.Sum(append(bytes.Clone(key), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// header returns the value of a header, nil when there is none.
func header(head []byte, name string) []byte {
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		key, value, found := bytes.Cut(line, []byte(":"))
		if found && bytes.EqualFold(key, []byte(name)) {
			return bytes.TrimSpace(value)
		}
	}
	return nil
}
