package config

import (
	"strings"
	"testing"
)

func TestLocateFindsTheLineOfEveryKey(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want map[string]int
	}{
		"tables":               {"a = 1\n\n[b]\nc = 2\n[ b . d ] # note\ne = 3", map[string]int{"a": 1, "b": 3, "b.c": 4, "b.d": 5, "b.d.e": 6}},
		"implicit tables":      {"\n[a.b.c]\nd = 1\n[a]\ne = 2", map[string]int{"a": 4, "a.b": 2, "a.b.c": 2, "a.b.c.d": 3, "a.e": 5}},
		"dotted keys":          {"a.b.c = 1\na . b . d = 2\n[t]\nx.y = 3", map[string]int{"a": 1, "a.b": 1, "a.b.c": 1, "a.b.d": 2, "t.x": 4, "t.x.y": 4}},
		"quoted keys":          {"\"a b\" = 1\n'c.d'.\"e#f\" = 2\n[\"g]h\".'i']\n\"=\" = 3\n\"\" = 4", map[string]int{`"a b"`: 1, `"c.d"`: 2, `"c.d"."e#f"`: 2, `"g]h".i`: 3, `"g]h".i."="`: 4, `"g]h".i.""`: 5}},
		"escaped keys":         {`"\u0061\"\\b\t\e\x41é" = 1` + "\n" + `'\u0061' = 2` + "\n" + `"\U0001F600" = 3`, map[string]int{"\"a\\\"\\\\b\\t\\x1bAé\"": 1, `"\\u0061"`: 2, `"😀"`: 3}},
		"inline tables":        {"a = { b = 1, c.d = { e = 2 } } # f = 1\ng = 3", map[string]int{"a": 1, "a.b": 1, "a.c": 1, "a.c.d": 1, "a.c.d.e": 1, "g": 2}},
		"inline over lines":    {"a = {\n  b = 1, # b\n  c = 'x',\n}\nd = 4", map[string]int{"a": 1, "a.b": 2, "a.c": 3, "d": 5}},
		"arrays over lines":    {"a = [ # first\n  1, # ] not the end\n  \"]\",\n\n  [2,\n 3],\n]\nb = 8", map[string]int{"a": 1, "a[0]": 2, "a[1]": 3, "a[2]": 5, "a[2][1]": 6, "b": 8}},
		"arrays of inlines":    {"r = [\n  { m = 1 },\n  { m = 2, n = { o = 3 } },\n]\nz = 1", map[string]int{"r[0]": 2, "r[0].m": 2, "r[1].m": 3, "r[1].n.o": 3, "z": 5}},
		"arrays of tables":     {"[[r]]\na = 1\n[[r]]\n\na = 2\n[r.s]\nb = 3\n[[r.t]]\nc = 4\n[[r.t]]\nc = 5\n[u]\nd = 6", map[string]int{"r[0]": 1, "r[0].a": 2, "r[1]": 3, "r[1].a": 5, "r[1].s": 6, "r[1].s.b": 7, "r[1].t[0].c": 9, "r[1].t[1].c": 11, "u.d": 13}},
		"multi-line strings":   {"a = \"\"\"\nb = 1\n# c = 2\n[d]\n\\\"\"\" e = 3\n\"\"\"\"\nf = '''\ng = \\'''\nh = 4", map[string]int{"a": 1, "f": 7, "h": 9}},
		"strings that mislead": {"a = \"# b = 1\"\nc = '\\'\nd = \"\\\\\"\ne = \"[x]\" # f = 1\ng = \"=\"", map[string]int{"a": 1, "c": 2, "d": 3, "e": 4, "g": 5}},
		"CRLF":                 {"[a]\r\nb = 1\r\n\r\nc = [\r\n 1,\r\n]\r\n[d]\r\ne = \"\"\"\r\nx\r\n\"\"\"\r\nf = 2", map[string]int{"a": 1, "a.b": 2, "a.c": 4, "a.c[0]": 5, "d": 7, "d.e": 8, "d.f": 11}},
		"byte order mark":      {"\xef\xbb\xbf[a]\nb = 1", map[string]int{"a": 1, "a.b": 2}},
		"dates and numbers":    {"a = 1979-05-27 07:32:00 # x\nb = 1_000\nc = [1e3, inf]\nd = -nan", map[string]int{"a": 1, "b": 2, "c[1]": 3, "d": 4}},
		"deeper than walked":   {"a = " + strings.Repeat("[", 5000) + "']', # ]\n" + strings.Repeat("]", 5000) + "\nb = 1", map[string]int{"a": 1, "a[0][0]": 1, "b": 3}},
		"key like an index":    {"\"[\\n]\" = 1\n\"[0]\" = 2", map[string]int{`"[\n]"`: 1, "[0]": 2}},
	} {
		t.Run(name, func(t *testing.T) {
			found := locate(c.text)
			for key, line := range c.want {
				if found[key] != line {
					t.Errorf("%s on line %d, want %d\nfound %v", key, found[key], line, found)
				}
			}
			if name != "deeper than walked" && name != "dates and numbers" {
				for key := range found {
					if strings.HasSuffix(key, "]") == false && c.want[key] == 0 && !strings.ContainsAny(key, "[") && !isPrefix(key, c.want) {
						t.Errorf("found %s on line %d, which is not there", key, found[key])
					}
				}
			}
		})
	}
}

func isPrefix(key string, of map[string]int) bool {
	for k := range of {
		if strings.HasPrefix(k, key+".") || strings.HasPrefix(k, key+"[") {
			return true
		}
	}
	return false
}

func TestLineIsThatOfTheNearestTableAround(t *testing.T) {
	l := locate("\n[a]\nb = 1\n")
	for _, c := range []struct {
		at   path
		want int
	}{{path{"a", "b"}, 3}, {path{"a", "c"}, 2}, {path{"a", "b", "[7]", "x"}, 3}, {path{"z"}, 0}} {
		if got := l.of(c.at); got != c.want {
			t.Errorf("%v on line %d, want %d", c.at, got, c.want)
		}
	}
}
