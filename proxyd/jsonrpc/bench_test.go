package jsonrpc

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

const smallCall = `{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":["0xd8da6bf26964af9d7eed9e03e53415d37aa96045","latest"]}`

func BenchmarkParseSmallCall(b *testing.B) { benchParse(b, []byte(smallCall)) }

func BenchmarkParseBatchOf100(b *testing.B) {
	benchParse(b, []byte("["+string(bytes.TrimSuffix(bytes.Repeat([]byte(smallCall+","), 100), []byte(",")))+"]"))
}

// The worst a client can make of a MiB: names that must be unescaped.
func BenchmarkParseEscapedNames1MiB(b *testing.B) {
	var body bytes.Buffer
	for body.WriteByte('{'); body.Len() < 1<<20; {
		body.WriteString(`"\u0061":1,`)
	}
	body.WriteString(`"jsonrpc":"2.0","method":"m","id":1}`)
	benchParse(b, body.Bytes())
}

func benchParse(b *testing.B, body []byte) {
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if calls, _, err := Parse(body, 1000); err != nil || calls[0].Err != nil {
			b.Fatal(err)
		}
	}
}

func reply(size int) []byte {
	head, tail := `{"jsonrpc":"2.0","id":1,"result":[`, `]}`
	var body bytes.Buffer
	body.WriteString(head)
	for i := 0; body.Len() < size-len(tail)-20; i++ {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"logIndex":"0x%x"}`, i)
	}
	body.WriteString(tail)
	return body.Bytes()
}

func BenchmarkParseReply120Bytes(b *testing.B) { benchReply(b, reply(120)) }
func BenchmarkParseReply1MiB(b *testing.B)     { benchReply(b, reply(1<<20)) }

func BenchmarkParseReplyString1MiB(b *testing.B) {
	benchReply(b, []byte(`{"jsonrpc":"2.0","id":1,"result":"0x`+string(bytes.Repeat([]byte("ab"), 1<<19))+`"}`))
}

func BenchmarkParseRepliesOf100(b *testing.B) {
	one := `{"jsonrpc":"2.0","id":17,"result":"0x0234c8a3397aab58"}`
	body := []byte("[" + strings.Repeat(one+",", 99) + one + "]")
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if replies, single, err := ParseReplies(body, 100); err != nil || single || len(replies) != 100 {
			b.Fatal(len(replies), single, err)
		}
	}
}

func benchReply(b *testing.B, body []byte) {
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := ParseReply(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendAnswer(b *testing.B) {
	a := &Answer{Result: []byte(`"0x1234567890abcdef"`)}
	id := []byte(`17`)
	dst := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendAnswer(dst[:0], id, a)
	}
}

func BenchmarkAppendRequest(b *testing.B) {
	calls, _, err := Parse([]byte(smallCall), 1)
	if err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendRequest(dst[:0], calls[0], 12345)
	}
}

func BenchmarkTableLookup(b *testing.B) {
	t, err := NewTable(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		t.Lookup("eth_getBalance")
		t.Lookup("trace_block")
	}
}
