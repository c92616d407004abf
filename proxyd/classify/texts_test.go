package classify

import (
	"strings"
	"testing"
)

func TestTextsAreFoundAsThoseOfTheErrorTable(t *testing.T) {
	for name, c := range map[string]struct {
		texts  []string
		e      Evidence
		wanted bool
	}{
		"a part":                    {[]string{"sad times"}, rpc(-32000, "what sad times are these"), true},
		"in another case":           {[]string{"Sad TIMES"}, rpc(-32000, "SAD times"), true},
		"another":                   {[]string{"sad times"}, rpc(-32000, "sad  times"), false},
		"nothing to be found":       {nil, rpc(-32000, "sad times"), false},
		"no message":                {[]string{"sad times"}, rpc(-32000, ""), false},
		"the second of two":         {[]string{"good", "sad"}, rpc(-32000, "sad times"), true},
		"a pattern":                 {[]string{"/^sad .* times$/"}, rpc(-32000, "Sad new Times"), true},
		"a pattern that has no end": {[]string{"/^sad .* times$/"}, rpc(-32000, "sad new times indeed"), false},
		"a pattern is no part":      {[]string{"/a.c/"}, rpc(-32000, "/a.c/ no"), true},
		"a part is no pattern":      {[]string{"a.c"}, rpc(-32000, "abc"), false},
		"an echo":                   {[]string{"sad times"}, asked(rpc(-32000, "no sad times"), "eth_call", `["sad times"]`), false},
		"an echo in pieces":         {[]string{"sad times"}, asked(rpc(-32000, "no [sad times]"), "eth_call", `["sad","times"]`), false},
		"an echo of a method":       {[]string{"sad_times"}, asked(rpc(-32000, "no sad_times"), "sad_times", `[]`), false},
		"an echo of a pattern":      {[]string{"/sad (old|new) times/"}, asked(rpc(-32000, "no sad old times"), "eth_call", `[{"x":"sad old times"}]`), false},
		"a pattern around an echo":  {[]string{"/no such .* times/"}, asked(rpc(-32000, "no such sad times"), "eth_call", `["sad"]`), true},
		"an echo beside the node's": {[]string{"sad times", "gone"}, asked(rpc(-32000, "sad times are gone"), "eth_call", `["sad times"]`), true},
		"in a long message":         {[]string{"sad times"}, rpc(-32000, strings.Repeat("x", 900)+"sad times"+strings.Repeat("y", 5000)), true},
	} {
		texts, err := NewTexts(c.texts)
		if err != nil || texts.In(c.e) != c.wanted {
			t.Errorf("%s: %t, %v", name, !c.wanted, err)
		}
	}
	if texts, err := NewTexts([]string{"fine", "/(/"}); err == nil {
		t.Errorf("%v", texts)
	}
}
