package main

import (
	"fmt"
	"strings"

	"gateway.internal/bench/internal/content"
)

// proxydCommand configures this gateway as an operator would who uses all of it:
// limits per client address, cache, metrics, log level error.
func proxydCommand(b *bench, s *setting, addr, dir string) ([]string, error) {
	var c strings.Builder
	metrics := "0"
	if s.ws {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		s.metrics, metrics = addr, portOf(addr)
		fmt.Fprintf(&c, "ws_backend_group = \"main\"\nws_method_whitelist = [\"eth_subscribe\", \"eth_unsubscribe\", %q, %q]\n\n", content.Small, content.Chain)
	}
	c.WriteString(`[server]
rpc_host = "127.0.0.1"
rpc_port = 8545
log_level = "error"
trusted_proxies = ["127.0.0.1"]
max_upstream_batch_size = 100
timeout_seconds = 20
`)
	if s.pprof != "" {
		fmt.Fprintf(&c, "enable_pprof = true\npprof_addr = %q\n", s.pprof)
	}
	fmt.Fprintf(&c, `
[cache]
enabled = true

[metrics]
enabled = true
host = "127.0.0.1"
port = 0

[rate_limit]
base_rate = 1000000000
base_interval = "1s"

[batch]
max_size = 100

[backend]
response_timeout_milliseconds = %d
max_retries = 1
out_of_service_seconds = 30
`, s.timeout)
	var names []string
	for i, upstream := range s.upstreams {
		name := fmt.Sprintf("node%d", i+1)
		names = append(names, fmt.Sprintf("%q", name))
		fmt.Fprintf(&c, "\n[backends.%s]\nrpc_url = \"%s://%s\"\n", name, s.scheme(), upstream)
		if s.ws {
			fmt.Fprintf(&c, "ws_url = \"ws://%s\"\n", upstream)
		}
		if s.ca != "" {
			fmt.Fprintf(&c, "ca_file = %q\n", s.ca)
		}
	}
	fmt.Fprintf(&c, "\n[backend_groups.main]\nbackends = [%s]\n%s", strings.Join(names, ", "), s.group)
	c.WriteString("\n[rpc_method_mappings]\n\"eth_*\" = \"main\"\n")
	file, err := b.writeConfig(dir, "proxyd.toml", c.String())
	args := []string{b.program("proxyd"), "run", "--http.port", portOf(addr), "--metrics.port", metrics, file}
	if s.everyAllocation {
		args = append([]string{"env", "GODEBUG=memprofilerate=1"}, args...)
	}
	return args, err
}
