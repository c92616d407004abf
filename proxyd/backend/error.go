package backend

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gateway.internal/proxyd/classify"
)

// Kind says in which way an attempt failed to bring an answer.
type Kind uint8

const (
	// Network is a connection that could not be made or broke.
	Network Kind = iota
	// Refused is a connection that the other side refused.
	Refused
	// Timeout is an attempt that was not answered in its time.
	Timeout
	// Status is an HTTP status that carries no answer.
	Status
	// Invalid is a body that is no answer to what was asked.
	Invalid
	// TooLarge is an answer over the size limit.
	TooLarge
	// Canceled is an attempt that the gateway ended itself: the client left,
	// the call's deadline came, or another attempt was quicker.
	Canceled
	// Overloaded is an attempt that found no slot.
	Overloaded
	// WrongChain is an answer that names another chain than the backend must
	// serve.
	WrongChain
)

var kindNames = [...]string{"network", "refused", "timeout", "status", "invalid_answer", "too_large", "canceled", "overloaded", "wrong_chain"}

func (k Kind) String() string { return kindNames[k] }

// Error says why an attempt brought no answer. Its text holds no secret.
type Error struct {
	Backend string
	Kind    Kind
	// HTTP is the HTTP status, 0 when none came.
	HTTP int
	// RPC is true when a JSON-RPC error came with an HTTP status that carries no
	// answer; Code is its code.
	RPC  bool
	Code int64
	// Wrote is true when bytes of the request may have reached the backend.
	Wrote bool
	// Whole is true when a Timeout had the backend's full response timeout,
	// and was not cut short by the deadline of the call.
	Whole bool
	// Heard is true when the backend answered anything at all, to whomever,
	// while the attempt ran.
	Heard bool
	// RetryAfter is what the backend asked for, 0 for nothing.
	RetryAfter time.Duration
	cause      error
}

// Error names the backend and the cause.
func (e *Error) Error() string {
	if e.Kind == Status && e.cause != nil {
		return fmt.Sprintf("backend %s: HTTP status %d: %v", e.Backend, e.HTTP, e.cause)
	}
	if e.cause == nil {
		return fmt.Sprintf("backend %s: HTTP status %d", e.Backend, e.HTTP)
	}
	return fmt.Sprintf("backend %s: %v", e.Backend, e.cause)
}

// Short says in a word or two how the attempt failed.
func (e *Error) Short() string {
	if e.Kind == Status {
		return fmt.Sprintf("status %d", e.HTTP)
	}
	return e.Kind.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// wrongChain says that a backend serves another chain.
func wrongChain(got, want uint64) error {
	return fmt.Errorf("serves chain id %d, not %d", got, want)
}

// IsTooLarge reports whether an answer was over max_response_size_bytes.
func IsTooLarge(err error) bool {
	var e *Error
	return errors.Is(err, errTooLarge) || errors.As(err, &e) && e.Kind == TooLarge
}

// aboutRequest reports whether the backend, or a front before it, refused the
// request for its size or form. That is the client's doing: other backends may
// have other limits, and this one is well.
func (e *Error) aboutRequest() bool {
	switch e.HTTP {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge:
		return e.Kind == Invalid || e.Kind == Status
	}
	return false
}

// blamable reports whether the error says something about the backend at all.
func (e *Error) blamable() bool {
	return !e.aboutRequest() && e.Kind != Canceled && e.Kind != Overloaded && e.Kind != TooLarge && e.HTTP != http.StatusTooManyRequests
}

// atOnce reports whether the failure counts without waiting for another
// backend's answer: no connection came about, or nothing at all was heard.
func (e *Error) atOnce() bool {
	switch e.Kind {
	case Refused:
		return true
	case Network:
		return !e.Wrote
	case Timeout:
		return e.Whole && !e.Heard
	}
	return false
}

// outcome is what a failure without classification means.
func (e *Error) outcome() classify.Outcome {
	o := classify.Outcome{Class: e.Kind.String(), Elsewhere: classify.Yes, Sick: e.blamable(), NothingRan: !e.Wrote || e.aboutRequest() && e.HTTP != http.StatusBadRequest}
	if e.Kind == TooLarge {
		o.Elsewhere = classify.No
	}
	return o
}

var errResponseTimeout = errors.New("no answer within the response timeout")

// transportError tells a failed exchange apart. canceled is why the gateway ended
// it itself, nil when it did not.
func transportError(canceled error, name string, wrote bool, err error) *Error {
	e := &Error{Backend: name, Kind: Network, Wrote: wrote, cause: err}
	var timeout net.Error
	var dial *net.OpError
	switch {
	case canceled != nil:
		e.Kind, e.cause = Canceled, canceled
	case errors.Is(err, errResponseTimeout):
		e.Kind, e.cause = Timeout, errResponseTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Kind = Refused
	case errors.As(err, &timeout) && timeout.Timeout():
		e.Kind = Timeout
		if e.Whole = errors.As(err, &dial) && dial.Op == "dial"; !e.Whole {
			e.cause = errResponseTimeout
		}
	}
	return e
}

// maxRetryAfter bounds what a backend may ask for.
const maxRetryAfter = time.Hour

// retryAfter reads a Retry-After header in either of its forms, RFC 9110
// section 10.2.3.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	var d time.Duration
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		if !(seconds > 0) {
			return 0
		}
		d = time.Duration(min(seconds, maxRetryAfter.Seconds()) * float64(time.Second))
	} else if at, err := http.ParseTime(value); err == nil {
		d = at.Sub(now)
	}
	return max(0, min(d, maxRetryAfter))
}
