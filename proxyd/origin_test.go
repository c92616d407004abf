package proxyd

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// origin is a provider that speaks HTTP by hand: a test decides over each byte
// of an answer and over the moments between them.
type origin struct {
	url   string
	conns atomic.Int64 // connections that were made to it
	asked atomic.Int64 // requests that came

	listener net.Listener
	over     chan struct{} // closed when the test has ended
	mu       sync.Mutex
	open     map[net.Conn]struct{}
	ended    bool
	served   sync.WaitGroup
}

// visit is one request at an origin. What is written to it goes out as it is.
type visit struct {
	net.Conn
	origin             *origin
	id, method, params string
}

// newOrigin starts an origin; serve answers a request and says whether its
// connection may bring another one.
func newOrigin(t testing.TB, serve func(*visit) (keep bool)) *origin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return originOn(t, l, "http", serve)
}

func originOn(t testing.TB, l net.Listener, scheme string, serve func(*visit) (keep bool)) *origin {
	o := &origin{url: scheme + "://" + l.Addr().String(), listener: l, over: make(chan struct{}), open: make(map[net.Conn]struct{})}
	o.served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			if o.ended {
				_ = c.Close()
			} else {
				o.open[c] = struct{}{}
			}
			o.mu.Unlock()
			o.conns.Add(1)
			o.served.Go(func() {
				o.speak(c, serve)
				_ = c.Close()
				o.mu.Lock()
				delete(o.open, c)
				o.mu.Unlock()
			})
		}
	})
	t.Cleanup(o.close)
	return o
}

// close ends everything at once. It may be called twice.
func (o *origin) close() {
	o.mu.Lock()
	if !o.ended {
		o.ended = true
		close(o.over)
	}
	_ = o.listener.Close()
	for c := range o.open {
		_ = c.Close()
	}
	o.mu.Unlock()
	o.served.Wait()
}

func (o *origin) speak(c net.Conn, serve func(*visit) bool) {
	in := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		var call struct {
			ID, Params json.RawMessage
			Method     string
		}
		if err != nil || json.Unmarshal(body, &call) != nil {
			return
		}
		o.asked.Add(1)
		if !serve(&visit{Conn: c, origin: o, id: string(call.ID), method: call.Method, params: string(call.Params)}) {
			return
		}
	}
}

// say writes text as it is; $ stands for the id that was asked with.
func (v *visit) say(text string) bool {
	_, err := io.WriteString(v, strings.ReplaceAll(text, "$", v.id))
	return err == nil
}

// head writes the head of an answer with more lines.
func (v *visit) head(lines ...string) bool {
	return v.say("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n")
}

// write writes pieces without joining them in memory.
func (v *visit) write(pieces ...[]byte) bool {
	b := net.Buffers(slices.Clone(pieces))
	_, err := b.WriteTo(v.Conn)
	return err == nil
}

// chunk writes a piece in the chunked coding.
func (v *visit) chunk(piece []byte) bool {
	return len(piece) == 0 || v.write(strconv.AppendInt(nil, int64(len(piece)), 16), []byte("\r\n"), piece, []byte("\r\n"))
}

// await waits for what the test lets happen; false says that it did not.
func (v *visit) await(event <-chan struct{}) bool {
	select {
	case <-event:
		return true
	case <-v.origin.over:
	case <-time.After(10 * time.Second):
	}
	return false
}

// keepLittle lets the connection buffer little of what is written.
func (v *visit) keepLittle() {
	raw := v.Conn
	if t, ok := raw.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	_ = raw.(*net.TCPConn).SetWriteBuffer(256 << 10)
}

// gone waits until the other side has closed the connection.
func (v *visit) gone() bool {
	_ = v.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, err := v.Read(make([]byte, 1))
	timeout, ok := err.(net.Error)
	return err != nil && !(ok && timeout.Timeout())
}

// small answers with a result that fits anywhere.
func (v *visit) small(result string) bool {
	return delivered["sized"](v, []byte(`{"jsonrpc":"2.0","id":`+v.id+`,"result":`+result+`}`))
}

// shape is what stands around the result of an answer; $ is the id.
type shape struct{ front, back string }

var (
	idFirst = shape{`{"jsonrpc":"2.0","id":$,"result":`, `}`}
	idLast  = shape{`{"jsonrpc":"2.0","result":`, `,"id":$}`}
)

func (s shape) around(id string, result []byte) []byte {
	if len(result) > 4<<20 { // once for all tests
		return once("around"+s.front+s.back+id, result, func() []byte { return s.join(id, result) })
	}
	return s.join(id, result)
}

func (s shape) join(id string, result []byte) []byte {
	front, back := strings.ReplaceAll(s.front, "$", id), strings.ReplaceAll(s.back, "$", id)
	return slices.Concat([]byte(front), result, []byte(back))
}

var made sync.Map // size → large result

// large is a result of about n bytes: JSON whose strings look like the parts of an
// answer, so that whoever takes them for such is caught. It is in numbered blocks,
// so that a piece in a wrong place is seen.
func large(n int) []byte {
	if v, ok := made.Load(n); ok {
		return v.([]byte)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var block []byte
	for len(block) < min(n, 60_000) {
		switch random.IntN(5) {
		case 0:
			block = append(block, `{"id":1,"result":null,"error":{"code":-32000}} , `...)
		case 1:
			block = append(block, `"\",\"id\":1}\\", "}]\u0000é😀\\\"", `...)
		case 2:
			block = fmt.Appendf(block, "[[%d,-1.5e+7,true,\n\t{}],[]],", random.Uint64())
		default:
			block = fmt.Appendf(block, "\"0x%016x%016x%016x%016x\",", random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())
		}
	}
	out := append(make([]byte, 0, n+len(block)+64), '[')
	for i := 0; len(out) < n; i++ {
		out = append(fmt.Appendf(out, "%d,", i), block...)
	}
	out = append(out, `{"id":1}]`...)
	v, _ := made.LoadOrStore(n, out)
	return v.([]byte)
}

var coded sync.Map // coding and what identifies a body → the coded body

// once codes a body, once for all tests.
func once(coding string, body []byte, code func() []byte) []byte {
	edge := min(len(body), 200)
	key := fmt.Sprintf("%s %d %s %s", coding, len(body), body[:edge], body[len(body)-edge:])
	if v, ok := coded.Load(key); ok {
		return v.([]byte)
	}
	v, _ := coded.LoadOrStore(key, code())
	return v.([]byte)
}

func gzipped(body []byte) []byte {
	return once("gzip", body, func() []byte {
		level := gzip.BestSpeed
		if len(body) > 2<<20 {
			level = gzip.NoCompression // in a sensible time under the race detector
		}
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, level)
		_, _ = z.Write(body)
		_ = z.Close()
		return b.Bytes()
	})
}

// inSmallChunks is a body in the chunked coding, without its end.
func inSmallChunks(body []byte) []byte {
	return once("chunks", body, func() (out []byte) {
		for piece := range slices.Chunk(body, 1009) {
			out = append(append(append(out, "3f1\r\n"...), piece...), "\r\n"...)
			if len(piece) < 1009 {
				out = fmt.Appendf(out[:len(out)-len(piece)-7], "%x\r\n%s\r\n", len(piece), piece)
			}
		}
		return out
	})
}

// delivered are the ways in which a body can come over HTTP.
var delivered = map[string]func(*visit, []byte) (keep bool){
	"sized": func(v *visit, body []byte) bool { return v.head(lengthLine(body)) && v.write(body) },
	"sized, in one write with its head": func(v *visit, body []byte) bool {
		head := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + lengthLine(body) + "\r\n\r\n"
		first := min(len(body), 20<<10)
		return v.write([]byte(head+string(body[:first]))) && v.write(body[first:])
	},
	"sized, long after its head": func(v *visit, body []byte) bool {
		if !v.head(lengthLine(body)) {
			return false
		}
		time.Sleep(20 * time.Millisecond) // a provider that computes
		return v.write(body)
	},
	"sized, in tiny pieces at both ends": func(v *visit, body []byte) bool {
		if !v.head(lengthLine(body)) {
			return false
		}
		tiny := func(part []byte) bool {
			for piece := range slices.Chunk(part, 7) {
				if !v.write(piece) {
					return false
				}
			}
			return true
		}
		return tiny(body[:1<<10]) && v.write(body[1<<10:len(body)-1<<10]) && tiny(body[len(body)-1<<10:])
	},
	"chunked": func(v *visit, body []byte) bool {
		if !v.head("Transfer-Encoding: chunked") {
			return false
		}
		for piece := range slices.Chunk(body, 100_003) {
			if !v.chunk(piece) {
				return false
			}
		}
		return v.say("0\r\n\r\n")
	},
	"chunked, with extensions and a trailer": func(v *visit, body []byte) bool {
		if !v.head("Transfer-Encoding: chunked", "Trailer: X-Cost") {
			return false
		}
		for piece := range slices.Chunk(body, 65536) {
			if !v.write(fmt.Appendf(nil, "%X;cost=1\r\n", len(piece)), piece, []byte("\r\n")) {
				return false
			}
		}
		return v.say("0;last\r\nX-Cost: 1\r\n\r\n")
	},
	"chunked, in small chunks": func(v *visit, body []byte) bool {
		return v.head("Transfer-Encoding: chunked") && v.write(inSmallChunks(body)) && v.say("0\r\n\r\n")
	},
	"sized, then closed": func(v *visit, body []byte) bool {
		_ = v.head("Connection: close", lengthLine(body)) && v.write(body)
		return false
	},
	"sized, with a line behind": func(v *visit, body []byte) bool {
		return v.head(lengthLine(body)) && v.write(body, []byte("\r\n"))
	},
	"gzip": func(v *visit, body []byte) bool {
		z := gzipped(body)
		return v.head("Content-Encoding: gzip", lengthLine(z)) && v.write(z)
	},
	"chunked gzip": func(v *visit, body []byte) bool {
		if !v.head("Content-Encoding: gzip", "Transfer-Encoding: chunked") {
			return false
		}
		for piece := range slices.Chunk(gzipped(body), 30_011) {
			if !v.chunk(piece) {
				return false
			}
		}
		return v.say("0\r\n\r\n")
	},
	"without a length": func(v *visit, body []byte) bool {
		_ = v.head("Connection: close") && v.write(body)
		return false
	},
	"HTTP/1.0": func(v *visit, body []byte) bool {
		_ = v.say("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n") && v.write(body)
		return false
	},
}

func lengthLine(body []byte) string { return fmt.Sprint("Content-Length: ", len(body)) }

// keyed is conf with more keys for each backend. A test that sets no times has long
// ones: a busy machine is nobody's fault.
func keyed(keys, more string, urls ...string) string {
	const patience = "[server]\ntimeout_seconds = 60\n"
	if !strings.Contains(more, "\ntimeout_seconds") {
		if strings.Contains(more, "[server]\n") {
			more = strings.Replace(more, "[server]\n", patience, 1)
		} else {
			more = patience + more
		}
	}
	if !strings.Contains(more, "response_timeout") {
		keys += "\nresponse_timeout_milliseconds = 60000"
	}
	text := conf(more, urls...)
	for i := range urls {
		table := fmt.Sprintf("[backends.b%d]\n", i+1)
		text = strings.Replace(text, table, table+keys+"\n", 1)
	}
	return text
}

// open asks and returns the answer as soon as its head has come.
func (g *gateway) open(t testing.TB, body string, headers ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+g.RPCAddr().String(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// dial asks on a connection of its own, whose client buffers little.
func (g *gateway) dial(t testing.TB, body string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", g.RPCAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.(*net.TCPConn).SetReadBuffer(160 << 10)
	_ = c.SetReadDeadline(time.Now().Add(60 * time.Second)) // a test may fail, but not hang
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// answers reports a body that is not the answer with this result and id, byte for
// byte; white space may stand behind it.
func answers(t testing.TB, body, result []byte, id string) {
	t.Helper()
	brings(t, bytes.NewReader(body), result, id)
}

// brings is answers for a body that is not to be held in memory.
func brings(t testing.TB, body io.Reader, result []byte, id string) {
	t.Helper()
	want := [2][]byte{[]byte(`{"jsonrpc":"2.0","result":`), result}
	piece, at := make([]byte, 64<<10), 0
	for _, part := range want {
		for len(part) > 0 {
			n, err := io.ReadFull(body, piece[:min(len(part), len(piece))])
			if !bytes.Equal(piece[:n], part[:n]) {
				i := 0
				for piece[i] == part[i] {
					i++
				}
				t.Errorf("from byte %d it is %.300q, want %.80q", at+i, piece[i:n], part[i:])
				return
			}
			if part, at = part[n:], at+n; err != nil && len(part) > 0 {
				t.Errorf("%v after %d bytes", err, at)
				return
			}
		}
	}
	tail, err := io.ReadAll(io.LimitReader(body, 1<<20))
	if err != nil || strings.TrimRight(string(tail), " \t\r\n") != `,"id":`+id+`}` {
		t.Errorf("behind the result stands %.300q, %v, want the id %s", tail, err, id)
	}
}

// broken reports an answer that came whole.
func broken[T string | []byte](t testing.TB, body T, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("the client saw a whole answer of %d bytes: %.100q…%q", len(body), body, body[max(0, len(body)-100):])
	}
}

// series is the sum of a metric's series that have the labels.
func (g *gateway) series(t testing.TB, name string, labels ...string) (sum float64) {
	t.Helper()
	_, text := g.get(t, g.MetricsAddr(), "/")
next:
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(line, l) {
				continue next
			}
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndex(line, " "):]), 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// warned reports whether a warning of the log names the backend.
func (g *gateway) warned(backend string) bool {
	for line := range strings.Lines(g.log.String()) {
		if strings.Contains(line, `"level":"WARN"`) && strings.Contains(line, fmt.Sprintf(`"backend":%q`, backend)) {
			return true
		}
	}
	return false
}

// unblamed reports a backend that counts as failed, although nothing but the
// client is to blame.
func (g *gateway) unblamed(t testing.TB, backend string) {
	t.Helper()
	label := fmt.Sprintf("backend_name=%q", backend)
	becomes(t, "nothing is in flight", func() bool { return g.series(t, "proxyd_backend_in_flight", label) == 0 })
	for _, name := range []string{"proxyd_rpc_errors_total", "proxyd_provider_errors_total", "proxyd_backend_unanswered_in_row", "proxyd_backend_out_of_service", "proxyd_backend_error_rate"} {
		if n := g.series(t, name, label); n != 0 {
			t.Errorf("%s of %s is %v", name, backend, n)
		}
	}
	if g.warned(backend) {
		t.Errorf("the log warns of %s: %s", backend, g.log)
	}
}

// becomes waits until something is so.
func becomes(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came about that %s", what)
		}
	}
}
