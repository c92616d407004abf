package filters

import (
	"fmt"
	"strings"
	"testing"

	"gateway.internal/proxyd/jsonrpc"
)

func TestFilterIDNamesItsBackend(t *testing.T) {
	tags := newTags([]string{"infura", "alchemy"})
	for _, raw := range []string{
		`"0x1"`, `"0x0"`, `"0x"`, `"0x00001a2B"`, `"0xDEADBEEF"`, `"0x8d1f6b3b1b0c9a7e5d4c3b2a19080706"`,
		`"0X1a"`, `"17"`, `""`, `"a filter"`, `"0x1\u0061"`, `"0xzz"`, `"0x1 "`, `17`, `-1`, `1.5e3`, `"ü"`,
	} {
		for _, backend := range []string{"infura", "alchemy"} {
			id, ok := tags.encode(backend, []byte(raw))
			if !ok {
				t.Errorf("%s has no id", raw)
				continue
			}
			if id[:2] != "0x" || id[2] == '0' || !isHex(id[2:]) {
				t.Errorf("%s became %s, which is no plain hex", raw, id)
			}
			if at, ok := tags.decode(id); !ok || at.backend != backend || at.id != raw {
				t.Errorf("%s of %s became %s and then %+v", raw, backend, id, at)
			}
		}
	}
}

func TestFilterIDIsTheSameWhateverElseIsConfigured(t *testing.T) {
	one, _ := newTags([]string{"infura"}).encode("infura", []byte(`"0x1a"`))
	two, _ := newTags([]string{"b", "infura", "a", "a"}).encode("infura", []byte(`"0x1a"`))
	check(t, "id", two, one)
	check(t, "id", one, "0xb"+newTags([]string{"infura"}).ofBackend["infura"]+"1a")
}

func TestWhatIsNoFilterIDIsRefused(t *testing.T) {
	tags := newTags([]string{"a"})
	tag := tags.ofBackend["a"]
	for _, id := range []string{
		"", "0x", "0xb", "0x1", "b" + tag + "1", "0Xb" + tag + "1", "0xB" + tag + "1", "0xb00000000" + "1", "0xb" + strings.ToUpper(tag+"f") + "1",
		"0xb" + tag + "1g", "0xb" + tag + "1 ", "0xb" + tag + `1","x`, "0xb" + tag + strings.Repeat("1", maxNodeID), "0xd" + tag + "1",
		"0xc" + tag, "0xc" + tag + "2", "0xc" + tag + "5b5d", "0xc" + tag + "6e756c6c", "0xc" + tag + "2031", "0xc" + tag + "3120", "0xc" + tag + "312c32",
		"0xc" + tag + fmt.Sprintf("%x", `"0x1"`), "0xc" + tag + "2D31", "0xc" + tag + fmt.Sprintf("%x", `"`+strings.Repeat("y", maxNodeID)+`"`),
		"0xf", "0xf1", "0xf" + strings.Repeat("1", 30), "0xf" + strings.Repeat("A", 31), "0xf" + strings.Repeat("1", 32),
	} {
		if at, ok := tags.decode(id); ok {
			t.Errorf("%s is taken for %+v", id, at)
		}
	}
	for _, raw := range []string{"", "null", "true", "[]", "{}", "1 ", ` "0x1"`, `"0x1`, `1,2`, `"` + strings.Repeat("1", maxNodeID) + `"`} {
		if id, ok := tags.encode("a", []byte(raw)); ok {
			t.Errorf("%s became %s", raw, id)
		}
	}
	if _, ok := tags.encode("b", []byte(`"0x1"`)); ok {
		t.Error("an unknown backend has a tag")
	}
}

func TestTagsGrowUntilTheyDiffer(t *testing.T) {
	seen := make(map[string]string)
	for i := 0; ; i++ {
		name := fmt.Sprint("backend", i)
		tag := newTags([]string{name}).ofBackend[name]
		if other, ok := seen[tag]; ok {
			tags := newTags([]string{name, other, "a"})
			if len(tags.backend) != 3 || tags.width != 16 {
				t.Errorf("%s and %s: %+v", name, other, tags)
			}
			id, _ := tags.encode(name, []byte(`"0x1"`))
			if at, ok := tags.decode(id); !ok || at.backend != name || at.id != `"0x1"` {
				t.Errorf("%s is taken for %+v", id, at)
			}
			return
		}
		seen[tag] = name
	}
}

func TestOwnIDsAreToldApartFromThoseOfBackends(t *testing.T) {
	seen := make(map[string]bool)
	tags := newTags([]string{"a"})
	for range 1000 {
		id := newOwnID()
		if at, ok := tags.decode(id); !ok || at.backend != "" || len(id) != 34 || seen[id] {
			t.Fatalf("%s: %+v", id, at)
		}
		seen[id] = true
	}
}

func FuzzFilterID(f *testing.F) {
	tags := newTags([]string{"a", "b"})
	for _, s := range []string{`"0x1a"`, `"0X1a"`, `17`, `"\u0041"`, "0xb" + tags.ofBackend["a"] + "00Ff", "0xc" + tags.ofBackend["b"] + "3137", newOwnID(), "0xc" + tags.ofBackend["b"] + "225d22"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, ok := tags.encode("b", []byte(s)); ok {
			if at, ok := tags.decode(id); !ok || at.backend != "b" || at.id != s {
				t.Errorf("%q became %s and then %+v", s, id, at)
			}
		}
		at, ok := tags.decode(s)
		if !ok || at.backend == "" {
			return
		}
		if id, ok := tags.encode(at.backend, []byte(at.id)); !ok || id != s {
			t.Errorf("%q is taken for %+v, which is %q", s, at, id)
		}
		n := 0
		if params := []byte("[" + at.id + "]"); !jsonrpc.Valid(params) || !jsonrpc.Elements(params, func([]byte) bool { n++; return true }) || n != 1 {
			t.Errorf("%q goes upstream as %s", s, params)
		}
	})
}
