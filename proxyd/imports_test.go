package proxyd

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rungs are the packages from the lowest rung up. A package may import what stands on a lower one. A name
// that is not built yet is left out until it is.
var rungs = [][]string{
	{"proxyd/jsonrpc"},
	{"proxyd/classify"},
	{"proxyd/backend"},
	{"proxyd/group", "proxyd/probe"},
	{"proxyd/cache", "proxyd/ratelimit", "proxyd/consensus", "proxyd/subscribe", "proxyd/filters", "proxyd/txguard", "proxyd/fleet"},
	{"proxyd/server", "proxyd/admin"},
	{"proxyd"},
	{"cmd/proxyd"},
}

const module = "gateway.internal/"

func rung(name string) int {
	return slices.IndexFunc(rungs, func(r []string) bool { return slices.Contains(r, name) })
}

// beside are packages off the ladder, with who may import them and what they may import.
var beside = map[string]struct{ by, imports []string }{
	// Plain data: it checks names against the tables that the data is for.
	"proxyd/config":   {[]string{"proxyd", "cmd/proxyd"}, []string{"proxyd/jsonrpc", "proxyd/classify"}},
	"proxyd/devchain": {[]string{"cmd/proxyd"}, nil},
	"proxyd/series":   {[]string{"proxyd/backend", "proxyd/cache", "proxyd/server"}, nil},
}

// around are programs that use the gateway from outside, as a whole: they may bring packages of their own
// and a chain to ask, and nothing imports them.
var around = []string{"bench", "integration_tests"}

func TestImportsPointDownTheLadder(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		from := strings.TrimPrefix(p.ImportPath, module)
		top, _, _ := strings.Cut(from, "/")
		side, isBeside := beside[from]
		if slices.Contains(around, top) {
			for _, path := range p.Imports {
				if to, ours := strings.CutPrefix(path, module); ours && to != "proxyd/devchain" && !strings.HasPrefix(to+"/", top+"/") {
					t.Errorf("%s imports %s", from, to)
				}
			}
			continue
		}
		if rung(from) < 0 && !isBeside {
			t.Errorf("%s has no place on the ladder: give it one in this test", from)
			continue
		}
		for _, path := range p.Imports {
			to, ours := strings.CutPrefix(path, module)
			if !ours {
				continue
			}
			switch target, off := beside[to]; {
			case isBeside:
				if !slices.Contains(side.imports, to) {
					t.Errorf("%s imports %s", from, to)
				}
			case off:
				if !slices.Contains(target.by, from) {
					t.Errorf("%s imports %s, which is only for %v", from, to, target.by)
				}
			case rung(to) >= rung(from):
				t.Errorf("%s imports %s, which does not stand below it", from, to)
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d packages were seen", seen)
	}
}
