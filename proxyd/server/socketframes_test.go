package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	okOverSocket = `{"jsonrpc":"2.0","result":"ok","id":1}`
	noJSON       = `{"jsonrpc":"2.0","error":{"code":-32700,"message":"parse error"},"id":null}`
)

// pieces cuts a text message into fragments of n bytes, with something between each two.
func pieces(text string, n int, between ...byte) []byte {
	var out []byte
	op := byte(opText)
	for ; len(text) > n; text = text[n:] {
		out = append(append(out, frame(op, []byte(text[:n]))...), between...)
		op = opCont
	}
	return append(out, frame(fin|op, []byte(text))...)
}

// claim is a frame's head that says a length in 64 bits, and its mask.
func claim(first byte, size uint64) []byte {
	return masked(binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, size), nil)
}

const maxFrames = 4096 // MaxBody of the tests of frames

func TestFramesThatClientsMaySend(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.MaxBody = maxFrames }, nil)
	half := len(chainID)/2 + 1
	withE := strings.Replace(chainID, "[]", `["é"]`, 1)
	inE := strings.Index(withE, "é") + 1
	for _, row := range []struct {
		name    string
		send    []byte
		answers []string // pongs as pong:payload
	}{
		{"text", textFrame(chainID), []string{okOverSocket}},
		{"text in pieces of a byte", pieces(chainID, 1), []string{okOverSocket}},
		{"text in pieces of 2 bytes", pieces(chainID, 2), []string{okOverSocket}},
		{"ping between fragments", pieces(chainID, half, frame(fin|opPing, []byte("p"))...), []string{"pong:p", okOverSocket}},
		{"unasked pong between fragments", pieces(chainID, half, frame(fin|opPong, []byte("p"))...), []string{okOverSocket}},
		{"empty fragments", bytes.Join([][]byte{frame(opText, nil), frame(opCont, nil), frame(opCont, []byte(chainID)), frame(opCont, nil), frame(fin|opCont, nil)}, nil), []string{okOverSocket}},
		{"a character in two fragments", append(frame(opText, []byte(withE[:inE])), frame(fin|opCont, []byte(withE[inE:]))...), []string{okOverSocket}},
		{"empty text", textFrame(""), []string{noJSON}},
		{"empty text of two fragments", append(frame(opText, nil), frame(fin|opCont, nil)...), []string{noJSON}},
		{"no JSON", textFrame("{"), []string{noJSON}},
		{"several messages", bytes.Repeat(textFrame("{"), 3), []string{noJSON, noJSON, noJSON}},
		{"a batch", textFrame("[" + chainID + "]"), []string{"[" + okOverSocket + "]"}},
		{"an empty batch", textFrame("[]"), []string{`{"jsonrpc":"2.0","error":{"code":-32600,"message":"must specify at least one batch call"},"id":null}`}},
		{"ping", frame(fin|opPing, nil), []string{"pong:"}},
		{"ping of 125 bytes", frame(fin|opPing, bytes.Repeat([]byte("x"), 125)), []string{"pong:" + strings.Repeat("x", 125)}},
		{"unasked pong", frame(fin|opPong, []byte("?")), nil},
		{"length in 16 bits", textFrame(callOf(126)), []string{okOverSocket}},
		{"largest message", textFrame(callOf(maxFrames)), []string{okOverSocket}},
		{"largest message in pieces", pieces(callOf(maxFrames), 500), []string{okOverSocket}},
		{"length in more bits than it needs", masked(binary.BigEndian.AppendUint16([]byte{fin | opText, 0x80 | 126}, 1), []byte("{")), []string{noJSON}},
		{"length in many more bits than it needs", masked(binary.BigEndian.AppendUint64([]byte{fin | opText, 0x80 | 127}, 1), []byte("{")), []string{noJSON}},
	} {
		t.Run(row.name, func(t *testing.T) {
			k := f.open(t, "/")
			k.write(row.send)
			for _, want := range row.answers {
				op, payload, err := k.next()
				got := string(payload)
				if op == opPong {
					got = "pong:" + got
				}
				if got != want || err != nil {
					t.Fatalf("got %d %q %v, want %q", op, got, err, want)
				}
			}
			k.lives()
			k.write(closeFrame(1000, ""))
			k.closedWith(1000)
		})
	}
	f.empties(t)
}

// callOf is a call of so many bytes.
func callOf(size int) string {
	return chainID[:len(chainID)-1] + strings.Repeat(" ", size-len(chainID)) + "}"
}

// TestFramesThatEndASocket holds more than the close code: the client is silent afterwards, and the connection must end.
func TestFramesThatEndASocket(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.MaxBody = maxFrames }, nil)
	type row struct {
		name string
		send []byte
		code int
	}
	rows := []row{
		{"text larger than allowed", textFrame(callOf(maxFrames + 1)), 1009},
		{"text much larger than allowed", textFrame(callOf(maxFrames * 3)), 1009},
		{"fragments larger than allowed", pieces(callOf(maxFrames+1), 500), 1009},
		{"text of 1 GiB that does not come", append(claim(fin|opText, 1<<30), make([]byte, maxFrames+1)...), 1009},
		{"length of 2^63", claim(fin|opText, 1<<63), 1002},
		{"length of 2^64-1", claim(fin|opBinary, 1<<64-1), 1002},
		{"text that is not masked", append([]byte{fin | opText, byte(len(chainID))}, chainID...), 1002},
		{"text that is not masked and holds the head of a long one", append([]byte{fin | opText, 20}, append(claim(fin|opText, 1<<40), 0, 0, 0, 0, 0, 0)...), 1002},
		{"ping that is not masked", []byte{fin | opPing, 0}, 1002},
		{"first reserved bit", frame(fin|0x40|opText, []byte(chainID)), 1002},
		{"second reserved bit", frame(fin|0x20|opText, []byte(chainID)), 1002},
		{"third reserved bit", frame(fin|0x10|opPing, nil), 1002},
		{"fragmented ping", frame(opPing, []byte("x")), 1002},
		{"fragmented close", frame(opClose, nil), 1002},
		{"ping of 126 bytes", frame(fin|opPing, make([]byte, 126)), 1002},
		{"ping of 1 GiB", claim(fin|opPing, 1<<30), 1002},
		{"close of 126 bytes", closeFrame(1000, strings.Repeat("x", 124)), 1002},
		{"continuation of nothing", frame(fin|opCont, []byte(chainID)), 1002},
		{"continuation of a whole message", append(textFrame(chainID), frame(opCont, nil)...), 1002},
		{"message within a message", append(frame(opText, []byte("{")), textFrame(chainID)...), 1002},
		{"first fragment twice", append(frame(opText, []byte("{")), frame(opText, []byte("}"))...), 1002},
		{"text that is not UTF-8", textFrame("\xff"), 1007},
		{"text that ends in a character", textFrame("\"\xc3"), 1007},
		{"text with half a surrogate pair", textFrame("\xed\xa0\x80"), 1007},
		{"text with a character that is too long", textFrame("\xc0\xaf"), 1007},
		{"fragments that are not UTF-8", append(frame(opText, []byte("\xc3")), frame(fin|opCont, []byte("x"))...), 1007},
		{"text that is not UTF-8 behind one that is", append(textFrame("{"), textFrame("\xff")...), 1007},
		{"close without a code", frame(fin|opClose, nil), 1005},
		{"close of a byte", frame(fin|opClose, []byte{3}), 1002},
		{"close with the longest reason", closeFrame(1000, strings.Repeat("x", 123)), 1000},
		{"close in the middle of a message", append(frame(opText, []byte("{")), closeFrame(1000, "")...), 1000},
		// Nobody reads the reason. The library gives it back as it came.
		{"close with a reason that is not UTF-8", closeFrame(1000, "\xff"), 1000},
	}
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		rows = append(rows, row{fmt.Sprint("close with ", code), closeFrame(code, "why"), int(code)})
	}
	for _, code := range []uint16{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		rows = append(rows, row{fmt.Sprint("close with ", code), closeFrame(code, ""), 1002})
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		rows = append(rows, row{fmt.Sprint("reserved opcode ", op), frame(fin|op, []byte("xy")), 1002})
	}
	var wg sync.WaitGroup // not t.Parallel: each waits seconds for a client that says nothing
	for _, row := range rows {
		k := f.open(t, "/")
		k.silent = true
		_ = k.SetDeadline(time.Now().Add(15 * time.Second))
		k.write(row.send)
		wg.Go(func() {
			if code, reason := k.ending(); code != row.code {
				t.Errorf("%s: closed with %d %q, want %d", row.name, code, reason, row.code)
			}
			if _, err := k.Write([]byte{0}); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the connection stays", row.name)
			}
		})
	}
	wg.Wait()
	f.empties(t)
}

// TestSocketThatStopsInTheMiddleOfAFrameIsLetGo is about what a client owes when it is told to go.
func TestSocketThatStopsInTheMiddleOfAFrameIsLetGo(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.MaxBody = maxFrames }, nil)
	k := f.open(t, "/")
	k.write(claim(fin|opText, 1<<40), make([]byte, maxFrames+1))
	eventually(t, 5*time.Second, "the close frame", func() error {
		if strings.Contains(f.metrics(), `proxyd_client_ws_closes_total{code="1009"} 1`) {
			return nil
		}
		return errors.New(f.metrics())
	})
	over := make(chan struct{})
	defer close(over)
	go func() { // a byte now and then is no progress
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, _ = k.Write([]byte{0})
			case <-over:
				return
			}
		}
	}()
	f.empties(t)
}

func TestSocketThatStopsInTheMiddleOfAFrameDoesNotHoldUpTheEnd(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.MaxBody = maxFrames }, nil)
	k := f.open(t, "/")
	k.write(claim(fin|opText, 1<<40), make([]byte, maxFrames+1))
	eventually(t, 5*time.Second, "the close frame", func() error {
		if strings.Contains(f.metrics(), `proxyd_client_ws_closes_total{code="1009"} 1`) {
			return nil
		}
		return errors.New("not yet")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	endsWithin(t, 3*time.Second, "CloseSockets", func() { f.CloseSockets(ctx) })
}

func TestMessageThatIsCutOffIsNotServed(t *testing.T) {
	f := newSocketFront(t, nil, nil)
	// The gateway reads into 1,024 bytes and then twice that, the library into 512: the ends of both are tried.
	sizes := []int{len(chainID), 511, 512, 513, 1023, 1024, 1025, 2048, 4096}
	for _, size := range sizes {
		k := f.open(t, "/")
		k.write(frame(opText, []byte(callOf(size)))) // and a last fragment, which never comes
		_ = k.Conn.(*net.TCPConn).CloseWrite()
		k.closedWithoutAnswer()
		k = f.open(t, "/")
		k.write(masked(binary.BigEndian.AppendUint16([]byte{fin | opText, 0x80 | 126}, 8192), []byte(callOf(size))))
		_ = k.Conn.(*net.TCPConn).CloseWrite()
		k.closedWithoutAnswer()
	}
	f.empties(t)
	f.front.mu.Lock()
	defer f.front.mu.Unlock()
	if n := len(f.asked); n > 0 {
		t.Errorf("%d of %d calls were served", n, 2*len(sizes))
	}
}

func (k *rawSocket) closedWithoutAnswer() {
	k.t.Helper()
	for {
		op, payload, err := k.next()
		if err != nil {
			return
		}
		if op == opText || op == opBinary {
			k.t.Errorf("answered: %s", payload)
		}
	}
}

func TestClientThatHasSaidAllIsGone(t *testing.T) {
	f := newSocketFront(t, nil, nil)
	k := f.open(t, "/")
	k.lives()
	_ = k.Conn.(*net.TCPConn).CloseWrite()
	k.closedWithoutAnswer()
	f.empties(t)
}

func TestBinaryIsAnsweredInBinary(t *testing.T) {
	f := newSocketFront(t, nil, nil)
	k := f.open(t, "/")
	for _, row := range []struct{ send, want string }{{chainID, okOverSocket}, {"", noJSON}, {"\xff", noJSON}, {"[" + chainID + "]", "[" + okOverSocket + "]"}} {
		k.write(frame(fin|opBinary, []byte(row.send)))
		if op, got := k.message(); op != opBinary || got != row.want {
			t.Errorf("got %d %s, want %s", op, got, row.want)
		}
	}
	k.lives()
}

// FuzzFrames writes arbitrary bytes behind calls: the calls are answered, and nothing of the socket stays.
func FuzzFrames(f *testing.F) {
	text := textFrame(chainID)
	for _, seed := range [][]byte{
		nil, {0x81}, {0xff, 0xff}, text, text[:9], pieces(chainID, 1), frame(fin|opPing, []byte("x")), closeFrame(1000, "bye"), closeFrame(1004, ""),
		claim(fin|opText, 1<<40), claim(fin|opBinary, 1<<63), frame(fin|opClose, nil), frame(opPing, nil), frame(fin|0x70|opText, nil), textFrame("\xff"),
		append(claim(fin|opText, 1<<40), make([]byte, maxFrames+1)...), append([]byte{fin | opText, 20}, append(claim(fin|opText, 1<<40), 0, 0)...),
		append(textFrame(`{"jsonrpc":"2.0","id":"s","method":"eth_subscribe","params":["newHeads"]}`), 0x81), append(bytes.Repeat(text, 40), closeFrame(3000, "")...),
	} {
		f.Add(seed)
	}
	front := newSocketFront(f, func(o *Options) { o.MaxBody, o.Sockets.MaxCalls = maxFrames, 8 }, nil)
	listener := front.servePipes(f)
	first, _ := handshakeOn(f, listener.dial(), upgradeRequest("/"))
	_ = first.Close() // what the gateway runs for all sockets runs now
	front.empties(f)
	f.Fuzz(func(t *testing.T, garbage []byte) {
		before := runtime.NumGoroutine()
		conn := listener.dial()
		k, _ := handshakeOn(t, conn, upgradeRequest("/"))
		k.write(text)
		k.gets(okOverSocket)
		read := make(chan struct{})
		go func() { // the pipe holds nothing
			defer close(read)
			_, _ = io.Copy(io.Discard, k.r)
		}()
		_, _ = conn.Write(garbage)
		_ = conn.Close()
		<-read
		front.empties(t)
		eventually(t, 10*time.Second, "goroutines to end", func() error {
			if now := runtime.NumGoroutine(); now > before {
				return fmt.Errorf("%d goroutines, %d before", now, before)
			}
			return nil
		})
		if text := front.log.String(); strings.Contains(text, "panic while serving") {
			t.Fatal(text)
		}
	})
}
