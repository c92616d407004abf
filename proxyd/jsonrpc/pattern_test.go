package jsonrpc

import (
	"strings"
	"testing"
)

func TestPatternsPreferTheExactNameThenTheLongestPrefix(t *testing.T) {
	var p Patterns[int]
	if _, _, ok := p.Lookup("eth_call"); ok || p.Len() != 0 {
		t.Error("the zero value matches")
	}
	for i, pattern := range []string{"*", "eth_*", "eth_get*", "eth_getBalance", "eth_getB*", "debug_*", "eth_getBalance*"} {
		p.Set(pattern, i)
	}
	for method, want := range map[string]struct {
		value   int
		pattern string
	}{
		"eth_getBalance": {3, "eth_getBalance"}, "eth_getBalances": {6, "eth_getBalance*"}, "eth_getBlockByHash": {4, "eth_getB*"}, "eth_getLogs": {2, "eth_get*"}, "eth_get": {2, "eth_get*"},
		"eth_call": {1, "eth_*"}, "eth_": {1, "eth_*"}, "eth": {0, "*"}, "Eth_call": {0, "*"}, "debug_x": {5, "debug_*"}, "": {0, "*"},
	} {
		if value, pattern, ok := p.Lookup(method); !ok || value != want.value || pattern != want.pattern {
			t.Errorf("%s: %d %s, want %d %s", method, value, pattern, want.value, want.pattern)
		}
	}
	p.Set("eth_*", 70)
	p.Set("eth_getBalance", 71)
	if v, _, _ := p.Lookup("eth_call"); v != 70 || p.Len() != 7 {
		t.Errorf("set again: %d of %d", v, p.Len())
	}
	if v, _, _ := p.Lookup("eth_getBalance"); v != 71 {
		t.Errorf("set again: %d", v)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	var p Patterns[int]
	p.Set("debug_trace*", 1)
	p.Set("eth_call", 2)
	if n := testing.AllocsPerRun(100, func() { p.Lookup("debug_traceTransaction"); p.Lookup("eth_call"); p.Lookup("none") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCheckPatternAllowsOneStarAtTheEnd(t *testing.T) {
	for _, good := range []string{"*", "eth_call", "eth_*", "a", "_*", strings.Repeat("a", 64), strings.Repeat("a", 64) + "*"} {
		if err := CheckPattern(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "**", "*a", "e*h", "eth call", "eth-*", "é*", "eth_call ", strings.Repeat("a", 65)} {
		if CheckPattern(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
