package backend

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	methodTable = must(jsonrpc.NewTable(nil))
	errorTable  = must(classify.New(nil))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// logBuffer keeps what is logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: level}))
}

// newBackend builds a backend that is closed at the end of the test.
func newBackend(t testing.TB, url string, change func(*Options)) *Backend {
	t.Helper()
	o := Options{
		Name: "b", URL: url, Classify: errorTable, Metrics: NewMetrics(prometheus.NewRegistry()),
		Log: slog.New(slog.DiscardHandler), ResponseTimeout: 5 * time.Second,
	}
	if change != nil {
		change(&o)
	}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func call(method, params string) *jsonrpc.Call {
	row, label := methodTable.Lookup(method)
	if label == "" {
		label = "*"
	}
	c := &jsonrpc.Call{Method: method, Row: row, Label: label, Client: &jsonrpc.Client{Auth: "none", Source: "http"}}
	if params != "" {
		c.Params = []byte(params)
	}
	return c
}

func blockNumber() *jsonrpc.Call { return call("eth_blockNumber", "") }

// try makes one attempt and waits for it.
func try(t testing.TB, b *Backend, how Try, calls ...*jsonrpc.Call) *Attempt {
	t.Helper()
	if how.Timeout == 0 {
		how.Timeout = time.Minute
	}
	done := make(chan *Attempt, 1)
	b.Begin(calls, how, done)
	select {
	case a := <-done:
		return a
	case <-time.After(20 * time.Second):
		t.Fatal("the attempt did not end")
		return nil
	}
}

// ask makes one attempt and settles it without blame.
func ask(t testing.TB, b *Backend, calls ...*jsonrpc.Call) []Result {
	t.Helper()
	a := try(t, b, Try{}, calls...)
	a.Settle(false)
	return a.Results
}

// provider serves h on a real listener.
func provider(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// answering serves the text that body makes of the request's first id.
func answering(t testing.TB, status int, body string) string {
	return provider(t, func(w http.ResponseWriter, r *http.Request) {
		id := firstID(r)
		w.WriteHeader(status)
		fmt.Fprint(w, fill(body, id))
	})
}

// fill puts the id for each "$0", the next one for "$1" and so on.
func fill(body string, id uint64) string {
	for i := range uint64(4) {
		body = string(bytes.ReplaceAll([]byte(body), []byte(fmt.Sprintf("$%d", i)), fmt.Append(nil, id+i)))
	}
	return body
}

// firstID reads the body and returns the id of the (first) request in it.
func firstID(r *http.Request) uint64 {
	body, _ := io.ReadAll(r.Body)
	return idIn(body)
}

func idIn(body []byte) (id uint64) {
	_, rest, _ := bytes.Cut(body, []byte(`"id":`))
	fmt.Sscanf(string(rest), "%d", &id)
	return id
}

// chain serves a dev chain on a real listener.
func chain(t testing.TB) (*devchain.Backend, string) {
	t.Helper()
	node := devchain.NewBackend(devchain.New(devchain.Options{}), "node")
	s := httptest.NewServer(node)
	t.Cleanup(func() { node.Close(); s.Close() })
	return node, s.URL
}

// rawServer hands every connection to serve and closes it afterwards.
func rawServer(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return "http://" + l.Addr().String()
}

// refusing is the URL of a port that nobody listens on.
func refusing(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// readRequest reads one request with its body, as far as it came in one piece.
func readRequest(c net.Conn) []byte {
	buf := make([]byte, 64<<10)
	n := 0
	for {
		k, err := c.Read(buf[n:])
		n += k
		if head, body, ok := bytes.Cut(buf[:n], []byte("\r\n\r\n")); ok {
			var size int
			if i := bytes.Index(head, []byte("Content-Length: ")); i >= 0 {
				fmt.Sscanf(string(head[i+16:]), "%d", &size)
			}
			if len(body) >= size {
				return buf[:n]
			}
		}
		if err != nil {
			return buf[:n]
		}
	}
}

// eventually polls until ok, or fails the test.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func state(t testing.TB, b *Backend, want State) {
	t.Helper()
	if got := b.Standing().State; got != want {
		t.Fatalf("the backend is %s, want %s", got, want)
	}
}

func callsOf(calls ...*jsonrpc.Call) []*jsonrpc.Call { return calls }

func hangingDial(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
