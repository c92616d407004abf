package backend

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// standard is one exchange through net/http's Transport, for what our own pool
// does not speak: HTTP/2 and HTTP proxies.
type standard struct {
	a      *Attempt
	calls  []*jsonrpc.Call
	body   []byte
	cancel context.CancelCauseFunc
	timer  *time.Timer
	wrote  atomic.Bool
}

func (x *standard) do() (*http.Response, error) {
	b := x.a.Backend
	ctx, cancel := context.WithCancelCause(x.a.context())
	x.cancel = cancel
	x.timer = time.AfterFunc(x.a.try.Timeout, func() { cancel(errResponseTimeout) })
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { x.wrote.Store(true) }})
	again := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.body)), nil }
	first, _ := again()
	res, err := b.transport.current(time.Now()).RoundTrip((&http.Request{
		Method: http.MethodPost, URL: b.url, Host: b.host, Header: b.requestHeader(x.calls),
		Body: first, ContentLength: int64(len(x.body)), GetBody: again,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(traced))
	if err != nil && context.Cause(ctx) == errResponseTimeout {
		err = errResponseTimeout
	}
	return res, err
}

func (x *standard) here() bool { return false }

func (x *standard) rest() { x.timer.Stop() }

func (x *standard) extend(deadline time.Time) { x.timer.Reset(time.Until(deadline)) }

func (x *standard) finish(res *http.Response, _ bool) {
	if res != nil {
		_ = res.Body.Close()
	}
	if x.cancel != nil { // it has begun
		x.timer.Stop()
		x.cancel(nil)
	}
}

// interrupt has nothing to do: the context is the attempt's, and ends with it.
func (x *standard) interrupt(error) {}

func (x *standard) written() bool { return x.wrote.Load() }

func (x *standard) size() int { return len(x.body) }
