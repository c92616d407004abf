package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

// ask asks an upstream for calls, a batch when they are many, and checks the
// answers: their ids, and that each result has so many bytes. Many goroutines use
// it at once.
type ask func(calls []*jsonrpc.Call, size int) error

// clients is the table of all; the first is what the others are compared with.
var clients = []struct {
	name string
	open func(addr string) ask
}{
	{"backend, own pool", func(addr string) ask { return openBackend(addr, false) }},
	{"backend, net/http", func(addr string) ask { return openBackend(addr, true) }},
	{"bare net/http", func(addr string) ask { return bare(openTransport(addr)) }},
	{"bare fasthttp", func(addr string) ask { return bare(openFasthttp(addr)) }},
}

const (
	timeout = 5 * time.Second
	conns   = 512
	buffer  = 16 << 10 // a batch of 100 fits, and its answer
)

// header is that of proxyd/backend, so that all clients send the same.
var header = http.Header{
	"Content-Type": {"application/json"}, "Accept": {"application/json"},
	"Accept-Encoding": {"identity"}, "User-Agent": {"proxyd"},
}

// openBackend asks as a group of backends does.
func openBackend(addr string, standard bool) ask {
	b := must(backend.New(backend.Options{
		Name: "node1", URL: "http://" + addr, HTTP2: standard, ResponseTimeout: timeout, Classify: must(classify.New(nil)),
		Metrics: backend.NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler),
	}))
	try := backend.Try{Timeout: timeout, Group: "main", Watched: true}
	return func(calls []*jsonrpc.Call, size int) error {
		a, ended := b.Ask(context.Background(), calls, try)
		if !ended {
			done := make(chan *backend.Attempt, 1)
			a.Go(done)
			<-done
		}
		a.Settle(false)
		for i := range a.Results { // the attempt has checked the ids
			r := &a.Results[i]
			if r.Err != nil {
				return r.Err
			}
			if err := check(r.Answer.Result, r.Answer.Error, size); err != nil {
				return err
			}
		}
		return nil
	}
}

// post sends a body and returns that of the answer, in memory that is the caller's
// for good: the gateway keeps answers and shares them.
type post func(body []byte) ([]byte, error)

// bare asks with an HTTP client and nothing around it. What writes requests and
// reads answers is proxyd/jsonrpc, as in proxyd/backend, and so makes no difference.
func bare(post post) ask {
	var ids atomic.Uint64
	rooms := sync.Pool{New: func() any { return new([]byte) }}
	return func(calls []*jsonrpc.Call, size int) error {
		n := len(calls)
		first := ids.Add(uint64(n)) - uint64(n) + 1
		room := rooms.Get().(*[]byte)
		body := (*room)[:0]
		for i, c := range calls {
			body = jsonrpc.AppendRequest(append(body, "[,"[min(i, 1)]), c, first+uint64(i))
		}
		*room = append(body, ']')
		if body = *room; n == 1 {
			body = body[1 : len(body)-1]
		}
		answer, err := post(body)
		rooms.Put(room) // the upstream answers when it has read all of it
		if err != nil {
			return err
		}
		var one [1]jsonrpc.Reply
		replies := one[:]
		if n == 1 {
			one[0], err = jsonrpc.ParseReply(answer)
		} else {
			replies, _, err = jsonrpc.ParseReplies(answer, n)
		}
		if err != nil || len(replies) != n {
			return fmt.Errorf("%d answers to %d calls, error %v", len(replies), n, err)
		}
		for i := range replies { // the upstream keeps the order
			r := &replies[i]
			if id, ok := jsonrpc.ReplyID(r.ID); !ok || id != first+uint64(i) {
				return fmt.Errorf("answer with the id %.40s instead of %d", r.ID, first+uint64(i))
			}
			if err := check(r.Result, r.Error, size); err != nil {
				return err
			}
		}
		return nil
	}
}

func check(result, failure []byte, size int) error {
	if failure != nil || len(result) != size {
		return fmt.Errorf("result of %d bytes instead of %d, error %.200s", len(result), size, failure)
	}
	return nil
}

// openTransport posts with net/http. A time-out for the head is the cheapest that
// it has.
func openTransport(addr string) post {
	t := &http.Transport{
		MaxIdleConnsPerHost: conns, DisableCompression: true,
		ReadBufferSize: buffer, WriteBufferSize: buffer, ResponseHeaderTimeout: timeout,
	}
	u := &url.URL{Scheme: "http", Host: addr, Path: "/"}
	return func(body []byte) ([]byte, error) {
		res, err := t.RoundTrip(&http.Request{
			Method: http.MethodPost, URL: u, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		})
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK || res.ContentLength < 0 {
			return nil, fmt.Errorf("answer with status %d and length %d", res.StatusCode, res.ContentLength)
		}
		answer := make([]byte, res.ContentLength)
		_, err = io.ReadFull(res.Body, answer)
		return answer, err
	}
}

// openFasthttp posts with fasthttp.
func openFasthttp(addr string) post {
	c := &fasthttp.HostClient{
		Addr: addr, MaxConns: conns, ReadBufferSize: buffer, WriteBufferSize: buffer, ReadTimeout: timeout, WriteTimeout: timeout,
		DisableHeaderNamesNormalizing: true, DisablePathNormalizing: true,
	}
	var like fasthttp.Request
	like.Header.SetMethod(fasthttp.MethodPost)
	for name, values := range header {
		like.Header.Set(name, values[0])
	}
	like.SetRequestURI("http://" + addr + "/")
	u := like.URI() // parsed once
	return func(body []byte) ([]byte, error) {
		req, res := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
		defer fasthttp.ReleaseRequest(req)
		defer fasthttp.ReleaseResponse(res)
		like.Header.CopyTo(&req.Header)
		req.SetURI(u)
		req.SetBodyRaw(body)
		if err := c.Do(req, res); err != nil {
			return nil, err
		}
		if res.StatusCode() != http.StatusOK {
			return nil, fmt.Errorf("answer with status %d", res.StatusCode())
		}
		return res.SwapBody(nil), nil // the caller's without a copy
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
