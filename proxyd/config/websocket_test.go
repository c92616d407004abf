package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// withSockets is a file with a group for WebSocket connections, whose line 9 is the
// first one behind it.
const withSockets = `ws_backend_group = "g"
[rpc_method_mappings]
eth_call = "g"
[backend_groups.g]
backends = ["a"]
[backends.a]
rpc_url = "https://node.example"
ws_url = "wss://node.example"
`

// said is everything that is said about a file.
func said(t *testing.T, text string) (c *Config, all []string) {
	t.Helper()
	c, warnings, err := Parse(text, Options{Env: lookup(nil), Strict: true})
	if err != nil {
		all = strings.Split(err.Error(), "\n")
	}
	for _, w := range warnings {
		all = append(all, "warning: "+w.String())
	}
	return c, all
}

func TestValuesOfSocketKeys(t *testing.T) {
	const (
		notNegative = "must not be negative"
		atLeast1    = "must be at least 1"
		positive    = "must be longer than zero"
	)
	for _, c := range []struct{ key, value, want string }{
		{"server.max_client_ws_conns", "-1", notNegative}, {"server.max_client_ws_conns", "0", ""}, {"server.max_client_ws_conns", "5", ""},
		{"server.max_ws_conns_per_client", "-1", notNegative}, {"server.max_ws_conns_per_client", "0", ""}, {"server.max_ws_conns_per_client", "5", ""},
		{"server.max_ws_subscriptions", "-1", atLeast1}, {"server.max_ws_subscriptions", "0", atLeast1}, {"server.max_ws_subscriptions", "1", ""},
		{"server.ws_replay_blocks", "-1", atLeast1}, {"server.ws_replay_blocks", "0", atLeast1}, {"server.ws_replay_blocks", "1", ""},
		{"server.ws_ping_interval", "'-1s'", positive}, {"server.ws_ping_interval", "'0s'", positive}, {"server.ws_ping_interval", "'1ms'", ""},
		{"server.ws_poll_interval", "'-1s'", positive}, {"server.ws_poll_interval", "'0s'", positive}, {"server.ws_poll_interval", "'1ms'", ""},
		{"server.ws_head_stall", "'-1s'", notNegative}, {"server.ws_head_stall", "'0s'", ""}, {"server.ws_head_stall", "'1s'", ""},
		{"server.ws_gap", "'close'", ""}, {"server.ws_gap", "'count'", ""}, {"server.ws_gap", "'Close'", `"Close" is not known: must be close or count`},
		{"server.ws_gap", "''", `"" is not known: must be close or count`},
		{"server.max_concurrent_ws_rpcs", "7", ""}, {"server.max_concurrent_ws_rpcs", "0", ""},
		{"server.allow_all_origins", "true", ""},
		{"filters.mode", "'backend'", ""}, {"filters.mode", "'gateway'", ""}, {"filters.mode", "'node'", `"node" is not known: must be backend or gateway`},
		{"filters.mode", "''", `"" is not known: must be backend or gateway`},
		{"filters.expiry", "'0s'", positive}, {"filters.expiry", "'-1m'", positive}, {"filters.expiry", "'1s'", ""},
		{"filters.max_per_client", "0", atLeast1}, {"filters.max_per_client", "-1", atLeast1}, {"filters.max_per_client", "1", ""},
		{"server.ws_port", "-1", "must be between 0 and 65535"}, {"server.ws_port", "65536", "must be between 0 and 65535"}, {"server.ws_port", "0", ""}, {"server.ws_port", "65535", ""},
	} {
		table, key, _ := strings.Cut(c.key, ".")
		port := "rpc_port = 1\n"
		if table == "filters" {
			port = "server.rpc_port = 1\n"
		}
		text := withSockets + "[" + table + "]\n" + port + key + " = " + c.value + "\n"
		line := 11
		if table == "filters" { // which must not hold the port
			text = "server.rpc_port = 1\n" + withSockets + "[filters]\n" + key + " = " + c.value + "\n"
		}
		var want []string
		if c.want != "" {
			want = []string{fmt.Sprintf("line %d: %s: %s", line, c.key, c.want)}
		}
		if _, got := said(t, text); !slices.Equal(got, want) {
			t.Errorf("%s = %s: %q, want %q", c.key, c.value, got, want)
		}
	}
}

func TestDefaultsOfSocketKeys(t *testing.T) {
	c, got := said(t, withSockets+"[server]\nrpc_port = 1\n")
	if len(got) > 0 {
		t.Fatal(got)
	}
	s := c.Server
	if s.WSPort != 0 || s.MaxConcurrentWSRPCs != 100 || s.MaxClientWSConns != 0 || s.MaxWSConnsPerClient != 0 || s.MaxWSSubscriptions != 100 ||
		s.WSPingInterval != Duration(30*time.Second) || s.WSHeadStall != 0 || s.WSReplayBlocks != 128 || s.WSPollInterval != Duration(2*time.Second) || s.WSGap != "close" {
		t.Errorf("%+v", s)
	}
	if c.Filters != (Filters{Mode: "backend", Expiry: Duration(5 * time.Minute), MaxPerClient: 100}) {
		t.Errorf("%+v", c.Filters)
	}
}

func TestPortForSocketsBesideTheRPCPort(t *testing.T) {
	const fault = "server.ws_port: is the RPC port too, which takes WebSocket connections anyhow: remove it, or choose another"
	for _, c := range []struct {
		rpcHost, wsHost string
		rpc, ws         int
		fault           bool
	}{
		{"", "", 8545, 8545, true}, {"127.0.0.1", "127.0.0.1", 8545, 8545, true}, {"", "127.0.0.1", 8545, 8545, true}, {"127.0.0.1", "", 8545, 8545, true},
		{"0.0.0.0", "127.0.0.1", 8545, 8545, true}, {"127.0.0.1", "::", 8545, 8545, true},
		{"127.0.0.1", "127.0.0.2", 8545, 8545, false}, {"", "", 8545, 8546, false}, {"", "", 0, 8546, false}, {"", "", 0, 0, false}, {"", "", 8545, 0, false},
	} {
		text := fmt.Sprintf(withSockets+"[server]\nrpc_port = %d\nrpc_host = %q\nws_port = %d\n", c.rpc, c.rpcHost, c.ws)
		if c.wsHost != "" {
			text += fmt.Sprintf("ws_host = %q\n", c.wsHost)
		}
		_, got := said(t, text)
		got = slices.DeleteFunc(got, func(s string) bool { return !strings.Contains(s, "ws_") })
		want := []string{}
		if c.fault {
			want = []string{"line 12: " + fault}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestSocketPortNeedsAGroup(t *testing.T) {
	const mapped = "[rpc_method_mappings]\neth_call = 'g'\n[backend_groups.g]\nbackends = ['a']\n[backends.a]\nrpc_url = 'https://node.example'\n"
	_, got := said(t, mapped+"[server]\nrpc_port = 1\nws_port = 2\n")
	if len(got) != 1 || !strings.HasSuffix(got[0], "ws_backend_group: is required when server.ws_port is set") {
		t.Errorf("%q", got)
	}
	// One chain with a group is enough.
	_, got = said(t, mapped+"[server]\nrpc_port = 1\nws_port = 2\n[chains.x]\nws_backend_group = 'h'\nrpc_method_mappings.eth_call = 'h'\nbackend_groups.h.backends = ['b']\n[backends.b]\nws_url = 'ws://node.example'\n")
	if len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestURLsOfABackend(t *testing.T) {
	const (
		required = "backends.a.rpc_url: is required: the provider's http:// or https:// URL, or ws_url for calls over WebSocket"
		noURL    = "backends.a.ws_url: is not a URL with a host that begins with ws:// or wss://"
		noRPC    = "backends.a.rpc_url: is not a URL with a host that begins with http:// or https://"
		not      = "URL and will not be dialled: write ws:// or wss://; until then the backend is polled for subscriptions"
	)
	for _, c := range []struct {
		name, lines string
		want        []string
		socket      string // what SocketURL is
	}{
		{"both", "rpc_url = 'https://a.example'\nws_url = 'wss://a.example'", nil, "wss://a.example"},
		{"the socket alone", "ws_url = 'ws://a.example:1/x?y=z'", nil, "ws://a.example:1/x?y=z"},
		{"upper case", "ws_url = 'WSS://a.example'", nil, "WSS://a.example"},
		{"userinfo", "ws_url = 'wss://u:s3cret@a.example'", nil, "wss://u:s3cret@a.example"},
		{"an address", "ws_url = 'ws://[::1]:8546'", nil, "ws://[::1]:8546"},
		{"HTTP alone", "rpc_url = 'http://a.example'", nil, ""},
		{"none", "weight = 0", []string{"line 6: " + required}, ""},
		{"empty ones", "rpc_url = ''\nws_url = ''", []string{"line 7: " + required}, ""},
		{"HTTP's scheme, alone", "ws_url = 'https://a.example/s3cret'", []string{"line 6: " + required, "warning: line 7: backends.a.ws_url: is an https " + not}, ""},
		{"HTTP's scheme", "rpc_url = 'http://a.example'\nws_url = 'http://a.example/s3cret'", []string{"warning: line 8: backends.a.ws_url: is an http " + not}, ""},
		{"HTTP's scheme without a host", "rpc_url = 'http://a.example'\nws_url = 'http://'", []string{"line 8: " + noURL}, ""},
		{"another scheme", "rpc_url = 'http://a.example'\nws_url = 'tcp://a.example/s3cret'", []string{"line 8: " + noURL}, ""},
		{"no scheme", "rpc_url = 'http://a.example'\nws_url = 'a.example/s3cret'", []string{"line 8: " + noURL}, ""},
		{"no host", "ws_url = 'ws:///s3cret'", []string{"line 7: " + noURL}, "ws:///s3cret"},
		{"a port alone", "ws_url = 'ws://:8546'", []string{"line 7: " + noURL}, "ws://:8546"},
		{"a port that is none", "ws_url = 'ws://a.example:99999/s3cret'", []string{"line 7: " + noURL}, "ws://a.example:99999/s3cret"},
		{"no URL at all", "rpc_url = 'http://a.example'\nws_url = '%zz s3cret'", []string{"line 8: " + noURL}, ""},
		{"the socket's in rpc_url", "rpc_url = 'wss://a.example/s3cret'", []string{"line 7: " + noRPC}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "[rpc_method_mappings]\neth_call = 'g'\n[backend_groups.g]\nbackends = ['a']\n\n[backends.a]\n" + c.lines + "\n[server]\nrpc_port = 1\n"
			// Whether it is used is another question.
			config, got := said(t, strings.Replace(text, "\n\n", "\n#\n", 1))
			got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "does nothing") })
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
			if strings.Contains(strings.Join(got, ""), "s3cret") {
				t.Errorf("a secret is shown: %q", got)
			}
			var raw string
			for line := range strings.Lines(c.lines) {
				if value, ok := strings.CutPrefix(strings.TrimSpace(line), "ws_url = "); ok {
					raw = strings.Trim(value, "'")
				}
			}
			if socket := (&Backend{WSURL: Secret(raw)}).SocketURL().Reveal(); socket != c.socket {
				t.Errorf("the socket's URL is %q, want %q", socket, c.socket)
			}
			if config != nil && config.Backends["a"].WSURL.Reveal() != raw {
				t.Errorf("%q", config.Backends["a"].WSURL.Reveal())
			}
		})
	}
}

func TestSocketURLThatNobodyUses(t *testing.T) {
	const warning = "backends.a.ws_url: does nothing: it is used for the members of a ws_backend_group, of which this backend is none, and for backends without rpc_url"
	text := func(group, rpc string) string {
		return group + "\n[rpc_method_mappings]\neth_call = 'g'\n[backend_groups.g]\nbackends = ['a']\n[backend_groups.h]\nbackends = ['b']\n[backends.b]\nws_url = 'ws://b.example'\n[backends.a]\n" + rpc + "\nws_url = 'ws://a.example'\n[server]\nrpc_port = 1\n"
	}
	for _, c := range []struct {
		name, group, rpc string
		warns            bool
	}{
		{"no group", "", "rpc_url = 'http://a.example'", true},
		{"another group", "ws_backend_group = 'h'", "rpc_url = 'http://a.example'", true},
		{"its group", "ws_backend_group = 'g'", "rpc_url = 'http://a.example'", false},
		{"no rpc_url", "ws_backend_group = 'h'", "", false},
		{"no rpc_url, no group", "", "", false},
	} {
		_, got := said(t, text(c.group, c.rpc))
		got = slices.DeleteFunc(got, func(s string) bool { return !strings.Contains(s, "ws_url") })
		want := []string{}
		if c.warns {
			want = []string{"warning: line 12: " + warning}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
	}
}

func TestSocketKeysWithoutAGroupSayThatTheyDoNothing(t *testing.T) {
	const rest = "[rpc_method_mappings]\neth_call = 'g'\n[backend_groups.g]\nbackends = ['a']\n[backends.a]\nrpc_url = 'https://node.example'\n"
	values := map[string]string{
		"max_concurrent_ws_rpcs": "7", "max_client_ws_conns": "7", "max_ws_conns_per_client": "7", "max_ws_subscriptions": "7", "ws_ping_interval": "'7s'",
		"ws_head_stall": "'7s'", "ws_replay_blocks": "7", "ws_poll_interval": "'7s'", "ws_gap": "'count'", "allow_all_origins": "true",
	}
	for _, key := range socketKeys {
		if values[key] == "" {
			t.Errorf("%s: the test does not know it", key)
		}
	}
	for key, value := range values {
		text := "[server]\nrpc_port = 1\n" + key + " = " + value + "\n" + rest
		want := []string{"warning: line 3: server." + key + ": does nothing: it works only with ws_backend_group"}
		if _, got := said(t, text); !slices.Equal(got, want) {
			t.Errorf("%s: %q", key, got)
		}
		if _, got := said(t, "ws_backend_group = 'g'\n"+text); len(got) != 0 {
			t.Errorf("%s with a group: %q", key, got)
		}
		if _, got := said(t, text+"[chains.x]\nws_backend_group = 'h'\nrpc_method_mappings.eth_call = 'h'\nbackend_groups.h.backends = ['b']\n[backends.b]\nws_url = 'ws://node.example'\n"); len(got) != 0 {
			t.Errorf("%s with a chain's group: %q", key, got)
		}
	}
}

func TestWhitelistForSockets(t *testing.T) {
	const rest = "[server]\nrpc_port = 1\n[rpc_method_mappings]\neth_call = 'g'\n[backend_groups.g]\nbackends = ['a']\n[backends.a]\nrpc_url = 'https://node.example'\n"
	for _, method := range []string{"eth_call", "eth_*", "*", "e", strings.Repeat("x", 64)} {
		text := fmt.Sprintf("ws_backend_group = 'g'\nws_method_whitelist = ['eth_chainId', %q]\n", method) + rest
		if c, got := said(t, text); len(got) != 0 || c.WSMethodWhitelist[1] != method {
			t.Errorf("%s: %q", method, got)
		}
	}
	for _, method := range []string{"", "eth call", "*_x", "eth_*_x", "eth_**", "eth-call", strings.Repeat("x", 65)} {
		text := fmt.Sprintf("ws_backend_group = 'g'\nws_method_whitelist = ['eth_chainId', %q]\n", method) + rest
		want := fmt.Sprintf("line 2: ws_method_whitelist[1]: %q is neither a method name (letters, digits and _, at most 64) nor such a name with one * at its end", method)
		if _, got := said(t, text); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q", method, got)
		}
	}
	if _, got := said(t, "ws_method_whitelist = ['eth_chainId']\n"+rest); len(got) != 1 || got[0] != "warning: line 1: ws_method_whitelist: does nothing: it works only with ws_backend_group" {
		t.Errorf("%q", got)
	}
	if _, got := said(t, "ws_backend_group = 'g'\nws_method_whitelist = []\n"+rest); len(got) != 1 || !strings.Contains(got[0], "is empty: no method is served over WebSocket") {
		t.Errorf("%q", got)
	}
}

func TestGroupForSocketsThatThereIsNot(t *testing.T) {
	const rest = "[server]\nrpc_port = 1\n[rpc_method_mappings]\neth_call = 'main'\n[backend_groups.main]\nbackends = ['a']\n[backends.a]\nrpc_url = 'https://node.example'\n"
	for name, hint := range map[string]string{"maim": "; did you mean main?", "elsewhere": "", "refuse": ""} {
		want := fmt.Sprintf("line 1: ws_backend_group: there is no backend group %q%s", name, hint)
		if _, got := said(t, fmt.Sprintf("ws_backend_group = %q\n", name)+rest); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q", name, got)
		}
		// The top level's groups are not a chain's.
		chain := fmt.Sprintf("[chains.x]\nws_backend_group = %q\nrpc_method_mappings.eth_call = 'own'\nbackend_groups.own.backends = ['b']\n[backends.b]\nws_url = 'ws://node.example'\n", name)
		want = fmt.Sprintf("line 10: chains.x.ws_backend_group: there is no backend group %q", name)
		if _, got := said(t, rest+chain); len(got) != 1 || got[0] != want {
			t.Errorf("%s of a chain: %q", name, got)
		}
	}
	// A group that only sockets use is used.
	only := "ws_backend_group = 'sockets'\n" + rest + "[backend_groups.sockets]\nbackends = ['b']\n[backends.b]\nws_url = 'ws://node.example'\n"
	if _, got := said(t, only); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestSocketsOfABackendAreNotLimited(t *testing.T) {
	const want = "warning: line 9: backends.a.max_ws_conns: does nothing: clients share one WebSocket connection to a backend, which is always allowed; server.max_client_ws_conns limits those of clients"
	if _, got := said(t, withSockets+"max_ws_conns = 5\n[server]\nrpc_port = 1\n"); len(got) != 1 || got[0] != want {
		t.Errorf("%q", got)
	}
	if _, got := said(t, withSockets+"max_ws_conns = 0\n[server]\nrpc_port = 1\n"); len(got) != 0 {
		t.Errorf("%q", got)
	}
	if _, got := said(t, withSockets+"max_ws_conns = -1\n[server]\nrpc_port = 1\n"); len(got) != 1 || got[0] != "line 9: backends.a.max_ws_conns: must not be negative" {
		t.Errorf("%q", got)
	}
}
