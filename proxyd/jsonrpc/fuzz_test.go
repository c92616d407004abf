package jsonrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
)

// What a Go node makes of a request, and what a decoder with exact names does.
type nodeRequest struct {
	Version string          `json:"jsonrpc"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
	ID      json.RawMessage `json:"id"`
}

var fuzzSeeds = []string{
	`{"jsonrpc":"2.0","method":"eth_call","params":[{"to":"0x1","data":"0x"},"latest"],"id":1}`,
	`{"jsonrpc":"2.0","method":"eth_chainId","METHOD":"admin_addPeer","id":1}`,
	`{"jsonrpc":"2.0","method":"eth_chainId","\u006dethod":"admin_addPeer","id":1}`,
	"{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":1,\"param\u017f\":[2]}",
	`[{"jsonrpc":"2.0","method":"a","id":null},1,null,{"jsonrpc":"2.0","method":"b c","id":"x"},{"id":1,"id":2}]`,
	`{"jsonrpc":"2.0","method":"m","params":"</script>\u2028","id":1e400}`, "{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":\"\xff\",\"id\":\"\xff\"}",
	`[]`, `null`, `123`, `{}`, ``, `[[]]`, `{"a":{"b":[1,-0.5e+3,true,false,null,"\ud800"]}}`,
	`[{"jsonrpc":"2.0","method":"m","id":1}`, `{"jsonrpc":"2.0","method":"m","id":01}`, strings.Repeat(`[`, 70) + strings.Repeat(`]`, 70),
}

// The gateway and a node must read the same request: what was checked against
// the whitelist is what runs.
func FuzzParse(f *testing.F) {
	for _, seed := range fuzzSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		calls, batch, err := Parse(body, 1<<30)
		if valid := json.Valid(body); valid != (err == nil || err == ErrEmptyBatch) {
			t.Fatalf("encoding/json says valid: %v; Parse: %v", valid, err)
		}
		if err != nil {
			return
		}
		elements := []json.RawMessage{body}
		if batch {
			elements = nil
			if err := json.Unmarshal(body, &elements); err != nil || len(elements) != len(calls) {
				t.Fatalf("%d calls of %d elements, %v", len(calls), len(elements), err)
			}
		}
		for i, c := range calls {
			sameCall(t, c, elements[i])
		}
	})
}

func sameCall(t *testing.T, c *Call, element []byte) {
	var sent nodeRequest
	decodes := json.Unmarshal(element, &sent) == nil
	if c.Err != nil {
		if c.Method != Healthz && (c.ID != nil || c.Method != "") {
			t.Fatalf("a refused call has a method or an id: %s %s", c.Method, c.ID)
		}
		if errors.Is(c.Err, ErrID) && decodes && sent.ID != nil && !bytes.ContainsAny(sent.ID[:1], `{["`) {
			t.Fatalf("id %s is refused", sent.ID)
		}
		return
	}
	// Only bytes of the element, and as encoding/json reads it.
	if !decodes || sent.Version != "2.0" || !bytes.Equal(c.ID, sent.ID) || !bytes.Equal(c.Params, sent.Params) {
		t.Fatalf("read as %+v, encoding/json reads %+v", c, sent)
	}
	if c.Method == "" {
		if ValidMethod(sent.Method) {
			t.Fatalf("method %s is refused", sent.Method)
		}
		return
	}
	if c.Method != sent.Method || !ValidMethod(c.Method) {
		t.Fatalf("method %q, encoding/json reads %q", c.Method, sent.Method)
	}
	upstream := AppendRequest(nil, c, 42)
	var node nodeRequest
	var members map[string]json.RawMessage
	if json.Unmarshal(upstream, &node) != nil || json.Unmarshal(upstream, &members) != nil || !Valid(upstream) {
		t.Fatalf("upstream is not JSON: %s", upstream)
	}
	if node.Version != "2.0" || node.Method != c.Method || string(node.ID) != "42" || !bytes.Equal(node.Params, c.Params) {
		t.Fatalf("a node reads %+v of %s", node, upstream)
	}
	want := 3
	if c.Params != nil {
		want++
	}
	if len(members) != want || string(members["jsonrpc"]) != `"2.0"` || string(members["method"]) != `"`+c.Method+`"` || string(members["id"]) != "42" || !bytes.Equal(members["params"], c.Params) {
		t.Fatalf("members %s", upstream)
	}
	answer := AppendAnswer(nil, c.ID, &Answer{Result: []byte(`true`)})
	var back struct{ ID json.RawMessage }
	if json.Unmarshal(answer, &back) != nil || !bytes.Equal(back.ID, c.ID) {
		t.Fatalf("answer %s", answer)
	}
}

// A batch's answers must be split as everybody else would split them.
func FuzzParseReplies(f *testing.F) {
	for _, seed := range append(fuzzSeeds,
		`[{"id":1,"result":{"a":[1]}},{"error":{"code":3,"message":"x","data":"0x"},"id":"2"}]`, `{"id":null,"result":null,"error":{"code":-32000.0}}`,
		`[{"id":1,"result":1},null]`, `[{"id":1,"id":2,"result":1}]`, `[{"id":1,"Result":1}]`, `{"result":1,"error":null}`, `[{"result":null}]`, `{"\u0069d":1,"id":2,"result":3}`) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		replies, single, err := ParseReplies(body, 1<<30)
		if err != nil {
			if !errors.Is(err, ErrInvalidAnswer) {
				t.Fatalf("%v", err)
			}
			if single && len(replies) != 1 || !single && replies != nil {
				t.Fatalf("replies beside an error: %v", replies)
			}
			return
		}
		elements := []json.RawMessage{body}
		if !single {
			elements = nil
			err = json.Unmarshal(body, &elements)
		}
		if !json.Valid(body) || err != nil || len(elements) != len(replies) {
			t.Fatalf("%d replies, encoding/json reads %d, %v", len(replies), len(elements), err)
		}
		for i, r := range replies {
			if bytes.Contains(elements[i], []byte(`\u`)) {
				continue // escaped member names are not ours to resolve
			}
			var members map[string]json.RawMessage
			if err := json.Unmarshal(elements[i], &members); err != nil {
				t.Fatal(err)
			}
			raw := func(name string) []byte {
				if v := members[name]; string(v) != "null" {
					return v
				}
				return nil
			}
			if !bytes.Equal(r.ID, members["id"]) || !bytes.Equal(r.Error, raw("error")) {
				t.Fatalf("id %s error %s of %s", r.ID, r.Error, elements[i])
			}
			if r.Error == nil && !bytes.Equal(r.Result, members["result"]) || (r.Error == nil) == (r.Result == nil) {
				t.Fatalf("result %s of %s", r.Result, elements[i])
			}
			sameError(t, r.Error)
			if id, ok := ReplyID(r.ID); ok {
				text := strings.Trim(string(r.ID), `"`)
				if f, err := strconv.ParseFloat(text, 64); err != nil || uint64(f) != id && strconv.FormatUint(id, 10) != strings.TrimLeft(text, "0") {
					t.Fatalf("id %s is taken for %d", r.ID, id)
				}
			}
		}
	})
}

func sameError(t *testing.T, raw []byte) {
	e, err := ParseError(raw)
	if err != nil {
		return
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		t.Fatalf("not an object: %s", raw)
	}
	var code float64
	if json.Unmarshal(members["code"], &code) != nil || int64(code) != e.Code || !bytes.Equal(members["data"], e.Data) {
		t.Fatalf("%s is taken for %+v", raw, e)
	}
	var message string
	if json.Unmarshal(members["message"], &message) == nil && message != "" && message != e.Message {
		t.Fatalf("message %q of %s", e.Message, raw)
	}
}

func FuzzValid(f *testing.F) {
	for _, seed := range fuzzSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := Valid(b), json.Valid(b); got != want {
			t.Fatalf("%v, encoding/json says %v", got, want)
		}
		if Valid(b) {
			Strings(b, func(text []byte) bool {
				if back := AppendString(nil, string(text)); !Valid(back) {
					t.Fatalf("%q written as %s", text, back)
				}
				return true
			})
		}
	})
}
