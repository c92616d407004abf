package classify

import (
	"fmt"
	"strings"
	"testing"

	"gateway.internal/proxyd/jsonrpc"
)

// What a client writes into its params, and a node into its message, decides
// nothing: the class is that of the message without it, and nobody is blamed who
// would not be without it.
func FuzzEchoesDecideNothing(f *testing.F) {
	for i, text := range append(texts, "execution reverted", "is disabled", "not available", "is not available on the free tier", "diſabled", "\"\"\"\" limit x cap", "k", "",
		strings.Repeat("so on ", 180)+"the method is disabled", "archive is not available") {
		f.Add(text, uint8(i), int16(200), int64(-32000), uint16(4096))
		f.Add(text, uint8(i), int16(403), int64(-32603), uint16(20))
	}
	table, err := New([]OperatorRule{{Match: "/limit .*cap/", Class: "billing"}, {Match: "/over.?quota/", Class: "auth"}, {Match: "/thing|sick/", Backend: "x", Class: "server"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string, node uint8, status int16, code int64, cut uint16) {
		text = strings.ToValidUTF8(text, "?")
		params := append(jsonrpc.AppendString([]byte("["), text), ']')
		shown := text
		if len(shown) > int(cut) {
			shown = strings.ToValidUTF8(shown[:cut], "") + "..."
		}
		template := nodes[int(node)%len(nodes)]
		if template == "%s" || len(shown) < 8 && shown != text {
			template = "bad: [%s]"
		}
		with := Evidence{Status: int(status), RPC: true, Code: code, Method: "eth_call", Params: params, Message: fmt.Sprintf(template, shown)}
		without := with
		without.Message = fmt.Sprintf(template, "")
		got, want := table.Classify(with), table.Classify(without)
		if got.Class != want.Class || got.Elsewhere != want.Elsewhere || got.NothingRan != want.NothingRan || got.Sick && !want.Sick || got.Hold > want.Hold || got.Firm && !want.Firm {
			t.Fatalf("%.300q\nwith the params' text %+v\nwithout it            %+v", with.Message, got, want)
		}
	})
}

func FuzzClassify(f *testing.F) {
	f.Add("b", int16(429), true, int64(-32005), "rate limit", `"0x08c379a0"`, "eth_call", `["x"]`, "/a.*b/")
	f.Add("", int16(0), false, int64(0), "", ``, "", ``, "")
	f.Fuzz(func(t *testing.T, backend string, status int16, rpc bool, code int64, message, data, method, params, match string) {
		if CheckMatch(match) != nil {
			return
		}
		table, err := New([]OperatorRule{{Match: match, Backend: "b", Status: 429, Class: "billing"}})
		if err != nil {
			t.Fatal(err)
		}
		got := table.Classify(Evidence{Backend: backend, Status: int(status), RPC: rpc, Code: code, Message: message, Data: []byte(data), Method: method, Params: []byte(params)})
		if got.Class == "" || got.Firm && !rpc && status >= 200 && status < 300 {
			t.Fatalf("%+v", got)
		}
	})
}
