package backend

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// maxConnAge is how long connections are used before new ones are dialled, so
// that a change of DNS is seen.
const maxConnAge = 5 * time.Minute

// http2Window is how many bytes of an answer may wait for a slow client.
const http2Window = 256 << 10

// transport is the pool of connections of one backend. Every maxConnAge a new
// pool takes over; what the old one still carries runs to its end.
type transport struct {
	opts Options
	mu   sync.Mutex
	pool *http.Transport
	born time.Time
}

func (t *transport) dial(o Options) { t.opts = o }

// current returns the pool for a new request.
func (t *transport) current(now time.Time) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pool == nil || now.Sub(t.born) > maxConnAge {
		old := t.pool
		t.pool, t.born = t.newPool(), now
		if old != nil {
			old.CloseIdleConnections()
		}
	}
	return t.pool
}

func (t *transport) newPool() *http.Transport {
	dial := t.opts.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: t.opts.DialTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	pool := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dial,
		TLSClientConfig:        t.opts.TLS.Clone(),
		TLSHandshakeTimeout:    t.opts.DialTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // the attempt asks for and undoes it itself
		MaxIdleConnsPerHost:    512,
		IdleConnTimeout:        90 * time.Second,
		ExpectContinueTimeout:  time.Second,
		ReadBufferSize:         16 << 10,
		MaxResponseHeaderBytes: maxHead,
		HTTP2:                  &http.HTTP2Config{MaxReceiveBufferPerStream: http2Window},
	}
	return pool
}

func (t *transport) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pool != nil {
		t.pool.CloseIdleConnections()
	}
}
