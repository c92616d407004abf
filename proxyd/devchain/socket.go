package devchain

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/coder/websocket"
)

// maxHeld bounds the messages of one WebSocket that a fault holds up. One more drops it.
const maxHeld = 1000

// socket is one open WebSocket.
type socket struct {
	backend *Backend
	ws      *websocket.Conn
	conn    net.Conn // below ws
	out     *queue
	held    chan struct{} // a place for each message that a fault holds up
	end     context.CancelFunc

	subscriptions map[string]interest // guarded by backend.mu
}

func isUpgrade(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	for _, line := range r.Header.Values("Upgrade") {
		for token := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "websocket") {
				return true
			}
		}
	}
	return false
}

// serveSocket answers a request to open a WebSocket, and what comes on it.
func (b *Backend) serveSocket(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	b.lastUpgrade = r.Header.Clone()
	b.mu.Unlock()
	f, changed := b.takeFault(byUpgrade, request{})
	switch f.Kind {
	case FaultStatus, FaultDrop:
		status := orElse(f.Status, http.StatusServiceUnavailable)
		http.Error(w, fmt.Sprintf("devchain fault: status %d", status), status)
		return
	case FaultHang, FaultSlow:
		if !b.hold(r.Context(), f, changed) {
			drop(w, nil)
			return
		}
	}
	kept := &keptConn{ResponseWriter: w}
	ws, err := websocket.Accept(kept, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has told the client
	}
	ws.SetReadLimit(maxBody)
	ctx, end := context.WithCancel(context.Background()) // that of r says nothing once the connection is taken over
	s := &socket{
		backend: b, ws: ws, conn: kept.conn, out: newQueue(), held: make(chan struct{}, maxHeld), end: end,
		subscriptions: make(map[string]interest),
	}
	if !b.admit(s) {
		s.reset()
		ws.CloseNow()
		return
	}
	b.active.Go(func() { s.write(ctx) })
	s.read(ctx)
	b.dismiss(s)
	end()
	ws.CloseNow()
	b.active.Done()
}

// admit counts s among the open ones, if there may be any. Close waits for as many Done of b.active.
func (b *Backend) admit(s *socket) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isOver || b.fault.Kind == FaultDrop {
		return false
	}
	b.sockets[s] = struct{}{}
	b.active.Add(1)
	return true
}

func (b *Backend) dismiss(s *socket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sockets, s)
}

// read answers messages until the connection ends. They are taken one after the other, except that those which a fault holds up let the others
// pass.
func (s *socket) read(ctx context.Context) {
	b := s.backend
	for s.out.waitForRoom(ctx) {
		_, body, err := s.ws.Read(ctx)
		if err != nil {
			return
		}
		in := parseRequest(body)
		b.count(in)
		f, changed := b.takeFault(bySocket, in)
		if f.Kind != FaultHang && f.Kind != FaultSlow {
			s.answer(ctx, in, f)
			continue
		}
		select {
		case s.held <- struct{}{}:
		default:
			s.reset()
			return
		}
		b.active.Go(func() {
			defer func() { <-s.held }()
			if b.hold(ctx, f, changed) {
				s.answer(ctx, in, f)
			}
		})
	}
}

// answer answers one message in the way that the fault demands.
func (s *socket) answer(ctx context.Context, in request, f Fault) {
	if f.Kind == FaultRateLimited {
		f.Kind = FaultRPCError
		if f.RPCCode == http.StatusTooManyRequests { // the status, which there is none of here
			f.RPCCode = codeLimit
		}
	}
	t := &turn{socket: s}
	text := s.backend.respond(ctx, in, f, t)
	switch f.Kind {
	case FaultGarbage:
		text = []byte(garbage)
	case FaultTruncate:
		text = text[:len(text)/2]
	}
	t.end(item{text: text, cut: f.Kind == FaultClose})
}

// notify queues a notification. A client that leaves too many of them unread is dropped. backend.mu is held.
func (s *socket) notify(id string, result json.RawMessage) {
	if s.out.full() {
		delete(s.backend.sockets, s)
		s.reset()
		return
	}
	text := make([]byte, 0, len(result)+128)
	text = append(text, `{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"`...)
	text = append(text, id...)
	text = append(text, `","result":`...)
	text = append(text, result...)
	s.out.put(item{text: append(text, "}}"...), notice: true})
}

// write sends what is queued until the connection ends.
func (s *socket) write(ctx context.Context) {
	for {
		it, ok := s.out.take(ctx)
		if !ok {
			return
		}
		if it.cut {
			frame := textFrame(it.text)
			s.conn.Write(frame[:len(frame)-len(it.text)/2])
			s.reset()
			return
		}
		if len(it.text) == 0 {
			continue // nothing but notifications, which are not answered
		}
		if s.ws.Write(ctx, websocket.MessageText, it.text) != nil {
			s.reset()
			return
		}
	}
}

// textFrame is a whole text message as it goes over the wire (RFC 6455, section 5.2).
func textFrame(text []byte) []byte {
	const whole, length16, length64 = 0x81, 126, 127
	var head []byte
	switch n := len(text); {
	case n < length16:
		head = []byte{whole, byte(n)}
	case n < 1<<16:
		head = binary.BigEndian.AppendUint16([]byte{whole, length16}, uint16(n))
	default:
		head = binary.BigEndian.AppendUint64([]byte{whole, length64}, uint64(n))
	}
	return append(head, text...)
}

// reset ends the connection, and with it what reads and writes.
func (s *socket) reset() {
	reset(s.conn)
	s.end()
}

// dropSockets resets all of them. b.mu is held.
func (b *Backend) dropSockets() {
	for s := range b.sockets {
		delete(b.sockets, s)
		s.reset()
	}
}

// DropSockets resets all WebSockets that are open now. New ones may be opened at once.
func (b *Backend) DropSockets() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropSockets()
}

// Sockets is how many WebSockets are open now.
func (b *Backend) Sockets() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sockets)
}

// LastUpgrade is a copy of the header of the last request to open a WebSocket, whatever became of it; nil before the first.
func (b *Backend) LastUpgrade() http.Header {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lastUpgrade.Clone()
}

// keptConn keeps the connection that is taken over from the server, because websocket.Conn does not give it out.
type keptConn struct {
	http.ResponseWriter
	conn net.Conn
}

// Hijack implements http.Hijacker.
func (k *keptConn) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(k.ResponseWriter).Hijack()
	k.conn = conn
	return conn, buffered, err
}
