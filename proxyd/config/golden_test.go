package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// goldenEnv is the environment of the golden files. What begins with s3cret must
// appear in no outcome.
var goldenEnv = map[string]string{
	"RPC_URL": "https://node.example/v2/s3cret-rpc", "REDIS_URL": "redis://:s3cret-redis@redis.example", "TOKEN": "s3cret-token",
	"PASSWORD": "s3cret-password", "CLIENT_KEY": "s3cret-client", "HOST": "eth.example", "LISTEN": "127.0.0.1", "GROUP": "g", "CORS_AGE": "5m", "EMPTY": "",
}

func lookup(env map[string]string) Lookup {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// TestGolden reads every file of testdata/config and compares what became of it
// with the file beside it: NAME.errors holds the faults and warnings of a file
// that is refused, NAME.golden.json the warnings and the whole configuration of
// one that is taken, without zero values. A first line "#! strict" or
// "#! allow-inactive" sets these options.
func TestGolden(t *testing.T) {
	dir := filepath.Join("..", "..", "testdata", "config")
	files, err := filepath.Glob(filepath.Join(dir, "*.toml"))
	if err != nil || len(files) < 40 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".toml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(text), "\n")
			o := Options{Env: lookup(goldenEnv), Strict: first == "#! strict", AllowInactive: first == "#! allow-inactive"}
			c, warnings, err := File(file, o)
			got, want, other := outcome(t, c, warnings, err), name+".golden.json", name+".errors"
			if err != nil {
				want, other = other, want
			}
			if strings.Contains(strings.ReplaceAll(got, "s3cret-field", ""), "s3cret") {
				t.Errorf("a secret is shown:\n%s", got)
			}
			if _, err := os.Stat(other); err == nil {
				t.Errorf("%s does not belong to the outcome", other)
			}
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			golden, err := os.ReadFile(want)
			if err != nil {
				t.Fatalf("%v\n%s", err, got)
			}
			if got != string(golden) {
				t.Errorf("differs from %s (go test -update rewrites it)\ngot:\n%s\nwant:\n%s", want, got, golden)
			}
		})
	}
}

func outcome(t *testing.T, c *Config, warnings []Problem, err error) string {
	t.Helper()
	if err != nil {
		var faults Faults
		if !errors.As(err, &faults) {
			t.Fatalf("not Faults: %v", err)
		}
		if !slices.IsSortedFunc(faults, func(a, b Problem) int { return a.Line - b.Line }) {
			t.Error("faults are not in the order of lines")
		}
		text := err.Error() + "\n"
		for _, w := range warnings {
			text += "warning: " + w.String() + "\n"
		}
		return text
	}
	lines := []string{}
	for _, w := range warnings {
		lines = append(lines, w.String())
	}
	text, err := marshal(map[string]any{"warnings": lines, "config": normalise(reflect.ValueOf(c).Elem())})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func marshal(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.String(), err
}

// normalise turns a value into what JSON shows: keys as in TOML, durations and
// secrets as they print, no zero values but those behind pointers.
func normalise(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		if inner := normalise(v.Elem()); inner != nil {
			return inner
		}
		return v.Elem().Interface()
	case reflect.Struct:
		out := map[string]any{}
		for i := range v.NumField() {
			if inner := normalise(v.Field(i)); inner != nil {
				out[v.Type().Field(i).Tag.Get("toml")] = inner
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case reflect.Map:
		if _, prints := v.Interface().(fmt.Stringer); !prints && v.Len() > 0 {
			out := map[string]any{}
			for _, k := range v.MapKeys() {
				out[k.String()] = normalise(v.MapIndex(k))
			}
			return out
		}
	case reflect.Slice:
		var out []any
		for i := range v.Len() {
			out = append(out, normalise(v.Index(i)))
		}
		if out == nil {
			return nil
		}
		return out
	}
	if v.IsZero() {
		return nil
	}
	if s, ok := v.Interface().(fmt.Stringer); ok {
		if s.String() == "" {
			return nil
		}
		return s.String()
	}
	return v.Interface()
}
