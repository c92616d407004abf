// Command reverseproxy is Go's httputil.ReverseProxy in front of one upstream,
// tuned as far as it goes without replacing its parts.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "reverseproxy: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "", "address to listen on")
	upstream := flag.String("upstream", "", "URL to forward to")
	ca := flag.String("ca", "", "file with the certificate of the upstream's authority")
	flag.Parse()
	if *listen == "" || *upstream == "" {
		return fmt.Errorf("-listen and -upstream are both needed, like -listen 127.0.0.1:8000 -upstream http://127.0.0.1:8001")
	}
	target, err := url.Parse(*upstream)
	if err != nil {
		return fmt.Errorf("-upstream: %w", err)
	}
	transport := &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, IdleConnTimeout: 10 * time.Minute, DisableCompression: true}
	if *ca != "" {
		pem, err := os.ReadFile(*ca)
		if err != nil {
			return fmt.Errorf("-ca: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("-ca: %s holds no certificate", *ca)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:  transport,
		BufferPool: new(buffers),
		ErrorLog:   log.New(io.Discard, "", 0),
	}
	return http.ListenAndServe(*listen, proxy)
}

// buffers lends the buffers that bodies are copied with.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return *buf
	}
	return make([]byte, 64<<10)
}

func (b *buffers) Put(buf []byte) { b.pool.Put(&buf) }
