package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestVariablesAreFilledIn(t *testing.T) {
	c, _, err := File(filepath.Join("..", "..", "testdata", "config", "env.toml"), Options{Env: lookup(goldenEnv)})
	if err != nil {
		t.Fatal(err)
	}
	inside, literal := c.Backends["inside"], c.Backends["literal"]
	for _, x := range []struct{ what, got, want string }{
		{"whole value", c.Backends["whole"].RPCURL.Reveal(), "https://node.example/v2/s3cret-rpc"},
		{"inside a value, twice", inside.RPCURL.Reveal(), "https://eth.example/v2/s3cret-token"},
		{"escaped whole value", inside.Password.Reveal(), "$TOKEN"},
		{"escaped reference", literal.RPCURL.Reveal(), "https://eth.example/${TOKEN}?a=$b"},
		{"backslash before a reference", literal.Headers["X-A"].Reveal(), "${TOKEN}"},
		{"header", literal.Headers["X-B"].Reveal(), "s3cret-token"},
		{"$NAME not at the start", literal.Headers["X-C"].Reveal(), "a$TOKEN"},
		{"two dollars", literal.Headers["X-D"].Reveal(), "$$TOKEN"},
		{"value that is no secret", c.Server.RPCHost, "127.0.0.1"},
		{"mapping", c.RPCMethodMappings["eth_call"], "g"},
		{"whole key", c.Authentication["s3cret-client"], "one"},
		{"inside a key", c.Authentication["pre-s3cret-token"], "two"},
		{"escaped key", c.Authentication["$literal"], "three"},
	} {
		if x.got != x.want {
			t.Errorf("%s: %q, want %q", x.what, x.got, x.want)
		}
	}
}

func TestConfigNeverPrintsASecret(t *testing.T) {
	c, _, err := File(filepath.Join("..", "..", "testdata", "config", "everything-allowed.toml"), Options{Env: lookup(goldenEnv), AllowInactive: true})
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	log := slog.New(slog.NewJSONHandler(&logged, nil))
	log.Info("x", "config", c, "keys", c.Authentication, "url", c.Backends["alchemy"].RPCURL)
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "config", *c, "keys", c.Authentication)
	for how, text := range map[string]string{
		"%v": fmt.Sprintf("%v", *c), "%+v": fmt.Sprintf("%+v", *c), "%#v": fmt.Sprintf("%#v", *c),
		"JSON": string(asJSON), "slog": logged.String(),
	} {
		for _, secret := range []string{"s3cret", "infura.example", "redis.example", "filter.example", "check.example"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows %s", how, secret)
			}
		}
	}
}

func TestKeysAreSpelledOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, key := range Keys() {
		if seen[key] {
			t.Errorf("%s is listed twice", key)
		}
		seen[key] = true
		if strings.Contains(key, "..") || strings.HasSuffix(key, ".") {
			t.Errorf("%q: a field has no toml tag", key)
		}
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	_, _, err := File(filepath.Join(t.TempDir(), "none.toml"), Options{})
	if err == nil || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none.toml") {
		t.Errorf("%v", err)
	}
}

func TestCertificatesAreReadByCheck(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := "server.rpc_port = 1\nrpc_method_mappings.eth_call = 'g'\nbackend_groups.g.backends = ['a']\n[backends.a]\nrpc_url = 'https://a.example'\n"
	for _, c := range []struct{ text, want string }{
		{"ca_file = '" + file + "'", "line 6: backends.a.ca_file: holds no certificate"},
		{"ca_file = '" + dir + "'", "line 6: backends.a.ca_file: cannot be read: read " + dir + ": is a directory"},
		{"client_cert_file = '" + file + "'\nclient_key_file = '" + file + "'", "line 6: backends.a.client_cert_file: is not a certificate with its key: tls: failed to find any PEM data in certificate input"},
	} {
		if _, _, err := Parse(base+c.text, Options{}); err == nil || err.Error() != c.want {
			t.Errorf("%v\nwant %s", err, c.want)
		}
	}
}

func TestHedgeDelayIsAQuantileOrADuration(t *testing.T) {
	for _, c := range []struct {
		delay string
		q     float64
		fixed time.Duration
		ok    bool
	}{
		{"p95", 0.95, 0, true}, {"p99.9", 0.999, 0, true}, {"p5", 0.05, 0, true}, {"p0.1", 0.001, 0, true}, {"p50.0", 0.5, 0, true},
		{"200ms", 0, 200 * time.Millisecond, true}, {"1s", 0, time.Second, true},
		{delay: "p100"}, {delay: "p0"}, {delay: "p0.0"}, {delay: "p99.99"}, {delay: "p95."}, {delay: "p.5"}, {delay: "p"}, {delay: "p-1"},
		{delay: "p1e1"}, {delay: "P95"}, {delay: "95"}, {delay: "0s"}, {delay: "-1s"}, {delay: ""}, {delay: "0.95"},
	} {
		h := Hedge{Delay: c.delay}
		if q, fixed := h.Quantile(); c.ok && (q != c.q || fixed != c.fixed) {
			t.Errorf("%q: %v, %v, want %v, %v", c.delay, q, fixed, c.q, c.fixed)
		}
		if _, _, ok := h.delay(); ok != c.ok {
			t.Errorf("%q: taken: %t", c.delay, ok)
		}
	}
}

func TestRankedGroupsRetryUnlessTheySayOtherwise(t *testing.T) {
	c, _, err := File(filepath.Join("..", "..", "testdata", "config", "strategies.toml"), Options{Env: lookup(goldenEnv)})
	if err != nil {
		t.Fatal(err)
	}
	ranked, own, sticky := c.BackendGroups["ranked"], c.BackendGroups["ranked-own-retries"], c.BackendGroups["sticky"]
	if ranked.RetryCount == nil || *ranked.RetryCount != 3 || ranked.RetryDelay == nil || *ranked.RetryDelay != Duration(150*time.Millisecond) {
		t.Errorf("ranked: %v retries, %v apart", ranked.RetryCount, ranked.RetryDelay)
	}
	if own.RetryCount == nil || *own.RetryCount != 0 || own.RetryDelay == nil || *own.RetryDelay != 0 {
		t.Errorf("ranked with its own: %v retries, %v apart", own.RetryCount, own.RetryDelay)
	}
	if sticky.RetryCount != nil || sticky.RetryDelay != nil || sticky.MaxBlockLag != nil || sticky.Hedge != nil {
		t.Errorf("sticky: %v retries, %v apart, lag %v, hedge %v", sticky.RetryCount, sticky.RetryDelay, sticky.MaxBlockLag, sticky.Hedge)
	}
}
