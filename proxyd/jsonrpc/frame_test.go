package jsonrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestFrameIsAnAnswerOrANotification(t *testing.T) {
	const head = `{"jsonrpc":"2.0","method":"eth_subscription","params":`
	for _, c := range []struct {
		name, in               string
		subscription, result   string
		id                     string
		broken, isNotification bool
	}{
		{name: "answer", in: `{"jsonrpc":"2.0","id":7,"result":"0x1"}`, id: "7"},
		{name: "answer with white space", in: " \r\n\t{ \"id\" :\t7 , \"result\" : null } \n", id: "7"},
		{name: "id as text", in: `{"id":"7","result":1}`, id: `"7"`},
		{name: "id twice: the last one", in: `{"id":6,"result":1,"id":7}`, id: "7"},
		{name: "error with an id", in: `{"id":7,"error":{"code":1}}`, id: "7"},
		{name: "error with the id null", in: `{"id":null,"error":{"code":1}}`, id: "null", broken: true},
		{name: "error without an id", in: `{"error":{"code":1}}`, broken: true},
		{name: "no error, the id null", in: `{"id":null,"error":null,"result":1}`, id: "null"},
		{name: "neither id nor anything", in: `{}`},
		{name: "notification", in: head + `{"subscription":"0xa","result":{"number":"0x1"}}}`, subscription: `"0xa"`, result: `{"number":"0x1"}`, isNotification: true},
		{name: "the result first", in: head + `{"result":"0x","subscription":"0xa"}}`, subscription: `"0xa"`, result: `"0x"`, isNotification: true},
		{name: "params before the method", in: `{"params":{"subscription":"0xa","result":[ ]},"method":"eth_subscription"}`, subscription: `"0xa"`, result: `[ ]`, isNotification: true},
		{name: "white space everywhere", in: " { \"method\" : \"eth_subscription\" ,\n\"params\" : { \"subscription\" : \"0xa\" , \"result\" : 1 } } ", subscription: `"0xa"`, result: "1", isNotification: true},
		{name: "the result null", in: head + `{"subscription":"0xa","result":null}}`, subscription: `"0xa"`, result: "null", isNotification: true},
		{name: "the subscription a number", in: head + `{"subscription":5,"result":1}}`, subscription: "5", result: "1", isNotification: true},
		{name: "a notification with an id and an error", in: `{"id":7,"error":{"code":1},"method":"x","params":{"subscription":"0xa","result":1}}`, subscription: `"0xa"`, result: "1", isNotification: true},
		{name: "members twice: the last ones", in: head + `{"subscription":"0xa","result":1,"subscription":"0xb","result":2}}`, subscription: `"0xb"`, result: "2", isNotification: true},
		{name: "params twice: the last one", in: `{"params":{"subscription":"0xa","result":1},"params":{"subscription":"0xb","result":2},"method":"m"}`, subscription: `"0xb"`, result: "2", isNotification: true},
		{name: "batch", in: `[{"id":7,"result":1},{"id":8,"result":1}]`, id: "7"},
		{name: "batch, the first element without an id", in: ` [ {"id":null,"error":{"code":1}} , {"id":8,"result":1} ] `, id: "8"},
		{name: "batch of one", in: `[{"id":"7","result":1}]`, id: `"7"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := ParseFrame([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if string(f.Subscription) != c.subscription || string(f.Result) != c.result || string(f.ID) != c.id || f.Broken != c.broken || (f.Subscription != nil) != c.isNotification {
				t.Errorf("subscription %s, result %s, id %s, broken %t", f.Subscription, f.Result, f.ID, f.Broken)
			}
		})
	}
}

func TestFrameThatIsNoJSONRPCIsRefused(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1)
	for name, in := range map[string]string{
		"empty": "", "white space": " \n", "text": "hello", "page": "<html></html>", "number": "1", "null": "null", "string": `"x"`,
		"cut off":                    `{"id":7,"result":"0x`,
		"cut off behind a member":    `{"id":7,`,
		"bytes behind it":            `{"id":7,"result":1}x`,
		"two of them":                `{"id":7,"result":1}{"id":8,"result":1}`,
		"a comma too many":           `{"id":7,}`,
		"nested too deeply":          `{"id":7,"result":` + deep + `}`,
		"empty batch":                `[]`,
		"batch without any id":       `[{"error":{"code":1}},{"error":{"code":1},"id":null}]`,
		"batch of numbers":           `[1,2]`,
		"batch with null":            `[{"id":7,"result":1},null]`,
		"batch cut off":              `[{"id":7,"result":1},`,
		"batch with neither":         `[{"id":7}]`,
		"batch with bytes behind it": `[{"id":7,"result":1}]]`,
	} {
		f, err := ParseFrame([]byte(in))
		if !errors.Is(err, ErrInvalidAnswer) {
			t.Errorf("%s: %v", name, err)
		}
		if f.Subscription != nil || f.ID != nil || f.Broken {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestNotificationOfAnotherKindIsNobodys(t *testing.T) {
	for _, in := range []string{
		`{"method":"eth_subscription"}`, `{"method":"eth_subscription","params":["0xa",1]}`, `{"method":"eth_subscription","params":{"result":1}}`,
		`{"method":"eth_subscription","params":{"subscription":"0xa"}}`, `{"jsonrpc":"2.0","method":"rpc_ping","params":{}}`,
	} {
		if f, err := ParseFrame([]byte(in)); err != nil || !f.Foreign || f.Subscription != nil || f.ID != nil {
			t.Errorf("%s: %+v, %v", in, f, err)
		}
	}
	f, err := ParseFrame([]byte(`{"method":"eth_subscription","params":{"subscription":"0xa","error":{"code":1}}}`))
	if err != nil || f.Foreign || string(f.Subscription) != `"0xa"` || f.Result != nil {
		t.Errorf("the end of a subscription: %+v, %v", f, err)
	}
}

func TestFrameOfABatchIsBounded(t *testing.T) {
	batch := func(n int) []byte {
		elements := make([]string, n)
		for i := range elements {
			elements[i] = fmt.Sprintf(`{"id":%d,"result":1}`, i+1)
		}
		return []byte("[" + strings.Join(elements, ",") + "]")
	}
	if f, err := ParseFrame(batch(maxFrameReplies)); err != nil || string(f.ID) != "1" {
		t.Errorf("%s, %v", f.ID, err)
	}
	if _, err := ParseFrame(batch(maxFrameReplies + 1)); !errors.Is(err, ErrInvalidAnswer) {
		t.Errorf("%v", err)
	}
}

func collect(raw string, most int) (values []string, ok bool) {
	ok = Elements([]byte(raw), func(v []byte) bool {
		values = append(values, string(v))
		return len(values) < most
	})
	return values, ok
}

func TestElementsOfAnArray(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
		ok   bool
	}{
		{`[]`, nil, true}, {" [ \n ] ", nil, true}, {`[1]`, []string{"1"}, true},
		{" [ 1 ,\t\"a,]\" , [ 2 , 3 ],{\"a\" : [1]} , null ]", []string{"1", `"a,]"`, "[ 2 , 3 ]", `{"a" : [1]}`, "null"}, true},
		{`{}`, nil, false}, {`"[1]"`, nil, false}, {`1`, nil, false}, {`null`, nil, false}, {``, nil, false}, {` `, nil, false},
	} {
		got, ok := collect(c.in, 100)
		if ok != c.ok || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %t", c.in, got, ok)
		}
	}
	if got, ok := collect(`[1,2,3,4]`, 2); !ok || !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("%q, %t: it does not end when it should", got, ok)
	}
	for _, broken := range []string{`[`, `[1`, `[1,`, `["a`, `[{]`, `[tru]`} {
		if _, ok := collect(broken, 100); ok {
			t.Errorf("%s is taken for an array", broken)
		}
	}
}

func TestMembersOfAnObject(t *testing.T) {
	type member struct{ name, value string }
	for _, c := range []struct {
		in   string
		want []member
		ok   bool
	}{
		{`{}`, nil, true}, {" { } ", nil, true},
		{" { \"a\" : 1 ,\"b\":{ \"a\" : 2 } , \"a\":[ 3 ],\"\\u0061\":null, \"\":\"\" } ", []member{{"a", "1"}, {"b", `{ "a" : 2 }`}, {"a", "[ 3 ]"}, {`\u0061`, "null"}, {"", `""`}}, true},
		{`[]`, nil, false}, {`"{}"`, nil, false}, {`null`, nil, false}, {``, nil, false}, {`{`, nil, false}, {`{"a"`, nil, false}, {`{"a":}`, nil, false}, {`{1:2}`, nil, false},
	} {
		var got []member
		ok := Members([]byte(c.in), func(name, value []byte) { got = append(got, member{string(name), string(value)}) })
		if ok != c.ok || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %t", c.in, got, ok)
		}
	}
}

func TestTextOfAString(t *testing.T) {
	for in, want := range map[string]string{
		`""`: "", `"a"`: "a", `"0xabc"`: "0xabc", `"\u0061\n\"\\\/"`: "a\n\"\\/", `"\ud83d\ude00"`: "😀", `"é"`: "é", `"\ud800"`: "\ufffd", "\"\xff\"": "\ufffd",
	} {
		if got, ok := Text([]byte(in)); !ok || got != want {
			t.Errorf("%s: %q, %t", in, got, ok)
		}
	}
	for _, in := range []string{``, `"`, `1`, `null`, `{}`, `[]`, `["a"]`, `true`, `{"a":"b"}`} {
		if got, ok := Text([]byte(in)); ok {
			t.Errorf("%s is taken for the text %q", in, got)
		}
	}
}

var frameSeeds = []string{
	`{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"0xa","result":{"number":"0x1"}}}`,
	`{"jsonrpc":"2.0","id":1,"result":"0x1"}`, `{"id":null,"error":{"code":-32000,"message":"x"}}`,
	`[{"id":1,"result":1},{"id":2,"error":{"code":1}}]`, `[{"id":null,"error":{"code":1}},{"id":"2","result":null}]`,
	` { "method" : "m" , "params" : { "subscription" : 1 , "result" : [ ] , "result" : { } } } `,
	`{"method":"m","params":{"subscription":"\u0061","\u0072esult":1,"result":2}}`, `{"method":"m","params":[{"subscription":1,"result":2}]}`,
	"{\"a\":\"\xff\",\"\xfe\":1}", `"\ud83d\ude00\u0000\n"`, `"\ud800"`, `[1, [2], {"a":[3]}, "4"]`, `[]`, `[ ]`, `{}`, `{ }`, `1e9`, `[1,]`, `[,1]`, `[1 2]`, `""`, `"`, `"a","b"`,
}

// FuzzFrame holds what reads providers' frames against encoding/json.
func FuzzFrame(f *testing.F) {
	for _, seed := range append(frameSeeds, fuzzSeeds...) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		frame, err := ParseFrame(body)
		if err != nil && (!errors.Is(err, ErrInvalidAnswer) || frame.Subscription != nil) {
			t.Fatalf("%v with %+v", err, frame)
		}
		valid := json.Valid(body)
		if !valid {
			if err == nil {
				t.Fatalf("taken, but encoding/json says it is not valid")
			}
			// Whatever they say of it: they must not panic, nor go on for ever.
			Elements(body, func([]byte) bool { return true })
			Members(body, func(_, _ []byte) {})
			Text(body)
			return
		}
		sameElements(t, body)
		sameMembers(t, body)
		sameText(t, bytes.TrimSpace(body))
		members := object(body)
		method, params := members["method"], object(members["params"])
		escaped := bytes.IndexByte(body, '\\') >= 0 // names are taken as they are spelled
		switch subscription, result := params["subscription"], params["result"]; {
		case members == nil || escaped:
		case method != nil && subscription != nil && result != nil:
			if err != nil || !bytes.Equal(frame.Subscription, subscription) || !bytes.Equal(frame.Result, result) || frame.ID != nil || frame.Broken {
				t.Fatalf("%+v, %v of a notification for %s with %s", frame, err, subscription, result)
			}
		case method != nil:
			if ended := subscription != nil && params["error"] != nil; err != nil || frame.Foreign == ended || frame.Result != nil || frame.ID != nil {
				t.Fatalf("%+v, %v of a notification of another kind", frame, err)
			}
		default:
			withError := members["error"] != nil && string(members["error"]) != "null"
			withoutID := members["id"] == nil || string(members["id"]) == "null"
			if err != nil || frame.Subscription != nil || !bytes.Equal(frame.ID, members["id"]) || frame.Broken != (withError && withoutID) {
				t.Fatalf("%+v, %v of an answer", frame, err)
			}
		}
	})
}

// object is what encoding/json makes of an object, nil of anything else.
func object(raw []byte) map[string]json.RawMessage {
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || raw[0] != '{' {
		return nil
	}
	members := map[string]json.RawMessage{}
	if json.Unmarshal(raw, &members) != nil {
		return nil
	}
	return members
}

func sameElements(t *testing.T, body []byte) {
	t.Helper()
	var want []json.RawMessage
	is := bytes.TrimSpace(body)[0] == '['
	if is {
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatal(err)
		}
	}
	var got [][]byte
	if ok := Elements(body, func(v []byte) bool { got = append(got, v); return true }); ok != is || len(got) != len(want) {
		t.Fatalf("%d elements, %t, want %d, %t", len(got), ok, len(want), is)
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("element %d is %s, want %s", i, got[i], want[i])
		}
	}
}

func sameMembers(t *testing.T, body []byte) {
	t.Helper()
	want := object(body)
	got := map[string][]byte{}
	ok := Members(body, func(name, value []byte) {
		text, isText := Text(slices.Concat([]byte{'"'}, name, []byte{'"'}))
		if !isText {
			t.Fatalf("the name %q is no text", name)
		}
		got[text] = value // the last one, as in encoding/json
	})
	if ok != (want != nil) || len(got) != len(want) {
		t.Fatalf("%d members, %t, want %d", len(got), ok, len(want))
	}
	for name, value := range want {
		if !bytes.Equal(got[name], value) {
			t.Fatalf("%q is %s, want %s", name, got[name], value)
		}
	}
}

func sameText(t *testing.T, raw []byte) {
	t.Helper()
	var want string
	is := raw[0] == '"'
	if is {
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok := Text(raw); ok != is || got != want {
		t.Fatalf("%s: %q, %t, want %q, %t", raw, got, ok, want, is)
	}
}
