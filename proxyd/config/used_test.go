package config

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestEveryKeyWorksOrSaysThatItDoesNot: for each key either code outside of this
// package reads its field, or setting it has a fault or warning that names it.
// So a key can neither be forgotten when it is added nor go on claiming to do
// nothing once it is built.
func TestEveryKeyWorksOrSaysThatItDoesNot(t *testing.T) {
	read := fieldsRead(t)
	fields := fieldsOfKeys()
	for _, key := range keysTold() {
		f, ok := fields[key]
		if !ok {
			t.Errorf("%s: the test does not know its field", key)
			continue
		}
		concrete, said := setAlone(t, key, f.Type)
		named := slices.ContainsFunc(said, func(p Problem) bool { return p.Key == concrete && p.Line > 0 })
		unbuilt := slices.ContainsFunc(said, func(p Problem) bool {
			return p.Key == concrete && strings.Contains(p.Text, "not built")
		})
		if f.owner == "RowSpec" {
			f.owner = "Row" // what it becomes
		}
		switch uses := read[f.owner+"."+f.Name] || read[readBy[key]] || mergedHere[key]; {
		case !uses && !named:
			t.Errorf("%s: nothing reads it and nothing says so (%v)", key, said)
		case uses && unbuilt && !partlyBuilt[key]:
			t.Errorf("%s: something reads it, but it is said not to be built (%v)", key, said)
		}
	}
}

// mergedHere are keys that this package turns into the value of another key.
var mergedHere = map[string]bool{"backend.response_timeout_milliseconds": true}

// readBy are keys that a method reads for those who use them.
var readBy = map[string]string{"backend_groups.*.hedge.delay": "Hedge.Quantile"}

// partlyBuilt are keys of which some values work and others do not yet.
var partlyBuilt = map[string]bool{"backend_groups.*.routing_strategy": true}

type keyField struct {
	reflect.StructField
	owner string // the name of the struct
}

func fieldsOfKeys() map[string]keyField {
	out := map[string]keyField{}
	var walk func(prefix string, t reflect.Type)
	walk = func(prefix string, t reflect.Type) {
		for i := range t.NumField() {
			f := t.Field(i)
			key, inner := strings.TrimPrefix(prefix+"."+f.Tag.Get("toml"), "."), f.Type
			if inner.Kind() == reflect.Map {
				key, inner = key+".*", inner.Elem()
			}
			if inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct {
				inner = inner.Elem()
			}
			if table := pointedTo(inner); table.Kind() == reflect.Struct {
				walk(key, table)
			} else {
				f.Type = inner
				out[key] = keyField{f, t.Name()}
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
	return out
}

func pointedTo(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// setAlone reads a small file with one more key and returns how the key is
// spelled there and what is said about the file.
func setAlone(t *testing.T, key string, of reflect.Type) (concrete string, said []Problem) {
	t.Helper()
	text := "server.rpc_port = 1\nbackends.a.rpc_url = 'http://127.0.0.1:1'\nbackend_groups.g.backends = ['a']\nrpc_method_mappings.eth_call = 'g'\n"
	switch {
	case strings.HasPrefix(key, "error_rules."), strings.HasPrefix(key, "cache.rules."):
		i := strings.LastIndex(key, ".")
		text += "cache.enabled = true\n" + key[:i] + " = [{ " + key[i+1:] + " = " + sample(of, key) + " }]\n"
		concrete = key[:i] + "[0]" + key[i:]
	case strings.Contains(text, strings.Replace(key, "*", "a", 1)+" ="), strings.Contains(text, strings.Replace(key, "*", "g", 1)+" ="), strings.HasPrefix(key, "rpc_method_mappings"):
		concrete = key // stands there already
	default:
		name := "x"
		switch table, _, _ := strings.Cut(key, "."); table {
		case "backends":
			name = "a"
		case "backend_groups":
			name = "g"
		case "chains":
			text += "backends.b.rpc_url = 'http://127.0.0.1:1'\nchains.x.backend_groups.g.backends = ['b']\nchains.x.rpc_method_mappings.eth_call = 'g'\n"
		}
		for _, b := range beside {
			if matches(strings.Split(key, "."), b.pattern) {
				text += b.lines
			}
		}
		concrete = strings.Replace(key, "*", name, 1)
		concrete = strings.Replace(concrete, "*", "y", 1)
		text += concrete + " = " + sample(of, key) + "\n"
	}
	_, warnings, err := Parse(text, Options{Env: lookup(nil)})
	faults, _ := err.(Faults)
	return concrete, append(warnings, faults...)
}

// beside are the lines without which a key is a fault or does nothing.
var beside = []struct{ pattern, lines string }{
	{"backends.*.cost", "backend_groups.g.routing_strategy = 'scored'\n"},
	{"backends.*.probe_failure_threshold", "backends.a.probe_url = 'http://127.0.0.1:1'\n"},
	{"backends.*.probe_success_threshold", "backends.a.probe_url = 'http://127.0.0.1:1'\n"},
	{"backends.*.probe_period_seconds", "backends.a.probe_url = 'http://127.0.0.1:1'\n"},
	{"backends.*.probe_timeout_seconds", "backends.a.probe_url = 'http://127.0.0.1:1'\n"},
	{"backends.*.skip_is_syncing_check", "health = {}\n"},
	{"backend_groups.*.max_block_lag", "health = {}\n"},
	{"backend_groups.*.reference_url", "health = {}\n"},
	{"backend_groups.*.fail_back", "backend_groups.g.routing_strategy = 'sticky'\n"},
	{"backend_groups.*.rank.*", "backend_groups.g.routing_strategy = 'ranked'\n"},
	{"backend_groups.*.rank.weights.*", "backend_groups.g.routing_strategy = 'ranked'\n"},
	{"backend_groups.*.public_first*", "backends.a.role = 'public'\n"},
	{"backend_groups.*.public_first_attempts", "backend_groups.g.public_first = true\n"},
	{"backend_groups.*.multicall_rpc_error_check", "backend_groups.g.routing_strategy = 'multicall'\n"},
	{"methods.*.hedge", "backend_groups.g.hedge = {}\n"},
}

// fieldsRead returns the "Struct.Field" or "Struct.Method" of every selector in
// the code that uses a configuration, and rows of the method table.
func fieldsRead(t *testing.T) map[string]bool {
	t.Helper()
	out, err := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", "gateway.internal/cmd/proxyd").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		exports[name] = file
	}
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(name string) (io.ReadCloser, error) { return os.Open(exports[name]) })
	read := map[string]bool{}
	for _, dir := range []string{"..", "../../cmd/proxyd", "../backend", "../cache", "../group", "../server"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		var files []*ast.File
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}
		if _, err := (&types.Config{Importer: imports}).Check(dir, fset, files, info); err != nil {
			t.Fatal(err)
		}
		for _, s := range info.Selections {
			recv := s.Recv()
			if p, ok := recv.Underlying().(*types.Pointer); ok {
				recv = p.Elem()
			}
			if named, ok := types.Unalias(recv).(*types.Named); ok && named.Obj().Pkg() != nil && fieldsOf[filepath.Base(named.Obj().Pkg().Path())] {
				read[named.Obj().Name()+"."+s.Obj().Name()] = true
			}
		}
	}
	if !read["Server.RPCHost"] || !read["Row.Class"] || len(read) < 100 {
		t.Fatalf("found only %d fields: the test does not see them all", len(read))
	}
	return read
}

// fieldsOf are the packages whose structs hold keys: other packages have structs
// of the same names.
var fieldsOf = map[string]bool{"config": true, "jsonrpc": true}

// sample returns a TOML value for a key that asks for something.
func sample(t reflect.Type, key string) string {
	switch key {
	case "backend_groups.*.routing_strategy":
		return `"consensus_aware"`
	case "ws_backend_group", "chains.*.ws_backend_group":
		return `"g"`
	case "backends.*.role":
		return `"public"`
	case "backends.*.type":
		return `"archive"`
	case "backends.*.rate_limit_recovery.max_backoff":
		return `"2h"`
	case "backend_groups.*.rank.ping_method":
		return `"eth_chainId"`
	case "backend_groups.*.hedge.delay":
		return `"p90"`
	case "backend_groups.*.hedge.min":
		return `"60ms"`
	case "health.checks":
		return `["eth_blockNumber"]`
	case "backends.*.consensus_receipts_target":
		return `"eth_getBlockReceipts"`
	case "interop_validation.strategy":
		return `"multicall"`
	case "server.pprof_addr":
		return `"127.0.0.1:1"`
	case "sender_rate_limit.allowed_chain_ids", "interop_validation.sender_rate_limit.allowed_chain_ids":
		return `[1]`
	}
	t = pointedTo(t)
	switch {
	case t == durationType:
		return `"7s"`
	case strings.HasSuffix(key, "url") || strings.HasSuffix(key, "endpoint"):
		return `"http://127.0.0.1:1"`
	case strings.HasSuffix(key, "urls"):
		return `["http://127.0.0.1:1"]`
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true"
	case reflect.Int, reflect.Int64, reflect.Uint, reflect.Uint64, reflect.Float64:
		return "1"
	case reflect.Slice:
		return `["x"]`
	}
	return `"x"`
}
