package backend

import (
	"crypto/tls"
	"net"
	"net/http"
	"sort"
	"strconv"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// openPool sets the pool up, unless the backend is reached through an HTTP proxy
// of the environment.
func (b *Backend) openPool() {
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: b.url}); err != nil || proxy != nil || b.opts.HTTP2 {
		return
	}
	port := b.url.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[b.url.Scheme]
	}
	dial := b.opts.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: b.opts.DialTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	b.pool = &pool{address: net.JoinHostPort(b.url.Hostname(), port), dial: dial, timeout: b.opts.DialTimeout}
	if b.url.Scheme == "https" {
		b.pool.tls = &tls.Config{}
		if b.opts.TLS != nil {
			b.pool.tls = b.opts.TLS.Clone()
		}
		if b.pool.tls.ServerName == "" {
			b.pool.tls.ServerName = b.url.Hostname()
		}
		b.pool.tls.NextProtos = []string{"http/1.1"}
		b.pool.tls.ClientSessionCache = tls.NewLRUClientSessionCache(32)
	}
	b.buildHead()
}

// buildHead writes the part of a request's head that is the same for all.
func (b *Backend) buildHead() {
	host := b.host
	if host == "" {
		host = b.url.Host
	}
	head := append([]byte("POST "), b.url.RequestURI()...)
	head = append(append(append(head, " HTTP/1.1\r\nHost: "...), host...), "\r\n"...)
	names := make([]string, 0, len(b.header))
	for name := range b.header {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		for _, value := range b.header[name] {
			head = appendField(head, name, value)
		}
	}
	b.head = head
}

func appendField(dst []byte, name, value string) []byte {
	return append(append(append(append(dst, name...), ": "...), value...), "\r\n"...)
}

// appendRequest appends a whole HTTP request. What comes from a client is a
// header value that net/http has parsed, so it holds no line end.
func (b *Backend) appendRequest(dst []byte, client *jsonrpc.Client, body []byte) []byte {
	dst = append(dst, b.head...)
	forwarded, signature := b.fromClient(client)
	if forwarded != "" {
		dst = appendField(dst, "X-Forwarded-For", forwarded)
	}
	if signature != "" {
		dst = appendField(dst, "X-Optimism-Signature", signature)
	}
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, "\r\n\r\n"...)
	return append(dst, body...)
}
