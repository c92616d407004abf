package main

import (
	"fmt"
	"os"
	"strings"
)

// nginxCommand configures nginx as a plain reverse proxy: one worker, keep-alive
// on both sides, the second server for when the first is down.
func nginxCommand(b *bench, s *setting, addr, dir string) ([]string, error) {
	var c strings.Builder
	if os.Geteuid() == 0 {
		c.WriteString("user root;\n") // who may read the directory; nobody else has business there
	}
	fmt.Fprintf(&c, `daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid %[1]s/pid;
error_log stderr crit;
events { worker_connections 16000; }
http {
    access_log off;
    server_tokens off;
    keepalive_timeout 620s;
    keepalive_requests 1000000000;
    client_max_body_size 1m;
    client_body_buffer_size 64k;
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;
    upstream nodes {
`, dir)
	for i, upstream := range s.upstreams {
		fmt.Fprintf(&c, "        server %s", upstream)
		if i > 0 {
			c.WriteString(" backup")
		}
		c.WriteString(";\n")
	}
	fmt.Fprintf(&c, `        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 620s;
    }
    server {
        listen %s backlog=4096;
        location / {
            proxy_pass %s://nodes;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout %dms;
            proxy_max_temp_file_size 0;
`, addr, s.scheme(), s.timeout)
	if s.ca != "" {
		fmt.Fprintf(&c, `            proxy_ssl_verify on;
            proxy_ssl_name localhost;
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_trusted_certificate %s;
`, s.ca)
	}
	c.WriteString("        }\n    }\n}\n")
	file, err := b.writeConfig(dir, "nginx.conf", c.String())
	return []string{b.nginx, "-p", dir, "-e", "stderr", "-c", file}, err
}
