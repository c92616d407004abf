package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/jsonrpc"
	"gateway.internal/proxyd/ratelimit"
)

// Errors of the front itself.
var (
	errNoAddress    = errors.New("request does not include a remote IP")
	errBodyTooLarge = errors.New("request body too large")
	errUnauthorized = errors.New("unauthorized: no valid key")
	errBodyTimeout  = errors.New("request body came too slowly")
	errOrigin       = errors.New("calls of web pages are not served here")
	errInternal     = errors.New("internal error")
	errNoChain      = errors.New("no chain here: the path must name a chain")
	errUnknownChain = errors.New("no such chain")
	errSocketOrigin = errors.New("the page's origin may not open WebSocket connections here: it is not the host's, and not in cors_allowed_origins, and allow_all_origins is off")
	errNoSockets    = errors.New("no WebSocket connections here: the chain has no ws_backend_group")
	errNotify       = errors.New("notifications not supported: subscribe with eth_subscribe over WebSocket")
	errDraining     = errors.New("the gateway is shutting down")
	// The limits of sockets.
	errSocketBusy    = errors.New("too many calls in flight on this socket")
	errSockets       = errors.New("too many WebSocket connections")
	errClientSockets = errors.New("too many WebSocket connections of this client")
)

// verdict is how an error looks to a client.
type verdict struct {
	code    int64
	status  int
	message string
	data    []byte
	// retryAfter asks the client to wait, 0 for nothing.
	retryAfter time.Duration
	// limit is the rate limit that was passed, 0 for none.
	limit int64
}

// statusClientGone is what nginx logs for a client that left.
const statusClientGone = 499

// plain are the errors that say the same every time. This function and this
// table are the only place that maps an error to a code and an HTTP status.
var plain = []struct {
	err    error
	code   int64
	status int
}{
	{jsonrpc.ErrParse, -32700, 400},
	{jsonrpc.ErrVersion, -32600, 400},
	{jsonrpc.ErrNoMethod, -32600, 400},
	{jsonrpc.ErrID, -32600, 400},
	{jsonrpc.ErrMember, -32600, 400},
	{jsonrpc.ErrEmptyBatch, -32600, 400},
	{errNoAddress, -32600, 400},
	{errUnauthorized, -32600, 401},
	{errOrigin, -32600, 403},
	{errNoChain, -32600, 404},
	{errUnknownChain, -32600, 404},
	{jsonrpc.ErrNotAllowed, -32601, 403},
	{errNotify, -32601, 200},
	{errSocketOrigin, -32600, 403},
	{errNoSockets, -32600, 405},
	{jsonrpc.ErrBatchSize, -32014, 413},
	{errBodyTooLarge, -32021, 413},
	{errBodyTimeout, -32015, 408},
	{group.ErrTimeout, -32015, 504},
	{context.DeadlineExceeded, -32015, 504},
	{group.ErrTooLarge, -32020, 500},
	{ratelimit.ErrStore, -32016, 429},
}

// judge says how an error looks to a client. The order is from the special to
// the general; what is not known is an internal error, without its text.
func (s *Server) judge(err error) verdict {
	var refused *ratelimit.Refused
	var unserviceable *group.Unserviceable
	var allFailed *group.AllFailed
	var unknown *group.OutcomeUnknown
	switch {
	case errors.As(err, &refused):
		return verdict{code: -32016, status: 429, message: s.message(s.opts.RateLimitMessage, "over rate limit"), retryAfter: max(refused.Reset, time.Second), limit: refused.Limit}
	case errors.As(err, &unknown):
		v := verdict{code: -32015, status: 504, message: unknown.Error()}
		if unknown.Hash != "" {
			v.data = jsonrpc.AppendString(nil, unknown.Hash)
		}
		return v
	case errors.As(err, &allFailed):
		v := verdict{code: -32011, status: 503, message: allFailed.Error(), retryAfter: time.Second}
		if errors.As(err, &unserviceable) {
			v.retryAfter = max(unserviceable.RetryAfter, time.Second)
		}
		if allFailed.TimedOut {
			v.code, v.status, v.retryAfter = -32015, 504, 0
		}
		return v
	case errors.Is(err, group.ErrNoArchive): // which waiting does not mend
		return verdict{code: -32011, status: 503, message: group.ErrNoArchive.Error()}
	case errors.As(err, &unserviceable):
		return verdict{code: -32011, status: 503, message: "no backend is currently healthy to serve traffic", retryAfter: max(unserviceable.RetryAfter, time.Second)}
	case errors.Is(err, group.ErrOverCapacity):
		return verdict{code: -32012, status: 429, message: err.Error(), retryAfter: time.Second}
	case errors.Is(err, backend.ErrOverloaded):
		return verdict{code: -32024, status: 429, message: "too many requests", retryAfter: time.Second}
	case errors.Is(err, errSocketBusy), errors.Is(err, errClientSockets):
		return verdict{code: -32024, status: 429, message: err.Error(), retryAfter: time.Second}
	case errors.Is(err, errSockets), errors.Is(err, errDraining):
		return verdict{code: -32024, status: 503, message: err.Error(), retryAfter: time.Second}
	case errors.Is(err, errStreams):
		return verdict{code: -32024, status: 429, message: errStreams.Error(), retryAfter: time.Second}
	case errors.Is(err, context.Canceled):
		return verdict{code: -32023, status: statusClientGone, message: "context canceled"}
	}
	for _, p := range plain {
		if !errors.Is(err, p.err) {
			continue
		}
		v := verdict{code: p.code, status: p.status, message: p.err.Error()}
		switch p.err {
		case jsonrpc.ErrNotAllowed:
			v.message = s.message(s.opts.WhitelistMessage, v.message)
		case jsonrpc.ErrBatchSize:
			v.message = s.message(s.opts.BatchMessage, v.message)
		case context.DeadlineExceeded:
			v.message = group.ErrTimeout.Error()
		case ratelimit.ErrStore:
			v.message, v.retryAfter = s.message(s.opts.RateLimitMessage, "over rate limit"), time.Second
		}
		return v
	}
	return verdict{code: -32000, status: 500, message: errInternal.Error()}
}

func (s *Server) message(configured, otherwise string) string {
	if configured != "" {
		return configured
	}
	return otherwise
}

// header puts into h what a client should know of the error. Of several in a
// batch the longest wait stands.
func (v *verdict) header(h http.Header) {
	if v.retryAfter <= 0 || h == nil { // a socket has no header
		return
	}
	seconds := int64((v.retryAfter + time.Second - 1) / time.Second)
	if longest(h, "Retry-After", seconds) {
		h.Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	if v.limit > 0 && longest(h, "RateLimit-Reset", seconds) {
		h.Set("RateLimit-Limit", strconv.FormatInt(v.limit, 10))
		h.Set("RateLimit-Remaining", "0")
		h.Set("RateLimit-Reset", strconv.FormatInt(seconds, 10))
	}
}

// longest reports whether seconds is more than what the header says already.
func longest(h http.Header, name string, seconds int64) bool {
	said, err := strconv.ParseInt(h.Get(name), 10, 64)
	return err != nil || seconds > said
}

// append appends the call's answer object and returns the HTTP status that a
// lone call is answered with. h is nil over a socket.
func (s *Server) append(dst []byte, c *jsonrpc.Call, h http.Header) ([]byte, int) {
	if c.Answer != nil {
		status := c.Answer.Status
		if status == 0 {
			status = http.StatusOK
		}
		return jsonrpc.AppendAnswer(dst, c.ID, c.Answer), status
	}
	err := c.Err
	if err == nil {
		err = errInternal // no stage may leave a call open
	}
	v := s.judge(err)
	v.header(h)
	return jsonrpc.AppendError(dst, c.ID, v.code, v.message, v.data), v.status
}
