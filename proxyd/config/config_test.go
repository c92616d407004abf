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
