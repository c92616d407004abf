package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEndpoints(t *testing.T) {
	for _, c := range []struct{ name, list, want string }{
		{"single", "http://seq1:8545", "http://seq1:8545"},
		{"multiple", "http://seq1:8545,http://seq2:8545,https://seq3", "http://seq1:8545 http://seq2:8545 https://seq3"},
		{"white space", " http://seq1:8545 ,\t\nhttp://seq2:8545 ", "http://seq1:8545 http://seq2:8545"},
		{"trailing commas", "http://seq1:8545,http://seq2:8545,,", "http://seq1:8545 http://seq2:8545"},
		{"empty entries", ",http://seq1:8545, ,,http://seq2:8545", "http://seq1:8545 http://seq2:8545"},
		{"upper case", "HTTP://SEQ1:8545", "HTTP://SEQ1:8545"},
		{"IPv6", "http://[::1]:8545", "http://[::1]:8545"},
		{"as it stands", `https://u:p$a@node.example/v2/${KEY}\x'"?k=%2C`, `https://u:p$a@node.example/v2/${KEY}\x'"?k=%2C`},
		{"different paths, users, ports and schemes", "http://a/1,http://a/2,http://u@a/1,http://a:81/1,https://a/1", "http://a/1 http://a/2 http://u@a/1 http://a:81/1 https://a/1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := endpoints("upstream", c.list)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, u := range found {
				got = append(got, u.Reveal())
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestEndpointsRefused(t *testing.T) {
	const (
		needs   = "--upstream needs an endpoint: an http:// or https:// URL, or several with commas between them"
		begins  = " of --upstream does not begin with http:// or https://: "
		invalid = " of --upstream is not a valid URL: "
		host    = " of --upstream has no host: "
		port    = " of --upstream has a port that is not between 1 and 65535: "
		space   = " of --upstream has a space in it: "
	)
	for _, c := range []struct{ name, list, want string }{
		{"empty", "", needs},
		{"blank", " \t", needs},
		{"only commas", ",, ,", needs},
		{"no scheme", "seq1-s3cret:8545", "endpoint 1" + begins},
		{"a variable", "$SEQUENCERS", "endpoint 1" + begins},
		{"no scheme before an address", "http://seq1,10.0.0.7:8545/s3cret", "endpoint 2" + begins},
		{"the position is that of what is left", ",http://seq1,,s3cret", "endpoint 2" + begins},
		{"other scheme", "http://seq1,http://seq2,ftp://s3cret", "endpoint 3" + begins},
		{"one slash", "http:/s3cret", "endpoint 1" + begins},
		{"no host", "http://", "endpoint 1" + host},
		{"no host before a port", "http://:8545/s3cret", "endpoint 1" + host},
		{"no host before a path", "http:///s3cret", "endpoint 1" + host},
		{"port is a word", "http://seq1:s3cret", "endpoint 1" + invalid},
		{"two ports", "http://seq1:8545:8546/s3cret", "endpoint 1" + invalid},
		{"port too large", "http://seq1:65536/s3cret", "endpoint 1" + port},
		{"port 0", "http://seq1:0/s3cret", "endpoint 1" + port},
		{"bad escape", "http://seq1/s3cret%zz", "endpoint 1" + invalid},
		{"control character", "http://seq1/s3cret\x00", "endpoint 1" + invalid},
		{"spaces for commas", "http://seq1/s3cret http://seq2", "endpoint 1" + space},
		{"a fault behind a WebSocket URL", "ws://seq1,s3cret", "endpoint 2" + begins},
		{"HTTP and ws", "http://seq1,ws://seq2/s3cret", "--upstream has both HTTP and WebSocket URLs (endpoint 2 is a WebSocket one): give http:// or https:// URLs, or a single ws:// or wss:// one"},
		{"wss and HTTPS", "wss://seq1/s3cret,https://seq2", "--upstream has both HTTP and WebSocket URLs (endpoint 1 is a WebSocket one): "},
		{"several ws", "ws://seq1/s3cret,wss://seq2", "--upstream has 2 WebSocket URLs, "},
		{"twice", "http://seq1/s3cret,http://seq2,http://seq1/s3cret", "endpoints 1 and 3 of --upstream are the same: remove one of them"},
		{"twice, spelled otherwise", "http://seq1,HTTP://SEQ1:80/", "endpoints 1 and 2 of --upstream are the same: "},
		{"twice, but for the fragment", "https://seq1:443/a,https://seq1:/a#s3cret", "endpoints 1 and 2 of --upstream are the same: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := endpoints("upstream", c.list)
			if err == nil {
				t.Fatalf("%d endpoints, want the error %s", len(found), c.want)
			}
			if !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestMappings(t *testing.T) {
	all := map[string]string{"*": "g", "admin_*": "refuse", "personal_*": "refuse", "engine_*": "refuse", "debug_*": "refuse", "miner_*": "refuse"}
	for _, c := range []struct {
		allow, idle []string
		changed     map[string]string
	}{
		{nil, nil, nil},
		{[]string{"debug_traceTransaction"}, nil, map[string]string{"debug_traceTransaction": "g"}},
		{[]string{"debug_trace*", "admin_peers", "admin_peers"}, nil, map[string]string{"debug_trace*": "g", "admin_peers": "g"}},
		{[]string{"debug_*"}, nil, map[string]string{"debug_*": "g"}},
		{[]string{"debug*"}, nil, map[string]string{"debug_*": "g"}},
		{[]string{"*"}, nil, map[string]string{"admin_*": "g", "personal_*": "g", "engine_*": "g", "debug_*": "g", "miner_*": "g"}},
		{[]string{"eth_call", "debug", "net_*", "e*"}, []string{"eth_call", "debug", "net_*"}, map[string]string{"engine_*": "g"}},
	} {
		want := maps.Clone(all)
		maps.Copy(want, c.changed)
		got, idle, err := mappings("g", c.allow)
		if err != nil || !maps.Equal(got, want) || !slices.Equal(idle, c.idle) {
			t.Errorf("%v: got %v, idle %v, %v\nwant %v, idle %v", c.allow, got, idle, err, want, c.idle)
		}
	}
	for _, name := range []string{"debug_*Transaction", "debug trace", `debug_"`, "**", "http://s3cret"} {
		if _, _, err := mappings("g", []string{name}); err == nil || !strings.HasPrefix(err.Error(), "--allow-method") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOneWebSocketEndpointIsTaken(t *testing.T) {
	for _, list := range []string{"ws://seq1/s3cret", " WSS://seq1/s3cret,"} {
		f := noFileFlags{sequencers: []string{list}, dial: time.Second, request: time.Second}
		c, _, err := f.config()
		if err != nil {
			t.Fatalf("%s: %v", list, err)
		}
		if b := c.Backends["seq1"]; b.RPCURL != "" || b.SocketURL() == "" || c.WSBackendGroup == "" {
			t.Errorf("%s: rpc_url set %t, ws_url set %t", list, b.RPCURL != "", b.SocketURL() != "")
		}
	}
}
