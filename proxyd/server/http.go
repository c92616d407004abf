package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/jsonrpc"
)

func sum(key string) [sha256.Size]byte { return sha256.Sum256([]byte(key)) }

// serveRPC answers one HTTP request, from top to bottom: who asks, what is
// asked, who of the chain answers, the answer.
func (s *Server) serveRPC(w http.ResponseWriter, r *http.Request, ch *chain) {
	started := time.Now()
	var room struct { // what lives as long as the request, allocated at once
		client jsonrpc.Client
		ctx    deadline
		id     [1]string
	}
	client, ctx := &room.client, &room.ctx
	*client = jsonrpc.Client{Source: "http", RequestID: requestID(r), Archive: wantsArchive(r), Origin: r.Header.Get("Origin"), UserAgent: r.UserAgent(), OptimismSignature: signature(r)}
	room.id[0] = client.RequestID
	w.Header()["X-Request-Id"] = room.id[:]
	defer s.recovered(w, ch, client)

	var ok bool
	key := pathKey(r)
	client.Auth, ok, client.Exempt = s.authenticate(r, key)
	if err := s.misplaced(ch, key, ok); err != nil {
		s.refuse(w, ch, client, err)
		return
	}
	if !ok {
		w.Header().Set("WWW-Authenticate", "Bearer")
		s.refuse(w, ch, client, errUnauthorized)
		return
	}
	if len(s.opts.CORS.Origins) == 0 && fromPage(r) {
		s.refuse(w, ch, client, errOrigin)
		return
	}
	ctx.Context, ctx.at = r.Context(), started.Add(s.opts.Timeout)
	defer ctx.end()
	if client.Addr, client.ForwardedFor, ok = s.address.client(r); !ok {
		s.refuse(w, ch, client, errNoAddress)
		return
	}
	client.Key = limitKeyOf(client.Addr, client.ForwardedFor)
	body, err := s.readBody(r)
	if err != nil {
		s.refuse(w, ch, client, err)
		return
	}
	ch.metrics.requestSize(client.Auth, len(body))
	if s.opts.LogBodies > 0 {
		s.logBody(ch, client, body)
	}
	calls, batch, err := jsonrpc.Parse(body, s.opts.MaxBatch)
	if err != nil {
		s.refuse(w, ch, client, err)
		return
	}
	client.Batched = batch
	if batch {
		ch.metrics.batchSizes.Observe(float64(len(calls)))
	}
	for _, c := range calls {
		c.Client = client
		// Before HTTP/1.1 an answer without a length cannot be broken off visibly.
		c.MayStream = !batch && r.ProtoAtLeast(1, 1)
	}
	defer closeStream(calls[0])
	if len(calls) == 1 && calls[0].Method == jsonrpc.Healthz {
		calls[0].Err = nil // the incumbent does not validate it
		calls[0].Answer = &jsonrpc.Answer{Result: []byte(`"OK"`), Backend: "proxyd"}
	} else {
		ch.serveCalls(ctx, calls)
		streams := calls[0].Answer != nil && calls[0].Answer.Stream != nil && s.admit(calls[0])
		if streams {
			defer s.streams.leave(client)
		}
		s.count(ch, calls, batch, started)
		if streams {
			s.writeStream(w, r, ch, calls[0])
			return
		}
	}
	s.write(w, ch, client, calls, batch)
	// Others have their answers by now: what is written together wakes the
	// other side once.
	runtime.Gosched()
}

// closeStream drops a stream that nobody has read to its end.
func closeStream(c *jsonrpc.Call) {
	if c.Answer != nil && c.Answer.Stream != nil {
		c.Answer.Stream.Close()
	}
}

// maxSignature is the longest X-Optimism-Signature that goes upstream, in bytes:
// an address, a colon and 65 bytes in hex take 175.
const maxSignature = 512

// signature returns the client's X-Optimism-Signature, "" for one that no relay
// has written.
func signature(r *http.Request) string {
	value := r.Header.Get("X-Optimism-Signature")
	for _, c := range []byte(value) {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	if len(value) > maxSignature {
		return ""
	}
	return value
}

// wantsArchive reports whether the client asks for archive backends, by
// archive=true or archive=1 in the query or such an X-Archive header.
func wantsArchive(r *http.Request) bool {
	if slices.ContainsFunc(r.Header["X-Archive"], yes) {
		return true
	}
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if value, found := strings.CutPrefix(part, "archive="); found && yes(value) {
			return true
		}
	}
	return false
}

// yes reports whether a client has said true or 1.
func yes(value string) bool { return value == "1" || strings.EqualFold(value, "true") }

// pathKey returns the key that stands in the path, "" for none.
func pathKey(r *http.Request) string {
	key := chi.URLParam(r, "key")
	if r.URL.RawPath == "" {
		return key // chi has read the decoded path
	}
	if decoded, err := url.PathUnescape(key); err == nil {
		return decoded
	}
	return key
}

// serveCalls routes the calls and has them answered, those of one target
// together and the targets at the same time.
func (ch *chain) serveCalls(ctx context.Context, calls []*jsonrpc.Call) {
	if len(calls) == 1 {
		if target := ch.route(calls[0]); target != nil {
			ch.ask(ctx, target, calls)
		}
		return
	}
	type part struct {
		target *Target
		calls  []*jsonrpc.Call
	}
	parts := make([]part, 0, 1)
	epoch := 0
	for n, c := range calls {
		target := ch.route(c)
		c.Epoch = epoch
		if c.Row != nil && c.Row.Class != jsonrpc.Read {
			epoch++
		}
		if target == nil {
			continue
		}
		i := slices.IndexFunc(parts, func(p part) bool { return p.target == target })
		if i < 0 {
			i = len(parts)
			parts = append(parts, part{target, make([]*jsonrpc.Call, 0, len(calls)-n)})
		}
		parts[i].calls = append(parts[i].calls, c)
	}
	if len(parts) == 1 {
		ch.ask(ctx, parts[0].target, parts[0].calls)
		return
	}
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() { ch.ask(ctx, p.target, p.calls) })
	}
	wg.Wait()
}

// route returns the target of a call, nil when it has its answer or error
// already.
func (ch *chain) route(c *jsonrpc.Call) *Target {
	if c.Err != nil {
		c.Label = labelUnknown
		return nil
	}
	target := ch.routes.route(c)
	switch {
	case c.Method == "eth_accounts":
		c.Label = c.Method
		c.Answer = &jsonrpc.Answer{Result: []byte("[]"), Backend: "proxyd"}
		ch.metrics.forwards.WithLabelValues(c.Label).Inc()
		return nil
	case target == nil:
		c.Err = jsonrpc.ErrNotAllowed
	case (strings.HasSuffix(c.Method, "_subscribe") || strings.HasSuffix(c.Method, "_unsubscribe")) && !ch.routes.subscribes(target):
		// A backend that is asked over its socket would begin one that nobody ends.
		c.Err = errNotify
		return nil
	}
	return target
}

// ask has calls answered. A panic ends those that it left open.
func (ch *chain) ask(ctx context.Context, target *Target, calls []*jsonrpc.Call) {
	defer func() {
		if v := recover(); v != nil {
			ch.logPanic(v, calls[0].Client)
			for _, c := range jsonrpc.Pending(calls) {
				c.Err = errInternal
			}
		}
	}()
	target.Handler.ServeRPC(ctx, calls)
}

// refuse answers a request that is wrong as a whole.
func (s *Server) refuse(w http.ResponseWriter, ch *chain, client *jsonrpc.Client, err error) {
	c := &jsonrpc.Call{Err: err, Client: client, Label: labelUnknown}
	ch.log.Debug("request refused", "req_id", client.RequestID, "auth", client.Auth, "error", err)
	s.write(w, ch, client, []*jsonrpc.Call{c}, false)
}

// largeResult is the size in bytes above which a result is written as it is,
// without a copy between its head and the client's id.
const largeResult = 64 << 10

// maxPooled is the largest buffer that is kept for the next answer.
const maxPooled = 1 << 20

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// write writes the answers: one object for a single call, an array for a batch.
func (s *Server) write(w http.ResponseWriter, ch *chain, client *jsonrpc.Client, calls []*jsonrpc.Call, batch bool) {
	room := buffers.Get().(*[]byte)
	out := (*room)[:0]
	h := w.Header()
	status := http.StatusOK
	var large []byte // stands in out[head:] without being copied there
	head := 0
	switch a := calls[0].Answer; {
	case batch:
		for i, c := range calls {
			if i == 0 {
				out = append(out, '[')
			} else {
				out = append(out, ',')
			}
			out, _ = s.append(out, c, h)
		}
		out = append(out, ']')
	case a != nil && len(a.Result) > largeResult:
		large, head = a.Result, len(jsonrpc.AnswerHead)
		out, status = s.append(out, &jsonrpc.Call{ID: calls[0].ID, Answer: &jsonrpc.Answer{Status: a.Status}}, h)
	default:
		out, status = s.append(out, calls[0], h)
	}
	out = append(out, '\n')
	size := len(out) + len(large)
	h["Content-Type"] = jsonType
	h.Set("Content-Length", strconv.Itoa(size))
	s.served(h, calls)
	w.WriteHeader(status)
	for _, part := range [3][]byte{out[:head], large, out[head:]} {
		if len(part) > 0 {
			_, _ = w.Write(part) // a client that has left
		}
	}
	ch.metrics.answered(client.Auth, status, int64(size))
	if cap(out) <= maxPooled {
		*room = out
		buffers.Put(room)
	}
}

// Header values that are the same for all answers; nobody changes them.
var jsonType, cacheHit, cacheMiss = []string{"application/json"}, []string{"HIT"}, []string{"MISS"}

// served says in the header who answered.
func (s *Server) served(h http.Header, calls []*jsonrpc.Call) {
	hit, routed := false, false
	var by []string
	for _, c := range calls {
		routed = routed || c.Row != nil
		if c.Answer == nil {
			continue
		}
		hit = hit || c.Answer.Backend == "cache"
		if s.opts.ServedBy && c.Answer.Group != "" {
			if name := c.Answer.Group + "/" + c.Answer.Backend; !slices.Contains(by, name) {
				by = append(by, name)
			}
		}
	}
	if routed {
		if h["X-Proxyd-Cache-Status"] = cacheMiss; hit {
			h["X-Proxyd-Cache-Status"] = cacheHit
		}
	}
	if s.opts.ServedBy {
		h.Set("X-Served-By", strings.Join(by, ", "))
	}
}

// count feeds the metrics and writes a line about each call that failed.
func (s *Server) count(ch *chain, calls []*jsonrpc.Call, batch bool, started time.Time) {
	late := false
	for i := 0; i < len(calls); {
		c := calls[i]
		if c.Answer == nil {
			if c.Err == nil {
				c.Err = errInternal // no stage may leave a call open
			}
			v := s.judge(c.Err)
			late = late || errors.Is(c.Err, group.ErrTimeout) || errors.Is(c.Err, context.DeadlineExceeded)
			ch.logFailure(c, c.Err, v)
			ch.metrics.calledBy(c, "proxyd", v.status, 1)
			i++
			continue
		}
		n := 1 // in a batch the next ones are often alike
		for i+n < len(calls) && calls[i+n].Answer != nil && alike(calls[i+n], c) {
			n++
		}
		status := http.StatusOK
		if c.Answer.Error != nil {
			status = http.StatusBadRequest
		}
		ch.metrics.calledBy(c, c.Answer.Backend, status, n)
		i += n
	}
	label := calls[0].Label
	if batch {
		label = "<batch>"
		if late {
			ch.metrics.shortCircuits.Inc()
		}
	}
	ch.metrics.took(label, time.Since(started))
}

// alike reports whether two answered calls count the same.
func alike(a, b *jsonrpc.Call) bool {
	return a.Label == b.Label && a.Answer.Backend == b.Answer.Backend && (a.Answer.Error == nil) == (b.Answer.Error == nil)
}

// logFailure writes about a call that the gateway answered with an error of its
// own: a warning where the client is not to blame.
func (ch *chain) logFailure(c *jsonrpc.Call, err error, v verdict) {
	level := slog.LevelDebug
	if v.status >= 500 {
		level = slog.LevelWarn
	}
	if !ch.log.Enabled(context.Background(), level) {
		return
	}
	code := strconv.FormatInt(v.code, 10)
	ok, dropped := ch.lines.Allow(c.Label, code)
	if !ok {
		return
	}
	text := err.Error()
	attrs := []any{"method", c.Label, "code", code, "error", text[:min(len(text), 1000)], "req_id", c.Client.RequestID, "auth", c.Client.Auth}
	if dropped > 0 {
		attrs = append(attrs, "lines_dropped_before", dropped)
	}
	ch.log.Log(context.Background(), level, "call failed", attrs...)
}

func (s *Server) logBody(ch *chain, client *jsonrpc.Client, body []byte) {
	text := string(body[:min(len(body), s.opts.LogBodies)])
	if len(body) > s.opts.LogBodies {
		text += "..."
	}
	ch.log.Info("Raw RPC request", "body", text, "req_id", client.RequestID, "auth", client.Auth)
}

// recovered answers a panic with an internal error.
func (s *Server) recovered(w http.ResponseWriter, ch *chain, client *jsonrpc.Client) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	ch.logPanic(v, client)
	s.refuse(w, ch, client, errInternal)
}

func (ch *chain) logPanic(v any, client *jsonrpc.Client) {
	ch.log.Error("panic while serving", "panic", fmt.Sprint(v), "req_id", client.RequestID, "stack", string(debug.Stack()))
}

// requestID takes the client's X-Request-Id if it is harmless, else a new one.
func requestID(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); id != "" && len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == "" {
		return id
	}
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
