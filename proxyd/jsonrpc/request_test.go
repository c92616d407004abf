package jsonrpc

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// one parses a body that must be a lone object.
func one(t *testing.T, body string) *Call {
	t.Helper()
	calls, batch, err := Parse([]byte(body), 10)
	if err != nil || batch || len(calls) != 1 {
		t.Fatalf("%.200s: %d calls, batch %v, %v", body, len(calls), batch, err)
	}
	return calls[0]
}

func TestParseKeepsTheBytesOfParamsAndID(t *testing.T) {
	for _, id := range []string{
		`1`, `0`, `-7`, `1.0`, `1e3`, `1E+2`, `0.1000`, `-0`, `123456789012345678901234567890`, `1e999`, `null`, `true`, `false`,
		`"a"`, `" "`, `"1"`, `"\u0061\/"`, `"é"`, `"{[\"id\":5"`, "\"\xff\"", `"` + strings.Repeat("x", 5000) + `"`,
	} {
		for _, params := range []string{`[]`, `[ 1.0 , "<é\u0041>" ]`, `{"id":7,"method":"x"}`, `null`, `"text"`, `9007199254740993`, "[\"\xff\"]"} {
			c := one(t, ` { "id" : `+id+` , "params" : `+params+" ,\n\"method\":\"eth_call\",\t\"jsonrpc\":\"2.0\"\r} ")
			if c.Err != nil || c.Method != "eth_call" || string(c.ID) != id || string(c.Params) != params {
				t.Errorf("id %q params %q: got %q %q %q, %v", id, params, c.ID, c.Params, c.Method, c.Err)
			}
		}
	}
	if c := one(t, `{"jsonrpc":"2.0","method":"eth_call","id":1}`); c.Params != nil || c.Err != nil {
		t.Errorf("absent params: %q, %v", c.Params, c.Err)
	}
}

func TestParseReadsEscapedMethodAndVersion(t *testing.T) {
	if c := one(t, `{"jsonrpc":"\u0032.0","method":"eth\u005fcall","id":1}`); c.Err != nil || c.Method != "eth_call" {
		t.Errorf("%q, %v", c.Method, c.Err)
	}
}

func TestParseRefusesDuplicateEnvelopeMembers(t *testing.T) {
	for _, more := range []string{
		`"method":"admin_addPeer"`, `"id":1`, `"id":2`, `"jsonrpc":"2.0"`, `"params":[1]`, `"params":null`,
		`"method":null`, `"x":1,"y":2,"method":"eth_call"`,
	} {
		refusesMember(t, `{"jsonrpc":"2.0","method":"eth_call","params":[],"id":1,`+more+`}`)
		refusesMember(t, `{`+more+`,"jsonrpc":"2.0","method":"eth_call","params":[],"id":1}`)
	}
}

// A Go node matches member names without case and by Unicode's simple folds;
// every decoder resolves escapes.
func TestParseRefusesMembersThatAnotherDecoderWouldTakeForTheEnvelope(t *testing.T) {
	for _, name := range []string{
		"METHOD", "Method", "methoD", "Id", "iD", "ID", "Params", "PARAMS", "JSONRPC", "JsonRpc", "jsonRPC",
		"paramſ", "PARAMſ", "jſonrpc", "JſONRPC",
		`\u006dethod`, `\u004Dethod`, `metho\u0064`, `i\u0064`, `\u0069\u0064`, `param\u017f`, `j\u017Fonrpc`, `\u0050arams`,
		`\u006a\u0073\u006f\u006e\u0072\u0070\u0063`,
	} {
		refusesMember(t, `{"jsonrpc":"2.0","method":"eth_call","id":1,"`+name+`":"admin_addPeer"}`)
		refusesMember(t, `{"`+name+`":"admin_addPeer","jsonrpc":"2.0","method":"eth_call","id":1}`)
	}
	// Alone they are refused as well: which member a node sees is its own choice.
	refusesMember(t, `{"jsonrpc":"2.0","METHOD":"eth_call","id":1}`)
	refusesMember(t, `{"jsonrpc":"2.0","m\u0065thod":"eth_call","id":1}`)
}

func refusesMember(t *testing.T, body string) {
	t.Helper()
	if c := one(t, body); c.Err != ErrMember || c.ID != nil || c.Method != "" {
		t.Errorf("%s: %v, id %s, method %q", body, c.Err, c.ID, c.Method)
	}
	calls, _, err := Parse([]byte(`[{"jsonrpc":"2.0","method":"a","id":1},`+body+`,{"jsonrpc":"2.0","method":"b","id":2}]`), 10)
	if err != nil || len(calls) != 3 || calls[0].Err != nil || calls[1].Err != ErrMember || calls[2].Err != nil || calls[2].Method != "b" {
		t.Errorf("in a batch: %s: %v", body, err)
	}
}

func TestParseDropsUnknownMembers(t *testing.T) {
	for _, member := range []string{
		`"methods":"x"`, `"":1`, `"i d":2`, `"\u0000id":2`, `"id\u0000":2`, `"ıd":2`, `"İd":2`, `"param5":[]`, `"Kind":1`, "\"\u212a\":1", "\"\xffid\":3",
		`"extra":{"method":"admin_addPeer","id":3}`, `"\ud800":1`, `"` + strings.Repeat("m", 3000) + `":1`,
	} {
		c := one(t, `{"jsonrpc":"2.0",`+member+`,"method":"eth_call","id":1,`+member+`}`)
		if c.Err != nil || c.Method != "eth_call" || string(c.ID) != "1" || c.Params != nil {
			t.Errorf("%s: %v, %q", member, c.Err, c.Method)
		}
		if got := string(AppendRequest(nil, c, 5)); got != `{"jsonrpc":"2.0","method":"eth_call","id":5}` {
			t.Errorf("%s: upstream %s", member, got)
		}
	}
}

func TestParseAnswersAFaultyEnvelopeWithIDNull(t *testing.T) {
	for _, row := range []struct {
		body string
		want error
	}{
		{`{}`, ErrVersion},
		{`{"method":"eth_call","id":1}`, ErrVersion},
		{`{"jsonrpc":"1.0","method":"eth_call","id":1}`, ErrVersion},
		{`{"jsonrpc":"2.00","method":"eth_call","id":1}`, ErrVersion},
		{`{"jsonrpc":" 2.0","method":"eth_call","id":1}`, ErrVersion},
		{`{"jsonrpc":"","method":"eth_call","id":1}`, ErrVersion},
		{`{"jsonrpc":null,"method":"eth_call","id":1}`, ErrVersion},
		{`{"jsonrpc":2.0,"method":"eth_call","id":1}`, ErrParse},
		{`{"jsonrpc":["2.0"],"method":"eth_call","id":1}`, ErrParse},
		{`{"jsonrpc":"2.0","id":1}`, ErrNoMethod},
		{`{"jsonrpc":"2.0","method":"","id":1}`, ErrNoMethod},
		{`{"jsonrpc":"2.0","method":null,"id":1}`, ErrNoMethod},
		{`{"jsonrpc":"2.0","method":7,"id":1}`, ErrParse},
		{`{"jsonrpc":"2.0","method":true,"id":1}`, ErrParse},
		{`{"jsonrpc":"2.0","method":{"a":1},"id":1}`, ErrParse},
		{`{"jsonrpc":"1.0","method":7,"id":1}`, ErrParse},
		{`{"jsonrpc":"1.0","method":"","id":[]}`, ErrVersion},
		{`{"jsonrpc":"2.0","method":"eth_call"}`, ErrID},
		{`{"jsonrpc":"2.0","method":"eth_call","id":[]}`, ErrID},
		{`{"jsonrpc":"2.0","method":"eth_call","id":[1]}`, ErrID},
		{`{"jsonrpc":"2.0","method":"eth_call","id":{}}`, ErrID},
		{`{"jsonrpc":"2.0","method":"eth_call","id":{"a":1}}`, ErrID},
		{`{"jsonrpc":"2.0","method":"eth_call","id":""}`, ErrID},
		{`{"jsonrpc":"2.0","method":"no such name","id":[]}`, ErrID},
		{`123`, ErrParse}, {`-1.5e3`, ErrParse}, {`"eth_call"`, ErrParse}, {`true`, ErrParse}, {`false`, ErrParse}, {`null`, ErrVersion},
	} {
		if c := one(t, row.body); c.Err != row.want || c.ID != nil {
			t.Errorf("%s: %v, id %s; want %v and no id", row.body, c.Err, c.ID, row.want)
		}
		calls, batch, err := Parse([]byte(`[`+row.body+`,{"jsonrpc":"2.0","method":"m","id":9} , `+row.body+` ]`), 10)
		if err != nil || !batch || len(calls) != 3 || calls[0].Err != row.want || calls[2].Err != row.want || calls[1].Err != nil || string(calls[1].ID) != "9" {
			t.Errorf("in a batch: %s: %v", row.body, err)
		}
	}
	// An array inside a batch is no batch.
	calls, _, err := Parse([]byte(`[[],[{"jsonrpc":"2.0","method":"m","id":9}]]`), 10)
	if err != nil || len(calls) != 2 || calls[0].Err != ErrParse || calls[1].Err != ErrParse {
		t.Errorf("nested batches: %v", err)
	}
}

func TestParseRefusesMethodNamesThatNoMethodHas(t *testing.T) {
	for _, name := range []string{
		`eth call`, `eth-call`, `eth.call`, `é`, `eth_call\u0000`, `eth_call\n`, `\"`, `eth/call`, `*`, `eth_*`, "\u017f", "\u212a", ` eth_call`, "\xff", `\ud800`,
		strings.Repeat("a", MaxMethodLen+1), strings.Repeat("é", 32),
	} {
		c := one(t, `{"jsonrpc":"2.0","method":"`+name+`","id":"x"}`)
		if c.Err != nil || c.Method != "" || string(c.ID) != `"x"` {
			t.Errorf("%q: method %q, id %s, %v; want none, and the id for the -32601", name, c.Method, c.ID, c.Err)
		}
	}
	for _, name := range []string{"a", "A", "_", "0", "eth_getLogs", strings.Repeat("Z", MaxMethodLen)} {
		if c := one(t, `{"jsonrpc":"2.0","method":"`+name+`","id":1}`); c.Method != name {
			t.Errorf("%q: method %q, %v", name, c.Method, c.Err)
		}
	}
	if ValidMethod("") || ValidMethod([]byte(nil)) || !ValidMethod([]byte("a_1")) {
		t.Error("ValidMethod")
	}
}

func TestParseRefusesBrokenJSONAsAWhole(t *testing.T) {
	good := `{"jsonrpc":"2.0","method":"m","id":1}`
	for _, body := range []string{
		``, ` `, `{`, `[`, `}`, `]`, `{]`, `[}`, `{"jsonrpc"`, `{"jsonrpc":`, `{"jsonrpc":"2.0"`, `{"jsonrpc":"2.0",`, `{"jsonrpc":"2.0",}`, `{,}`, `{1:2}`, `{id:1}`, `{'id':1}`,
		`{"a" 1}`, `{"a":1 "b":2}`, `nul`, `nulll`, `tru`, `truefalse`, `True`, `NaN`, `Infinity`, `"`, `"a`, `'a'`, "\"a\nb\"", "\"a\x00b\"", "\"\x1f\"", "\ufeff" + good,
		good + `x`, good + `{}`, good + good, good + `,`, good + `]`, good + "\x00", good + "\u00a0", `//` + "\n" + good, `/**/` + good,
		`[` + good, `[` + good + `,`, `[` + good + `,]`, `[,` + good + `]`, `[` + good + `}`, `[` + good + ` ` + good + `]`, `[` + good + `]x`, `[` + good + `][]`, `[]x`, `[]]`, `[1,2`,
		`[` + good + `,tru]`, `[` + good + `,{"id":1,"id":2]`, `{"jsonrpc":"2.0","method":"m","METHOD":"n","id":01}`,
	} {
		if calls, _, err := Parse([]byte(body), 10); !errors.Is(err, ErrParse) || calls != nil {
			t.Errorf("%q: %d calls, %v", body, len(calls), err)
		}
	}
	for _, id := range []string{`01`, `-`, `+1`, `1.`, `.5`, `1e`, `1e+`, `1.e1`, `-01`, `0x1`, `1_0`, `--1`, `1a`, `00`, `- 1`, `1.5.2`, `1e1.5`} {
		if _, _, err := Parse([]byte(`{"jsonrpc":"2.0","method":"m","id":`+id+`}`), 10); err != ErrParse {
			t.Errorf("number %s: %v", id, err)
		}
	}
	for _, text := range []string{`\`, `\x`, `\u`, `\u1`, `\u12`, `\u123`, `\u123g`, `\U0041`, `\'`, `\0`, `\ `, "\\\n", `\u 041`} {
		for _, body := range []string{`{"jsonrpc":"2.0","method":"m","id":"%s"}`, `{"jsonrpc":"2.0","method":"%s","id":1}`, `{"jsonrpc":"2.0","method":"m","id":1,"%s":2}`, `["%s"]`} {
			if _, _, err := Parse(fmt.Appendf(nil, body, text), 10); err != ErrParse {
				t.Errorf("escape %q in %s: %v", text, body, err)
			}
		}
	}
}

func TestParseRefusesAnEmptyBatch(t *testing.T) {
	for _, body := range []string{`[]`, ` [ ] `, "[\n]\t"} {
		if calls, batch, err := Parse([]byte(body), 10); err != ErrEmptyBatch || !batch || calls != nil {
			t.Errorf("%q: %v, batch %v", body, err, batch)
		}
	}
}

func TestParseRefusesABatchOverTheMaximumBeforeTheRestIsRead(t *testing.T) {
	call := `{"jsonrpc":"2.0","method":"m","id":1}`
	list := func(n int) string { return `[` + strings.TrimSuffix(strings.Repeat(call+`,`, n), `,`) + `]` }
	for n := 1; n <= 40; n++ {
		calls, batch, err := Parse([]byte(list(n)), 33)
		if n <= 33 && (err != nil || !batch || len(calls) != n) {
			t.Errorf("%d calls: %d, %v", n, len(calls), err)
		}
		if n > 33 && (err != ErrBatchSize || calls != nil || !batch) {
			t.Errorf("%d calls: %v", n, err)
		}
	}
	for _, rest := range []string{`1,2,3`, `{"broken`, `]`} {
		if _, _, err := Parse([]byte(`[1,1,`+rest), 2); err != ErrBatchSize {
			t.Errorf("%s behind the maximum: %v", rest, err)
		}
	}
	calls, _, err := Parse([]byte(list(40)), 40)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[*Call]bool{}
	for _, c := range calls {
		seen[c] = true
	}
	if len(seen) != 40 {
		t.Error("calls share memory")
	}
}

// The whole body counts, as in encoding/json: the batch, the object, the params.
func TestParseBoundsTheDepthOfTheWholeBody(t *testing.T) {
	for _, open := range []string{`[`, `{"a":`} {
		shut := map[string]string{`[`: `]`, `{"a":`: `}`}[open]
		nest := func(n int, inner string) string { return strings.Repeat(open, n) + inner + strings.Repeat(shut, n) }
		for _, inner := range []string{`1`, `[]`, `{}`} {
			own := len(inner) / 2 // an empty array is a level too
			for _, row := range []struct {
				format string
				around int
			}{
				{`{"jsonrpc":"2.0","method":"m","id":1,"params":%s}`, 1},
				{`{"jsonrpc":"2.0","method":"m","id":1,"x":%s}`, 1},
				{`[{"jsonrpc":"2.0","method":"m","id":1,"params":%s}]`, 2},
				{`{"jsonrpc":"2.0","method":"m","id":1,"id":2,"x":%s}`, 1},
				{`[%s]`, 1},
			} {
				deepest := MaxDepth - row.around - own
				if _, _, err := Parse(fmt.Appendf(nil, row.format, nest(deepest, inner)), 10); err != nil {
					t.Errorf("%s at %d of %s%s: %v", row.format, deepest, open, inner, err)
				}
				if _, _, err := Parse(fmt.Appendf(nil, row.format, nest(deepest+1, inner)), 10); err != ErrParse {
					t.Errorf("%s at %d of %s%s: %v, want a parse error", row.format, deepest+1, open, inner, err)
				}
			}
		}
	}
}

func TestAppendRequestBuildsFromScannedParts(t *testing.T) {
	for _, row := range []struct {
		c    Call
		id   uint64
		want string
	}{
		{Call{Method: "eth_chainId"}, 1, `{"jsonrpc":"2.0","method":"eth_chainId","id":1}`},
		{Call{Method: "eth_call", Params: []byte(`[ {"to":"0x1"}, "latest" ]`), ID: []byte(`"secret"`)}, 18446744073709551615, `{"jsonrpc":"2.0","method":"eth_call","params":[ {"to":"0x1"}, "latest" ],"id":18446744073709551615}`},
		{Call{Method: "m", Params: []byte(`null`)}, 0, `{"jsonrpc":"2.0","method":"m","params":null,"id":0}`},
		{Call{Method: "m", Params: []byte(`["<&>\u2028"]`)}, 7, `{"jsonrpc":"2.0","method":"m","params":["<&>\u2028"],"id":7}`},
	} {
		if got := string(AppendRequest([]byte("x"), &row.c, row.id)); got != "x"+row.want {
			t.Errorf("got  %s\nwant %s", got[1:], row.want)
		}
	}
}
