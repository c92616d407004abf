package devchain

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// post sends body to the handler and returns what came back.
func post(b *Backend, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	b.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
	return w
}

type reply struct {
	ID     json.RawMessage `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *rpcError       `json:"error"`
}

func ask(t *testing.T, b *Backend, method, params string) reply {
	t.Helper()
	w := post(b, fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, method, params))
	var r reply
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%s%s: status %d, %v in %s", method, params, w.Code, err, w.Body)
	}
	return r
}

// result is the call's result as text, or its error as "code message".
func result(t *testing.T, b *Backend, method, params string) string {
	t.Helper()
	r := ask(t, b, method, params)
	if r.Error != nil {
		return fmt.Sprintf("%d %s", r.Error.Code, r.Error.Message)
	}
	return string(r.Result)
}

func object(t *testing.T, raw string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(raw), &m); err != nil || m == nil {
		t.Fatalf("want an object, got %s (%v)", raw, err)
	}
	return m
}

func TestAnswersOfTheDefaultChain(t *testing.T) {
	b := NewBackend(New(Options{}), `one"`)
	zero := `"0x` + strings.Repeat("0", 64) + `"`
	for _, test := range []struct{ method, params, want string }{
		{"web3_clientVersion", `[]`, `"devchain/v1/one\""`},
		{"web3_sha3", `["0x68656c6c6f20776f726c64"]`, `"0x47173285a8d7341e5e972fc677286384f802f8ef42a5ec5f03bbfa254cb01fad"`},
		{"net_version", `[]`, `"31337"`},
		{"net_listening", `null`, `true`},
		{"net_peerCount", `[]`, `"0x0"`},
		{"eth_chainId", `[]`, `"0x7a69"`},
		{"eth_syncing", `[]`, `false`},
		{"eth_blockNumber", `[]`, `"0x10"`},
		{"eth_gasPrice", `[]`, `"0x77359400"`},
		{"eth_maxPriorityFeePerGas", `[]`, `"0x3b9aca00"`},
		{"eth_accounts", `[]`, `["` + SenderAddress + `"]`},
		{"eth_getBalance", `["` + SenderAddress + `","earliest"]`, `"0x21e19e0c9bab2400000"`},
		{"eth_getBalance", `["` + SenderAddress + `","0x1"]`, `"0x21e19e06cf5f87ba000"`},
		{"eth_getBalance", `["` + MinerAddress + `","0x1"]`, `"0x2e625ce23000"`},
		{"eth_getBalance", `["0x0000000000000000000000000000000000000000"]`, `"0x0"`},
		{"eth_getTransactionCount", `["` + SenderAddress + `","latest"]`, `"0x10"`},
		{"eth_getTransactionCount", `["` + SenderAddress + `","0x3"]`, `"0x3"`},
		{"eth_getTransactionCount", `["` + EchoAddress + `","0x3"]`, `"0x0"`},
		{"eth_getCode", `["` + SenderAddress + `","latest"]`, `"0x"`},
		{"eth_getCode", `["` + EchoAddress + `","latest"]`, `"0x365f5f37365ff3"`},
		{"eth_getCode", `["` + ReverterAddress + `"]`, `"0x6064600a5f3960645ffd` + RevertData[2:] + `"`},
		{"eth_getStorageAt", `["` + TokenAddress + `","0x0","0xa"]`, `"0x` + strings.Repeat("0", 63) + `a"`},
		{"eth_getStorageAt", `["` + TokenAddress + `",` + zero + `,"earliest"]`, zero},
		{"eth_getStorageAt", `["` + TokenAddress + `","0x1"]`, zero},
		{"eth_getStorageAt", `["` + TokenAddress + `","0x` + strings.Repeat("0", 65) + `"]`,
			"-32602 invalid argument 1: storage key too long, want at most 32 bytes"},
		{"eth_call", `[{"to":"` + TokenAddress + `","data":"0x01"},"latest"]`, `"0x"`},
		{"eth_call", `[{"to":"` + EchoAddress + `","data":"0xC0fe"},{"blockNumber":"0x1"}]`, `"0xc0fe"`},
		{"eth_call", `[{"to":"` + EchoAddress + `","input":"0x01","data":"0x02"},"latest",{},{}]`, `"0x01"`},
		{"eth_call", `[{}]`, `"0x"`},
		{"eth_call", `[7]`, "-32602 invalid argument 0: want a transaction object"},
		{"eth_call", `[{"to":"0x1"}]`, "-32602 invalid argument 0: to: hex string of odd length"},
		{"eth_call", `[{},"0x11"]`, "-32000 header not found"},
		{"eth_call", `[{},{"blockHash":` + zero + `}]`, "-32000 header for hash not found"},
		{"eth_call", `[{"to":"` + ReverterAddress + `"},"latest"]`, "3 execution reverted"},
		{"eth_estimateGas", `[{"to":"` + ReverterAddress + `"}]`, "3 execution reverted"},
		{"eth_estimateGas", `[{"to":"` + TokenAddress + `","data":"0x0001"}]`, `"0x521c"`},
		{"eth_getBlockByNumber", `["0x11",false]`, `null`},
		{"eth_getBlockByHash", `[` + zero + `,true]`, `null`},
		{"eth_getBlockReceipts", `["0x11"]`, `null`},
		{"eth_getBlockReceipts", `["earliest"]`, `[]`},
		{"eth_getBlockTransactionCountByNumber", `["earliest"]`, `"0x0"`},
		{"eth_getBlockTransactionCountByNumber", `["latest"]`, `"0x1"`},
		{"eth_getBlockTransactionCountByHash", `[` + zero + `]`, `null`},
		{"eth_getUncleCountByBlockNumber", `["latest"]`, `"0x0"`},
		{"eth_getUncleCountByBlockNumber", `["0xffff"]`, `null`},
		{"eth_getUncleCountByBlockHash", `[` + zero + `]`, `null`},
		{"eth_getTransactionByBlockNumberAndIndex", `["latest","0x1"]`, `null`},
		{"eth_getTransactionByHash", `[` + zero + `]`, `null`},
		{"eth_getTransactionReceipt", `[` + zero + `]`, `null`},
		{"eth_feeHistory", `["0x2","latest",[10,90]]`, `{"baseFeePerGas":["0x3b9aca00","0x3b9aca00","0x3b9aca00"],` +
			`"gasUsedRatio":[0.0017,0.0017],"oldestBlock":"0xf","reward":[["0x3b9aca00","0x3b9aca00"],["0x3b9aca00","0x3b9aca00"]]}`},
		{"eth_feeHistory", `[3,"0x0"]`, `{"baseFeePerGas":["0x3b9aca00","0x3b9aca00"],"gasUsedRatio":[0],"oldestBlock":"0x0"}`},
		{"eth_feeHistory", `["0x0","latest"]`, `{"gasUsedRatio":[],"oldestBlock":"0x0"}`},
		{"eth_feeHistory", `["0x1","0x11"]`, "-32000 request beyond head block"},
		{"eth_feeHistory", `["0x1","latest",[50,10]]`, "-32000 invalid reward percentile: want rising numbers from 0 to 100"},
		{"dev_payload", `[0]`, `""`},
		{"dev_payload", `["0xb"]`, `"0123456789a"`},
		{"dev_payload", `[67108865]`, "-32602 invalid argument 0: want at most 67108864"},
		{"dev_payload", `[-1]`, "-32602 invalid argument 0: want a whole number that is not negative"},
	} {
		if got := result(t, b, test.method, test.params); got != test.want {
			t.Errorf("%s%s\n got %s\nwant %s", test.method, test.params, got, test.want)
		}
	}
}

func TestEveryMethodRefusesBadParameters(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	for name, m := range methods {
		bad := []string{`{"a":1}`, `[` + strings.Repeat(`"0x1",`, m.most) + `1]`}
		if m.least > 0 {
			unreadable := `"zz"`
			if strings.Contains(name, "ilter") || name == "eth_unsubscribe" { // an id may be any string
				unreadable = `7`
			}
			bad = append(bad, `[]`, `[null,null]`, `[`+unreadable+strings.Repeat(`,true`, m.least-1)+`]`)
		}
		for _, params := range bad {
			if got := result(t, b, name, params); !strings.HasPrefix(got, "-32602 ") {
				t.Errorf("%s%s: got %s, want -32602", name, params, got)
			}
		}
	}
}

func TestQuantitiesAreReadStrictly(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	for param, want := range map[string]string{
		`"0x"`:                  `hex string "0x"`,
		`"0x00"`:                "hex number with leading zero digits",
		`"0x01"`:                "hex number with leading zero digits",
		`"1"`:                   "hex string without 0x prefix",
		`1`:                     "want a hex string",
		`"0xg"`:                 "invalid hex string",
		`"newest"`:              "hex string without 0x prefix",
		`"0x8000000000000000"`:  "block number larger than int64",
		`"0x10000000000000000"`: "hex number > 64 bits",
	} {
		got := result(t, b, "eth_getBlockByNumber", `[`+param+`,false]`)
		if got != "-32602 invalid argument 0: "+want {
			t.Errorf("%s: got %s, want %s", param, got, want)
		}
	}
}

func TestTagsNameTheirBlocks(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	for tag, number := range map[string]string{"latest": "0x10", "pending": "0x10", "safe": "0xc", "finalized": "0x8", "earliest": "0x0"} {
		got := result(t, b, "eth_getBlockByNumber", `["`+tag+`",false]`)
		if want := result(t, b, "eth_getBlockByNumber", `["`+number+`",false]`); got != want || got == "null" {
			t.Errorf("%s is not block %s: %s", tag, number, got)
		}
	}
	young := NewBackend(New(Options{Blocks: 2}), "young")
	if got := object(t, result(t, young, "eth_getBlockByNumber", `["finalized",false]`))["number"]; got != "0x0" {
		t.Errorf("finalized of a young chain is %v, want 0x0", got)
	}
}

func TestMethodsAgreeWithOneAnother(t *testing.T) {
	chain := New(Options{})
	b, other := NewBackend(chain, "one"), NewBackend(chain, "two")
	parent := ""
	for n := range 17 {
		number := fmt.Sprintf(`"0x%x"`, n)
		raw := result(t, b, "eth_getBlockByNumber", `[`+number+`,true]`)
		full := object(t, raw)
		if raw != result(t, other, "eth_getBlockByNumber", `[`+number+`,true]`) {
			t.Errorf("two backends disagree about block %d", n)
		}
		id := full["hash"].(string)
		hashed := `"` + id + `"`
		if n > 0 && full["parentHash"] != parent {
			t.Errorf("block %d has parent %v, want %s", n, full["parentHash"], parent)
		}
		parent = id
		for method, rest := range map[string]string{"eth_getBlockByHash": ",true", "eth_getBlockReceipts": "",
			"eth_getBlockTransactionCountByHash": "", "eth_getUncleCountByBlockHash": ""} {
			byNumber := strings.Replace(strings.Replace(method, "ByHash", "ByNumber", 1), "ByBlockHash", "ByBlockNumber", 1)
			if method == "eth_getUncleCountByBlockHash" {
				byNumber = "eth_getUncleCountByBlockNumber"
			}
			if got, want := result(t, b, method, `[`+hashed+rest+`]`), result(t, b, byNumber, `[`+number+rest+`]`); got != want {
				t.Errorf("%s: %s and by number %s", method, got, want)
			}
		}
		byObject := result(t, b, "eth_getBlockReceipts", `[{"blockHash":`+hashed+`,"requireCanonical":true}]`)
		receipts := result(t, b, "eth_getBlockReceipts", `[`+number+`]`)
		if byObject != receipts {
			t.Errorf("receipts of block %d by hash and by number differ", n)
		}
		txs := full["transactions"].([]any)
		if want := min(n, 1); len(txs) != want {
			t.Fatalf("block %d has %d transactions, want %d", n, len(txs), want)
		}
		if n == 0 {
			continue
		}
		tx, err := json.Marshal(txs[0])
		if err != nil {
			t.Fatal(err)
		}
		txHash := `"` + txs[0].(map[string]any)["hash"].(string) + `"`
		hashes := object(t, result(t, b, "eth_getBlockByNumber", `[`+number+`,false]`))["transactions"].([]any)
		if len(hashes) != 1 || `"`+hashes[0].(string)+`"` != txHash {
			t.Errorf("block %d lists %v, want %s", n, hashes, txHash)
		}
		for method, params := range map[string]string{
			"eth_getTransactionByHash":                txHash,
			"eth_getTransactionByBlockHashAndIndex":   hashed + `,"0x0"`,
			"eth_getTransactionByBlockNumberAndIndex": number + `,"0x0"`,
		} {
			if got, err := json.Marshal(object(t, result(t, b, method, `[`+params+`]`))); err != nil || string(got) != string(tx) {
				t.Errorf("%s: %s (%v), want %s", method, got, err, tx)
			}
		}
		receipt := result(t, b, "eth_getTransactionReceipt", `[`+txHash+`]`)
		if `[`+receipt+`]` != receipts {
			t.Errorf("block %d: receipt %s is not in %s", n, receipt, receipts)
		}
		logs := result(t, b, "eth_getLogs", `[{"blockHash":`+hashed+`}]`)
		if logs != result(t, b, "eth_getLogs", `[{"fromBlock":`+number+`,"toBlock":`+number+`}]`) {
			t.Errorf("block %d: logs by hash and by number differ", n)
		}
		var inReceipt struct{ Logs json.RawMessage }
		if err := json.Unmarshal([]byte(receipt), &inReceipt); err != nil || string(inReceipt.Logs) != logs {
			t.Errorf("block %d: receipt has logs %s, eth_getLogs %s", n, inReceipt.Logs, logs)
		}
		if object(t, receipt)["logsBloom"] != full["logsBloom"] || object(t, receipt)["gasUsed"] != full["gasUsed"] {
			t.Errorf("block %d and its only receipt differ in bloom or gas", n)
		}
	}
}

func TestLogsAreSelected(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	everything := `"fromBlock":"earliest","toBlock":"latest"`
	recipient := func(n int) string { return fmt.Sprintf(`"0x%024xde000000000000000000000000000000000000%x"`, 0, 0x10+n) }
	for selector, want := range map[string]int{
		`{}`:                                    1,
		`{` + everything + `}`:                  16,
		`{"fromBlock":"0x3","toBlock":"0x5"}`:   3,
		`{"fromBlock":"0xf","toBlock":"0xfff"}`: 2,
		`{"fromBlock":"0x20","toBlock":"0x30"}`: 0,
		`{` + everything + `,"address":"` + TokenAddress + `"}`:                               16,
		`{` + everything + `,"address":["` + EchoAddress + `"]}`:                              0,
		`{` + everything + `,"address":["` + EchoAddress + `","` + TokenAddress + `"]}`:       16,
		`{` + everything + `,"address":[],"topics":[]}`:                                       16,
		`{` + everything + `,"topics":["` + TransferTopic + `"]}`:                             16,
		`{` + everything + `,"topics":[null,"` + TransferTopic + `"]}`:                        0,
		`{` + everything + `,"topics":[null,null,` + recipient(1) + `]}`:                      4,
		`{` + everything + `,"topics":[[],null,[` + recipient(1) + `,` + recipient(2) + `]]}`: 8,
		`{` + everything + `,"topics":[null,null,[` + recipient(1) + `,null]]}`:               16,
		`{` + everything + `,"topics":[null,null,null,null]}`:                                 0,
	} {
		var logs []json.RawMessage
		got := result(t, b, "eth_getLogs", `[`+selector+`]`)
		if err := json.Unmarshal([]byte(got), &logs); err != nil || logs == nil || len(logs) != want {
			t.Errorf("%s: got %d logs, want %d (%s)", selector, len(logs), want, got)
		}
	}
	zero := `"0x` + strings.Repeat("0", 64) + `"`
	for selector, want := range map[string]string{
		`{"fromBlock":"0x5","toBlock":"0x3"}`:        "-32602 invalid block range params",
		`{"blockHash":` + zero + `}`:                 "-32000 unknown block",
		`{"blockHash":` + zero + `,"toBlock":"0x1"}`: "-32602 invalid argument 0: cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other",
		`{"topics":[null,null,null,null,null]}`:      "-32602 invalid argument 0: exceed max topics",
		`{"topics":["0x1"]}`:                         "-32602 invalid argument 0: topics[0]: hex string of odd length",
		`{"address":["0x12"]}`:                       "-32602 invalid argument 0: address: hex string has length 2, want 40",
		`{"fromBlock":"0x01"}`:                       "-32602 invalid argument 0: fromBlock: hex number with leading zero digits",
		`{"topics":7}`:                               "-32602 invalid argument 0: want a filter object",
	} {
		if got := result(t, b, "eth_getLogs", `[`+selector+`]`); got != want {
			t.Errorf("%s: got %s, want %s", selector, got, want)
		}
	}
}

func TestRevertCarriesItsReason(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	r := ask(t, b, "eth_call", `[{"to":"`+ReverterAddress+`"},"latest"]`)
	if r.Error == nil || r.Error.Data != RevertData || r.Result != nil {
		t.Errorf("got %+v", r)
	}
}

func TestRawTransactionIsPooledThenMined(t *testing.T) {
	chain := New(Options{})
	b := NewBackend(chain, "one")
	h := result(t, b, "eth_sendRawTransaction", `["0x68656c6c6f20776f726c64"]`)
	if want := `"0x47173285a8d7341e5e972fc677286384f802f8ef42a5ec5f03bbfa254cb01fad"`; h != want {
		t.Fatalf("got %s, want %s", h, want)
	}
	if pool := chain.Pooled(); len(pool) != 1 || string(pool[0]) != "hello world" {
		t.Errorf("pool holds %q", pool)
	}
	if got := result(t, NewBackend(chain, "two"), "eth_sendRawTransaction", `["0x68656c6c6f20776f726c64"]`); got != "-32000 already known" {
		t.Errorf("again: %s", got)
	}
	waiting := object(t, result(t, b, "eth_getTransactionByHash", `[`+h+`]`))
	if waiting["blockHash"] != nil || waiting["nonce"] != "0x10" || result(t, b, "eth_getTransactionReceipt", `[`+h+`]`) != "null" {
		t.Errorf("in the pool: %v", waiting)
	}
	count := `["` + SenderAddress + `","pending"]`
	if got := result(t, b, "eth_getTransactionCount", count); got != `"0x11"` {
		t.Errorf("pending nonce %s, want 0x11", got)
	}
	chain.Mine(1)
	mined := object(t, result(t, b, "eth_getTransactionByHash", `[`+h+`]`))
	if mined["blockNumber"] != "0x11" || mined["nonce"] != waiting["nonce"] || mined["transactionIndex"] != "0x0" {
		t.Errorf("mined: %v", mined)
	}
	if got := object(t, result(t, b, "eth_getTransactionReceipt", `[`+h+`]`))["status"]; got != "0x1" {
		t.Errorf("receipt status %v", got)
	}
	if got := result(t, b, "eth_getTransactionCount", count); got != `"0x12"` {
		t.Errorf("nonce after mining %s, want 0x12", got)
	}
	for raw, want := range map[string]string{
		"0x68656c6c6f20776f726c64": "-32000 already known",
		"0x":                       "-32000 typed transaction too short",
		"0xzz":                     "-32602 invalid argument 0: invalid hex string",
		"0x1":                      "-32602 invalid argument 0: hex string of odd length",
	} {
		if got := result(t, b, "eth_sendRawTransaction", `["`+raw+`"]`); got != want {
			t.Errorf("%s: got %s, want %s", raw, got, want)
		}
	}
	if got := len(chain.Pooled()); got != 0 {
		t.Errorf("%d in the pool, want none", got)
	}
}

func TestQuantitiesGoOutWithoutLeadingZeros(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	leading := regexp.MustCompile(`"(number|size|gas|gasUsed|gasLimit|nonce|timestamp|value|v|r|s|type|chainId|logIndex|transactionIndex)":"0x0[0-9a-f]`)
	for _, params := range []string{`["0x0",true]`, `["0xf",true]`, `["0x10",true]`} {
		got := strings.Replace(result(t, b, "eth_getBlockByNumber", params), `"nonce":"0x0000000000000000"`, "", 1) // a block's nonce is data
		if m := leading.FindString(got); m != "" {
			t.Errorf("%s: %s", params, m)
		}
	}
}

func TestPayloadHasTheLengthAskedFor(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	for _, n := range []int{1, 63, 64, 65, 100_000} {
		var s string
		if err := json.Unmarshal([]byte(result(t, b, "dev_payload", fmt.Sprintf("[%d]", n))), &s); err != nil || len(s) != n {
			t.Errorf("asked for %d bytes, got %d (%v)", n, len(s), err)
		}
	}
}
