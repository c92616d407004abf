package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"

	"gateway.internal/proxyd/jsonrpc"
)

// upgrades returns the handler of one chain's upgrades to WebSocket; ch is nil where the
// chain serves none, of is what serves its calls over HTTP.
func (s *Server) upgrades(ch, of *chain) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case wantsUpgrade(r) && ch == nil:
			s.refuse(w, of, &jsonrpc.Client{Source: "ws", RequestID: requestID(r)}, errNoSockets)
			return
		case !wantsUpgrade(r):
			w.Header().Set("Allow", http.MethodPost)
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		s.upgrade(w, r, ch)
	}
}

func wantsUpgrade(r *http.Request) bool {
	for _, value := range r.Header["Upgrade"] {
		for protocol := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(protocol), "websocket") {
				return true
			}
		}
	}
	return false
}

// upgrade makes a socket of a request, or refuses it as a call would be refused.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request, ch *chain) {
	client := jsonrpc.Client{Source: "ws", RequestID: requestID(r), Archive: wantsArchive(r), Origin: r.Header.Get("Origin"), UserAgent: r.UserAgent(), OptimismSignature: signature(r)}
	w.Header()["X-Request-Id"] = []string{client.RequestID}
	refuse := func(err error) {
		ch.metrics.socketRefused(s.judge(err).status)
		ch.logSocket(slog.LevelInfo, "socket refused", &client, err.Error(), "error", err, "origin", printable(client.Origin))
		s.refuse(w, ch, &client, err)
	}
	var ok bool
	key := pathKey(r)
	client.Auth, ok, client.Exempt = s.authenticate(r, key)
	if err := s.misplaced(ch, key, ok); err != nil {
		refuse(err)
		return
	}
	if !ok {
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(errUnauthorized)
		return
	}
	if !s.allowsOrigin(r) {
		refuse(errSocketOrigin)
		return
	}
	if client.Addr, client.ForwardedFor, ok = s.address.client(r); !ok {
		refuse(errNoAddress)
		return
	}
	client.Key = limitKeyOf(client.Addr, client.ForwardedFor)
	if err := s.sockets.admit(client.Key); err != nil {
		refuse(err)
		return
	}
	h := &hijacker{ResponseWriter: w, timeout: s.opts.Sockets.WriteTimeout}
	conn, err := websocket.Accept(h, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // the origin was looked at
	if err != nil {                                                                         // it has been answered
		s.sockets.release(client.Key)
		ch.metrics.socketRefused(h.status)
		ch.log.Debug("upgrade refused", "req_id", client.RequestID, "auth", client.Auth, "error", err)
		return
	}
	conn.SetReadLimit(s.opts.MaxBody)
	one := newSocket(s, ch, client, conn, h.conn)
	ch.metrics.socketOpened(client.Auth)
	s.sockets.add(one)
}

// allowsOrigin reports whether the page that opens the socket may: none that is not a
// page, those that this host serves, and those that the configuration names.
func (s *Server) allowsOrigin(r *http.Request) bool {
	text := r.Header.Get("Origin")
	if text == "" || s.opts.Sockets.AllowAllOrigins {
		return true
	}
	origin, err := url.Parse(text)
	if err != nil || origin.Host == "" {
		return false
	}
	if strings.EqualFold(origin.Host, r.Host) {
		// Without permission for any page, a name that was made to point here
		// (DNS rebinding) is none either.
		return len(s.opts.CORS.Origins) > 0 || isLocal(r.Host)
	}
	for _, allowed := range s.opts.CORS.Origins {
		if allowed != "*" && matchesOrigin(allowed, text) {
			return true
		}
	}
	return false
}

// matchesOrigin compares an origin with one that may hold a star, as for CORS.
func matchesOrigin(allowed, origin string) bool {
	allowed, origin = strings.ToLower(allowed), strings.ToLower(origin)
	before, after, star := strings.Cut(allowed, "*")
	if !star {
		return allowed == origin
	}
	return len(origin) >= len(before)+len(after) && strings.HasPrefix(origin, before) && strings.HasSuffix(origin, after)
}

// logSocket writes about a client's socket, a few lines a second of each sort.
func (ch *chain) logSocket(level slog.Level, message string, client *jsonrpc.Client, sort string, attrs ...any) {
	if !ch.log.Enabled(context.Background(), level) {
		return
	}
	ok, dropped := ch.lines.Allow(message, sort)
	if !ok {
		return
	}
	attrs = append(attrs, "client", client.Addr.String(), "req_id", client.RequestID, "auth", client.Auth)
	if dropped > 0 {
		attrs = append(attrs, "lines_dropped_before", dropped)
	}
	ch.log.Log(context.Background(), level, message, attrs...)
}

// printable bounds what a client wrote, for a line.
func printable(text string) string { return text[:min(len(text), 200)] }
