package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"syscall"
	"time"
)

// newClient returns a client that follows no redirects and keeps no cookies. base
// is what it is made of, nil for a transport of its own with the given TLS.
func newClient(base *http.Client, secure *tls.Config) *http.Client {
	c := new(http.Client)
	if base != nil {
		*c = *base
	} else {
		c.Transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        secure.Clone(),
			TLSHandshakeTimeout:    5 * time.Second,
			DisableCompression:     true,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// why is an error of net/http in fixed words: its own text names the URL, and
// others the host. otherwise is for what is not known.
func why(err error, otherwise string) string {
	var timeout net.Error
	var lookup *net.DNSError
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &lookup):
		return "host not found"
	case errors.As(err, &untrusted):
		return "certificate not trusted"
	}
	return otherwise
}
