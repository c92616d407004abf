package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// settable is a line of the example that sets a key or opens a table, after a #
// where it is not in force.
var settable = regexp.MustCompile(`^(#?)(\[.*\]|[A-Za-z_"][^ ]* = .*?)(  # example)?$`)

func readExample(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "example.config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}

// uncomment puts the keys that are not set in force, with or without those that
// are examples.
func uncomment(lines []string, examples bool) string {
	var out []string
	for _, line := range lines {
		if m := settable.FindStringSubmatch(line); m != nil && m[1] == "#" && (examples || m[3] == "") {
			line = m[2]
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// sameInChain reports whether a key of a chain is explained at the top level.
func sameInChain(key string) bool {
	return strings.HasPrefix(key, "chains.*.backend_groups.") || strings.HasPrefix(key, "chains.*.rpc_method_mappings.")
}

// keysTold are the keys without those of a chain that the top level explains.
func keysTold() []string { return slices.DeleteFunc(Keys(), sameInChain) }

// TestChainHasTheKeysOfTheTopLevel: what is left out by keysTold is explained
// there indeed.
func TestChainHasTheKeysOfTheTopLevel(t *testing.T) {
	known, left := Keys(), 0
	for _, key := range known {
		if sameInChain(key) {
			left++
			if top := strings.TrimPrefix(key, "chains.*."); !slices.Contains(known, top) {
				t.Errorf("%s: there is no %s", key, top)
			}
		}
	}
	if left < 30 {
		t.Errorf("only %d keys of a chain's groups", left)
	}
}

func TestExampleRunsAsItStands(t *testing.T) {
	c, warnings, err := Parse(strings.Join(readExample(t), "\n"), Options{Env: lookup(nil), Strict: true})
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v %v", err, warnings)
	}
	if len(c.Backends) != 2 {
		t.Errorf("%d backends, want two", len(c.Backends))
	}
}

func TestExampleHasEveryKeyAndNoOther(t *testing.T) {
	text := uncomment(readExample(t), true)
	var document map[string]any
	meta, err := toml.Decode(text, &document)
	if err != nil {
		t.Fatal(err)
	}
	known := keysTold()
	stands := map[string]bool{}
	for _, key := range meta.Keys() {
		for _, k := range known {
			if matches(path(key), k) {
				stands[k] = true
			}
		}
	}
	for _, k := range known {
		if !stands[k] {
			t.Errorf("%s does not stand in example.config.toml", k)
		}
	}
	_, warnings, err := Parse(text, Options{Env: lookup(map[string]string{"FIRST_PASSWORD": "x", "WALLET_KEY": "x"}), AllowInactive: true, Strict: true})
	if err != nil {
		t.Errorf("with everything uncommented:\n%v", err)
	}
	for _, w := range warnings {
		if !strings.Contains(w.Text, "not built yet") && !strings.Contains(w.Text, "does nothing") && !strings.Contains(w.Text, "trusted_proxies") && !strings.Contains(w.String(), "trusted_proxies") {
			t.Errorf("with everything uncommented: %s", w)
		}
	}
}

// TestExampleTellsTheDefaults: setting every key to the value that the example
// tells as its default changes nothing.
func TestExampleTellsTheDefaults(t *testing.T) {
	lines := readExample(t)
	bare, _, err := Parse(strings.Join(lines, "\n"), Options{Env: lookup(nil)})
	if err != nil {
		t.Fatal(err)
	}
	set, _, err := Parse(uncomment(lines, false), Options{Env: lookup(nil)})
	if err != nil {
		t.Fatal(err)
	}
	want, got := flat(normalise(reflect.ValueOf(bare).Elem()), ""), flat(normalise(reflect.ValueOf(set).Elem()), "")
	keys := maps.Clone(want)
	maps.Copy(keys, got)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if !reflect.DeepEqual(want[key], got[key]) {
			t.Errorf("%s: the example tells %v, the default is %v", key, got[key], want[key])
		}
	}
}

// TestExampleTellsTheDefaultsOfOptionalTables: a table that is off unless it
// stands in the file has the example's values when it is empty.
func TestExampleTellsTheDefaultsOfOptionalTables(t *testing.T) {
	c, _, err := Parse(uncomment(readExample(t), true), Options{Env: lookup(map[string]string{"FIRST_PASSWORD": "x", "WALLET_KEY": "x"}), AllowInactive: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]any{
		"health": c.Health, "retry_budget": c.RetryBudget, "retry_budget of a group": c.BackendGroups["main"].RetryBudget,
		"rate_limit_recovery": c.Backends["first"].RateLimitRecovery, "hedge": c.BackendGroups["main"].Hedge,
	} {
		if want := withDefaults(reflect.TypeOf(got).Elem()).Interface(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the example tells %+v, the defaults are %+v", name, got, want)
		}
	}
}

func flat(v any, at string) map[string]any {
	m, ok := v.(map[string]any)
	if !ok {
		return map[string]any{at: v}
	}
	out := map[string]any{}
	for k, inner := range m {
		maps.Copy(out, flat(inner, strings.TrimPrefix(at+"."+k, ".")))
	}
	return out
}

func TestExampleSaysSomethingOfEveryKey(t *testing.T) {
	lines := readExample(t)
	notBuilt := map[string]bool{}
	bare, _, err := File(filepath.Join("..", "..", "testdata", "config", "minimal.toml"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defaults, table := flat(normalise(reflect.ValueOf(bare).Elem()), ""), ""
	for i, line := range lines {
		m := settable.FindStringSubmatch(line)
		if m != nil && strings.HasPrefix(m[2], "[") {
			table = strings.Trim(m[2], "[]")
		}
		if m == nil || strings.HasPrefix(m[2], "[") || i == 0 {
			continue
		}
		key, value, _ := strings.Cut(m[2], " = ")
		if is, ok := defaults[table+"."+key]; m[1] == "" && slices.Contains([]string{"server", "cache", "metrics", "backend"}, table) {
			// Set to something of its own: the sentence tells the default.
			told := regexp.MustCompile(` Default: ([^.,]*)`).FindStringSubmatch(lines[i-1])
			want := map[string]string{"true": "false", "1": "0"}[value]
			if ok {
				want = fmt.Sprint(is)
			}
			switch key {
			case "rpc_host", "host":
				want = "all"
			case "log_level":
				want = "info"
			case "port":
				want = "0"
			}
			if told == nil || told[1] != want {
				t.Errorf("line %d: %s: the default is %s, the sentence tells %v", i+1, key, want, told)
			}
		}
		before := lines[i-1]
		prose := strings.HasPrefix(before, "# ") && strings.HasSuffix(before, ".")
		if !prose && !strings.HasPrefix(before, "[") && settable.FindStringSubmatch(before) == nil {
			t.Errorf("line %d: nothing is said of %s", i+1, line)
		}
		notBuilt[line] = strings.Contains(before, "ot built yet")
	}
	// Where it is said that a key is not built, the loader says so too.
	text := uncomment(lines, true)
	_, warnings, err := Parse(text, Options{Env: lookup(map[string]string{"FIRST_PASSWORD": "x", "WALLET_KEY": "x"}), AllowInactive: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings {
		if strings.Contains(w.Text, "not built") && !notBuilt[lines[w.Line-1]] {
			t.Errorf("line %d: %s is not built yet, and its sentence does not say so", w.Line, w.Key)
		}
	}
}
