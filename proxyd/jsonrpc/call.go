// Package jsonrpc holds the words that every stage of the gateway shares: a
// call and its answer, the envelope scanner, the method table, and the Handler
// through which a slice of calls travels.
//
// Nothing here decodes params or results. The scanner checks the JSON grammar
// and remembers where the parts stand; the bytes themselves stay as they came.
package jsonrpc

import (
	"context"
	"net/netip"
)

// Call is one JSON-RPC request on its way through the gateway. A single
// request travels as a slice of one call, a batch as a slice of many.
type Call struct {
	// Method is the name as the client spelled it, after JSON unescaping.
	Method string
	// Params are the bytes of the params member, nil when it was absent.
	Params []byte
	// ID is the id member as the client spelled it; nil is answered as null.
	ID []byte

	// Row is what the method table says of Method; never nil after routing.
	Row *Row
	// Label names the method in metrics and per-method tables. The
	// configuration and the method table bound its values.
	Label string
	// Epoch counts the calls of the same batch before this one that are not
	// reads. Two equal reads may share an answer only within one epoch.
	Epoch int
	// Client says who asked; never nil after the front has built the call.
	Client *Client

	// Only names the backend that must answer, "" for any. A call with it travels
	// alone in its slice.
	Only string

	// MayStream allows an Answer whose result is still coming. Only the front
	// sets it, for the only call of an HTTP request; a stage that needs the
	// bytes of the result clears it.
	MayStream bool

	// Then, when it is set, runs once the answer stands in the queue to the client's
	// socket: a subscription begins with it.
	Then func()

	// Answer is what somebody answered, a JSON-RPC error included.
	Answer *Answer
	// Err says why nobody could answer. At most one of Answer and Err is set.
	Err error
}

// Done reports whether the call has an answer or an error.
func (c *Call) Done() bool { return c.Answer != nil || c.Err != nil }

// Client says who sent a call and what of that goes upstream.
type Client struct {
	// Addr is the client's address; the zero Addr for the gateway itself.
	Addr netip.Addr
	// Key is what limits count by: the address, IPv6 cut to its /64.
	Key string
	// Auth is the alias of the client's key, "none" without one.
	Auth string
	// Exempt is true when the client showed one of API_KEYS.
	Exempt bool
	// Archive is true when only backends of type archive are asked.
	Archive bool
	// ForwardedFor is the X-Forwarded-For value for upstream requests, ""
	// for none.
	ForwardedFor string
	// OptimismSignature is copied upstream as X-Optimism-Signature.
	OptimismSignature string
	// Origin and UserAgent are the headers of that name, for exemptions.
	Origin, UserAgent string
	// RequestID joins the log lines of one request.
	RequestID string
	// Source is the transport the client used: "http" or "ws".
	Source string
	// Batched is true when the client sent a JSON array.
	Batched bool
	// Session is the client's socket, which takes notifications; nil over HTTP.
	Session Session
}

// Session is a client's socket as the stages see it. Its methods may be called by
// many goroutines, and none of them waits.
type Session interface {
	// Notify queues a notification of the subscription with the id, whose result is
	// JSON that nobody changes any more. A socket that cannot keep up is closed.
	Notify(id string, result []byte)
	// Lose ends the socket because events were lost that its client was promised;
	// reason is for the client, at most 123 bytes.
	Lose(reason string)
	// OnEnd runs f when the socket has ended; at once when it has already.
	OnEnd(f func())
}

// Answer is what a backend, the cache or the gateway answered to one call.
// Exactly one of Result, Error and Stream is set. The bytes are never changed
// after the answer is built, so that calls may share them.
type Answer struct {
	// Result is the JSON of the result member, as the provider sent it.
	Result []byte
	// Error is the JSON of the error member, as the provider sent it, apart
	// from redacted secrets.
	Error []byte
	// Stream is a result that is still coming: no two calls share it.
	Stream Stream
	// Code is the code of Error.
	Code int64
	// Status is the HTTP status that came with the answer: 0 means 200.
	Status int
	// Backend is the backend that answered: its name, "cache", or "proxyd"
	// for the gateway itself.
	Backend string
	// Group is the backend group, "" when no group was asked.
	Group string
}

// Handler answers calls.
//
// ServeRPC gives every call of the slice that is not Done an answer, when
// somebody answered it, even with a JSON-RPC error; or an error, when nobody
// could. It never changes what the client sent.
type Handler interface {
	ServeRPC(ctx context.Context, calls []*Call)
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(ctx context.Context, calls []*Call)

// ServeRPC calls f.
func (f HandlerFunc) ServeRPC(ctx context.Context, calls []*Call) { f(ctx, calls) }

// Middleware wraps a Handler.
type Middleware func(Handler) Handler

// Chain wraps h so that the first of the middlewares sees the calls first.
// Nil middlewares are left out.
func Chain(h Handler, middlewares ...Middleware) Handler {
	for i := len(middlewares) - 1; i >= 0; i-- {
		if middlewares[i] != nil {
			h = middlewares[i](h)
		}
	}
	return h
}

// Pending returns the calls that are not Done, without allocating when all are
// pending.
func Pending(calls []*Call) []*Call {
	for i, c := range calls {
		if !c.Done() {
			continue
		}
		open := append([]*Call(nil), calls[:i]...)
		for _, c := range calls[i+1:] {
			if !c.Done() {
				open = append(open, c)
			}
		}
		return open
	}
	return calls
}
