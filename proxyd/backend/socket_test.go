package backend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

// far is the provider's side of a backend's sockets, which the test plays.
type far struct {
	t *testing.T
	// answer is what upgrades are answered with instead of a socket; nil opens one.
	answer http.HandlerFunc
	// post serves what is not an upgrade.
	post http.HandlerFunc
	// pong says whether pings are answered; nil is always.
	pong func() bool
	// conn wraps the gateway's end of a connection.
	conn func(net.Conn) net.Conn

	conns  chan net.Conn
	lines  chan *line
	done   chan struct{}
	hung   sync.WaitGroup
	mu     sync.Mutex
	asked  []*http.Request // to upgrade
	pinged []time.Time
}

// line is one open socket.
type line struct {
	*websocket.Conn
	t      *testing.T
	frames chan string // that came from the gateway
	gone   chan struct{}
}

// onSocket runs a test with a backend in a bubble that has no HTTP, unless change
// gives it a URL.
func onSocket(t *testing.T, change func(*Options, *far), test func(t *testing.T, b *Backend, f *far)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t)
		b := newBackend(t, "", func(o *Options) {
			o.WSURL, o.Dial = "ws://node.memory/", f.dial
			if change != nil {
				change(o, f)
			}
		})
		test(t, b, f)
	})
}

func newFar(t *testing.T) *far {
	f := &far{t: t, conns: make(chan net.Conn), lines: make(chan *line, 1000), done: make(chan struct{})}
	s := &http.Server{Handler: f, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	served := make(chan struct{})
	go func() { defer close(served); s.Serve(f) }()
	t.Cleanup(func() { s.Close(); <-served; f.hung.Wait() })
	return f
}

func (f *far) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case f.conns <- there:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-f.done:
		return nil, net.ErrClosed
	}
	if f.conn != nil {
		here = f.conn(here)
	}
	return here, nil
}

// hang is a dial that takes for ever. It must be ended by its context: at the latest
// when the backend is closed, which comes before the end of f.
func (f *far) hang(ctx context.Context, _, _ string) (net.Conn, error) {
	f.hung.Add(1)
	defer f.hung.Done()
	select {
	case <-ctx.Done():
	case <-f.done:
		f.t.Error("the dial outlives the backend")
	}
	return nil, context.Canceled
}

func (f *far) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

func (f *far) Close() error   { close(f.done); return nil }
func (f *far) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

func (f *far) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		f.post(w, r)
		return
	}
	f.mu.Lock()
	f.asked = append(f.asked, r)
	answer := f.answer
	f.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{OnPingReceived: func(context.Context, []byte) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.pinged = append(f.pinged, time.Now())
		return f.pong == nil || f.pong()
	}})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	l := &line{Conn: c, t: f.t, frames: make(chan string, 10_000), gone: make(chan struct{})}
	defer close(l.gone)
	f.lines <- l
	for {
		_, frame, err := c.Read(context.Background())
		if err != nil {
			return
		}
		l.frames <- string(frame)
	}
}

// set changes how upgrades are answered.
func (f *far) set(answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *far) upgrades() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func (f *far) pings() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pinged
}

// line is the next socket that was opened.
func (f *far) line() *line {
	f.t.Helper()
	select {
	case l := <-f.lines:
		return l
	case <-time.After(10 * time.Second):
		f.t.Fatal("no socket was opened")
		return nil
	}
}

// next is the next frame from the gateway.
func (l *line) next() string {
	l.t.Helper()
	select {
	case frame := <-l.frames:
		return frame
	case <-time.After(10 * time.Second):
		l.t.Fatal("no frame came")
		return ""
	}
}

// none checks that no further frame has come.
func (l *line) none() {
	l.t.Helper()
	synctest.Wait()
	select {
	case frame := <-l.frames:
		l.t.Errorf("sent %s", frame)
	default:
	}
}

func (l *line) say(format string, args ...any) {
	_ = l.Write(context.Background(), websocket.MessageText, fmt.Appendf(nil, format, args...))
}

// reply answers a request with a result.
func (l *line) reply(request, result string) {
	l.say(`{"jsonrpc":"2.0","id":%d,"result":%s}`, idIn([]byte(request)), result)
}

// notify says what happened in a subscription.
func (l *line) notify(id, result string) {
	l.say(`{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":%q,"result":%s}}`, id, result)
}

func refuse(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", status) }
}

// socket opens a socket and returns both ends.
func (f *far) open(b *Backend) (*Socket, *line) {
	f.t.Helper()
	s, err := b.Socket(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	return s, f.line()
}

// asked is a call of the gateway's own that is under way.
type asked struct {
	result []byte
	err    error
	done   chan struct{}
}

func asks(s *Socket, ctx context.Context, method string) *asked {
	a := &asked{done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.result, a.err = s.Ask(ctx, method, "[]")
	}()
	return a
}

func dead(t *testing.T, s *Socket, text string) {
	t.Helper()
	select {
	case <-s.Dead():
	case <-time.After(5 * time.Minute):
		t.Fatal("the socket lives")
	}
	var e *Error
	if err := s.Err(); !errors.As(err, &e) || e.Kind != Network || e.Backend != "b" || !strings.HasPrefix(err.Error(), "backend b: WebSocket: ") || !strings.Contains(err.Error(), text) {
		t.Errorf("it died of %v, want %q", s.Err(), text)
	}
}

func alive(t *testing.T, s *Socket) {
	t.Helper()
	synctest.Wait()
	select {
	case <-s.Dead():
		t.Fatalf("the socket is dead: %v", s.Err())
	default:
	}
}

func TestSocketIsOpenedOnDemandAndShared(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		if !b.HasSocket() || b.HasHTTP() {
			t.Errorf("socket %t, HTTP %t", b.HasSocket(), b.HasHTTP())
		}
		time.Sleep(time.Hour)
		if n := f.upgrades(); n != 0 {
			t.Fatalf("%d were opened unasked", n)
		}
		if s := b.SocketStatus(); s.Open || s.Failures != 0 || s.Last != nil {
			t.Errorf("%t, %d, %v", s.Open, s.Failures, s.Last)
		}
		var all sync.WaitGroup
		sockets := make([]*Socket, 100)
		for i := range sockets {
			all.Go(func() { sockets[i], _ = b.Socket(context.Background()) })
		}
		all.Wait()
		for _, s := range sockets {
			if s == nil || s != sockets[0] {
				t.Fatalf("%p and %p", s, sockets[0])
			}
		}
		if n := f.upgrades(); n != 1 {
			t.Errorf("%d were opened", n)
		}
		if s := b.SocketStatus(); !s.Open {
			t.Error("it is not s.Open")
		}
		alive(t, sockets[0])
	})
}

func TestBackendWithoutSocketURLHasNone(t *testing.T) {
	b := newBackend(t, "http://127.0.0.1:1", nil)
	if s, err := b.Socket(context.Background()); s != nil || !errors.Is(err, ErrNoSocket) || b.HasSocket() || !b.HasHTTP() {
		t.Errorf("%v, %v", s, err)
	}
}

func TestURLsOfABackendAreChecked(t *testing.T) {
	for _, c := range []struct {
		url, ws, want string
	}{
		{"", "", "neither"}, {"ws://h", "", "http://"}, {"", "http://h/PATHSECRET12", "ws://"}, {"http://h", "https://h", "wss://"},
		{"", "ws://", "host"}, {"", "wss:h", "host"}, {"", "ws://h/%zzPATHSECRET12", "ws://"}, {"http://h", "tcp://h", "ws://"},
	} {
		_, err := New(Options{Name: "b", URL: c.url, WSURL: c.ws, Classify: errorTable, Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.HasPrefix(err.Error(), "backend b: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %q: %v", c.url, c.ws, err)
		} else {
			leaks(t, "the error", err.Error())
		}
	}
	for _, ws := range []string{"ws://h", "wss://h/x?y", "WSS://h:1/", "ws://u:p@h"} {
		newBackend(t, "", func(o *Options) { o.WSURL = ws })
	}
}

func TestUpgradeCarriesWhatIsConfiguredAndNothingElse(t *testing.T) {
	basic := func(name, password string) string {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(name, password)
		return r.Header.Get("Authorization")
	}
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   map[string]string // "" for absent
	}{
		{"nothing", func(*Options) {}, map[string]string{"Authorization": "", "User-Agent": "proxyd", "Host": "node.memory"}},
		{"headers", func(o *Options) {
			o.Headers = map[string]string{"x-api-key": "k", "Authorization": "Bearer t", "User-Agent": "me"}
		}, map[string]string{"X-Api-Key": "k", "Authorization": "Bearer t", "User-Agent": "me"}},
		{"Host", func(o *Options) { o.Headers = map[string]string{"host": "other.example"} }, map[string]string{"Host": "other.example"}},
		{"keys", func(o *Options) { o.Username, o.Password = "u", "p" }, map[string]string{"Authorization": basic("u", "p")}},
		{"userinfo", func(o *Options) { o.WSURL = "ws://w:q%40@node.memory/" }, map[string]string{"Authorization": basic("w", "q@"), "Host": "node.memory"}},
		{"keys before userinfo", func(o *Options) {
			o.WSURL, o.Username, o.Password = "ws://w:q@node.memory/", "u", "p"
		}, map[string]string{"Authorization": basic("u", "p")}},
		{"header before all", func(o *Options) {
			o.WSURL, o.Username, o.Password = "ws://w:q@node.memory/", "u", "p"
			o.Headers = map[string]string{"authorization": "Bearer t"}
		}, map[string]string{"Authorization": "Bearer t"}},
		{"userinfo of its own beside HTTP's", func(o *Options) {
			o.URL, o.WSURL = "http://h:r@node.memory/", "ws://w:q@node.memory/"
		}, map[string]string{"Authorization": basic("w", "q")}},
		{"HTTP's userinfo is HTTP's", func(o *Options) { o.URL = "http://h:r@node.memory/" }, map[string]string{"Authorization": ""}},
		{"path and query", func(o *Options) { o.WSURL = "ws://node.memory/v3/a%2Fb?key=x" }, map[string]string{"URI": "/v3/a%2Fb?key=x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onSocket(t, func(o *Options, _ *far) { c.change(o) }, func(t *testing.T, b *Backend, f *far) {
				f.open(b)
				r := f.asked[0]
				for name, want := range map[string]string{"Content-Type": "", "Accept": "", "Accept-Encoding": "", "Content-Length": "", "Cookie": "", "Origin": "", "X-Forwarded-For": "", "Sec-Websocket-Extensions": "", "Sec-Websocket-Protocol": "", "Upgrade": "websocket"} {
					if got := r.Header.Get(name); !strings.EqualFold(got, want) {
						t.Errorf("%s: %q, want %q", name, got, want)
					}
				}
				for name, want := range c.want {
					got := r.Header.Get(name)
					switch name {
					case "Host":
						got = r.Host
					case "URI":
						got = r.RequestURI
					}
					if got != want {
						t.Errorf("%s: %q, want %q", name, got, want)
					}
				}
			})
		})
	}
}

func TestUpgradeOverTLS(t *testing.T) {
	node := devchain.NewBackend(devchain.New(devchain.Options{}), "node")
	s := httptest.NewUnstartedServer(node)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	t.Cleanup(func() { node.Close(); s.Close() })
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	for _, c := range []struct {
		name string
		tls  *tls.Config
		ok   bool
	}{
		{"the system's roots", nil, false}, {"no client certificate", &tls.Config{RootCAs: roots}, false},
		{"no CA", &tls.Config{Certificates: s.TLS.Certificates}, false},
		{"all", &tls.Config{RootCAs: roots, Certificates: s.TLS.Certificates}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBackend(t, "", func(o *Options) { o.WSURL, o.TLS = strings.Replace(s.URL, "https", "wss", 1), c.tls })
			socket, err := b.Socket(context.Background())
			if (err == nil) != c.ok {
				t.Fatal(err)
			}
			if c.ok {
				if got, err := socket.Ask(context.Background(), "eth_chainId", "[]"); err != nil || len(got) == 0 {
					t.Errorf("%s, %v", got, err)
				}
			}
		})
	}
}

func TestOpeningEndsWithTheDialTimeout(t *testing.T) {
	ways := map[string]func(*Options, *far){
		"connect": func(o *Options, f *far) { o.Dial = f.hang },
		"upgrade": func(_ *Options, f *far) {
			f.answer = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			onSocket(t, func(o *Options, f *far) { way(o, f); o.DialTimeout = 3 * time.Second }, func(t *testing.T, b *Backend, f *far) {
				began := time.Now()
				_, err := b.Socket(context.Background())
				var e *Error
				if !errors.As(err, &e) || e.Kind != Timeout || e.Wrote {
					t.Errorf("%#v", err)
				}
				if took := time.Since(began); took != 3*time.Second {
					t.Errorf("after %v", took)
				}
			})
		})
	}
}

func TestRefusedUpgradeIsNoSocketAndNoRedirectIsFollowed(t *testing.T) {
	for _, status := range []int{200, 301, 302, 307, 308, 401, 403, 404, 429, 500, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			onSocket(t, func(_ *Options, f *far) {
				f.answer = func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Location", "http://node.memory/elsewhere")
					w.WriteHeader(status)
				}
			}, func(t *testing.T, b *Backend, f *far) {
				_, err := b.Socket(context.Background())
				var e *Error
				if !errors.As(err, &e) || e.HTTP != status || e.Kind != Network || e.Wrote || !strings.Contains(err.Error(), fmt.Sprint(status)) {
					t.Errorf("%v", err)
				}
				if n := f.upgrades(); n != 1 {
					t.Errorf("asked %d times", n)
				}
			})
		})
	}
}

func TestSocketThatCannotBeOpenedIsLeftAloneForLongerAndLonger(t *testing.T) {
	onSocket(t, func(_ *Options, f *far) { f.answer = refuse(503) }, func(t *testing.T, b *Backend, f *far) {
		for i, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
			pause *= time.Second
			began := time.Now()
			if _, err := b.Socket(context.Background()); err == nil || strings.Contains(err.Error(), "left alone") {
				t.Fatal(err)
			}
			status := b.SocketStatus()
			open, failures, last, retryAt := status.Open, status.Failures, status.Last, status.RetryAt
			if open || failures != i+1 || last == nil || !retryAt.Equal(began.Add(pause)) {
				t.Fatalf("failure %d: %t, %d, %v, in %v", i+1, open, failures, last, retryAt.Sub(began))
			}
			time.Sleep(pause - time.Millisecond)
			if _, err := b.Socket(context.Background()); err == nil || !strings.Contains(err.Error(), "left alone for 1ms after "+fmt.Sprint(i+1)) || !strings.Contains(err.Error(), "503") {
				t.Fatal(err)
			}
			if n := f.upgrades(); n != i+1 {
				t.Fatalf("asked %d times", n)
			}
			time.Sleep(time.Millisecond)
		}
		f.set(nil)
		s, _ := f.open(b)
		time.Sleep(31 * time.Second)
		s.Close(errors.New("done with"))
		if s := b.SocketStatus(); s.Failures != 0 || !s.RetryAt.IsZero() {
			t.Errorf("%d s.Failures, pause until %v", s.Failures, s.RetryAt)
		}
	})
}

func TestSocketThatBreaksSoonIsLeftAlone(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		for i := range 3 {
			s, l := f.open(b)
			time.Sleep(10 * time.Second)
			l.CloseNow()
			dead(t, s, "read")
			synctest.Wait()
			if s := b.SocketStatus(); s.Open || s.Failures != i+1 || time.Until(s.RetryAt) != time.Second<<i {
				t.Errorf("%t, %d s.Failures, pause %v", s.Open, s.Failures, time.Until(s.RetryAt))
			}
			if _, err := b.Socket(context.Background()); err == nil {
				t.Error("opened again at once")
			}
			time.Sleep(time.Second << i)
		}
		s, l := f.open(b)
		time.Sleep(31 * time.Second)
		l.CloseNow()
		dead(t, s, "read")
		synctest.Wait()
		again, _ := f.open(b)
		if again == s {
			t.Error("the same socket")
		}
		if s := b.SocketStatus(); s.Failures != 0 {
			t.Errorf("%d s.Failures", s.Failures)
		}
	})
}

func TestSocketIsPinged(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		a := asks(s, context.Background(), "eth_call") // keeps it in use
		l.next()
		time.Sleep(10*time.Minute + time.Second)
		alive(t, s)
		pings := f.pings()
		if len(pings) != 40 {
			t.Fatalf("%d pings", len(pings))
		}
		for i, at := range pings {
			if after := at.Sub(s.born); after != time.Duration(i+1)*15*time.Second {
				t.Fatalf("ping %d after %v", i, after)
			}
		}
		s.Close(errors.New("enough"))
		<-a.done
	})
}

func TestSocketWithoutPongEnds(t *testing.T) {
	onSocket(t, func(_ *Options, f *far) { f.pong = func() bool { return len(f.pinged) < 3 } }, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		a := asks(s, context.Background(), "eth_call")
		l.next()
		dead(t, s, "no pong")
		if lived := time.Since(s.born); lived != 55*time.Second {
			t.Errorf("after %v", lived)
		}
		if <-a.done; a.err == nil || !strings.Contains(a.err.Error(), "no pong") {
			t.Error(a.err)
		}
	})
}

func TestIdleSocketCloses(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		for i := range 3 {
			s, l := f.open(b)
			dead(t, s, "nobody uses it")
			if lived := time.Since(s.born); lived < time.Minute || lived > time.Minute+15*time.Second {
				t.Errorf("after %v", lived)
			}
			<-l.gone
			synctest.Wait()
			if s := b.SocketStatus(); s.Open || s.Failures != 0 {
				t.Errorf("%t, %d s.Failures", s.Open, s.Failures)
			}
			if n := f.upgrades(); n != i+1 {
				t.Errorf("%d upgrades", n)
			}
		}
	})
}

func TestSocketInUseStaysOpen(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		go func() { l.reply(l.next(), `"0xa"`) }()
		id, err := s.Subscribe(context.Background(), `["newHeads"]`, func([]byte) {})
		if err != nil || id != `"0xa"` {
			t.Fatal(id, err)
		}
		time.Sleep(10 * time.Minute)
		alive(t, s)
		s.Unsubscribe(id)
		l.reply(l.next(), "true")
		for range 10 {
			time.Sleep(50 * time.Second)
			a := asks(s, context.Background(), "eth_call")
			l.reply(l.next(), "1")
			<-a.done
		}
		alive(t, s)
		waiting := asks(s, context.Background(), "eth_call")
		time.Sleep(10 * time.Minute)
		alive(t, s)
		l.next()
		l.reply(fmt.Sprintf(`{"id":%d}`, b.ids.Load()), "1")
		<-waiting.done
		dead(t, s, "nobody uses it")
	})
}

func TestFrameThatIsNoJSONRPCEndsTheSocket(t *testing.T) {
	for _, frame := range []string{"", "hello", "<html>", "1", "null", `{"id":1,"result":`, `{"id":1}{"id":1}`, "[]", "[1]", "\xff"} {
		t.Run(frame, func(t *testing.T) {
			onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
				s, l := f.open(b)
				a := asks(s, context.Background(), "eth_call")
				l.next()
				_ = l.Write(context.Background(), websocket.MessageText, []byte(frame))
				dead(t, s, "invalid answer")
				<-a.done
				var e *Error
				if !errors.As(a.err, &e) || !e.Wrote || !errors.Is(a.err, jsonrpc.ErrInvalidAnswer) {
					t.Errorf("%v", a.err)
				}
				<-l.gone
			})
		})
	}
}

func TestAnswersComeInAnyOrder(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		const n = 200
		all := make([]*asked, n)
		requests := make([]string, n)
		for i := range all {
			all[i] = asks(s, context.Background(), fmt.Sprint("m", i))
			requests[i] = l.next()
		}
		l.say(`{"id":999999,"result":"unknown"}`)
		l.say(`{"id":"x","result":"unknown"}`)
		l.say(`{"result":"no id"}`)
		for i := n - 1; i >= 0; i-- {
			id := idIn([]byte(requests[i]))
			switch i % 3 {
			case 0:
				l.say(`{"id":%d,"result":%d}`, id, i)
			case 1:
				l.say(`{"result":%d,"id":"%d"}`, i, id)
			default:
				l.say(`{"id":%d.0,"result":%d,"error":null}`, id, i)
			}
			l.say(`{"id":%d,"result":"twice"}`, id)
		}
		for i, a := range all {
			if <-a.done; a.err != nil || string(a.result) != fmt.Sprint(i) {
				t.Errorf("%d: %s, %v", i, a.result, a.err)
			}
		}
		alive(t, s)
	})
}

func TestErrorWithoutIDBelongsToTheOnlyRequest(t *testing.T) {
	for _, id := range []string{``, `"id":null,`} {
		onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
			s, l := f.open(b)
			a := asks(s, context.Background(), "eth_call")
			l.next()
			l.say(`{%s"error":{"code":-32005,"message":"limit"}}`, id)
			<-a.done
			var e *RPCError
			if !errors.As(a.err, &e) || e.Code != -32005 || e.Backend != "b" || string(e.Raw) != `{"code":-32005,"message":"limit"}` {
				t.Errorf("%v", a.err)
			}
			// Of two nobody can tell whose it is.
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			one, two := asks(s, ctx, "one"), asks(s, ctx, "two")
			l.next()
			l.next()
			l.say(`{%s"error":{"code":-32005,"message":"limit"}}`, id)
			<-one.done
			<-two.done
			if !errors.Is(one.err, errNoAnswer) || !errors.Is(two.err, errNoAnswer) {
				t.Errorf("%v, %v", one.err, two.err)
			}
			l.say(`{%s"error":{"code":-32005,"message":"limit"}}`, id) // nobody asks
			alive(t, s)
		})
	}
}

func TestRequestThatWasGivenUpIsForgotten(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		a := asks(s, ctx, "eth_call")
		request := l.next()
		<-a.done
		if !errors.Is(a.err, errNoAnswer) || !strings.Contains(a.err.Error(), "backend b: eth_call") {
			t.Error(a.err)
		}
		l.reply(request, "1") // too late
		alive(t, s)
		if len(s.waiters) != 0 {
			t.Errorf("%d are waited for", len(s.waiters))
		}
		again := asks(s, context.Background(), "eth_call")
		l.reply(l.next(), "2")
		if <-again.done; string(again.result) != "2" {
			t.Errorf("%s, %v", again.result, again.err)
		}
	})
}

func TestNotificationsBeforeTheAnswerAreKeptInOrder(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		var got []string
		go func() {
			request := l.next()
			if !strings.Contains(request, `"method":"eth_subscribe","params":["newHeads"]`) {
				t.Errorf("%s", request)
			}
			for i := range 5 {
				l.notify("0xa", fmt.Sprint(i))
				l.notify("0xb", "100")
			}
			l.reply(request, `"0xa"`)
			for i := range 5 {
				l.notify("0xa", fmt.Sprint(5+i))
				l.notify("0xb", "100")
			}
		}()
		if _, err := s.Subscribe(context.Background(), `["newHeads"]`, func(result []byte) { got = append(got, string(result)) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if fmt.Sprint(got) != "[0 1 2 3 4 5 6 7 8 9]" {
			t.Errorf("%v", got)
		}
		if len(s.early) != 0 {
			t.Errorf("%d are kept", len(s.early))
		}
	})
}

func TestNotificationsBeforeTheAnswerAreBounded(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		var got []string
		go func() {
			request := l.next()
			for i := range 10 * maxEarly {
				l.notify("0xa", fmt.Sprint(i))
			}
			synctest.Wait()
			s.mu.Lock()
			if len(s.early) > maxEarly {
				t.Errorf("%d are kept", len(s.early))
			}
			s.mu.Unlock()
			l.reply(request, `"0xa"`)
		}()
		if _, err := s.Subscribe(context.Background(), `["newHeads"]`, func(result []byte) { got = append(got, string(result)) }); err != nil {
			return // it may refuse rather than lose some
		}
		for i, result := range got {
			if result != fmt.Sprint(i) {
				t.Fatalf("%v", got)
			}
		}
	})
}

// What the backend still says of a subscription that was just ended must not push
// out what is kept for the next one.
func TestEndedSubscriptionTakesNoRoomOfTheNextOne(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		go func() { l.reply(l.next(), `"0xa"`) }()
		id, err := s.Subscribe(context.Background(), `["newPendingTransactions"]`, func([]byte) {})
		if err != nil {
			t.Fatal(err)
		}
		s.Unsubscribe(id)
		l.next()
		var got []string
		go func() {
			request := l.next()
			for range maxEarly {
				l.notify("0xa", "1")
			}
			l.notify("0xb", "2")
			l.reply(request, `"0xb"`)
		}()
		if _, err := s.Subscribe(context.Background(), `["newHeads"]`, func(result []byte) { got = append(got, string(result)) }); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != "[2]" {
			t.Errorf("%v", got)
		}
	})
}

func TestSubscriptionThatIsRefused(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		go func() {
			l.say(`{"id":%d,"error":{"code":-32601,"message":"no notifications"}}`, idIn([]byte(l.next())))
		}()
		_, err := s.Subscribe(context.Background(), `["newHeads"]`, func([]byte) { t.Error("notified") })
		var e *RPCError
		if !errors.As(err, &e) || e.Code != -32601 {
			t.Error(err)
		}
		l.notify("0xa", "1")
		alive(t, s)
		if len(s.subs)+len(s.early)+len(s.waiters)+s.asking != 0 {
			t.Errorf("%v, %v, %v, %d", s.subs, s.early, s.waiters, s.asking)
		}
	})
}

// A subscription that was given up before its answer came exists at the backend
// all the same, and would send for as long as the socket lives.
func TestSubscriptionWhoseAnswerCameLateIsEnded(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := s.Subscribe(ctx, `["newHeads"]`, func([]byte) { t.Error("notified") }); !errors.Is(err, errNoAnswer) {
			t.Fatal(err)
		}
		l.reply(l.next(), `"0xa"`)
		select {
		case request := <-l.frames:
			if !strings.Contains(request, `"method":"eth_unsubscribe","params":["0xa"]`) {
				t.Errorf("%s", request)
			}
		case <-time.After(time.Minute):
			t.Error("it was not ended")
		}
	})
}

// Nor does one that was given up and is never answered keep the socket open.
func TestSubscriptionThatIsNeverAnsweredKeepsNoSocketOpen(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := s.Subscribe(ctx, `["newHeads"]`, func([]byte) {}); !errors.Is(err, errNoAnswer) {
			t.Fatal(err)
		}
		l.next()
		dead(t, s, "nobody uses it")
	})
}

// The answer and the end of the time come together.
func TestSubscriptionWhoseAnswerComesInTheLastMoment(t *testing.T) {
	for range 100 {
		onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
			s, l := f.open(b)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			go func() {
				request := l.next()
				time.Sleep(time.Second)
				l.reply(request, `"0xa"`)
			}()
			id, err := s.Subscribe(ctx, `["newHeads"]`, func([]byte) {})
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			if (err == nil) != (id == `"0xa"`) || (err == nil) != (len(s.subs) == 1) {
				t.Fatalf("id %s, %v, with %d subscriptions", id, err, len(s.subs))
			}
		})
	}
}

func TestNothingIsTakenAfterUnsubscribe(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		for round := range 20 {
			id := fmt.Sprintf("0x%x", round)
			go func() { l.reply(l.next(), `"`+id+`"`) }()
			var over atomic.Bool
			got, err := s.Subscribe(context.Background(), `["newHeads"]`, func([]byte) {
				if over.Load() {
					t.Error("taken after the end")
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			var talk sync.WaitGroup
			talk.Go(func() {
				for i := range 200 {
					l.notify(id, fmt.Sprint(i))
				}
			})
			talk.Go(func() {
				s.Unsubscribe(got)
				over.Store(true)
			})
			talk.Wait()
			if request := l.next(); !strings.Contains(request, `"method":"eth_unsubscribe","params":["`+id+`"]`) {
				t.Errorf("%s", request)
			} else {
				l.reply(request, "true")
			}
			synctest.Wait()
		}
		s.Unsubscribe(`"0x99"`) // which there is not
		s.Unsubscribe(`"0x0"`)
		l.none()
		alive(t, s)
	})
}

func TestCloseEndsEverything(t *testing.T) {
	onSocket(t, nil, func(t *testing.T, b *Backend, f *far) {
		s, l := f.open(b)
		go func() { l.reply(l.next(), `"0xa"`) }()
		if _, err := s.Subscribe(context.Background(), `["newHeads"]`, func([]byte) {}); err != nil {
			t.Fatal(err)
		}
		a := asks(s, context.Background(), "eth_call")
		l.next()
		began := time.Now()
		b.Close()
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		<-a.done
		if !errors.Is(a.err, errClosed) {
			t.Error(a.err)
		}
		dead(t, s, "the backend is closed")
		<-l.gone
		_, err := b.Socket(context.Background())
		var e *Error
		if !errors.As(err, &e) || e.Kind != Canceled {
			t.Error(err)
		}
		if _, err := s.Ask(context.Background(), "eth_call", "[]"); err == nil {
			t.Error("a dead socket answers")
		}
		if f.upgrades() != 1 {
			t.Errorf("%d upgrades", f.upgrades())
		}
	})
}

func TestCloseDoesNotWaitForADial(t *testing.T) {
	logs := new(logBuffer)
	onSocket(t, func(o *Options, f *far) {
		o.Dial, o.DialTimeout, o.Log = f.hang, time.Minute, logs.logger(slog.LevelInfo)
	}, func(t *testing.T, b *Backend, f *far) {
		done := make(chan error, 1)
		go func() {
			_, err := b.Socket(context.Background())
			done <- err
		}()
		synctest.Wait()
		began := time.Now()
		b.Close()
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		var e *Error
		if err := <-done; !errors.As(err, &e) || e.Kind != Canceled {
			t.Errorf("%v", err)
		}
		if s := b.SocketStatus(); s.Failures != 0 || logs.String() != "" {
			t.Errorf("%d s.Failures, logged %s", s.Failures, logs.String())
		}
	})
}

func TestWhoeverWaitsForADialMayLeave(t *testing.T) {
	onSocket(t, func(_ *Options, f *far) {
		f.answer = func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Second)
			f.set(nil)
			f.mu.Lock()
			f.asked = nil
			f.mu.Unlock()
			f.ServeHTTP(w, r)
		}
	}, func(t *testing.T, b *Backend, f *far) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := b.Socket(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		if s, err := b.Socket(context.Background()); err != nil || s == nil || time.Since(began) != 3*time.Second {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		if f.upgrades() != 1 {
			t.Errorf("%d upgrades", f.upgrades())
		}
	})
}

// stuck is a connection that takes its time to close.
type stuck struct {
	net.Conn
	wait chan struct{}
}

func (c *stuck) Close() error {
	<-c.wait
	return c.Conn.Close()
}

// To close a connection may take a while: whoever comes meanwhile must not be given
// the dead socket.
func TestDeadSocketIsGivenToNobody(t *testing.T) {
	wait := make(chan struct{})
	onSocket(t, func(_ *Options, f *far) {
		wait = make(chan struct{})
		f.conn = func(c net.Conn) net.Conn { return &stuck{c, wait} }
	}, func(t *testing.T, b *Backend, f *far) {
		s, _ := f.open(b)
		time.Sleep(31 * time.Second) // so that the next may be opened at once
		go s.Close(errors.New("it is over"))
		<-s.Dead()
		synctest.Wait()
		if again, err := b.Socket(context.Background()); again == s {
			t.Error("the dead socket was given out")
		} else if err != nil {
			t.Error(err)
		}
		close(wait)
	})
}

func TestHealthOfSocketsAndOfHTTPAreApart(t *testing.T) {
	withHTTP := func(o *Options, f *far) {
		o.URL, o.OutAfter, o.ResponseTimeout = "http://node.memory/", 2, time.Second
		f.post = func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"id":%d,"result":"0x1"}`, firstID(r))
		}
	}
	t.Run("sockets fail", func(t *testing.T) {
		onSocket(t, func(o *Options, f *far) { withHTTP(o, f); f.answer = refuse(500) }, func(t *testing.T, b *Backend, f *far) {
			for range 10 {
				if _, err := b.Socket(context.Background()); err == nil {
					t.Fatal("opened")
				}
				time.Sleep(time.Minute)
			}
			state(t, b, Well)
			if b.Blamed() != 0 || b.Trouble().InRow != 0 {
				t.Errorf("%d, %+v", b.Blamed(), b.Trouble())
			}
			result(t, ask(t, b, blockNumber())[0], `"0x1"`)
		})
	})
	t.Run("sockets break", func(t *testing.T) {
		onSocket(t, withHTTP, func(t *testing.T, b *Backend, f *far) {
			for range 10 {
				s, l := f.open(b)
				a := asks(s, context.Background(), "eth_call")
				l.next()
				l.CloseNow()
				<-a.done
				time.Sleep(2 * time.Minute)
			}
			state(t, b, Well)
			if b.Blamed() != 0 || b.Trouble().InRow != 0 {
				t.Errorf("%d, %+v", b.Blamed(), b.Trouble())
			}
			if s := b.SocketStatus(); s.Failures != 10 {
				t.Errorf("%d s.Failures", s.Failures)
			}
		})
	})
	t.Run("HTTP fails", func(t *testing.T) {
		onSocket(t, func(o *Options, f *far) {
			withHTTP(o, f)
			f.post = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
		}, func(t *testing.T, b *Backend, f *far) {
			for range 2 {
				try(t, b, Try{}, blockNumber()).Settle(true)
			}
			state(t, b, Out)
			s, l := f.open(b)
			a := asks(s, context.Background(), "eth_call")
			l.reply(l.next(), "1")
			if <-a.done; a.err != nil {
				t.Error(a.err)
			}
			state(t, b, Out)
			if s := b.SocketStatus(); !s.Open || s.Failures != 0 || s.Last != nil {
				t.Errorf("%t, %d, %v", s.Open, s.Failures, s.Last)
			}
		})
	})
	t.Run("HTTP is silent while a socket speaks", func(t *testing.T) {
		onSocket(t, func(o *Options, f *far) {
			withHTTP(o, f)
			f.post = func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() }
		}, func(t *testing.T, b *Backend, f *far) {
			_, l := f.open(b)
			end := make(chan struct{})
			defer close(end)
			go func() {
				for {
					select {
					case <-end:
						return
					case <-time.After(100 * time.Millisecond):
						l.notify("0xa", "1")
					}
				}
			}()
			for range 2 {
				a := try(t, b, Try{}, blockNumber())
				if e := a.Results[0].Err; e == nil || e.Kind != Timeout || e.Heard {
					t.Errorf("%+v: what a socket says is not HTTP's", e)
				}
				a.Settle(false)
			}
			state(t, b, Out)
		})
	})
}

func TestSocketsAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	count := func(name string) float64 {
		for _, family := range must(reg.Gather()) {
			if family.GetName() == "proxyd_"+name {
				return family.GetMetric()[0].GetGauge().GetValue() + family.GetMetric()[0].GetCounter().GetValue()
			}
		}
		return 0
	}
	onSocket(t, func(o *Options, f *far) { o.Metrics = NewMetrics(reg) }, func(t *testing.T, b *Backend, f *far) {
		want := func(open, failed float64) {
			t.Helper()
			synctest.Wait()
			if o, n := count("active_backend_ws_conns"), count("backend_ws_failures_total"); o != open || n != failed {
				t.Errorf("%v open, %v failed, want %v and %v", o, n, open, failed)
			}
		}
		s, _ := f.open(b)
		want(1, 0)
		dead(t, s, "nobody")
		want(0, 0)
		_, l := f.open(b)
		want(1, 0)
		l.CloseNow()
		want(0, 1)
		time.Sleep(time.Second)
		f.set(refuse(500))
		if _, err := b.Socket(context.Background()); err == nil {
			t.Error("opened")
		}
		want(0, 2)
		f.set(nil)
		time.Sleep(time.Minute)
		f.open(b)
		want(1, 2)
		b.Close()
		want(0, 2)
	})
}

func TestSecretsOfASocketAreInNoErrorLogOrAnswer(t *testing.T) {
	echo := func(r *http.Request) string {
		return fmt.Sprint(r.URL.String(), " ", r.Header.Get("Authorization"), " ", r.Header.Get("X-Api-Key"), " ", r.Header.Get("X-Auth"), " USERSECRET12 WORDSECRET12")
	}
	accepted := func(then func(c *websocket.Conn, r *http.Request, id uint64)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			_, frame, err := c.Read(context.Background())
			if err != nil {
				return
			}
			then(c, r, idIn(frame))
			c.Read(context.Background())
		}
	}
	write := func(c *websocket.Conn, text string) {
		_ = c.Write(context.Background(), websocket.MessageText, []byte(text))
	}
	providers := map[string]http.HandlerFunc{
		"status": func(w http.ResponseWriter, r *http.Request) { http.Error(w, echo(r), 500) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/PATHSECRET12?key=QUERYSECRET1", http.StatusFound)
		},
		"bad handshake": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", echo(r))
			w.WriteHeader(101)
		},
		"bad header": func(w http.ResponseWriter, r *http.Request) {
			c, _, _ := http.NewResponseController(w).Hijack()
			fmt.Fprintf(c, "HTTP/1.1 101 OK\r\n%s\r\n\r\n", r.URL)
			c.Close()
		},
		"subprotocol": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Sec-WebSocket-Protocol", "PATHSECRET12")
			accepted(func(*websocket.Conn, *http.Request, uint64) {})(w, r)
		},
		"close reason": accepted(func(c *websocket.Conn, r *http.Request, _ uint64) {
			c.Close(websocket.StatusPolicyViolation, "no /v2/PATHSECRET12?key=QUERYSECRET1 HEADSECRET12 BEARSECRET12")
		}),
		"garbage": accepted(func(c *websocket.Conn, r *http.Request, _ uint64) { write(c, echo(r)) }),
		"error": accepted(func(c *websocket.Conn, r *http.Request, id uint64) {
			text, _ := json.Marshal(echo(r))
			write(c, fmt.Sprintf(`{"id":%d,"error":{"code":-32000,"message":%s,"data":{"url":%s}}}`, id, text, text))
		}),
		"bad id": accepted(func(c *websocket.Conn, _ *http.Request, _ uint64) {
			write(c, `{"id":"PATHSECRET12","result":"PATHSECRET12"}`)
		}),
		"reset": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	check := func(name, base string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logs := new(logBuffer)
			u, set := withSecrets(base)
			reg := prometheus.NewRegistry()
			b := newBackend(t, "", func(o *Options) {
				set(o)
				o.WSURL = strings.Replace(u, "http://", "ws://", 1)
				o.Log, o.OutAfter, o.Metrics, o.ResponseTimeout = logs.logger(slog.LevelDebug), 1, NewMetrics(reg), 200*time.Millisecond
			})
			for _, calls := range [][]*jsonrpc.Call{{blockNumber()}, {blockNumber(), call("eth_call", "")}} {
				a := try(t, b, Try{}, calls...)
				a.Settle(true)
				for _, r := range a.Results {
					if r.Err != nil {
						leaks(t, "the error", r.Err.Error())
					} else {
						leaks(t, "the answer", string(r.Answer.Error))
					}
				}
			}
			if s, err := b.Socket(context.Background()); err != nil {
				leaks(t, "the error", err.Error())
			} else {
				ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
				_, err := s.Ask(ctx, "eth_call", "[]")
				leaks(t, "the error", fmt.Sprint(err))
				var e *RPCError
				if errors.As(err, &e) {
					leaks(t, "the raw error", string(e.Raw))
				}
				_, err = s.Subscribe(ctx, `["newHeads"]`, func([]byte) {})
				cancel()
				leaks(t, "the error", fmt.Sprint(err))
				leaks(t, "the end", fmt.Sprint(s.Err()))
			}
			leaks(t, "Own", fmt.Sprint(b.Own(context.Background(), "eth_chainId", "[]", time.Second).Err))
			status := b.SocketStatus()
			last := status.Last
			leaks(t, "the status", fmt.Sprint(last))
			b.Close()
			leaks(t, "the log", logs.String())
			if logs.String() == "" {
				t.Error("nothing was logged")
			}
			leaks(t, "metrics", fmt.Sprint(must(reg.Gather())))
		})
	}
	for name, p := range providers {
		check(name, provider(t, p))
	}
	check("refused", refusing(t))
	check("closed", rawServer(t, func(net.Conn) {}))
	check("unknown host", "http://backend.invalid")
}

func TestEarlyNotificationsAreBoundedInBytes(t *testing.T) {
	s := &Socket{asking: 1}
	large := make([]byte, maxEarlyBytes/4)
	for i := range 4 {
		if err := s.notify("x", large); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := s.notify("x", []byte("1")); !errors.Is(err, errEarly) {
		t.Errorf("%v", err)
	}
}
