package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"gateway.internal/proxyd/jsonrpc"
)

const (
	// maxQueued and maxQueuedBytes bound the notifications that wait for a client
	// which reads more slowly than they come.
	maxQueued, maxQueuedBytes = 1024, 4 << 20
	// closeWait bounds the wait for the calls of a socket that is closed in peace.
	closeWait = 5 * time.Second
)

// socket is one client's WebSocket connection. One goroutine reads it; calls have
// goroutines of their own, and what is to be written is written by whoever comes
// first. It is a jsonrpc.Session.
type socket struct {
	s     *Server
	ch    *chain
	conn  *websocket.Conn
	under *socketConn
	// alone and batched are who asks: the two differ in what is said of batches.
	alone, batched jsonrpc.Client
	ctx            context.Context // ends with the socket
	cancel         context.CancelFunc

	pinging  atomic.Bool
	inFlight atomic.Int64 // calls

	mu      sync.Mutex
	queue   []outgoing
	bytes   int // of the notifications in the queue
	notes   int // how many they are
	writing bool
	room    *sync.Cond // made when somebody waits for room in the queue
	leaving bool       // nothing new is read
	ended   bool
	onEnd   []func()
}

// newSocket makes a socket of a connection.
func newSocket(s *Server, ch *chain, client jsonrpc.Client, conn *websocket.Conn, under *socketConn) *socket {
	k := &socket{s: s, ch: ch, conn: conn, under: under, alone: client}
	k.alone.Session = k
	k.batched = k.alone
	k.batched.Batched = true
	k.ctx, k.cancel = context.WithCancel(s.sockets.base)
	return k
}

var messages = sync.Pool{New: func() any { return new([]byte) }}

// read takes messages until the socket ends.
func (k *socket) read() {
	defer k.s.sockets.remove(k)
	defer k.recovered()
	for {
		kind, r, err := k.conn.Reader(context.Background())
		if err == nil {
			var body []byte
			if body, err = k.readMessage(r); err == nil {
				k.take(kind, body)
				continue
			}
		}
		k.end(readEnd(err), nil)
		// The library has told the client what was wrong, apart from some faults;
		// this tells those, and gives the client the time to read it. What a broken
		// frame still promises is not waited for longer than that.
		_ = k.under.SetReadDeadline(time.Now().Add(closeWait))
		_ = k.conn.Close(websocket.StatusProtocolError, "protocol error")
		return
	}
}

// readEnd is the close code in the metrics for what ended a socket that was read.
func readEnd(err error) websocket.StatusCode {
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return websocket.StatusMessageTooBig
	}
	if code := websocket.CloseStatus(err); code >= 0 {
		return code
	}
	return websocket.StatusAbnormalClosure
}

// readMessage reads a whole message. It is read into memory that is used again, and
// copied once its size is known: a length that a client claims takes none.
func (k *socket) readMessage(r io.Reader) ([]byte, error) {
	room := messages.Get().(*[]byte)
	buf := (*room)[:0]
	defer func() {
		if cap(buf) <= maxPooled {
			*room = buf
			messages.Put(room)
		}
	}()
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, max(1024, cap(buf)))...)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF && k.under.over { // so does the library call a connection that ended
			return nil, io.ErrUnexpectedEOF
		}
		if err == io.EOF {
			return append([]byte(nil), buf...), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// take begins to serve a message.
func (k *socket) take(kind websocket.MessageType, body []byte) {
	k.mu.Lock()
	leaving := k.leaving || k.ended
	k.mu.Unlock()
	if leaving {
		return
	}
	if kind == websocket.MessageText && !utf8.Valid(body) {
		k.close(websocket.StatusInvalidFramePayloadData, "text that is not UTF-8")
		return
	}
	k.ch.metrics.received(k.alone.Auth, len(body))
	if k.s.opts.LogBodies > 0 {
		k.s.logBody(k.ch, &k.alone, body)
	}
	calls, batch, err := jsonrpc.Parse(body, k.s.opts.MaxBatch)
	client := &k.alone
	if batch {
		client = &k.batched
	}
	if err != nil {
		calls, batch = []*jsonrpc.Call{{Err: err}}, false
	}
	for _, c := range calls {
		c.Client = client
	}
	if !k.enter(len(calls)) {
		for _, c := range calls {
			c.Err = errSocketBusy
		}
		k.answer(kind, calls, batch, time.Now())
		return
	}
	k.s.sockets.serving.Go(func() { k.serve(kind, calls, batch) })
}

// enter counts calls in flight, unless they would be too many.
func (k *socket) enter(n int) bool {
	most := k.s.opts.Sockets.MaxCalls
	if now := k.inFlight.Add(int64(n)); most > 0 && now > int64(most) && now > int64(n) {
		k.leaveCalls(n)
		return false
	}
	return true
}

func (k *socket) leaveCalls(n int) {
	if k.inFlight.Add(int64(-n)) > 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.leaving && k.room != nil {
		k.room.Broadcast()
	}
}

// serve answers the calls of one message.
func (k *socket) serve(kind websocket.MessageType, calls []*jsonrpc.Call, batch bool) {
	started := time.Now()
	defer k.leaveCalls(len(calls))
	defer k.recovered()
	ctx := &deadline{Context: k.ctx, at: started.Add(k.s.opts.Timeout)}
	defer ctx.end()
	if len(calls) == 1 && calls[0].Method == jsonrpc.Healthz {
		calls[0].Err = nil
		calls[0].Answer = &jsonrpc.Answer{Result: []byte(`"OK"`), Backend: "proxyd"}
	} else {
		k.ch.serveCalls(ctx, calls)
	}
	k.answer(kind, calls, batch, started)
}

// answer counts the calls and queues their answers.
func (k *socket) answer(kind websocket.MessageType, calls []*jsonrpc.Call, batch bool, started time.Time) {
	for _, c := range calls {
		if c.Label == "" {
			c.Label = labelUnknown
		}
	}
	k.s.count(k.ch, calls, batch, started)
	var out []byte
	for i, c := range calls {
		switch {
		case batch && i == 0:
			out = append(out, '[')
		case batch:
			out = append(out, ',')
		case c.Answer != nil:
			out = make([]byte, 0, len(jsonrpc.AnswerHead)+len(c.Answer.Result)+len(c.Answer.Error)+len(c.ID)+16)
		}
		out, _ = k.s.append(out, c, nil)
	}
	if batch {
		out = append(out, ']')
	}
	k.ch.metrics.sent(k.alone.Auth, len(out))
	k.send(outgoing{whole: out, kind: kind}, func() {
		for _, c := range calls {
			if c.Then != nil {
				c.Then()
			}
		}
	})
}

// Lose implements jsonrpc.Session.
func (k *socket) Lose(reason string) { k.close(websocket.StatusTryAgainLater, reason) }

// OnEnd implements jsonrpc.Session.
func (k *socket) OnEnd(f func()) {
	k.mu.Lock()
	ended := k.ended
	if !ended {
		k.onEnd = append(k.onEnd, f)
	}
	k.mu.Unlock()
	if ended {
		f()
	}
}

// end is what the end of a socket brings about, once; it reports whether this was
// it. Without last, which closes the connection, that is for the caller.
func (k *socket) end(code websocket.StatusCode, last func()) bool {
	k.mu.Lock()
	if k.ended {
		k.mu.Unlock()
		return false
	}
	k.ended = true
	onEnd := k.onEnd
	k.onEnd, k.queue = nil, nil
	if k.room != nil {
		k.room.Broadcast()
	}
	k.s.sockets.serving.Go(func() { // who ends it may hold locks that these need
		for _, f := range onEnd {
			f()
		}
		if last != nil {
			last()
		}
	})
	k.mu.Unlock()
	k.cancel()
	k.ch.metrics.socketClosed(k.alone.Auth, code)
	return true
}

// close ends the socket with a code and a reason for the client. It does not wait.
func (k *socket) close(code websocket.StatusCode, reason string) {
	if k.end(code, func() { _ = k.conn.Close(code, reason[:min(len(reason), maxCloseReason)]) }) {
		level := slog.LevelInfo
		if code == websocket.StatusGoingAway {
			level = slog.LevelDebug // all are told so
		}
		k.ch.logSocket(level, "socket closed", &k.alone, strconv.Itoa(int(code)), "code", int(code), "reason", reason)
	}
}

// maxCloseReason is the longest reason that a close frame can carry, in bytes.
const maxCloseReason = 123

// goAway closes the socket once its calls are answered, or after closeWait.
func (k *socket) goAway(code websocket.StatusCode, reason string) {
	stop := time.AfterFunc(closeWait, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.leaving = false
		if k.room != nil {
			k.room.Broadcast()
		}
	})
	defer stop.Stop()
	k.mu.Lock()
	k.leaving = true
	for k.leaving && !k.ended && (k.inFlight.Load() > 0 || k.writing) {
		k.wait()
	}
	k.mu.Unlock()
	k.close(code, reason)
}

// ping asks for a sign of life, and ends the socket when none comes.
func (k *socket) ping(timeout time.Duration) {
	defer k.pinging.Store(false)
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := k.conn.Ping(ctx); err == nil || k.under.moved.Load() > began.UnixNano() {
		return // or busy with a long message, behind which pings wait
	}
	if k.end(websocket.StatusAbnormalClosure, nil) {
		k.ch.log.Debug("socket dead", "req_id", k.alone.RequestID, "auth", k.alone.Auth)
	}
	k.cut()
}

// cut closes the connection at once, also while the library closes it in peace.
func (k *socket) cut() {
	_ = k.under.Close()
	_ = k.conn.CloseNow()
}

// recovered ends the socket after a panic.
func (k *socket) recovered() {
	if v := recover(); v != nil {
		k.ch.logPanic(v, &k.alone)
		k.close(websocket.StatusInternalError, "internal error")
	}
}
