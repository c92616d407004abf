package content

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestResultsAreJSONAndDependOnTheCall(t *testing.T) {
	seen := map[string]string{}
	for _, c := range [][2]string{
		{Small, `["0x01","latest"]`}, {Small, `["0x02","latest"]`}, {Chain, `[]`}, {Block, `["0x01",false]`},
		{Logs, `[{"size":1024}]`}, {Logs, `[{"size":20000}]`}, {Logs, `[{"size":20000,"n":1}]`},
	} {
		got, ok := AppendResult(nil, c[0], []byte(c[1]))
		if !ok || !json.Valid(got) {
			t.Fatalf("%s %s: not valid JSON: %.200s", c[0], c[1], got)
		}
		if other, twice := seen[string(got)]; twice {
			t.Errorf("%v has the result of %s", c, other)
		}
		seen[string(got)] = c[0] + c[1]
	}
	if _, ok := AppendResult(nil, "eth_unknown", nil); ok {
		t.Error("an unknown method has a result")
	}
}

func TestLargeResultsHaveTheSizeAskedFor(t *testing.T) {
	for _, size := range []int{MinLarge, MinLarge + 1, 1500, 4096, 65536, 100_003, 1 << 20} {
		l := NewLarge(size)
		s := StampOf(Logs, []byte("x"))
		l.Stamp(&s)
		if len(l.Bytes()) != size || !json.Valid(l.Bytes()) {
			t.Errorf("size %d: %d bytes, valid %v", size, len(l.Bytes()), json.Valid(l.Bytes()))
		}
		if n := bytes.Count(l.Bytes(), s[:]); n != len(l.stamps) || n == 0 {
			t.Errorf("size %d: %d stamps, want %d", size, n, len(l.stamps))
		}
		framed := l.Framed([]byte("head"), []byte("tail"))
		if want := "head" + string(l.Bytes()) + "tail"; string(framed) != want {
			t.Errorf("size %d: framed badly", size)
		}
	}
}

func TestLogsSizeRefusesWhatItCannotMake(t *testing.T) {
	for _, params := range []string{`[]`, `[{"size":}]`, `[{"size":1}]`, `[{"size":99999999999}]`, `[{"size":1024`} {
		if n, ok := LogsSize([]byte(params)); ok {
			t.Errorf("%s: %d", params, n)
		}
	}
}
