package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// ErrNoSocket is returned for a backend that has no WebSocket URL.
var ErrNoSocket = errors.New("it has no ws_url")

const (
	// Sockets that cannot be opened or break early are tried again after
	// firstSocketPause, which doubles up to mostSocketPause.
	firstSocketPause, mostSocketPause = time.Second, time.Minute
	// socketSettled is how long a socket must live for the one before to be
	// forgotten.
	socketSettled = 30 * time.Second
)

// sockets keeps the WebSocket connection of one backend: one, which everybody
// shares. Its health is its own: HTTP and WebSocket may be served by different
// machines.
type sockets struct {
	b    *Backend
	url  *url.URL // nil for none
	http *http.Client

	base context.Context // of dials
	stop context.CancelFunc

	mu       sync.Mutex
	current  *Socket
	dialing  chan struct{} // closed when the dial under way has ended
	closed   bool
	failures int // in a row
	last     error
	retryAt  time.Time
	running  sync.WaitGroup
}

func (k *sockets) init(b *Backend, u *url.URL) {
	k.b, k.url = b, u
	k.base, k.stop = context.WithCancel(context.Background())
	connect := b.opts.Dial
	if connect == nil {
		connect = (&net.Dialer{Timeout: b.opts.DialTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	// net/http lets a dial go on without the request that it is for.
	dial := func(_ context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(k.base, b.opts.DialTimeout)
		defer cancel()
		return connect(ctx, network, address)
	}
	k.http = &http.Client{
		// No HTTP/2, over which sockets are not spoken here.
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dial, TLSClientConfig: b.opts.TLS.Clone(),
			TLSHandshakeTimeout: b.opts.DialTimeout, MaxResponseHeaderBytes: maxHead, DisableKeepAlives: true, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// HasSocket reports whether the backend has a WebSocket URL.
func (b *Backend) HasSocket() bool { return b.sockets.url != nil }

// HasHTTP reports whether calls can be made over HTTP.
func (b *Backend) HasHTTP() bool { return b.url != nil }

// SocketStatus is how a backend's WebSocket connections fare, apart from its HTTP.
type SocketStatus struct {
	// Open reports whether there is one now.
	Open bool
	// Failures is how many times in a row one could not be opened or broke soon, Last
	// how the last one failed, and RetryAt when the next is tried.
	Failures int
	Last     error
	RetryAt  time.Time
}

// SocketStatus returns how the backend's WebSocket connections fare.
func (b *Backend) SocketStatus() SocketStatus {
	k := &b.sockets
	k.mu.Lock()
	defer k.mu.Unlock()
	return SocketStatus{k.current != nil, k.failures, k.last, k.retryAt}
}

// Socket returns the backend's open WebSocket connection, or opens one. It fails at
// once while a pause after failures lasts.
func (b *Backend) Socket(ctx context.Context) (*Socket, error) {
	k := &b.sockets
	if k.url == nil {
		return nil, fmt.Errorf("backend %s: %w", b.opts.Name, ErrNoSocket)
	}
	for {
		k.mu.Lock()
		switch {
		case k.closed:
			k.mu.Unlock()
			return nil, &Error{Backend: b.opts.Name, Kind: Canceled, cause: errClosed}
		case k.current != nil:
			defer k.mu.Unlock()
			return k.current, nil
		case k.dialing == nil && time.Now().Before(k.retryAt):
			defer k.mu.Unlock()
			return nil, fmt.Errorf("backend %s: WebSocket left alone for %s after %d failures: %w", b.opts.Name, time.Until(k.retryAt).Round(time.Millisecond), k.failures, k.last)
		case k.dialing == nil:
			k.dialing = make(chan struct{})
			k.running.Go(k.open)
		}
		dialing := k.dialing
		k.mu.Unlock()
		select {
		case <-dialing:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		k.mu.Lock()
		s, err := k.current, k.last
		k.mu.Unlock()
		if s != nil {
			return s, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// open dials, on nobody's time but its own: others may wait for it.
func (k *sockets) open() {
	b := k.b
	defer func() {
		if v := recover(); v != nil {
			b.opts.Log.Error("panic while opening the WebSocket of a backend", "backend", b.opts.Name, "panic", fmt.Sprint(v))
		}
	}()
	ctx, cancel := context.WithTimeout(k.base, b.opts.DialTimeout)
	defer cancel()
	conn, response, err := websocket.Dial(ctx, k.url.String(), &websocket.DialOptions{HTTPClient: k.http, HTTPHeader: k.header(), Host: b.host})
	if err != nil {
		e := transportError(nil, b.opts.Name, false, redactedError{b.redact, fmt.Errorf("open WebSocket: %w", err)})
		if response != nil {
			e.HTTP = response.StatusCode // of the refused upgrade
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			e.Kind = Timeout // whichever of the two net/http calls it
		}
		err = e
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.dialing)
	k.dialing = nil
	switch {
	case k.closed && err == nil:
		_ = conn.CloseNow()
		fallthrough
	case k.closed:
		k.last = &Error{Backend: b.opts.Name, Kind: Canceled, cause: errClosed}
		return
	case err != nil:
		k.failedLocked(err)
		return
	}
	conn.SetReadLimit(-1) // see readFrame
	s := newSocket(b, conn)
	k.current, k.last = s, nil
	k.running.Go(s.read)
	k.running.Go(s.write)
	k.running.Go(s.watch)
	b.opts.Metrics.socketOpened(b.opts.Name)
	b.opts.Log.Debug("WebSocket to backend open", "backend", b.opts.Name)
}

// header returns what goes with an upgrade: credentials and configured headers, but
// nothing that speaks of a body, and no credentials that stand in the other URL.
func (k *sockets) header() http.Header {
	h := k.b.header.Clone()
	for _, name := range []string{"Content-Type", "Accept", "Accept-Encoding"} {
		h.Del(name)
	}
	o := &k.b.opts
	configured := slices.ContainsFunc(slices.Collect(maps.Keys(o.Headers)), func(name string) bool { return strings.EqualFold(name, "Authorization") })
	if !configured && o.Password == "" {
		h.Del("Authorization")
	}
	if u := k.url.User; u != nil && h.Get("Authorization") == "" {
		password, _ := u.Password()
		r := http.Request{Header: h}
		r.SetBasicAuth(u.Username(), password)
	}
	return h
}

// failedLocked notes that a socket could not be opened, or broke soon.
func (k *sockets) failedLocked(err error) {
	k.last = err
	k.retryAt = time.Now().Add(min(firstSocketPause<<min(k.failures, 10), mostSocketPause))
	k.failures++
	k.b.opts.Metrics.socketFailed(k.b.opts.Name)
	if k.failures == 1 {
		k.b.opts.Log.Warn("WebSocket to backend failed", "backend", k.b.opts.Name, "error", truncate(err.Error()))
	}
}

// ended notes that a socket is dead. One that had lived for a while may be opened
// again at once.
func (k *sockets) ended(s *Socket, why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current == s {
		k.current = nil
	}
	k.b.opts.Metrics.socketClosed(k.b.opts.Name)
	lived := time.Since(s.born) > socketSettled
	if lived {
		k.failures, k.retryAt, k.last = 0, time.Time{}, nil
	}
	if k.closed || errors.Is(why, errIdle) {
		return
	}
	if lived {
		k.b.opts.Metrics.socketFailed(k.b.opts.Name)
		k.b.opts.Log.Warn("WebSocket to backend broke", "backend", k.b.opts.Name, "error", truncate(s.Err().Error()), "after", time.Since(s.born).Round(time.Second).String())
		return
	}
	k.failedLocked(s.Err())
}

// close ends the socket and waits for what reads it.
func (k *sockets) close() {
	k.mu.Lock()
	k.closed = true
	s := k.current
	k.mu.Unlock()
	k.stop()
	if s != nil {
		s.end(errClosed)
	}
	k.running.Wait()
}
