package jsonrpc

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestValidAgreesWithEncodingJSONOnDepth(t *testing.T) {
	for _, n := range []int{1, 63, 64, 65, 255, 256, 257, MaxDepth - 1, MaxDepth, MaxDepth + 1} {
		for _, inner := range []string{``, `1`, `{}`, `[]`, `[1],[2]`} {
			for _, pair := range [][2]string{{`[`, `]`}, {`[0,`, `]`}, {`[[],`, `]`}} {
				body := strings.Repeat(pair[0], n) + inner + strings.Repeat(pair[1], n)
				if got, want := Valid([]byte(body)), json.Valid([]byte(body)); got != want {
					t.Errorf("%d levels of %s around %q: %v, encoding/json says %v", n, pair[0], inner, got, want)
				}
			}
			if inner == `` || inner == `[1],[2]` {
				continue
			}
			body := strings.Repeat(`{"a":`, n) + inner + strings.Repeat(`}`, n)
			if got, want := Valid([]byte(body)), json.Valid([]byte(body)); got != want {
				t.Errorf("%d objects around %q: %v, encoding/json says %v", n, inner, got, want)
			}
		}
	}
}

func TestValidKnowsArraysFromObjectsAtEveryDepth(t *testing.T) {
	var open, shut strings.Builder
	var closers []string
	for i := range 300 {
		if i%3 == 0 {
			open.WriteString(`[1,`)
			closers = append(closers, `]`)
		} else {
			open.WriteString(`{"a":0,"b":`)
			closers = append(closers, `}`)
		}
	}
	slices.Reverse(closers)
	shut.WriteString(strings.Join(closers, ""))
	body := open.String() + `null` + shut.String()
	if !Valid([]byte(body)) {
		t.Fatal("mixed nesting is refused")
	}
	for i := len(body) - 300; i < len(body); i++ {
		wrong := []byte(body)
		wrong[i] ^= '}' ^ ']'
		if Valid(wrong) {
			t.Fatalf("closer %d exchanged is accepted", i)
		}
	}
}

func TestUnquoteAgreesWithEncodingJSON(t *testing.T) {
	for _, quoted := range []string{`""`, `"a"`, `"é"`, `"\u00e9"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ude00x"`, "\"\xff\"", "\"a\xc3\"", `"\"\\\/\b\f\n\r\t"`, `"😀"`, "\"\u2028\""} {
		var want string
		if err := json.Unmarshal([]byte(quoted), &want); err != nil {
			t.Fatal(err)
		}
		if got := string(unquote([]byte(quoted[1 : len(quoted)-1]))); got != want {
			t.Errorf("%s: %q, want %q", quoted, got, want)
		}
	}
}

func TestStringsFindsEveryStringAndMemberName(t *testing.T) {
	var got []string
	list := func(most int) func([]byte) bool {
		got = nil
		return func(text []byte) bool { got = append(got, string(text)); return len(got) < most }
	}
	params := []byte(`[ "a\u0062", {"k\n":["v\"", 1.5, null], "":"é"}, true ]`)
	Strings(params, list(99))
	if want := []string{"ab", "k\n", `v"`, "", "é"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	Strings(params, list(2))
	if len(got) != 2 {
		t.Errorf("not ended: %q", got)
	}
	for _, broken := range []string{``, `"`, `"a`, `["x", "a\q"]`, `["x", "a`} {
		Strings([]byte(broken), list(99))
		if len(got) > 1 {
			t.Errorf("%s: %q", broken, got)
		}
	}
}

func TestAppendStringIsReadBackByEncodingJSON(t *testing.T) {
	for _, text := range []string{"", "plain text", `a "quoted" \ text`, "tab\tnew\nline", "\x00\x1f\x7f", "é 😀 \u2028", "<&>", "<&>\n"} {
		var back string
		got := AppendString([]byte("x"), text)
		if err := json.Unmarshal(got[1:], &back); err != nil || back != text || got[0] != 'x' || !Valid(got[1:]) {
			t.Errorf("%q: %s, %q, %v", text, got, back, err)
		}
	}
	if got := string(AppendString(nil, "a\xffb")); !Valid([]byte(got)) {
		t.Errorf("broken UTF-8: %s", got)
	}
}

func TestSkipPlainFindsEverySpecialByteAtEveryPlace(t *testing.T) {
	for c := range 256 {
		for at := range 20 {
			for _, fill := range []byte{'a', 0xff, 0x80, '!', '[', ']', '#', ' '} {
				b := bytes.Repeat([]byte{fill}, 24)
				b[at] = byte(c)
				want := 24
				if c < ' ' || c == '"' || c == '\\' {
					want = at
				}
				if got := skipPlain(b, 0); got != want {
					t.Fatalf("byte %#x at %d among %#x: found at %d", c, at, fill, got)
				}
			}
		}
	}
}
