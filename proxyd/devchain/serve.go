package devchain

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

const garbage = "<!DOCTYPE html>\n<html><body><h1>devchain fault: not JSON</h1></body></html>\n"

// serve answers one request in the way that the present fault demands.
func (b *Backend) serve(w http.ResponseWriter, r *http.Request, in request) {
	f, changed := b.takeFault(byPost, in)
	switch f.Kind {
	case FaultStatus:
		http.Error(w, fmt.Sprintf("devchain fault: status %d", f.Status), f.Status)
		return
	case FaultGarbage:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write([]byte(garbage))
		return
	case FaultRateLimited:
		if f.RetryAfter != "" {
			w.Header().Set("Retry-After", f.RetryAfter)
		}
		fail := &rpcError{Code: f.RPCCode, Message: f.RPCMessage}
		write(w, http.StatusTooManyRequests, appendAnswer(nil, nil, nil, fail))
		return
	case FaultHang, FaultSlow:
		if !b.hold(r.Context(), f, changed) {
			drop(w, nil)
			return
		}
	}
	body := b.respond(r.Context(), in, f, nil)
	switch f.Kind {
	case FaultClose:
		drop(w, body)
	case FaultTruncate:
		write(w, http.StatusOK, body[:len(body)/2])
	default:
		write(w, http.StatusOK, body)
	}
}

// hold waits as long as a hang or a slow fault holds something up. It reports false when nobody is to be answered any more.
func (b *Backend) hold(ctx context.Context, f Fault, changed <-chan struct{}) bool {
	var late <-chan time.Time // hang: never
	if f.Kind == FaultSlow {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-late:
	case <-changed:
	case <-ctx.Done():
		return false
	case <-b.closed:
		return false
	}
	return true
}

// write sends a JSON body with its length. An error means that the client left, which nobody has to know.
func write(w http.ResponseWriter, status int, body []byte) {
	if len(body) > 0 {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// drop sends the first half of body under the length of all of it and resets the connection. Where the connection cannot be taken over
// (HTTP/2, a test recorder) it is left to the server to end a body that is shorter than its length.
func drop(w http.ResponseWriter, body []byte) {
	half := body[:len(body)/2]
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
		w.Write(half)
		return
	}
	defer conn.Close()
	if len(body) > 0 {
		fmt.Fprintf(buffered, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), half)
		buffered.Flush()
	}
	reset(conn)
}

// reset ends a connection by a reset, where it can, instead of in order.
func reset(conn net.Conn) {
	if outer, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS, which would say goodbye
		conn = outer.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}
