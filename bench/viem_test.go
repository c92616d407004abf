package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gateway.internal/bench/internal/content"
	"gateway.internal/bench/internal/measure"
)

func TestReadsOfViemAreChecked(t *testing.T) {
	right, _ := content.AppendResult(nil, content.Small, []byte(`["0x01","latest"]`))
	text := `{"ms": 2500, "requests": 7, "calls": [
		{"address": "0x01", "balance": ` + string(right) + `, "ms": 4},
		{"address": "0x02", "balance": ` + string(right) + `, "ms": 5},
		{"address": "0x03", "error": "HTTP request failed.", "ms": 1200}]}`
	var d reads
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	m := d.result()
	if m.Requests != 1 || measure.Sum(m.Wrong) != 1 || m.Failed["HTTP request failed."] != 1 || m.Slow != 1 || m.Asked != 7 || m.Seconds != 2.5 || m.P50 != 4000 {
		t.Errorf("%+v", m)
	}
}

func TestWithoutViemItsWorksAreSkippedUnlessInCI(t *testing.T) {
	var said bytes.Buffer
	b := &bench{progress: &said, works: []string{"m"}, root: t.TempDir()}
	t.Setenv("CI", "")
	if err := b.findViem(); err != nil || len(b.missing) != 1 || !strings.Contains(said.String(), "SKIPPED: viem") || b.viemVersion() != "left out" {
		t.Errorf("%v, missing %v, said %s", err, b.missing, said.String())
	}
	t.Setenv("CI", "true")
	if err := b.findViem(); err == nil || !strings.Contains(err.Error(), "make tools") {
		t.Errorf("in CI: %v", err)
	}
	b.works, b.missing = []string{"a"}, nil
	if err := b.findViem(); err != nil || len(b.missing) > 0 {
		t.Errorf("not wanted: %v, %v", err, b.missing)
	}
}

func TestViemIsFoundWhereTheToolsInstallIt(t *testing.T) {
	if look("node") == "" {
		t.Skip("no node")
	}
	root := t.TempDir()
	dir := filepath.Join(root, "integration_tests", "node", "node_modules", "viem")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"version":"9.8.7"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bench{progress: new(bytes.Buffer), root: root}
	if err := b.findViem(); err != nil || len(b.missing) > 0 || !strings.HasPrefix(b.viemVersion(), "9.8.7, Node.js v") {
		t.Errorf("%v, %v, %s", err, b.missing, b.viemVersion())
	}
}
