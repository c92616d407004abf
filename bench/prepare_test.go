package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// installerThat is a script in the place of scripts/install-packages.
func installerThat(t *testing.T, does string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "install-packages")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+does+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAMissingGatewayIsInstalled(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	b := &bench{progress: new(bytes.Buffer)}
	program := filepath.Join(dir, "some-gateway")
	got, err := b.find(context.Background(), installerThat(t, `echo "$1" >`+program+`; chmod +x `+program), "some-gateway", "some-package")
	if err != nil || got != program || len(b.missing) > 0 {
		t.Errorf("%q, %v", got, err)
	}
	if asked, _ := os.ReadFile(program); string(asked) != "some-package\n" {
		t.Errorf("asked for %q", asked)
	}
}

func TestAGatewayThatCannotBeInstalledIsSkippedUnlessInCI(t *testing.T) {
	for what, does := range map[string]string{"refused": "echo no permission >&2; exit 1", "installed, but not there": "exit 0"} {
		installer := installerThat(t, does)
		var said bytes.Buffer
		b := &bench{progress: &said}

		t.Setenv("CI", "")
		file, err := b.find(context.Background(), installer, "no-such-gateway", "some-package")
		if err != nil || file != "" || len(b.missing) != 1 || !strings.Contains(said.String(), "SKIPPED: no-such-gateway") {
			t.Errorf("%s: %q, %v, said %s", what, file, err, said.String())
		}

		t.Setenv("CI", "true")
		if _, err = b.find(context.Background(), installer, "no-such-gateway", "some-package"); err == nil || !strings.Contains(err.Error(), "some-package") {
			t.Errorf("%s, in CI: %v", what, err)
		}

		b.only = []string{nameProxyd}
		if file, err := b.find(context.Background(), installer, "no-such-gateway", "some-package"); err != nil || file != "" {
			t.Errorf("%s, not wanted: %q, %v", what, file, err)
		}
	}
}
