package backend

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// reply is what came back over HTTP.
type reply struct {
	status     int
	body       []byte
	retryAfter time.Duration
}

// exchange is one request and its answer over HTTP.
type exchange interface {
	// do sends the body of a request and returns the answer's head.
	do(body []byte) (*http.Response, error)
	// extend gives the next piece of the answer's body its time.
	extend(deadline time.Time)
	// finish releases the connection; whole says that the body was read to its
	// end. It is called once, also without an answer.
	finish(res *http.Response, whole bool)
	// interrupt makes do and reads of the body return at once.
	interrupt(cause error)
	// written reports whether bytes of the request may have gone out.
	written() bool
}

// DefaultMaxResponseSize bounds an answer's body when the configuration does not:
// an answer is held in memory as a whole.
const DefaultMaxResponseSize = 256 << 20

// maxFailureText is how much is read of a body that is no answer but may say
// why.
const maxFailureText = 64 << 10

// newExchange returns the exchange for calls.
func (a *Attempt) newExchange(calls []*jsonrpc.Call) exchange {
	if a.Backend.pool == nil {
		return &standard{a: a, calls: calls}
	}
	return &pooled{a: a, calls: calls, pool: a.Backend.pool, timeout: a.try.Timeout, repeat: onlyReads(calls)}
}

func onlyReads(calls []*jsonrpc.Call) bool {
	for _, c := range calls {
		if c.Row.Class != jsonrpc.Read {
			return false
		}
	}
	return true
}

// nextDeadline is when the next piece of a body must have come: every piece has
// the attempt's timeout anew, but all together no more than the attempt's share
// of the call's time, so that a trickle does not keep the call from others.
func (a *Attempt) nextDeadline() time.Time {
	next := time.Now().Add(a.try.Timeout)
	if next.After(a.ends) {
		return a.ends
	}
	return next
}

// roundTrip posts body and reads the whole answer. The attempt's timeout runs to
// the head of the answer and then starts again with each piece of the body.
func (a *Attempt) roundTrip(body []byte, calls []*jsonrpc.Call) (r *reply, failure *Error) {
	b := a.Backend
	x := a.newExchange(calls)
	if !a.attach(x) {
		return nil, &Error{Backend: b.opts.Name, Kind: Canceled, cause: a.canceled()}
	}
	var res *http.Response
	whole := false
	defer func() {
		a.detach(x)
		x.finish(res, whole)
	}()
	failed := func(err error) *Error {
		e := transportError(a.canceled(), b.opts.Name, x.written(), redactedError{b.redact, err})
		e.Heard = b.health.heard.Load() > a.started.UnixNano()
		if e.Kind == Timeout {
			e.Whole = a.whole || e.Whole
		}
		return e
	}
	res, err := x.do(body)
	if err != nil {
		return nil, failed(err)
	}
	now := time.Now()
	b.health.noteHeard(now)
	b.opts.Metrics.status(a, calls, res.StatusCode)
	r = &reply{status: res.StatusCode, retryAfter: retryAfter(res.Header, now)}
	if a.abandoned.Load() && !a.try.Finish {
		a.Cancel(errAbandoned)
		return nil, failed(errAbandoned)
	}
	broken := func(err error) *Error {
		e := failed(fmt.Errorf("read reply: %w", err))
		e.HTTP = r.status
		return e
	}
	if r.status < 200 {
		// 101 hands the connection over to another protocol, which nobody asked
		// for; others were skipped.
		return nil, a.invalid(r, errors.New("invalid answer: an interim HTTP status"))
	}
	limit := b.opts.MaxResponseSize
	if limit <= 0 {
		limit = DefaultMaxResponseSize
	}
	if !b.allowed(r.status) {
		limit = min(limit, maxFailureText)
	}
	var src io.Reader = &progress{r: res.Body, a: a, x: x}
	size := res.ContentLength
	switch encoding := strings.ToLower(res.Header.Get("Content-Encoding")); {
	case encoding == "" || encoding == "identity":
	case encoding != "gzip": // which comes unasked now and then
		return nil, a.invalid(r, errors.New("invalid answer: a content encoding that was not asked for"))
	default:
		switch src, err = gzip.NewReader(src); {
		case errors.Is(err, gzip.ErrHeader):
			return nil, a.invalid(r, fmt.Errorf("invalid answer: %w", err))
		case err != nil:
			return nil, broken(err)
		}
		size = -1
	}
	r.body, err = readAll(src, size, limit)
	switch {
	case err == nil:
		whole = true
		return r, nil
	case errors.Is(err, errTooLarge) && !b.allowed(r.status):
		return r, nil
	case errors.Is(err, errTooLarge):
		return nil, &Error{Backend: b.opts.Name, Kind: TooLarge, HTTP: r.status, Wrote: true, cause: err}
	}
	return nil, broken(err)
}

// requestHeader returns the header for calls of one client.
func (b *Backend) requestHeader(calls []*jsonrpc.Call) http.Header {
	read := onlyReads(calls)
	forwarded, signature := b.fromClient(calls[0].Client)
	if forwarded == "" && signature == "" && !read {
		return b.header
	}
	h := make(http.Header, len(b.header)+3)
	for name, values := range b.header {
		h[name] = values
	}
	if forwarded != "" {
		h["X-Forwarded-For"] = []string{forwarded}
	}
	if signature != "" {
		h["X-Optimism-Signature"] = []string{signature}
	}
	if read {
		// Never sent: an empty value tells net/http that it may repeat the
		// request on a new connection when an idle one turns out to be dead.
		h["X-Idempotency-Key"] = nil
	}
	return h
}

// fromClient returns what of a client goes upstream, where the configuration
// says nothing else.
func (b *Backend) fromClient(client *jsonrpc.Client) (forwarded, signature string) {
	if client == nil {
		return "", ""
	}
	if _, configured := b.header["X-Forwarded-For"]; !configured {
		forwarded = b.forwardedFor(client.ForwardedFor)
	}
	if _, configured := b.header["X-Optimism-Signature"]; !configured {
		signature = client.OptimismSignature
	}
	return forwarded, signature
}

// forwardedFor returns the X-Forwarded-For value to send.
func (b *Backend) forwardedFor(value string) string {
	switch {
	case value == "":
		return ""
	case b.opts.StripTrailingXFF:
		first, _, _ := strings.Cut(value, ",")
		return strings.TrimSpace(first)
	case b.opts.ProxyIP != "":
		return value + ", " + b.opts.ProxyIP
	}
	return value
}

// redactedError hides a backend's secrets in the text of an error.
type redactedError struct {
	redact *redactor
	err    error
}

func (e redactedError) Error() string { return e.redact.text(e.err.Error()) }
func (e redactedError) Unwrap() error { return e.err }

// progress gives each piece of a body its time, as long as anybody waits for the
// attempt, and notes that the backend was heard.
type progress struct {
	r io.Reader
	a *Attempt
	x exchange
}

func (p *progress) Read(b []byte) (int, error) {
	if !p.a.abandoned.Load() {
		p.x.extend(p.a.nextDeadline())
	}
	n, err := p.r.Read(b)
	if n > 0 {
		p.a.Backend.health.noteHeard(time.Now())
	}
	return n, err
}

var errTooLarge = errors.New("answer larger than max_response_size_bytes")

// readAll reads r to its end. size is the expected length, -1 when unknown; the
// memory taken never runs far ahead of what has come.
func readAll(r io.Reader, size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, errTooLarge
	}
	first := int64(512)
	if size >= 0 {
		first = min(size+1, 1<<20)
	}
	buf := make([]byte, 0, first)
	for {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), grow(int64(cap(buf)), size))
			copy(grown, buf)
			buf = grown
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > limit {
			return buf[:limit], errTooLarge
		}
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// grow returns the next capacity: double, but no more than the expected size
// needs.
func grow(old, size int64) int64 {
	if size > old {
		return min(2*old, size+1)
	}
	return 2 * old
}
