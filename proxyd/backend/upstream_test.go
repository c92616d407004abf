package backend

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"gateway.internal/proxyd/jsonrpc"
)

// seen is a request as a provider got it.
type seen struct {
	r    *http.Request
	body string
}

// recording answers every call and remembers the requests.
func recording(t testing.TB) (url string, requests func() []seen) {
	var mu sync.Mutex
	var all []seen
	url = provider(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		all = append(all, seen{r, string(body)})
		mu.Unlock()
		fmt.Fprintf(w, `{"id":%d,"result":"0x1"}`, idIn(body))
	})
	return url, func() []seen {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// sent asks b once for c and returns what the provider saw.
func sent(t *testing.T, change func(*Options), path string, c *jsonrpc.Call) seen {
	t.Helper()
	url, requests := recording(t)
	b := newBackend(t, strings.Replace(url, "http://", "http://"+strings.TrimSuffix(path, "/"), 1), change)
	result(t, ask(t, b, c)[0], `"0x1"`)
	return requests()[0]
}

func TestRequestIsRebuiltWithTheGatewaysOwnID(t *testing.T) {
	url, requests := recording(t)
	b := newBackend(t, url, nil)
	c := call("eth_call", `[ {"B":1.0,"a":"é\u00e9"} , "latest" ]`)
	c.ID = []byte(`"the client's"`)
	ask(t, b, c)
	ask(t, b, blockNumber())
	for i, want := range []string{
		`{"jsonrpc":"2.0","method":"eth_call","params":[ {"B":1.0,"a":"é\u00e9"} , "latest" ],"id":1}`,
		`{"jsonrpc":"2.0","method":"eth_blockNumber","id":2}`,
	} {
		got := requests()[i]
		if got.body != want || got.r.Method != "POST" || got.r.ContentLength != int64(len(want)) {
			t.Errorf("%s, length %d: %s\nwant %s", got.r.Method, got.r.ContentLength, got.body, want)
		}
	}
}

func TestBatchIsOneArrayWithConsecutiveIDs(t *testing.T) {
	var body []byte
	url := provider(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		io.WriteString(w, `[{"id":1,"result":"a"},{"id":2,"result":"b"}]`)
	})
	ask(t, newBackend(t, url, nil), blockNumber(), call("eth_getCode", `["0x"]`))
	var got []struct {
		Method string
		ID     int
	}
	if err := json.Unmarshal(body, &got); err != nil || len(got) != 2 || got[0].ID != 1 || got[1].ID != 2 || got[1].Method != "eth_getCode" {
		t.Errorf("%s: %v", body, err)
	}
}

func TestHeadersOfARequest(t *testing.T) {
	got := sent(t, nil, "", blockNumber())
	want := map[string]string{"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "proxyd"}
	for name, value := range want {
		if got.r.Header.Get(name) != value {
			t.Errorf("%s: %q, want %q", name, got.r.Header.Get(name), value)
		}
	}
	delete(got.r.Header, "Content-Length")
	if len(got.r.Header) != len(want) {
		t.Errorf("more was sent than is known of: %v", slices.Sorted(maps.Keys(got.r.Header)))
	}
}

func TestNothingElseOfTheClientIsForwarded(t *testing.T) {
	c := blockNumber()
	c.Client = &jsonrpc.Client{Auth: "alias", Key: "1.2.3.4", ForwardedFor: "1.2.3.4, 5.6.7.8", OptimismSignature: "0xabc:0xdef", Origin: "https://dapp", UserAgent: "wallet", RequestID: "r1"}
	got := sent(t, nil, "", c)
	if h := got.r.Header; h.Get("X-Forwarded-For") != "1.2.3.4, 5.6.7.8" || h.Get("X-Optimism-Signature") != "0xabc:0xdef" {
		t.Errorf("forwarded %v", h)
	}
	for _, name := range []string{"Cookie", "Authorization", "Origin", "X-Request-Id", "X-Idempotency-Key"} {
		if got.r.Header.Get(name) != "" {
			t.Errorf("%s: %q", name, got.r.Header.Get(name))
		}
	}
	if got.r.Header.Get("User-Agent") != "proxyd" {
		t.Error("the client's User-Agent went upstream")
	}
}

func TestForwardedFor(t *testing.T) {
	for _, c := range []struct {
		value, ip string
		strip     bool
		want      string
	}{
		{"1.1.1.1, 2.2.2.2", "", false, "1.1.1.1, 2.2.2.2"},
		{"1.1.1.1, 2.2.2.2", "9.9.9.9", false, "1.1.1.1, 2.2.2.2, 9.9.9.9"},
		{"1.1.1.1, 2.2.2.2", "", true, "1.1.1.1"},
		{"1.1.1.1 , 2.2.2.2", "9.9.9.9", true, "1.1.1.1"},
		{"", "9.9.9.9", false, ""},
	} {
		x := blockNumber()
		x.Client.ForwardedFor = c.value
		got := sent(t, func(o *Options) { o.ProxyIP, o.StripTrailingXFF = c.ip, c.strip }, "", x)
		if got.r.Header.Get("X-Forwarded-For") != c.want {
			t.Errorf("%+v: got %q", c, got.r.Header.Get("X-Forwarded-For"))
		}
	}
}

func TestConfiguredHeadersComeLast(t *testing.T) {
	c := blockNumber()
	c.Client.ForwardedFor, c.Client.OptimismSignature = "1.1.1.1", "client's"
	got := sent(t, func(o *Options) {
		o.Username, o.Password = "u", "secret"
		o.Headers = map[string]string{
			"user-agent": "configured", "x-forwarded-for": "configured", "X-Optimism-Signature": "configured", "Accept": "configured",
			"Authorization": "configured", "X-Own": "configured", "host": "rpc.example",
		}
	}, "", c)
	for _, name := range []string{"User-Agent", "X-Forwarded-For", "X-Optimism-Signature", "Accept", "Authorization", "X-Own"} {
		if got := got.r.Header.Values(name); len(got) != 1 || got[0] != "configured" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got.r.Host != "rpc.example" || got.r.Header.Get("Host") != "" {
		t.Errorf("Host %q", got.r.Host)
	}
}

func TestBasicAuth(t *testing.T) {
	for name, c := range map[string]struct {
		change         func(*Options)
		userinfo       string
		user, password string
		ok             bool
	}{
		"configured":               {func(o *Options) { o.Username, o.Password = "user", "pass" }, "", "user", "pass", true},
		"in the URL":               {nil, "user:p%40ss@", "user", "p@ss", true},
		"configured beats the URL": {func(o *Options) { o.Username, o.Password = "user", "pass" }, "a:b@", "user", "pass", true},
		"a name without password":  {func(o *Options) { o.Username = "user" }, "", "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			user, password, ok := sent(t, c.change, c.userinfo, blockNumber()).r.BasicAuth()
			if user != c.user || password != c.password || ok != c.ok {
				t.Errorf("%q, %q, %t", user, password, ok)
			}
		})
	}
}

func TestCompressedAnswersAreAskedForOnlyWhenConfigured(t *testing.T) {
	got := sent(t, func(o *Options) { o.Gzip = true }, "", blockNumber())
	if got.r.Header.Get("Accept-Encoding") != "gzip" {
		t.Errorf("Accept-Encoding %q", got.r.Header.Get("Accept-Encoding"))
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	var mu sync.Mutex
	peers := map[string]bool{}
	url := provider(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		peers[r.RemoteAddr] = true
		mu.Unlock()
		fmt.Fprintf(w, `{"id":%d,"result":"0x1"}`, firstID(r))
	})
	b := newBackend(t, url, nil)
	for range 20 {
		ask(t, b, blockNumber())
	}
	if len(peers) != 1 {
		t.Errorf("20 calls took %d connections", len(peers))
	}
}

func TestURLMustBeHTTPAndTheErrorDoesNotShowIt(t *testing.T) {
	for _, url := range []string{"ws://host/SECRETSECRET", "host/SECRETSECRET", "http://", "http://ho st/SECRETSECRET", ""} {
		_, err := New(Options{Name: "b", URL: url})
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: %v", url, err)
		}
	}
}
