package config

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocumentationHasEveryKey holds the tables of docs/configuration.md against
// the keys that there are, and their defaults against the example's.
func TestDocumentationHasEveryKey(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	known := keysTold()
	names := regexp.MustCompile(`\b(NAME|METHOD)\b`)
	documented := map[string]string{} // key → default
	table, in := "", false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if title, ok := strings.CutPrefix(line, "### "); ok {
			table, in = strings.Trim(title, "`[]"), true
			switch {
			case title == "Top level":
				table = ""
			case table == "rpc_method_mappings" || table == "authentication":
				documented[table+".*"] = ""
			}
			table = names.ReplaceAllString(table, "*")
		} else if strings.HasPrefix(line, "## ") {
			in = false
		}
		cells := strings.Split(line, " | ")
		if in && strings.HasPrefix(line, "| `") && len(cells) == 4 {
			key := strings.TrimPrefix(table+"."+strings.Trim(cells[0], "|` "), ".")
			documented[key] = cells[2]
			if !slices.Contains(known, key) {
				t.Errorf("docs/configuration.md has %s, which is no key", key)
			}
		}
	}
	documented["backends.*.headers.*"] = "" // in the text
	for _, key := range known {
		if _, ok := documented[key]; !ok {
			t.Errorf("docs/configuration.md does not have %s", key)
		}
	}
	// The example's defaults are held against the real ones.
	table = ""
	for _, line := range readExample(t) {
		m := settable.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if strings.HasPrefix(m[2], "[") {
			table = strings.Trim(m[2], "[]")
			continue
		}
		name, value, _ := strings.Cut(m[2], " = ")
		key := strings.TrimPrefix(table+"."+name, ".")
		for _, k := range known {
			if m[1] == "#" && m[3] == "" && matches(strings.Split(key, "."), k) && documented[k] != "`"+value+"`" && !strings.HasSuffix(k, "write_timeout") {
				t.Errorf("docs/configuration.md: %s: default %s, the example tells %s", k, documented[k], value)
			}
		}
	}
}
