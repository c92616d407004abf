package integration_tests

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// gateway is a running proxyd.
type gateway struct {
	*process
	url        string // of the RPC listener
	metricsURL string
	client     *rpcClient
}

// startGateway runs proxyd with the configuration as runGateway does.
func startGateway(t *testing.T, config string) *gateway {
	t.Helper()
	file := filepath.Join(t.TempDir(), "proxyd.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return runGateway(t, file)
}

// runGateway runs proxyd with the arguments, on free ports, until the test's end. Ending with another exit code than 0,
// a panic or a data race fails the test.
func runGateway(t *testing.T, args ...string) *gateway {
	t.Helper()
	cmd := exec.Command(proxydBin, append([]string{"run", "--http.port", "0", "--metrics.port", "0"}, args...)...)
	cmd.Env = append(os.Environ(), "API_KEYS=", "GORACE=halt_on_error=1")
	var started struct {
		Msg         string `json:"msg"`
		RPCAddr     string `json:"rpc_addr"`
		MetricsAddr string `json:"metrics_addr"`
	}
	g := &gateway{}
	t.Cleanup(func() {
		if g.process == nil {
			return
		}
		if state := g.cmd.ProcessState; !state.Success() {
			t.Errorf("proxyd: %s, want exit status 0; it said last:\n%s", state, strings.Join(g.last(10), "\n"))
		}
		for _, bad := range []string{"panic:", "WARNING: DATA RACE", "goroutine 1 ["} {
			if strings.Contains(g.output(), bad) {
				t.Errorf("proxyd printed %q:\n%s", bad, strings.Join(g.last(60), "\n"))
			}
		}
	})
	g.process = startProcess(t, "proxyd", cmd, 0, func(line string) bool {
		return json.Unmarshal([]byte(line), &started) == nil && started.Msg == "started proxyd"
	})
	if started.RPCAddr == "" || started.MetricsAddr == "" {
		t.Fatalf("started proxyd without rpc_addr or metrics_addr: %+v", started)
	}
	g.url = "http://" + started.RPCAddr
	g.metricsURL = "http://" + started.MetricsAddr
	g.client = newRPCClient(t, g.url)
	return g
}

// metrics is one scrape.
func (g *gateway) metrics(t *testing.T) string {
	t.Helper()
	_, body, err := get(g.metricsURL + "/metrics")
	if err != nil {
		t.Fatalf("scrape: %v", err)
	}
	return body
}

// get answers a plain GET on a connection of its own.
func get(url string) (status int, body string, err error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

// config is a configuration with one group "main" over the given backends, in order of preference.
type config struct {
	server   string // more lines of [server]
	logLevel string // instead of debug
	backend  string // lines of [backend] instead of the usual ones
	backends []string
	group    string // more lines of [backend_groups.main]
	more     string // other tables
}

func (c config) String() string {
	var b strings.Builder
	if c.backend == "" {
		c.backend = "response_timeout_seconds = 5\nmax_retries = 1\nout_of_service_seconds = 30"
	}
	if c.logLevel == "" {
		c.logLevel = "debug"
	}
	fmt.Fprintf(&b, "[server]\nrpc_host = \"127.0.0.1\"\ntimeout_seconds = 20\nlog_level = %q\n%s\n\n", c.logLevel, c.server)
	fmt.Fprintf(&b, "[backend]\n%s\n\n[backends]\n", c.backend)
	var names []string
	for i, url := range c.backends {
		name := fmt.Sprintf("node%d", i+1)
		names = append(names, fmt.Sprintf("%q", name))
		fmt.Fprintf(&b, "[backends.%s]\nrpc_url = %q\n", name, url)
	}
	fmt.Fprintf(&b, "\n[backend_groups.main]\nbackends = [%s]\n%s\n\n", strings.Join(names, ", "), c.group)
	fmt.Fprintf(&b, "[rpc_method_mappings]\n\"*\" = \"main\"\n\n%s\n", c.more)
	return b.String()
}
