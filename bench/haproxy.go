package main

import (
	"fmt"
	"strings"
)

// haproxyCommand configures HAProxy as a plain reverse proxy: one thread,
// keep-alive on both sides, the second server for when the first is down.
func haproxyCommand(b *bench, s *setting, addr, dir string) ([]string, error) {
	var c strings.Builder
	fmt.Fprintf(&c, `global
    nbthread 1
    maxconn 8000
defaults
    mode http
    maxconn 8000
    timeout connect 5s
    timeout client 620s
    timeout http-keep-alive 620s
    timeout server %dms
    timeout tunnel 620s
    timeout check 1s
    option http-keep-alive
    http-reuse always
    retries 3
    option redispatch 1
    option httpchk GET /
frontend clients
    bind %s
    default_backend nodes
backend nodes
    balance roundrobin
`, s.timeout, addr)
	for i, upstream := range s.upstreams {
		fmt.Fprintf(&c, "    server node%d %s check inter 1s fall 2 rise 2", i+1, upstream)
		if s.ca != "" {
			fmt.Fprintf(&c, " ssl verify required verifyhost localhost ca-file %s", s.ca)
		}
		if i > 0 {
			c.WriteString(" backup")
		}
		c.WriteString("\n")
	}
	file, err := b.writeConfig(dir, "haproxy.cfg", c.String())
	return []string{b.haproxy, "-db", "-q", "-f", file}, err
}
