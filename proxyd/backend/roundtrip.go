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
	stream     *stream // instead of a body
	retryAfter time.Duration
}

// exchange is one request and its answer over HTTP.
type exchange interface {
	// do sends the request and returns the answer's head.
	do() (*http.Response, error)
	// size is that of the request's body in bytes.
	size() int
	// here reports whether a piece of the answer's body has come already.
	here() bool
	// extend gives the next piece of the answer's body its time.
	extend(deadline time.Time)
	// rest stops that time while nobody reads.
	rest()
	// finish releases the connection; whole says that the body was read to its
	// end. It is called once, also without an answer.
	finish(res *http.Response, whole bool)
	// interrupt makes do and reads of the body return at once.
	interrupt(cause error)
	// written reports whether bytes of the request may have gone out.
	written() bool
}

// DefaultMaxResponseSize bounds the body of an answer that is held in memory as a
// whole, when the configuration does not.
const DefaultMaxResponseSize = 256 << 20

// maxFailureText is how much is read of a body that is no answer but may say
// why.
const maxFailureText = 64 << 10

// exchange returns the exchange for calls, and the id of the first of them.
func (a *Attempt) exchange(calls []*jsonrpc.Call) (exchange, uint64) {
	switch x := a.begun; {
	case x != nil:
		a.begun = nil
		return x, x.first
	case !a.Backend.HasHTTP():
		x := newOverSocket(a, calls)
		return x, x.first
	case a.Backend.pool == nil:
		first := a.Backend.nextIDs(len(calls))
		return &standard{a: a, calls: calls, body: appendBody(nil, calls, first)}, first
	}
	x := new(pooled)
	x.set(a, calls, time.Now())
	return x, x.first
}

// nextIDs takes n ids and returns the first.
func (b *Backend) nextIDs(n int) uint64 { return b.ids.Add(uint64(n)) - uint64(n) + 1 }

func onlyReads(calls []*jsonrpc.Call) bool {
	for _, c := range calls {
		if c.Row.Class != jsonrpc.Read {
			return false
		}
	}
	return true
}

// roundTrip sends a request and reads the answer, as a whole or up to where it
// can be streamed. The attempt's timeout runs to the head of the answer and then
// starts again with each piece of the body.
func (a *Attempt) roundTrip(x exchange, calls []*jsonrpc.Call, first uint64) (r *reply, failure *Error) {
	b := a.Backend
	var res *http.Response
	whole := false
	defer func() {
		if r == nil || r.stream == nil {
			a.detach(x)
			x.finish(res, whole)
		}
	}()
	if !a.attach(x) {
		return nil, &Error{Backend: b.opts.Name, Kind: Canceled, cause: a.canceled()}
	}
	res, err := x.do()
	if err != nil {
		return nil, a.broken(x, 0, err)
	}
	now := time.Now()
	b.health.noteHeard(now)
	if !a.try.Own {
		b.opts.Metrics.status(a, calls, res.StatusCode)
	}
	src := &a.room.body
	if r = &a.room.reply; len(a.Calls) > 1 { // there may be several parts at once
		r, src = new(reply), new(body)
	}
	*r = reply{status: res.StatusCode, retryAfter: retryAfter(res.Header, now)}
	if a.abandoned.Load() && !a.try.Finish {
		a.Cancel(errAbandoned)
		return nil, a.broken(x, 0, errAbandoned)
	}
	if r.status < 200 {
		// 101 hands the connection over to another protocol, which nobody asked
		// for; others were skipped.
		return nil, a.invalid(r, errors.New("invalid answer: an interim HTTP status"))
	}
	*src = body{a: a, x: x, res: res}
	switch err := src.open(); {
	case errors.Is(err, errEncoding), errors.Is(err, gzip.ErrHeader):
		return nil, a.invalid(r, fmt.Errorf("invalid answer: %w", err))
	case err != nil:
		return nil, a.broken(x, r.status, fmt.Errorf("read reply: %w", err))
	}
	limit := b.opts.MaxResponseSize
	if limit <= 0 {
		limit = DefaultMaxResponseSize
	}
	if a.try.Own {
		limit = min(limit, a.try.Limit)
	}
	if !b.allowed(r.status) {
		limit = min(limit, maxFailureText)
	}
	if len(calls) == 1 && calls[0].MayStream && r.status == http.StatusOK {
		r.body, r.stream, err = a.startStream(src, first)
		if r.stream != nil {
			return r, nil
		}
		whole = err == io.EOF
	}
	if err == nil {
		r.body, err = src.readAll(r.body, limit)
		whole = err == nil
	}
	switch {
	case whole:
		return r, nil
	case errors.Is(err, errWrongID):
		return nil, a.invalid(r, err)
	case !errors.Is(err, errTooLarge):
		return nil, a.broken(x, r.status, err)
	case b.allowed(r.status):
		return nil, &Error{Backend: b.opts.Name, Kind: TooLarge, HTTP: r.status, Wrote: true, cause: err}
	}
	r.body = r.body[:min(len(r.body), maxFailureText)]
	return r, nil
}

// broken is the failure of an exchange; status is 0 when no head came.
func (a *Attempt) broken(x exchange, status int, err error) *Error {
	b := a.Backend
	var own *Error // of the socket, which others may have used
	if errors.As(err, &own) {
		err, status = own.cause, max(status, own.HTTP)
	}
	e := transportError(a.canceled(), b.opts.Name, x.written(), redactedError{b.redact, err})
	e.HTTP = status
	if errors.Is(err, errTooLarge) && e.Kind == Network {
		e.Kind = TooLarge
	}
	e.Heard = b.health.heard.Load() > a.started.UnixNano()
	if e.Kind == Timeout {
		e.Whole = a.whole || e.Whole
	}
	return e
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
