package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// status is what a request for an upgrade is answered with.
func (f *socketFront) status(t testing.TB, request string) int {
	t.Helper()
	k, resp := handshake(t, f.addr, request)
	defer k.reset()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Errorf("%q: %v", request, err)
		}
		if !strings.HasPrefix(string(body), "{") && len(body) > 300 {
			t.Errorf("%q: %s", request, body)
		}
	}
	return resp.StatusCode
}

func TestUpgradesThatAreNoHandshakeAreRefused(t *testing.T) {
	f := newSocketFront(t, nil, nil)
	good := upgradeRequest("/")
	for name, row := range map[string]struct {
		old, now string
		status   int
	}{
		"as it should be":                {"", "", 101},
		"other spelling":                 {"Connection: Upgrade\r\nUpgrade: websocket", "connection: keep-alive, uPGRADE\r\nupgrade: foo, WebSocket", 101},
		"extensions and protocols":       {"Host: 127.0.0.1\r\n", "Host: 127.0.0.1\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Protocol: jsonrpc\r\n", 101},
		"compression of answers":         {"Host: 127.0.0.1\r\n", "Host: 127.0.0.1\r\nAccept-Encoding: gzip\r\n", 101},
		"no upgrade":                     {"Upgrade: websocket\r\n", "", 405},
		"upgrade to something else":      {"Upgrade: websocket\r\n", "Upgrade: h2c\r\n", 405},
		"connection is not for upgrades": {"Connection: Upgrade\r\n", "Connection: keep-alive\r\n", 426},
		"HTTP/1.0":                       {"HTTP/1.1", "HTTP/1.0", 426},
		"no key":                         {"Sec-WebSocket-Key: " + wsKey + "\r\n", "", 400},
		"two keys":                       {"Sec-WebSocket-Key: ", "Sec-WebSocket-Key: " + wsKey + "\r\nSec-WebSocket-Key: ", 400},
		"key of 15 bytes":                {wsKey, "dGhlIHNhbXBsZSBub25j", 400},
		"key that is not base64":         {wsKey, "!", 400},
		"no version":                     {"Sec-WebSocket-Version: 13\r\n", "", 400},
		"old version":                    {"Version: 13", "Version: 8", 400},
		"POST":                           {"GET", "POST", 400}, // a call without a body
		"PUT":                            {"GET", "PUT", 405},
		"other path":                     {"GET /", "GET /a/b", 404},
		"health check":                   {"GET /", "GET /healthz", 200},
	} {
		if got := f.status(t, strings.Replace(good, row.old, row.now, 1)); got != row.status {
			t.Errorf("%s: HTTP %d, want %d", name, got, row.status)
		}
	}
	f.empties(t)
}

func TestAnswerToAnUpgradeOffersNoExtensionAndNoProtocol(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.Gzip, o.CORS.Origins = true, []string{"*"} }, nil)
	k := f.open(t, "/", "Accept-Encoding: gzip", "Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: a, b", "X-Request-Id: abc", "Origin: http://127.0.0.1")
	for name, want := range map[string]string{"X-Request-Id": "abc", "Sec-WebSocket-Extensions": "", "Sec-WebSocket-Protocol": "", "Content-Encoding": "", "Content-Length": ""} {
		if got := k.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	k.lives()
}

func TestFramesBehindTheRequestAreServed(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.MaxBody = 64 << 10 }, nil)
	k, resp := handshake(t, f.addr, upgradeRequest("/")+string(textFrame(chainID))+string(textFrame(callOf(20_000))))
	if resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	k.gets(okOverSocket)
	k.gets(okOverSocket)
	k.lives()
}

func TestOriginsThatMayOpenASocket(t *testing.T) {
	allowAll := func(o *Options) { o.Sockets.AllowAllOrigins = true }
	origins := func(list ...string) func(*Options) { return func(o *Options) { o.CORS.Origins = list } }
	for _, row := range []struct {
		name         string
		change       func(*Options)
		host, origin string
		status       int
	}{
		{"no page", nil, "gateway.example", "", 101},
		{"no page, origins", origins("*"), "gateway.example", "", 101},
		{"a page of a name that may point here by rebinding", nil, "gateway.example", "http://gateway.example", 403},
		{"a page of this machine", nil, "127.0.0.1:8545", "http://127.0.0.1:8545", 101},
		{"a page of localhost", nil, "localhost:8545", "http://localhost:8545", 101},
		{"a page of IPv6", nil, "[::1]:8545", "http://[::1]:8545", 101},
		{"another port of this machine", nil, "127.0.0.1:8545", "http://127.0.0.1:3000", 403},
		{"another site", nil, "127.0.0.1:8545", "https://evil.example", 403},
		{"a page of the host", origins("*"), "gateway.example", "https://gateway.example", 101},
		{"a page of the host, other case", origins("*"), "gateway.example", "https://GATEWAY.example", 101},
		{"another site, any for HTTP", origins("*"), "gateway.example", "https://evil.example", 403},
		{"another site that is listed", origins("https://app.example"), "gateway.example", "https://app.example", 101},
		{"another site that is listed in other case", origins("https://App.example"), "gateway.example", "https://app.EXAMPLE", 101},
		{"another scheme than listed", origins("https://app.example"), "gateway.example", "http://app.example", 403},
		{"another port than listed", origins("https://app.example"), "gateway.example", "https://app.example:444", 403},
		{"a subdomain of one listed", origins("https://app.example"), "gateway.example", "https://x.app.example", 403},
		{"one that begins like one listed", origins("https://app.example"), "gateway.example", "https://app.example.evil", 403},
		{"a subdomain by a star", origins("https://*.app.example"), "gateway.example", "https://x.app.example", 101},
		{"another by a star", origins("https://*.app.example"), "gateway.example", "https://x.app.example.evil", 403},
		{"a file", origins("*"), "gateway.example", "null", 403},
		{"no URL", origins("*"), "gateway.example", "%zz", 403},
		{"no host", origins("*"), "gateway.example", "https://", 403},
		{"any", allowAll, "gateway.example", "https://evil.example", 101},
		{"any, a file", allowAll, "gateway.example", "null", 101},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newSocketFront(t, row.change, nil)
			var lines []string
			if row.origin != "" {
				lines = []string{"Origin: " + row.origin}
			}
			request := strings.Replace(upgradeRequest("/", lines...), "Host: 127.0.0.1", "Host: "+row.host, 1)
			if got := f.status(t, request); got != row.status {
				t.Errorf("HTTP %d, want %d", got, row.status)
			}
		})
	}
}

func TestKeysOfSockets(t *testing.T) {
	keys := func(o *Options) { o.Keys, o.APIKeys = map[string]string{"k1": "alice", "k/2": "bob"}, []string{"api"} }
	public := func(o *Options) { keys(o); o.PublicAccess = true }
	for _, row := range []struct {
		name, path string
		lines      []string
		change     func(*Options)
		status     int
		auth       string
		exempt     bool
	}{
		{"no keys", "/", nil, nil, 101, "none", false},
		{"any key without keys", "/whatever", nil, nil, 101, "none", false},
		{"key in the path", "/k1", nil, keys, 101, "alice", false},
		{"encoded key in the path", "/k%2F2", nil, keys, 101, "bob", false},
		{"wrong key in the path", "/k2", nil, keys, 401, "", false},
		{"no key", "/", nil, keys, 401, "", false},
		{"bearer", "/", []string{"Authorization: Bearer k1"}, keys, 101, "alice", false},
		{"wrong bearer", "/", []string{"Authorization: Bearer k2"}, keys, 401, "", false},
		{"key in a header", "/", []string{"X-Api-Key: k1"}, keys, 101, "alice", false},
		{"wrong key in the path beside a good one", "/k2", []string{"X-Api-Key: k1"}, keys, 401, "", false},
		{"API key beside the key", "/k1", []string{"X-Api-Key: api"}, keys, 101, "alice", true},
		{"API key alone", "/", []string{"X-Api-Key: api"}, keys, 401, "", true},
		{"public", "/", nil, public, 101, "none", false},
		{"public with a wrong key", "/k2", nil, public, 401, "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newSocketFront(t, row.change, nil)
			k, resp := handshake(t, f.addr, upgradeRequest(row.path, row.lines...))
			if resp.StatusCode != row.status {
				t.Fatalf("HTTP %d, want %d", resp.StatusCode, row.status)
			}
			if row.status != 101 {
				body, _ := io.ReadAll(resp.Body)
				if want := `{"jsonrpc":"2.0","error":{"code":-32600,"message":"unauthorized: no valid key"},"id":null}` + "\n"; string(body) != want || resp.Header.Get("WWW-Authenticate") != "Bearer" || len(resp.Header.Get("X-Request-Id")) != 20 {
					t.Errorf("%v %s", resp.Header, body)
				}
				if want := `proxyd_client_ws_refused_total{status_code="401"} 1`; !strings.Contains(f.metrics(), want) {
					t.Errorf("metrics without %s", want)
				}
				return
			}
			k.write(textFrame(chainID))
			k.gets(okOverSocket)
			if c := f.client(t); c.Auth != row.auth || c.Exempt != row.exempt || c.Source != "ws" {
				t.Errorf("%+v", c)
			}
			if want := fmt.Sprintf(`proxyd_active_client_ws_conns{auth=%q} 1`, row.auth); !strings.Contains(f.metrics(), want) {
				t.Errorf("metrics without %s", want)
			}
			k.write(closeFrame(1000, ""))
			k.closedWith(1000)
			f.empties(t)
			for _, want := range []string{fmt.Sprintf(`proxyd_active_client_ws_conns{auth=%q} 0`, row.auth), `proxyd_client_ws_closes_total{code="1000"} 1`} {
				if !strings.Contains(f.metrics(), want) {
					t.Errorf("metrics without %s", want)
				}
			}
		})
	}
}

func TestSocketsOfChains(t *testing.T) {
	f := &socketFront{}
	other := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) { c.Answer = &jsonrpc.Answer{Result: []byte(`"base"`)} })
	f = newSocketFront(t, func(o *Options) {
		o.Keys = map[string]string{"k1": "alice"}
		o.PublicAccess = true
		o.Chains = map[string]Chain{
			"base": {Routes: other.opts.Routes, WSRoutes: f.overSocket(other.opts.Routes), Metrics: other.opts.Metrics},
			"dull": {Routes: other.opts.Routes, Metrics: other.opts.Metrics},
		}
	}, nil)
	separate := httptest.NewServer(f.Upgrades())
	defer separate.Close()
	for path, want := range map[string]struct {
		status int
		result string
	}{
		"/": {101, "ok"}, "/k1": {101, "ok"}, "/base": {101, "base"}, "/base/": {101, "base"}, "/base/k1": {101, "base"},
		"/base/k2": {401, ""}, "/dull": {405, ""}, "/dull/": {405, ""}, "/dull/k1": {405, ""}, "/nope": {404, ""}, "/nope/k1": {404, ""}, "/base/k1/x": {404, ""},
	} {
		for _, addr := range []string{f.addr, separate.Listener.Addr().String()} {
			k, resp := handshake(t, addr, upgradeRequest(path))
			if resp.StatusCode != want.status {
				t.Errorf("%s: HTTP %d, want %d", path, resp.StatusCode, want.status)
				continue
			}
			if want.status == 101 {
				k.write(textFrame(chainID))
				k.gets(`{"jsonrpc":"2.0","result":"` + want.result + `","id":1}`)
				k.reset()
			}
		}
	}
	k, resp := handshake(t, separate.Listener.Addr().String(), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	if resp.StatusCode != 405 {
		t.Errorf("POST to the listener for sockets: HTTP %d, want 405", resp.StatusCode)
	}
	k.reset()
	f.empties(t)
}

func TestTopLevelWithoutSockets(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.WSRoutes = nil }, nil)
	if got := f.status(t, upgradeRequest("/")); got != 405 {
		t.Errorf("HTTP %d, want 405", got)
	}
}

func TestWhatASocketSaysOfItsClient(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }, nil)
	k := f.open(t, "/?archive=true", "X-Forwarded-For: 6.6.6.6, 2001:db8:1:2:3::4", "X-Request-Id: r-1", "User-Agent: ua", "Origin: http://127.0.0.1", "X-Optimism-Signature: sig")
	k.write(textFrame(chainID))
	k.gets(okOverSocket)
	c := f.client(t)
	if c.Addr != netip.MustParseAddr("2001:db8:1:2:3::4") || c.Key != "2001:db8:1:2::/64" || c.ForwardedFor != "6.6.6.6, 2001:db8:1:2:3::4" || c.RequestID != "r-1" || !c.Archive || c.UserAgent != "ua" ||
		c.Origin != "http://127.0.0.1" || c.OptimismSignature != "sig" || c.Source != "ws" || c.Batched || c.Session == nil {
		t.Errorf("%+v", c)
	}
	k.write(textFrame("[" + chainID + "]"))
	k.gets("[" + okOverSocket + "]")
	if c := f.client(t); !c.Batched || c.Session == nil || c.RequestID != "r-1" {
		t.Errorf("%+v", c)
	}
	k = f.open(t, "/", "X-Archive: 1")
	k.write(textFrame(chainID))
	k.gets(okOverSocket)
	if c := f.client(t); !c.Archive || len(c.RequestID) != 20 || c.Addr != netip.MustParseAddr("127.0.0.1") || c.RequestID != k.header.Get("X-Request-Id") {
		t.Errorf("%+v", c)
	}
	f.front.mu.Lock()
	defer f.front.mu.Unlock()
	for _, c := range f.asked {
		if c.MayStream {
			t.Error("a call over a socket may not stream")
		}
	}
}

func TestSocketsOfOneClientAreLimitedByItsAddress(t *testing.T) {
	f := newSocketFront(t, func(o *Options) {
		o.Sockets.MaxPerClient, o.Sockets.Max = 2, 5
		o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}, nil)
	from := func(addr string) string { return "X-Forwarded-For: " + addr }
	first := f.open(t, "/", from("1.1.1.1"))
	f.open(t, "/", from("9.9.9.9, 1.1.1.1")) // what the client itself wrote is not believed
	k, resp := handshake(t, f.addr, upgradeRequest("/", from("1.1.1.1")))
	body, _ := io.ReadAll(resp.Body)
	if want := `{"jsonrpc":"2.0","error":{"code":-32024,"message":"too many WebSocket connections of this client"},"id":null}` + "\n"; resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1" || string(body) != want {
		t.Errorf("HTTP %d %v %s", resp.StatusCode, resp.Header, body)
	}
	k.reset()
	f.open(t, "/", from("2001:db8::1"))
	f.open(t, "/", from("2001:db8::2"))
	if got := f.status(t, upgradeRequest("/", from("2001:db8::3"))); got != 429 { // the same /64
		t.Errorf("HTTP %d, want 429", got)
	}
	f.open(t, "/", from("2.2.2.2"))
	_, resp = handshake(t, f.addr, upgradeRequest("/", from("3.3.3.3")))
	body, _ = io.ReadAll(resp.Body)
	if want := `{"jsonrpc":"2.0","error":{"code":-32024,"message":"too many WebSocket connections"},"id":null}` + "\n"; resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || string(body) != want {
		t.Errorf("HTTP %d %v %s", resp.StatusCode, resp.Header, body)
	}
	first.reset()
	eventually(t, 5*time.Second, "the place", func() error {
		if got := f.status(t, upgradeRequest("/", from("1.1.1.1"))); got != 101 {
			return fmt.Errorf("HTTP %d", got)
		}
		return nil
	})
	for _, want := range []string{`proxyd_client_ws_refused_total{status_code="429"}`, `proxyd_client_ws_refused_total{status_code="503"}`} {
		if !strings.Contains(f.metrics(), want) {
			t.Errorf("metrics without %s", want)
		}
	}
}

func TestUpgradeThatFailsGivesItsPlaceBack(t *testing.T) {
	f := newSocketFront(t, func(o *Options) { o.Sockets.MaxPerClient, o.Sockets.Max = 1, 1 }, nil)
	for range 3 {
		if got := f.status(t, strings.Replace(upgradeRequest("/"), "Version: 13", "Version: 12", 1)); got != 400 {
			t.Errorf("HTTP %d, want 400", got)
		}
		f.do("GET", "/", "", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", wsKey) // a recorder cannot be taken over
	}
	f.empties(t)
	f.open(t, "/").lives()
}

func TestPlacesAreCountedRightWhateverHappens(t *testing.T) {
	const most, perClient = 24, 3
	f := newSocketFront(t, func(o *Options) { o.Sockets.Max, o.Sockets.MaxPerClient = most, perClient }, nil)
	bad := strings.Replace(upgradeRequest("/", "X-Forwarded-For: 1.1.1.1"), wsKey, "x", 1)
	var wg sync.WaitGroup
	opened := make([]int, 32)
	for i := range 32 {
		wg.Go(func() {
			for n := range 30 {
				if n%5 == 4 {
					f.status(t, bad)
					continue
				}
				k, resp := handshake(t, f.addr, upgradeRequest("/", fmt.Sprintf("X-Forwarded-For: 1.1.1.%d", i%8)))
				if count, _, open := f.places(); count > most || open > most {
					t.Errorf("%d places, %d sockets", count, open)
				}
				switch resp.StatusCode {
				case 101:
				case 429, 503:
					_ = k.Close()
					continue
				default:
					t.Errorf("HTTP %d", resp.StatusCode)
					continue
				}
				opened[i]++
				switch n % 4 {
				case 0:
					k.reset()
				case 1:
					k.write(closeFrame(1000, ""))
					k.closedWith(1000)
				case 2:
					k.write(textFrame(chainID), frame(fin|3, nil))
					k.closedWith(1002)
				default:
					_ = k.Close()
				}
			}
		})
	}
	wg.Wait()
	f.empties(t)
	total := 0
	for _, n := range opened {
		total += n
	}
	if total < 100 {
		t.Errorf("only %d sockets were opened", total)
	}
	if !strings.Contains(f.metrics(), `proxyd_active_client_ws_conns{auth="none"} 0`) {
		t.Error("the gauge is not 0")
	}
	for range perClient {
		f.open(t, "/")
	}
}

func TestNoUpgradesWhileDraining(t *testing.T) {
	f := newSocketFront(t, nil, nil)
	k := f.open(t, "/")
	f.Drain(t.Context(), 100*time.Millisecond)
	k.closedWith(1001)
	_, resp := handshake(t, f.addr, upgradeRequest("/"))
	body, _ := io.ReadAll(resp.Body)
	if want := `{"jsonrpc":"2.0","error":{"code":-32024,"message":"the gateway is shutting down"},"id":null}` + "\n"; resp.StatusCode != 503 || string(body) != want {
		t.Errorf("HTTP %d %s", resp.StatusCode, body)
	}
	is(t, f.post(chainID), 200, okAnswer)
	if err := f.Server.sockets.admit("x"); !errors.Is(err, errDraining) {
		t.Error(err)
	}
}

func TestEmptyWhitelistAllowsNothingOverWebSocket(t *testing.T) {
	table, err := jsonrpc.NewTable(nil)
	if err != nil {
		t.Fatal(err)
	}
	answers := &Target{Handler: jsonrpc.HandlerFunc(func(context.Context, []*jsonrpc.Call) {})}
	mapped := NewRoutes(table)
	mapped.Map("eth_call", answers)
	mapped.Map("eth_sign", &Target{})
	for _, c := range []struct {
		allowed []string
		served  string
	}{
		{nil, "eth_call eth_subscribe eth_unsubscribe"},
		{[]string{}, ""},
		{[]string{"eth_chainId"}, "eth_chainId"},
		{[]string{"eth_subscribe"}, "eth_subscribe eth_unsubscribe"},
		{[]string{"eth_*"}, "eth_call eth_chainId eth_subscribe eth_unsubscribe"},
	} {
		routes := mapped.OverWebSocket(c.allowed, answers, answers)
		served := []string{}
		for _, method := range []string{"eth_call", "eth_chainId", "eth_sign", "eth_subscribe", "eth_unsubscribe"} {
			if routes.route(&jsonrpc.Call{Method: method}) != nil {
				served = append(served, method)
			}
		}
		if got := strings.Join(served, " "); got != c.served {
			t.Errorf("%q: serves %s, want %s", c.allowed, got, c.served)
		}
	}
	mapped.Map("eth_subscribe", &Target{}) // refused by name
	if routes := mapped.OverWebSocket(nil, answers, answers); routes.route(&jsonrpc.Call{Method: "eth_subscribe"}) != nil {
		t.Error("eth_subscribe is served although the mapping refuses it")
	}
}
