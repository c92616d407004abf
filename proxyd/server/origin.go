package server

import (
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
)

// fromPage reports whether a web page may have sent a request without anybody's
// permission: a simple request, for which browsers ask nobody, or one of a page
// that has made its own name point here (DNS rebinding). All others have been
// asked for in a preflight, which is answered without permission.
func fromPage(r *http.Request) bool {
	text := r.Header.Get("Origin")
	if text == "" {
		return false
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return true
	}
	origin, err := url.Parse(text)
	return err != nil || origin.Host == r.Host && !isLocal(r.Host)
}

// isLocal reports whether nobody can make a host's name point elsewhere.
func isLocal(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost"
}
