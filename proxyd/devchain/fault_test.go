package devchain

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseFaultReadsEveryKind(t *testing.T) {
	for query, want := range map[string]Fault{
		"kind=none":                      {Kind: FaultNone},
		"kind=status":                    {Kind: FaultStatus, Status: 503},
		"kind=status&status=200&times=3": {Kind: FaultStatus, Status: 200, Times: 3},
		"kind=hang&method=eth_call":      {Kind: FaultHang, Method: "eth_call"},
		"kind=garbage":                   {Kind: FaultGarbage},
		"kind=429":                       {Kind: FaultRateLimited, RPCCode: 429, RPCMessage: "too many requests"},
		"kind=429&retry_after=7&code=-32005&message": {Kind: FaultRateLimited, RetryAfter: "7", RPCCode: -32005, RPCMessage: "too many requests"},
		"kind=rpc-error":                      {Kind: FaultRPCError, RPCCode: -32000, RPCMessage: "devchain fault"},
		"kind=rpc-error&code=3&message=a%20b": {Kind: FaultRPCError, RPCCode: 3, RPCMessage: "a b"},
		"kind=slow":                           {Kind: FaultSlow, Delay: time.Second},
		"kind=slow&delay=20ms":                {Kind: FaultSlow, Delay: 20 * time.Millisecond},
		"kind=wrong-id":                       {Kind: FaultWrongID},
		"kind=close":                          {Kind: FaultClose},
		"kind=truncate":                       {Kind: FaultTruncate},
		"kind=mute":                           {Kind: FaultMute},
		"kind=drop":                           {Kind: FaultDrop},
		"kind=drop&times=2":                   {Kind: FaultDrop, Times: 2},
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseFault(values); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", query, got, err, want)
		}
	}
}

func TestParseFaultNamesWhatIsWrong(t *testing.T) {
	const kinds = "want one of none, status, hang, garbage, 429, rpc-error, slow, wrong-id, close, truncate, mute, drop"
	for query, want := range map[string]string{
		"":                                  `parameter kind: got "", ` + kinds,
		"kind=statsu":                       `parameter kind: got "statsu", ` + kinds,
		"kind=status&status=42":             `parameter status: got "42", want a whole number from 200 to 599`,
		"kind=status&status=600":            `parameter status: got "600", want a whole number from 200 to 599`,
		"kind=status&status=":               `parameter status: got "", want a whole number from 200 to 599`,
		"kind=status&status=500&status=501": `parameter status: given 2 times, want it once`,
		"kind=hang&kind=slow":               `parameter kind: given 2 times, want it once`,
		"kind=hang&status=500":              `parameter "status": not used by kind=hang, which takes kind, times, method`,
		"kind=slow&dealy=1s":                `parameter "dealy": not used by kind=slow, which takes kind, delay, times, method`,
		"kind=none&times=1":                 `parameter "times": not used by kind=none, which takes kind`,
		"kind=mute&times=1":                 `parameter "times": not used by kind=mute, which takes kind`,
		"kind=drop&method=eth_call":         `parameter "method": not used by kind=drop, which takes kind, times`,
		"kind=slow&delay=5":                 `parameter delay: got "5", want a duration above 0 and up to 10m0s, like 250ms`,
		"kind=slow&delay=-1s":               `parameter delay: got "-1s", want a duration above 0 and up to 10m0s, like 250ms`,
		"kind=slow&delay=1h":                `parameter delay: got "1h", want a duration above 0 and up to 10m0s, like 250ms`,
		"kind=rpc-error&code=x":             `parameter code: got "x", want a whole number from -2147483648 to 2147483647`,
		"kind=hang&times=-1":                `parameter times: got "-1", want a whole number from 0 to 1000000`,
		"kind=429&retry_after=1%0d%0aX:1":   `parameter retry_after: got "1\r\nX:1", want seconds or an HTTP date, in at most 64 printable ASCII characters`,
		"kind=hang&method=":                 `parameter method: got "", want the name of a method, in at most 64 printable ASCII characters`,
		"kind=rpc-error&message=" + strings.Repeat("m", 1025): `parameter message: got "` + strings.Repeat("m", 40) + `", want at most 1024 bytes`,
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFault(values); err == nil || err.Error() != want {
			t.Errorf("%.60s:\n got %v\nwant %s", query, err, want)
		}
	}
}

// FuzzParseFault holds that an accepted fault, shown as JSON and given back as parameters, is the same fault.
func FuzzParseFault(f *testing.F) {
	f.Add("kind=status&status=500&times=2&method=eth_call")
	f.Add("kind=slow&delay=1.5s")
	f.Add("kind=429&retry_after=1&code=5&message=x")
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Skip()
		}
		fault, err := ParseFault(values)
		if err != nil {
			return
		}
		shown, err := json.Marshal(fault)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		decoder := json.NewDecoder(strings.NewReader(string(shown)))
		decoder.UseNumber()
		if err := decoder.Decode(&fields); err != nil {
			t.Fatal(err)
		}
		again := url.Values{}
		for name, v := range fields {
			again.Set(name, reflect.ValueOf(v).String())
		}
		if strings.Contains(string(shown), `\ufffd`) {
			t.Skip("JSON cannot show bytes that are not UTF-8")
		}
		if got, err := ParseFault(again); err != nil || got != fault {
			t.Errorf("%s became %+v (%v), want %+v", shown, got, err, fault)
		}
	})
}

func TestSetFaultMakesSenseOfAnything(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	for _, test := range []struct{ set, want Fault }{
		{Fault{}, Fault{Kind: FaultNone}},
		{Fault{Kind: "typo", Status: 1}, Fault{Kind: FaultNone}},
		{Fault{Kind: FaultStatus, Status: 7, Times: -1}, Fault{Kind: FaultStatus, Status: 503}},
		{Fault{Kind: FaultMute, Times: 3, Method: "eth_call"}, Fault{Kind: FaultMute}},
		{Fault{Kind: FaultDrop, Times: 3, Method: "eth_call"}, Fault{Kind: FaultDrop, Times: 3}},
		{Fault{Kind: FaultSlow, Delay: time.Hour}, Fault{Kind: FaultSlow, Delay: maxFaultDelay}},
	} {
		b.SetFault(test.set)
		if got := b.Fault(); got != test.want {
			t.Errorf("%+v became %+v, want %+v", test.set, got, test.want)
		}
	}
}

func TestFaultIsSwitchedOverHTTP(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	for _, step := range []struct {
		method, target string
		status         int
		body           string
	}{
		{"GET", "/fault", 200, `{"kind":"none"}`},
		{"POST", "/fault?kind=status&status=502&times=2", 200, `{"kind":"status","status":502,"times":2}`},
		{"GET", "/fault", 200, `{"kind":"status","status":502,"times":2}`},
		{"POST", "/", 502, `devchain fault: status 502`},
		{"GET", "/fault", 200, `{"kind":"status","status":502,"times":1}`},
		{"POST", "/fault?kind=bad", 400, `parameter kind: got "bad", want one of none, status, hang, garbage, 429, rpc-error, slow, wrong-id, close, truncate, mute, drop`},
		{"POST", "/fault?kind=%zz", 400, `read query: invalid URL escape "%zz"`},
		{"DELETE", "/fault", 405, `/fault wants GET or POST`},
		{"GET", "/fault", 200, `{"kind":"status","status":502,"times":1}`},
		{"POST", "/", 502, `devchain fault: status 502`},
		{"GET", "/fault", 200, `{"kind":"none"}`},
		{"POST", "/fault?kind=slow&delay=90s", 200, `{"kind":"slow","delay":"1m30s"}`},
		{"POST", "/fault?kind=none", 200, `{"kind":"none"}`},
	} {
		r := httptest.NewRequest(step.method, "/", strings.NewReader(`{}`))
		u, err := url.Parse(strings.Replace(step.target, "%zz", "%25zz", 1))
		if err != nil {
			t.Fatal(err)
		}
		u.RawQuery = strings.Replace(u.RawQuery, "%25zz", "%zz", 1)
		r.URL = u
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		if w.Code != step.status || strings.TrimSpace(w.Body.String()) != step.body {
			t.Errorf("%s %s: got %d %s, want %d %s", step.method, step.target, w.Code, w.Body, step.status, step.body)
		}
	}
	if got := b.Requests(); got != 2 {
		t.Errorf("%d requests counted, want the 2 that are not for /fault", got)
	}
}

func TestFaultOfAMethodLeavesOthersAlone(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	chainID, number := `{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}`, `{"jsonrpc":"2.0","id":2,"method":"eth_blockNumber"}`
	answer := `{"jsonrpc":"2.0","id":1,"result":"0x7a69"}`
	b.SetFault(Fault{Kind: FaultRPCError, RPCCode: -5, RPCMessage: "no", Method: "eth_blockNumber", Times: 2})
	if got := post(b, chainID).Body.String(); got != answer {
		t.Errorf("got %s", got)
	}
	if got := b.Fault().Times; got != 2 {
		t.Errorf("a request of another method left %d times, want 2", got)
	}
	want := `[` + answer + `,{"jsonrpc":"2.0","id":2,"error":{"code":-5,"message":"no"}}]`
	if got := post(b, `[`+chainID+`,`+number+`]`).Body.String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	b.SetFault(Fault{Kind: FaultWrongID, Method: "eth_blockNumber"})
	want = `[` + answer + `,{"jsonrpc":"2.0","id":"devchain-wrong-id","result":"0x10"}]`
	if got := post(b, `[`+chainID+`,`+number+`]`).Body.String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	b.SetFault(Fault{Kind: FaultStatus, Method: "eth_blockNumber"})
	if w := post(b, `[`+chainID+`,`+number+`]`); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a batch with the method got %d", w.Code)
	}
	if w := post(b, chainID); w.Code != http.StatusOK {
		t.Errorf("another method got %d", w.Code)
	}
}
