package jsonrpc

import (
	"errors"
	"strings"
	"testing"
)

func TestParseReplyTakesResultOrError(t *testing.T) {
	for _, row := range []struct{ body, id, result, err string }{
		{`{"jsonrpc":"2.0","id":1,"result":"0x1"}`, `1`, `"0x1"`, ``},
		{` {"result" : [ 1.0, {"id":7} ] , "id" : "1" } ` + "\n", `"1"`, `[ 1.0, {"id":7} ]`, ``},
		{`{"id":1,"result":null}`, `1`, `null`, ``},
		{`{"id":1,"result":null,"error":null}`, `1`, `null`, ``},
		{`{"id":1,"result":5,"error":null}`, `1`, `5`, ``},
		{`{"id":1,"result":null,"error":{"code":1}}`, `1`, ``, `{"code":1}`},
		{`{"id":null,"error":{"code":1}}`, `null`, ``, `{"code":1}`},
		{`{"error":{"code":1}}`, ``, ``, `{"code":1}`},
		{`{"error":"text","id":1}`, `1`, ``, `"text"`},
		{`{"result":false,"id":1,"x":1,"x":2,"jsonrpc":"1.0","Result":1,"ERROR":2}`, `1`, `false`, ``},
	} {
		r, err := ParseReply([]byte(row.body))
		if err != nil || string(r.ID) != row.id || string(r.Result) != row.result || string(r.Error) != row.err {
			t.Errorf("%s: %s %s %s, %v", row.body, r.ID, r.Result, r.Error, err)
		}
		replies, single, err := ParseReplies([]byte(row.body), 3)
		if err != nil || !single || len(replies) != 1 || string(replies[0].Result) != row.result {
			t.Errorf("for a batch: %s: %v", row.body, err)
		}
		replies, single, err = ParseReplies([]byte(`[ `+row.body+`,`+row.body+` ] `), 2)
		if err != nil || single || len(replies) != 2 || string(replies[1].ID) != row.id || string(replies[1].Error) != row.err {
			t.Errorf("in a batch: %s: %v", row.body, err)
		}
	}
}

func TestParseReplyRefusesWhatIsNoAnswer(t *testing.T) {
	for body, want := range map[string]string{
		``:                                    "empty",
		" \n":                                 "empty",
		`{}`:                                  "neither result nor error",
		`{"id":1}`:                            "neither result nor error",
		`{"id":1,"error":null}`:               "neither result nor error",
		`{"id":1,"Result":1}`:                 "neither result nor error",
		`{"id":1,"result":1,"error":{}}`:      "both result and error",
		`{"id":1,"id":1,"result":1}`:          "a member stands twice",
		`{"id":1,"result":1,"result":2}`:      "a member stands twice",
		`{"id":1,"error":null,"error":{}}`:    "a member stands twice",
		`{"id":1,"result":null,"result":2}`:   "a member stands twice",
		`null`:                                "not a JSON object",
		`123`:                                 "not a JSON object",
		`"text"`:                              "not a JSON object",
		`<html>busy</html>`:                   "not a JSON object",
		`error code: 1015`:                    "not a JSON object",
		`{"id":1,"result":`:                   "not JSON",
		`{"id":1,"result":"0x1`:               "not JSON",
		`{"id":1,"id":2,"result":tru}`:        "not JSON",
		`{"id":01,"result":1}`:                "not JSON",
		`{"id":1,"result":1}}`:                "bytes behind the answer",
		`{"id":1,"result":1}{"id":1}`:         "bytes behind the answer",
		`{"id":1,"result":1} x`:               "bytes behind the answer",
		"\ufeff" + `{"id":1,"result":1}`:      "not a JSON object",
		`{"id":1,"result":` + deep(10000):     "not JSON",
		`{"id":1,"result":` + deep(10) + `}}`: "bytes behind the answer",
	} {
		_, err := ParseReply([]byte(body))
		if !errors.Is(err, ErrInvalidAnswer) || err.Error() != "invalid answer: "+want {
			t.Errorf("%.60q: %v, want %s", body, err, want)
		}
		if _, single, err := ParseReplies([]byte(body), 3); !single || !errors.Is(err, ErrInvalidAnswer) {
			t.Errorf("for a batch: %.60q: %v", body, err)
		}
	}
	if _, err := ParseReply([]byte(`[{"id":1,"result":1}]`)); !errors.Is(err, ErrInvalidAnswer) {
		t.Errorf("an array for a single call: %v", err)
	}
}

func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) + "}" }

func TestParseRepliesFailsAsAWholeOnABrokenElement(t *testing.T) {
	good := `{"id":1,"result":1}`
	for body, want := range map[string]string{
		`[null]`:                                 "not a JSON object",
		`[` + good + `,null]`:                    "not a JSON object",
		`[` + good + `,7]`:                       "not a JSON object",
		`[[` + good + `]]`:                       "not a JSON object",
		`[` + good + `,{}]`:                      "neither result nor error",
		`[` + good + `,{"id":2,"id":2}]`:         "a member stands twice",
		`[` + good + `,{"result":1,"error":{}}]`: "both result and error",
		`[` + good:                               "cut off",
		`[` + good + ` `:                         "cut off",
		`[` + good + `,`:                         "empty",
		`[`:                                      "empty",
		`[` + good + `,]`:                        "not a JSON object",
		`[,` + good + `]`:                        "not a JSON object",
		`[` + good + good + `]`:                  "not JSON",
		`[` + good + `}`:                         "not JSON",
		`[` + good + `]]`:                        "bytes behind the answer",
		`[]x`:                                    "not a JSON object",
		`[` + good + `,` + good + `,` + good + `,` + good + `]`: "more answers than calls",
	} {
		replies, single, err := ParseReplies([]byte(body), 3)
		if single || replies != nil || !errors.Is(err, ErrInvalidAnswer) || err.Error() != "invalid answer: "+want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	if replies, single, err := ParseReplies([]byte(` [ ] `), 3); len(replies) != 0 || single || err != nil {
		t.Errorf("an empty array: %v %v %v", replies, single, err)
	}
}

func TestReplyIDReadsEverySpellingOfOurIDs(t *testing.T) {
	for raw, want := range map[string]uint64{
		`1`: 1, `"1"`: 1, `1.0`: 1, `1e0`: 1, `"1.0"`: 1, `10e-1`: 1, `1E+3`: 1000, `"1e3"`: 1000, `0`: 0, `-0`: 0, `9007199254740992`: 1 << 53, `9.007199254740992e15`: 1 << 53,
		`9007199254740993`: 1<<53 + 1, `18446744073709551615`: 1<<64 - 1, `"18446744073709551615"`: 1<<64 - 1, `1.000000000000000000000000000`: 1,
	} {
		if got, ok := ReplyID([]byte(raw)); !ok || got != want {
			t.Errorf("%s: %d, %v; want %d", raw, got, ok, want)
		}
	}
	for _, raw := range []string{
		``, `null`, `true`, `""`, `"a"`, `-1`, `"-1"`, `1.5`, `[1]`, `{"1":1}`, `" 1"`, `"1 "`, `"0x1"`, `"NaN"`, `"nan"`, `"Inf"`, `"+Inf"`, `"infinity"`, `1e400`, `1e16`, `18446744073709551616`,
		`"\u0031"`, `1.0000000000000000000000000000000`,
	} {
		if got, ok := ReplyID([]byte(raw)); ok {
			t.Errorf("%s is taken for %d", raw, got)
		}
	}
}

func TestParseErrorTakesAnErrorApart(t *testing.T) {
	for _, row := range []struct {
		raw string
		e   ErrorObject
	}{
		{`{"code":-32000,"message":"header not found"}`, ErrorObject{Code: -32000, Message: "header not found"}},
		{`{"data":"0x08c379a0","message":"execution reverted","code":3}`, ErrorObject{Code: 3, Message: "execution reverted", Data: []byte(`"0x08c379a0"`)}},
		{`{"code":-32000.0,"message":"\u0041\n\"é"}`, ErrorObject{Code: -32000, Message: "A\n\"é"}},
		{`{"code":-3.2e4,"message":null,"data":null}`, ErrorObject{Code: -32000, Data: []byte(`null`)}},
		{`{"code":0}`, ErrorObject{}},
		{`{"code":1,"message":{"text":"x"},"data":{"message":"y"}}`, ErrorObject{Code: 1, Data: []byte(`{"message":"y"}`)}},
	} {
		e, err := ParseError([]byte(row.raw))
		if err != nil || e.Code != row.e.Code || e.Message != row.e.Message || string(e.Data) != string(row.e.Data) {
			t.Errorf("%s: %+v, %v", row.raw, e, err)
		}
	}
	for _, raw := range []string{
		``, `null`, `"text"`, `[]`, `7`, `{}`, `{"message":"x"}`, `{"code":"-32000"}`, `{"code":null}`, `{"code":true}`, `{"code":1.5}`, `{"code":1e300}`, `{"code":1e400}`,
		`{"code":9007199254740994}`, `{"code":[1]}`, `{"Code":1}`, `{"code":1`,
	} {
		if e, err := ParseError([]byte(raw)); err == nil {
			t.Errorf("%s is taken for %+v", raw, e)
		}
	}
}

func TestAppendAnswerKeepsTheProvidersAndTheClientsBytes(t *testing.T) {
	for _, row := range []struct {
		id   string
		a    Answer
		want string
	}{
		{`1`, Answer{Result: []byte(`"0x1"`)}, `{"jsonrpc":"2.0","result":"0x1","id":1}`},
		{`"1.0"`, Answer{Result: []byte(`{ "b":1.0, "a":9007199254740993, "a":"<&>" }`)}, `{"jsonrpc":"2.0","result":{ "b":1.0, "a":9007199254740993, "a":"<&>" },"id":"1.0"}`},
		{``, Answer{Result: []byte(`null`)}, `{"jsonrpc":"2.0","result":null,"id":null}`},
		{`1e0`, Answer{Error: []byte(`{"code":3, "data":"0x"}`), Code: 3}, `{"jsonrpc":"2.0","error":{"code":3, "data":"0x"},"id":1e0}`},
	} {
		var id []byte
		if row.id != "" {
			id = []byte(row.id)
		}
		if got := string(AppendAnswer([]byte("["), id, &row.a)); got != "["+row.want {
			t.Errorf("got  %s\nwant %s", got[1:], row.want)
		}
	}
}

func TestAppendErrorWritesTheGatewaysOwnErrors(t *testing.T) {
	for _, row := range []struct {
		id      []byte
		code    int64
		message string
		data    []byte
		want    string
	}{
		{[]byte(`1`), -32601, "rpc method is not whitelisted", nil, `{"jsonrpc":"2.0","error":{"code":-32601,"message":"rpc method is not whitelisted"},"id":1}`},
		{nil, -32700, "parse error", nil, `{"jsonrpc":"2.0","error":{"code":-32700,"message":"parse error"},"id":null}`},
		{[]byte(`"a"`), -32015, `a "b"`, []byte(`"0x12"`), `{"jsonrpc":"2.0","error":{"code":-32015,"message":"a \"b\"","data":"0x12"},"id":"a"}`},
	} {
		got := AppendError(nil, row.id, row.code, row.message, row.data)
		if string(got) != row.want || !Valid(got) {
			t.Errorf("got  %s\nwant %s", got, row.want)
		}
	}
}
