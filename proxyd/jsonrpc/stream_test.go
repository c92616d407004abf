package jsonrpc

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestOpeningFindsTheResultAndTheIDBeforeIt(t *testing.T) {
	for _, row := range []struct{ before, id string }{
		{`{"jsonrpc":"2.0","id":1,"result":`, `1`},
		{`{"id":"1","jsonrpc":"2.0","result":`, `"1"`},
		{`{"jsonrpc":"2.0","result":`, ``},
		{`{"result":`, ``},
		{`{"id":null,"result":`, `null`},
		{"\r\n\t { \n\"id\" :\t 1.0 \r,\n\"result\"\t:\n ", `1.0`},
		{`{"error":null,"id":1,"result":`, `1`},
		{`{"x":{"id":9,"result":[1],"error":{}},"y":"\"id\":7,","id":{"a":[]},"result":`, `{"a":[]}`},
		{`{"id\"":9,"\"id":8,"\\":"\\","result\\":3,"":0,"id":-1e3,"result":`, `-1e3`},
		{`{"\u0069d":9,"Id":8,"ID":7,"Result":6,"ERROR":{},"id":5,"result":`, `5`},
	} {
		for _, result := range []string{`[`, `{`, `"`, `[]}`, `"\"id\":2"}`, `1`, `null}`, `,`} { // what follows is not looked at
			at, id, ok := Opening([]byte(row.before + result))
			if !ok || at != len(row.before) || string(id) != row.id || (id == nil) != (row.id == "") {
				t.Errorf("%s%s: index %d, id %q, %v; want %d, %q", row.before, result, at, id, ok, len(row.before), row.id)
			}
		}
		// Nothing is known before the result has begun.
		for n := range len(row.before) {
			if at, id, ok := Opening([]byte(row.before[:n])); ok {
				t.Errorf("%s: index %d, id %q", row.before[:n], at, id)
			}
		}
	}
}

func TestOpeningSaysNothingOfWhatIsNoResult(t *testing.T) {
	for _, body := range []string{
		``, ` `, `[`, `[{"result":[]}]`, `"result":[]`, `null`, `{}`, `{ }`, `{"id":1}`, `{"id":1,}`, `{"id":1,"error":{"code":1},"result":[]}`, `{"error":false,"result":[]}`,
		`{"error":"null","result":[]}`, `{"id":1,"id":1,"result":[]}`, `{"id":1 "result":[]}`, `{"id":1;"result":[]}`, `{"id":01,"result":[]}`, `{"id":,"result":[]}`,
		`{"id"1,"result":[]}`, `{id:1,"result":[]}`, `{"id":1},"result":[]`, `{"a":[1,"result":[]`, `{"a":{"result":[]}}`, `{"a":"\q","result":[]}`, "{\"a\":\"\n\",\"result\":[]}",
		`{"\u0072esult":[]}`, `{"result" []}`, `{,"result":[]}`, `{"a":` + strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1) + `,"result":[]}`,
	} {
		if at, id, ok := Opening([]byte(body)); ok || at != 0 || id != nil {
			t.Errorf("%.60s: index %d, id %q, %v", body, at, id, ok)
		}
	}
}

// What may stand behind a result, and the id there.
var behind = []struct{ text, id string }{
	{`}`, ``},
	{"}\n", ``},
	{"\r\n\t }\r\n\t ", ``},
	{`,"id":1}`, `1`},
	{" ,\n\"id\" :\t\"a\\\"b\" }", `"a\"b"`},
	{`,"id":null}`, `null`},
	{`,"id":{"id":1,"x":[",",{}]}}`, `{"id":1,"x":[",",{}]}`},
	{`,"jsonrpc":"2.0","id":-1.5E+7}`, `-1.5E+7`},
	{`,"id":1,"jsonrpc":"2.0"}`, `1`},
	{`,"error":null,"id":1}`, `1`},
	{`,"x":true,"y":false,"z":{"a":[1,2,{"result":[],"error":{}}]},"id":1,"w":[[]],"v":{},"u":""}`, `1`},
	{`,"\u0069d":9,"ID":8,"Result":7,"Error":{},"id":1}`, `1`},
	{`,"id\\":9,"a\"id":8,"\\\"id":7,"":6,"id":1}`, `1`},
	{`,"x":"}],\"id\":5","y":"\\","z":"\\\"","id":1}`, `1`},
	{`,"x":"ſ\u0022\ud83d","id":1}`, `1`},
}

// Results whose own bytes look like what may stand behind them.
var resembling = []string{
	`[]`, `{}`, `""`, `[1]`, `{"a":1}`, `"a"`, `"\""`, `"\\"`, `"\\\""`, `"\\\\"`, `",\"id\":5}"`, `"\",\"id\":5"`, `"\\\",\"id\":\"5"`, `{"id":5}`, `{"a":1,"id":5}`, `[{"id":5},{"result":[],"id":5}]`,
	`[",","id",":",5]`, `{"a":"}","id":"]"}`, `[[[[]]],{"x":{"y":[{}]}}]`, `{"result":{"error":{"code":1},"id":5},"id":5}`, `"` + strings.Repeat(`\\`, 20) + `"`,
	`"` + strings.Repeat(`\"`, 20) + `"`, `"` + strings.Repeat(`\",\"id\":5}`, 5) + `"`, "[ \n1 , \"id\" , 5 ]", "{\n\t\"a\" : [ ] ,\r\n\"id\" : 5 }",
}

func TestClosingFindsTheEndWhereverItsTailBegins(t *testing.T) {
	for _, result := range resembling {
		for _, row := range behind {
			body := result + row.text
			// Up to the last byte of the result, which may be all that is left of it.
			for from := range len(result) {
				end, id, ok := Closing([]byte(body[from:]))
				if !ok || end != len(result)-from || string(id) != row.id || (id == nil) != (row.id == "") {
					t.Errorf("%s: end %d, id %q, %v; want %d, %q", body[from:], end, id, ok, len(result)-from, row.id)
				}
			}
		}
	}
}

func TestClosingRefusesWhatIsNoEndOfAResult(t *testing.T) {
	for _, tail := range []string{
		``, ` `, `]`, `1`, `x`, `"`, `}`, ` }`, `}]`, `}"`, `},`, `}x`, `,"id":1}`, ` ,"id":1}`, `],"id":1`, `],"id":1}}]`,
		`],"id":1,"id":1}`, `],"id":1,"jsonrpc":"2.0","id":2}`, `],"error":{"code":1},"id":1}`, `],"id":1,"error":{}}`, `],"error":0}`, `],"error":"null"}`,
		`],"result":[]}`, `],"id":1,"result":null}`, `],"result":1,"id":1}`, `{"a":1,"result":[],"id":1}`,
	} {
		if end, id, ok := Closing([]byte(tail)); ok {
			t.Errorf("%s: end %d, id %q", tail, end, id)
		}
	}
}

// What is no member is no reason to look for the end before it.
func TestClosingEndsBehindTheLastThingThatIsNoMember(t *testing.T) {
	for _, before := range []string{`]"id":1`, `],"id"1`, `],"id":`, `],id:1`, `],"a"id:1`, `],"id:1`, `],id":1`, `:1`, `x":1`, `,`, `],:1`, `],1`, `],"id":1 2`, `],"id":x1y]`} {
		for _, space := range []string{"", " \n"} {
			end, id, ok := Closing([]byte(before + space + "}"))
			if !ok || end != len(before) || id != nil {
				t.Errorf("%s: end %d, id %q, %v; want %d", before, end, id, ok, len(before))
			}
			end, id, ok = Closing([]byte(before + space + `,"id":7}`))
			if !ok || end != len(before) || string(id) != "7" {
				t.Errorf("%s and an id: end %d, id %q, %v; want %d", before, end, id, ok, len(before))
			}
		}
	}
}

// A tail that begins behind the result cannot know it. It may name the end of
// what it took for the last thing it saw, but never a place within the result.
func TestClosingNeverCutsAResultShort(t *testing.T) {
	for _, result := range resembling {
		for _, row := range behind {
			body := result + row.text
			for from := len(result); from <= len(body); from++ {
				if end, _, ok := Closing([]byte(body[from:])); ok && (end <= 0 || end > len(body)-from) {
					t.Errorf("%s: end %d of %d bytes", body[from:], end, len(body)-from)
				}
			}
		}
	}
}

func TestWhatIsTakenOfAnAnswerIsAnAnswerAgain(t *testing.T) {
	for _, result := range resembling {
		for _, row := range behind {
			body := []byte(`{"jsonrpc":"2.0","result":` + result + row.text)
			at, _, ok := Opening(body)
			end, _, whole := Closing(body[at:])
			if !ok || !whole {
				t.Fatalf("%s: %v, %v", body, ok, whole)
			}
			passed := AppendClosing(append([]byte(AnswerHead), body[at:at+end]...), []byte(`"c"`))
			if want := AppendAnswer(nil, []byte(`"c"`), &Answer{Result: []byte(result)}); !bytes.Equal(passed, want) {
				t.Errorf("%s\nis passed on as %s", body, passed)
			}
		}
	}
}

// The two ends of an answer must be found as the reader of a whole one finds
// them, however much of it has come and wherever the tail begins.
func FuzzOpeningAndClosing(f *testing.F) {
	for _, result := range resembling {
		for _, row := range behind[:8] {
			f.Add([]byte(`{"jsonrpc":"2.0","id":1,"result":` + result + row.text))
			f.Add([]byte(" {\"jsonrpc\" : \"2.0\",\n\"error\":null,\"result\" :\t" + result + row.text))
		}
	}
	for _, seed := range fuzzSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) <= 2000 { // each length of it is looked at
			sameEnds(t, body)
		}
	})
}

// Random answers of few kinds of bytes reach more of the two than random bytes do.
func FuzzEndsOfAMadeAnswer(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, seed*7919)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) { sameEnds(t, madeAnswer(rand.New(rand.NewPCG(a, b)))) })
}

func TestEndsOfMadeAnswersAreFound(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	whole := 0
	for range 2000 {
		body := madeAnswer(random)
		if r, err := ParseReply(body); err == nil && r.Result != nil {
			whole++
		}
		sameEnds(t, body)
	}
	if whole < 500 {
		t.Errorf("only %d answers of 2000 had a result", whole)
	}
}

// madeAnswer is an answer object, mostly with one result and one id.
func madeAnswer(random *rand.Rand) []byte {
	members := []string{`"result":` + madeValue(random, 4), `"id":` + []string{`1`, `"1"`, `1.0`, `null`, madeValue(random, 1)}[random.IntN(5)]}
	for range random.IntN(4) {
		name := []string{`jsonrpc`, `error`, `x`, `id\"`, `\\`, ``, `\u0069d`, `ID`, `a\"id`, `id`, `result`}[random.IntN(11)]
		value := madeValue(random, 2)
		if name == "error" && random.IntN(4) > 0 {
			value = "null"
		}
		members = append(members, `"`+name+`":`+value)
	}
	random.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	space := func() string { return []string{"", "", "", " ", "\n", "\t\r\n "}[random.IntN(6)] }
	var b strings.Builder
	b.WriteString(space() + "{")
	for i, m := range members {
		if i > 0 {
			b.WriteString(",")
		}
		name, value, _ := strings.Cut(m, `":`)
		b.WriteString(space() + name + `"` + space() + ":" + space() + value + space())
	}
	b.WriteString("}" + space())
	return []byte(b.String())
}

func madeValue(random *rand.Rand, depth int) string {
	switch k := random.IntN(9); {
	case k < 3 && depth > 0:
		var parts []string
		for range random.IntN(4) {
			parts = append(parts, madeValue(random, depth-1))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case k < 6 && depth > 0:
		var parts []string
		for range random.IntN(4) {
			parts = append(parts, madeString(random)+":"+madeValue(random, depth-1))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case k < 8:
		return madeString(random)
	}
	return []string{"0", "-1.5e+7", "12E3", "true", "false", "null"}[random.IntN(6)]
}

func madeString(random *rand.Rand) string {
	var b strings.Builder
	for range random.IntN(8) {
		b.WriteString([]string{`\"`, `\\`, `,`, `:`, `}`, `]`, `{`, `[`, `id`, `result`, `1`, ` `, `é`, `\u0022`}[random.IntN(14)])
	}
	return `"` + b.String() + `"`
}

// sameEnds compares what Opening and Closing say of the parts of a body with what
// ParseReply says of the whole.
func sameEnds(t *testing.T, body []byte) {
	t.Helper()
	whole, err := ParseReply(body)
	isResult := err == nil && whole.Result != nil
	at, id, ok := Opening(body)
	if isResult && (!ok || !bytes.HasPrefix(body[at:], whole.Result)) {
		t.Fatalf("%s\nOpening: index %d, %v, but the result is %s", body, at, ok, whole.Result)
	}
	if err == nil && whole.Error != nil && ok && !endsWithError(body[at:]) {
		t.Fatalf("%s\nOpening says that there is a result and Closing no error", body)
	}
	sameOpenings(t, body, at, id, ok)
	if !isResult {
		return
	}
	if id != nil && !bytes.Equal(id, whole.ID) {
		t.Fatalf("%s\nOpening: id %s, want %s", body, id, whole.ID)
	}
	for from := range len(whole.Result) {
		end, behind, ok := Closing(body[at+from:])
		if !ok || end != len(whole.Result)-from {
			t.Fatalf("%s\nClosing from byte %d: end %d, %v; want %d", body, at+from, end, ok, len(whole.Result)-from)
		}
		if (id == nil) != (behind != nil) && whole.ID != nil || behind != nil && !bytes.Equal(behind, whole.ID) {
			t.Fatalf("%s\nthe id is %s: before the result stands %s, behind it %s", body, whole.ID, id, behind)
		}
	}
	for from := at + len(whole.Result); from < len(body); from++ {
		if end, _, ok := Closing(body[from:]); ok && (end <= 0 || end > len(body)-from) {
			t.Fatalf("%s\nClosing from byte %d behind the result: end %d", body, from, end)
		}
	}
}

// sameOpenings checks that a beginning says nothing that the rest contradicts:
// what is known once stays so.
func sameOpenings(t *testing.T, body []byte, at int, id []byte, ok bool) {
	t.Helper()
	for n := range len(body) {
		a, i, known := Opening(body[:n])
		switch {
		case known != (ok && n > at):
			t.Fatalf("%s\nOpening of the first %d bytes: %v; of all: index %d, %v", body, n, known, at, ok)
		case known && (a != at || !bytes.Equal(i, id)):
			t.Fatalf("%s\nOpening of the first %d bytes: index %d, id %s; of all: %d, %s", body, n, a, i, at, id)
		}
	}
}

// endsWithError reports whether Closing refuses the end of an answer.
func endsWithError(tail []byte) bool {
	_, _, ok := Closing(tail)
	return !ok
}

// What a decoder of the whole sees in an answer must be what was passed on of it.
func TestNothingIsPassedOnThatADecoderReadsOtherwise(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	passed := 0
	for range 2000 {
		body := madeAnswer(random)
		at, id, ok := Opening(body)
		if !ok || !bytes.ContainsAny(body[at:at+1], `{["`) {
			continue
		}
		end, other, ok := Closing(body[at:])
		if !ok || id != nil && other != nil {
			continue // the caller breaks it off
		}
		passed++
		var members map[string]json.RawMessage
		if err := json.Unmarshal(body, &members); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(body, []byte(`\u0069d`)) {
			delete(members, "id") // escaped member names are not ours to resolve
			id, other = nil, nil
		}
		if got := string(body[at : at+end]); got != string(members["result"]) || string(slices.Concat(id, other)) != string(members["id"]) {
			t.Errorf("%s\npassed on: %s, id %s%s", body, got, id, other)
		}
	}
	if passed < 500 {
		t.Errorf("only %d of 2000 were passed on", passed)
	}
}
