// Package backend speaks to one URL of a provider: the connection, the bytes out
// and in, what the answer means, and the one state machine that says how the
// backend is. Probes and client traffic report to the same state machine.
package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

// Options configures a backend. Zero values mean the stated default.
type Options struct {
	// Name is the name in the configuration, used in logs and metrics.
	Name string
	// URL is where requests are posted, WSURL where WebSocket connections go. They
	// may hold secrets; one of them may be "". Without URL calls go over WebSocket.
	URL, WSURL string
	// Username and Password are sent as basic auth when Password is not "".
	Username, Password string
	// Headers are set last and replace what stands there.
	Headers map[string]string
	// TLS configures https; nil for the system's roots.
	TLS *tls.Config
	// StripTrailingXFF forwards only the first X-Forwarded-For entry.
	StripTrailingXFF bool
	// ProxyIP is appended to X-Forwarded-For; "" for nothing.
	ProxyIP string
	// HTTP2 uses net/http's Transport, which speaks HTTP/2 where TLS offers it.
	HTTP2 bool
	// Gzip asks for compressed answers.
	Gzip bool

	// ResponseTimeout bounds one attempt from its start to the head of the
	// answer, and then every pause in the body. Default 5 s.
	ResponseTimeout time.Duration
	// DialTimeout bounds a new connection, TLS included. Default 5 s.
	DialTimeout time.Duration
	// Dial makes the connections; nil for TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// MaxResponseSize bounds an answer's body in bytes after decompression; 0
	// is no bound for what streams, and DefaultMaxResponseSize for the rest.
	MaxResponseSize int64
	// AllowedStatuses are the HTTP statuses other than 200 whose body is read
	// as an answer. Default 400 and 413.
	AllowedStatuses []int
	// MaxRetries caps the extra rounds in which this backend is asked.
	MaxRetries int

	// MaxRPS is the number of calls a second before others are asked first; 0
	// is unlimited. With MaxRPSStrict calls beyond are refused.
	MaxRPS       float64
	MaxRPSStrict bool

	// OutAfter failures in a row take the backend out of service for OutFor.
	// Defaults 3 and 30 s.
	OutAfter int
	OutFor   time.Duration
	// MaxErrorRate and MaxLatency put the backend behind healthy ones while
	// its five-minute window is at or over them; DegradedLatency is shown in
	// metrics. Defaults 0.5, 10 s, 5 s.
	MaxErrorRate    float64
	MaxLatency      time.Duration
	DegradedLatency time.Duration

	// ChainID is the chain that the backend must serve, 0 for any. One that
	// answers eth_chainId otherwise is refused.
	ChainID uint64
	// Verify leaves the backend alone until it has answered eth_chainId as it
	// must: somebody asks it by Own.
	Verify bool
	// Recovery replaces the usual hold-off after a rate limit; nil keeps it.
	Recovery *Recovery
	// ProbedRecovery says that somebody calls ProbeRecovery, so that no call of
	// a client is used to try the backend after a rate limit.
	ProbedRecovery bool

	// Account is shared by the backends of one provider account, nil for none.
	Account *Account
	// Slots bounds the attempts in flight of the whole process, nil for none.
	Slots *Slots
	// Classify is the error table, required.
	Classify *classify.Table
	// Metrics and Log are required.
	Metrics *Metrics
	Log     *slog.Logger
}

// Backend is one URL of a provider. Its methods may be called by many
// goroutines.
type Backend struct {
	opts      Options
	url       *url.URL // nil for none
	sockets   sockets
	header    http.Header
	host      string // Host header when configured
	transport transport
	pool      *pool  // nil where the transport is used
	head      []byte // of every request through the pool
	redact    *redactor
	health    health
	flights   flights
	tokens    *rate.Limiter
	ids       atomic.Uint64
	batchCap  learnt
	missing   unsupported
	labels    codeLabels
	lines     LineLimit

	// attempts counts those under way, which may outlive their calls, for Close.
	attempts sync.WaitGroup
}

// New builds a backend. It neither dials nor starts anything; Close releases
// what traffic has started.
func New(o Options) (*Backend, error) {
	u, err := parseURL(o.URL, "http", "https")
	if err != nil {
		return nil, fmt.Errorf("backend %s: the URL %w", o.Name, err)
	}
	ws, err := parseURL(o.WSURL, "ws", "wss")
	if err != nil {
		return nil, fmt.Errorf("backend %s: the WebSocket URL %w", o.Name, err)
	}
	if u == nil && ws == nil {
		return nil, fmt.Errorf("backend %s: it has neither a URL nor a WebSocket URL", o.Name)
	}
	setDefault(&o.ResponseTimeout, 5*time.Second)
	setDefault(&o.DialTimeout, 5*time.Second)
	setDefault(&o.OutAfter, 3)
	setDefault(&o.OutFor, 30*time.Second)
	setDefault(&o.MaxErrorRate, 0.5)
	setDefault(&o.MaxLatency, 10*time.Second)
	setDefault(&o.DegradedLatency, 5*time.Second)
	if len(o.AllowedStatuses) == 0 {
		o.AllowedStatuses = []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge}
	}
	b := &Backend{opts: o, url: u}
	b.buildHeader()
	b.redact = newRedactor(o, u, ws)
	b.sockets.init(b, ws)
	b.transport.dial(o)
	b.health.init(&b.opts)
	b.flights.init(b)
	if o.MaxRPS > 0 {
		b.tokens = rate.NewLimiter(rate.Limit(o.MaxRPS), max(1, int(o.MaxRPS)))
	}
	if u != nil {
		b.openPool()
	}
	o.Metrics.watch(b)
	return b, nil
}

// parseURL parses a URL of one of two schemes. That of "" is nil.
func parseURL(text, scheme, secure string) (*url.URL, error) {
	if text == "" {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != scheme && u.Scheme != secure {
		return nil, fmt.Errorf("must be %s:// or %s:// with a host", scheme, secure)
	}
	return u, nil
}

func setDefault[T int | float64 | time.Duration](v *T, otherwise T) {
	if *v == 0 {
		*v = otherwise
	}
}

// buildHeader makes the part of the request header that all calls share.
func (b *Backend) buildHeader() {
	h := http.Header{
		"Content-Type":    {"application/json"},
		"Accept":          {"application/json"},
		"Accept-Encoding": {"identity"},
		"User-Agent":      {"proxyd"},
	}
	if b.opts.Gzip {
		h.Set("Accept-Encoding", "gzip")
	}
	if b.opts.Password != "" {
		r := http.Request{Header: h}
		r.SetBasicAuth(b.opts.Username, b.opts.Password)
	} else if b.url != nil && b.url.User != nil {
		password, _ := b.url.User.Password()
		r := http.Request{Header: h}
		r.SetBasicAuth(b.url.User.Username(), password)
	}
	for name, value := range b.opts.Headers {
		if http.CanonicalHeaderKey(name) == "Host" {
			b.host = value
			continue
		}
		h.Set(name, value)
	}
	b.header = h
}

// Name is the backend's name in the configuration.
func (b *Backend) Name() string { return b.opts.Name }

// MaxRetries caps the extra rounds in which the backend is asked.
func (b *Backend) MaxRetries() int { return b.opts.MaxRetries }

// ResponseTimeout bounds one attempt.
func (b *Backend) ResponseTimeout() time.Duration { return b.opts.ResponseTimeout }

// TakeTokens reports whether n more calls are within max_rps, and counts them.
func (b *Backend) TakeTokens(n int) bool {
	return b.tokens == nil || b.tokens.AllowN(time.Now(), min(n, b.tokens.Burst()))
}

// Room is how many calls are left of max_rps at this moment.
func (b *Backend) Room() float64 {
	if b.tokens == nil {
		return float64(1 << 30)
	}
	return b.tokens.Tokens()
}

// Strict reports whether calls beyond max_rps are refused.
func (b *Backend) Strict() bool { return b.opts.MaxRPSStrict }

// Supports reports whether the backend is not known to lack the method.
func (b *Backend) Supports(label string) bool { return !b.missing.has(label) }

// Close ends the attempts that nobody waits for, waits for them, and closes the
// idle connections.
func (b *Backend) Close() {
	b.flights.cancelAll(errClosed)
	b.attempts.Wait()
	b.sockets.close()
	b.flights.stop()
	b.transport.close()
	if b.pool != nil {
		b.pool.close()
	}
	b.opts.Metrics.forget(b)
}

// allowed reports whether a body that came with status is read as an answer.
func (b *Backend) allowed(status int) bool {
	return status == http.StatusOK || slices.Contains(b.opts.AllowedStatuses, status)
}

// ErrOverloaded is returned by Slots when max_concurrent_rpcs attempts are in
// flight and none ended within the wait.
var ErrOverloaded = errors.New("too many upstream calls in flight")

// Slots bounds the attempts in flight of the process.
type Slots struct {
	free chan struct{}
	wait time.Duration
}

// NewSlots allows n attempts at once; one more waits at most wait for its turn.
func NewSlots(n int, wait time.Duration) *Slots {
	return &Slots{free: make(chan struct{}, n), wait: wait}
}

// try takes a slot if there is one.
func (s *Slots) try() bool {
	if s == nil {
		return true
	}
	select {
	case s.free <- struct{}{}:
		return true
	default:
		return false
	}
}

// acquire takes a slot, or returns ErrOverloaded or the context's error.
func (s *Slots) acquire(a *Attempt) error {
	if s.try() {
		return nil
	}
	ctx := a.context()
	t := time.NewTimer(s.wait)
	defer t.Stop()
	select {
	case s.free <- struct{}{}:
		return nil
	case <-t.C:
		return ErrOverloaded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Slots) release() {
	if s != nil {
		<-s.free
	}
}

// Batched is the label of a batch in per-method tables.
const Batched = "<batch>"

func attemptLabel(calls []*jsonrpc.Call) string {
	if len(calls) == 1 {
		return calls[0].Label
	}
	return Batched
}
