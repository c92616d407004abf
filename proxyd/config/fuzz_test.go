package config

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// FuzzParse: reading never panics; every key that the TOML library sees has a
// line, which is in the file; and no message shows the value of a secret key.
func FuzzParse(f *testing.F) {
	for _, glob := range []string{"../../testdata/config/*.toml", "../../example.config.toml"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	for _, text := range []string{
		"[backends.a]\nrpc_url = \"s3cret-url\"\nws_url='s3cret-ws'\npassword = \"\"\"s3cret\npass\"\"\"\nusername=\"$s3cret-user\"\nheaders = { X-A = \"s3cret-header\\n\" }",
		"[[a.b]]\nc.d = [ { e = 1 } ]\n[[a.b.f]]\n\"g\\u0041\\x41\" = 1 # x\n[a.b.h]\n'' = '''\n'''",
		"redis = { url = \"s3cret-redis\", read_url = \"${s3cret-read}\" }\nauthentication = { s3cret-key = 1, \"${s3cret key}\" = 'x' }",
	} {
		f.Add(text)
	}
	index := regexp.MustCompile(`\[\d+\]`)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			t.Skip("larger than the property needs")
		}
		_, warnings, err := Parse(text, Options{Env: lookup(goldenEnv)})
		var said strings.Builder
		for _, w := range warnings {
			said.WriteString(w.String() + "\n")
		}
		var faults Faults
		if err != nil && !errors.As(err, &faults) {
			t.Fatalf("not Faults: %v", err)
		}
		if err != nil {
			said.WriteString(err.Error())
		}
		last := strings.Count(text, "\n") + 1
		for _, p := range append(faults, warnings...) {
			if p.Line < 0 || p.Line > last {
				t.Errorf("%s: the file has %d lines", p, last)
			}
		}
		var document map[string]any
		meta, err := toml.Decode(text, &document)
		if err != nil {
			return
		}
		for _, secret := range secretsOf(document) {
			if strings.Contains(secret, "s3cret") && strings.Count(text, secret) == 1 && strings.Contains(said.String(), secret) {
				t.Errorf("shows %q:\n%s", secret, said.String())
			}
		}
		if strings.Count(text, "[")+strings.Count(text, "{") > maxWalk || strings.Count(text, ".") > maxWalk {
			return // too deep to be looked into
		}
		found := map[string]int{}
		for key, line := range locate(text) {
			found[index.ReplaceAllString(key, "")] = line
		}
		for _, key := range meta.Keys() {
			name := index.ReplaceAllString(path(key).String(), "")
			if line := found[name]; line < 1 || line > last {
				t.Errorf("key %s has line %d of %d", name, line, last)
			}
		}
	})
}

// secretsOf returns the strings at the secret keys of a document.
func secretsOf(document map[string]any) []string {
	var out []string
	add := func(table any, keys ...string) {
		t, _ := table.(map[string]any)
		for key, value := range t {
			for _, k := range keys {
				if s, ok := value.(string); ok && (k == "*" || k == key) {
					out = append(out, s)
				}
			}
		}
	}
	add(document["redis"], "url", "read_url")
	add(document["tx_validation_middleware"], "endpoint")
	backends, _ := document["backends"].(map[string]any)
	for _, b := range backends {
		add(b, "rpc_url", "ws_url", "probe_url", "username", "password")
		if b, ok := b.(map[string]any); ok {
			add(b["headers"], "*")
		}
	}
	scopes := []any{document}
	chains, _ := document["chains"].(map[string]any)
	for _, c := range chains {
		scopes = append(scopes, c)
	}
	for _, s := range scopes {
		s, _ := s.(map[string]any)
		groups, _ := s["backend_groups"].(map[string]any)
		for _, g := range groups {
			add(g, "reference_url")
		}
	}
	keys, _ := document["authentication"].(map[string]any)
	for key := range keys {
		out = append(out, key)
	}
	return out
}
