package devchain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestIDsComeBackAsTheyWereSpelled(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	for _, id := range []string{`1`, `0`, `-7`, `1.0`, `1e3`, `1E+2`, `123456789012345678901234567890`, `0.1000`, `null`, `""`, `"a"`, `"\u0061\/"`,
		`"é"`, `"{[\"id\":5"`, `"` + strings.Repeat("x", 5000) + `"`} {
		want := `{"jsonrpc":"2.0","id":` + id + `,"result":"0x7a69"}`
		body := `{"method":"eth_chainId","id": ` + id + ` ,"jsonrpc":"2.0"}`
		if got := post(b, body).Body.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := post(b, "["+body+"]").Body.String(); got != "["+want+"]" {
			t.Errorf("in a batch: got %s, want [%s]", got, want)
		}
	}
}

func TestMalformedRequestsGetTheirError(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	invalid := `{"jsonrpc":"2.0","id":%s,"error":{"code":-32600,"message":"invalid request"}}`
	for body, want := range map[string]string{
		``:           `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}`,
		`{"id":1`:    `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}`,
		`{} {}`:      `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}`,
		`[{"id":1},`: `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}`,
		`[]`:         `{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"empty batch"}}`,
		`[` + strings.Repeat(`1,`, maxBatch) + `1]`: `{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"batch too large"}}`,
		`{}`:                              fmt.Sprintf(invalid, "null"),
		`null`:                            fmt.Sprintf(invalid, "null"),
		`"eth_chainId"`:                   fmt.Sprintf(invalid, "null"),
		`{"jsonrpc":"2.0","id":5}`:        fmt.Sprintf(invalid, "5"),
		`{"id":5,"method":"net_version"}`: fmt.Sprintf(invalid, "5"),
		`{"jsonrpc":"1.0","id":5,"method":"net_version"}`:                fmt.Sprintf(invalid, "5"),
		`{"jsonrpc":"2.0","id":"q","method":7}`:                          fmt.Sprintf(invalid, `"q"`),
		`{"jsonrpc":"2.0","id":{"a":1},"method":"net_version"}`:          fmt.Sprintf(invalid, "null"),
		`{"jsonrpc":"2.0","id":[1],"method":"net_version"}`:              fmt.Sprintf(invalid, "null"),
		`{"jsonrpc":"2.0","id":true,"method":"net_version"}`:             fmt.Sprintf(invalid, "null"),
		`{"jsonrpc":"2.0","id":5,"method":"eth_nope"}`:                   `{"jsonrpc":"2.0","id":5,"error":{"code":-32601,"message":"the method eth_nope does not exist/is not available"}}`,
		`{"jsonrpc":"2.0","id":5,"method":"eth_chainId","params":"x"}`:   `{"jsonrpc":"2.0","id":5,"error":{"code":-32602,"message":"non-array args"}}`,
		`{"jsonrpc":"2.0","id":5,"method":"eth_getBalance","params":[]}`: `{"jsonrpc":"2.0","id":5,"error":{"code":-32602,"message":"missing value for required argument 0"}}`,
		`{"jsonrpc":"2.0","id":5,"method":"eth_chainId","params":[1]}`:   `{"jsonrpc":"2.0","id":5,"error":{"code":-32602,"message":"too many arguments, want at most 0"}}`,
		`{"jsonrpc":"2.0","method":"eth_chainId"}`:                       ``,
		`[{"jsonrpc":"2.0","method":"eth_chainId"}]`:                     ``,
	} {
		w := post(b, body)
		if got := w.Body.String(); got != want || w.Code != http.StatusOK {
			t.Errorf("%.60s\n got %d %s\nwant 200 %s", body, w.Code, got, want)
		}
	}
}

func TestBatchAnswersEachElementInOrder(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	got := post(b, ` [{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}, 7, {"jsonrpc":"2.0","method":"eth_chainId"},
		{"jsonrpc":"2.0","id":1,"method":"nope"}, {"jsonrpc":"2.0","id":"b","method":"eth_blockNumber","params":[]}, null] `).Body.String()
	want := `[{"jsonrpc":"2.0","id":1,"result":"0x7a69"},` +
		`{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"invalid request"}},` +
		`{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"the method nope does not exist/is not available"}},` +
		`{"jsonrpc":"2.0","id":"b","result":"0x10"},` +
		`{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"invalid request"}}]`
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if b.Calls() != 4 || b.CallsOf("eth_chainId") != 2 || b.CallsOf("nope") != 0 || b.Requests() != 1 {
		t.Errorf("counted %d calls, %d of eth_chainId, %d of nope, %d requests", b.Calls(), b.CallsOf("eth_chainId"), b.CallsOf("nope"), b.Requests())
	}
}

func TestBatchStopsWhenItsAnswerIsTooLarge(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	half := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"dev_payload","params":[%d]}`, maxAnswer/2)
	body := post(b, "["+half+","+half+","+half+"]").Body.Bytes()
	refused := []byte(`,{"jsonrpc":"2.0","id":1,"error":{"code":-32003,"message":"response too large"}}]`)
	if bytes.Count(body, []byte(`"error"`)) != 1 || !bytes.HasSuffix(body, refused) {
		t.Errorf("want the third of three halves refused, and no other")
	}
}

func TestNotificationStillSendsItsTransaction(t *testing.T) {
	chain := New(Options{})
	w := post(NewBackend(chain, "one"), `{"jsonrpc":"2.0","method":"eth_sendRawTransaction","params":["0x01"]}`)
	if w.Body.Len() != 0 || len(chain.Pooled()) != 1 {
		t.Errorf("answer %q, %d in the pool", w.Body, len(chain.Pooled()))
	}
}

func TestOnlyPostIsServed(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodOptions} {
		w := httptest.NewRecorder()
		b.ServeHTTP(w, httptest.NewRequest(method, "/rpc", nil))
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
			t.Errorf("%s: got %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
}

func TestBodyIsLimited(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	call := `{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}`
	if w := post(b, call+strings.Repeat(" ", maxBody-len(call))); w.Code != http.StatusOK {
		t.Errorf("a body of the limit got %d", w.Code)
	}
	if w := post(b, call+strings.Repeat(" ", maxBody-len(call)+1)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a larger body got %d, want 413", w.Code)
	}
}

// FuzzRequest holds that any body gets a well-formed answer, with one element for each call at most, and that ids are not made up.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{``, `[]`, `{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}`, `[{"jsonrpc":"2.0","id":"a","method":"net_version"},5]`,
		`{"jsonrpc":"2.0","id":1,"method":"eth_getLogs","params":[{"fromBlock":"earliest","topics":[null,["0x00"]]}]}`,
		`{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[{"to":"` + EchoAddress + `","data":"0x01"},{"blockNumber":"0x1"}]}`,
		`{"jsonrpc":"2.0","id":1,"method":"eth_getStorageAt","params":["` + TokenAddress + `","0x0","latest"]}`,
		`{"jsonrpc":"2.0","id":1,"method":"eth_feeHistory","params":["0x2","latest",[1,2]]}`,
		`{"jsonrpc":"2.0","id":1,"method":"eth_getBlockByNumber","params":["0x1",true]}`} {
		f.Add(seed)
	}
	b := NewBackend(New(Options{}), "one")
	f.Fuzz(func(t *testing.T, body string) {
		if strings.Contains(body, "dev_payload") {
			t.Skip("large on purpose")
		}
		w := post(b, body)
		answer := w.Body.Bytes()
		in := parseRequest([]byte(body))
		if len(answer) == 0 {
			for _, c := range in.calls {
				if !c.valid || c.id != nil {
					t.Fatalf("no answer to %q", c.id)
				}
			}
			return
		}
		var replies []reply
		if !in.batch {
			answer = append(append([]byte("["), answer...), ']')
		}
		if err := json.Unmarshal(answer, &replies); err != nil || len(replies) > max(1, len(in.calls)) {
			t.Fatalf("%v, %d answers to %d calls: %s", err, len(replies), len(in.calls), answer)
		}
		for _, r := range replies {
			if (r.Error == nil) == (r.Result == nil) {
				t.Errorf("want one of result and error: %s", answer)
			}
			if string(r.ID) != "null" && !strings.Contains(body, string(r.ID)) {
				t.Errorf("id %s is not in the request", r.ID)
			}
		}
	})
}
