package classify

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"gateway.internal/proxyd/jsonrpc"
)

func builtinTable(t testing.TB) *Table {
	t.Helper()
	table, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func rpc(code int64, message string) Evidence {
	return Evidence{Backend: "b", Status: 200, RPC: true, Code: code, Message: message, Method: "eth_call", Params: []byte(`[{"to":"0x1","data":"0x2"},"latest"]`)}
}

func status(code int, body string) Evidence {
	return Evidence{Backend: "b", Status: code, Message: body, Method: "eth_call", Params: []byte(`[{"to":"0x1","data":"0x2"},"latest"]`)}
}

func both(code int, e Evidence) Evidence {
	e.Status = code
	return e
}

func withData(e Evidence, data string) Evidence {
	e.Data = []byte(data)
	return e
}

func asked(e Evidence, method, params string) Evidence {
	e.Method, e.Params = method, []byte(params)
	return e
}

func TestTheErrorTableDecodes(t *testing.T) {
	var file tableFile
	meta, err := toml.Decode(builtin, &file)
	if err != nil {
		t.Fatal(err)
	}
	if keys := meta.Undecoded(); len(keys) > 0 {
		t.Errorf("keys that nothing reads: %v", keys)
	}
	used := map[string]bool{"unknown": true}
	for i, r := range file.Rules {
		used[r.Class] = true
		if len(r.DataPrefix)+len(r.Codes)+len(r.Statuses)+len(r.Text) == 0 {
			t.Errorf("rule %d for %s has no condition", i, r.Class)
		}
	}
	for _, class := range Classes() {
		if !used[class] {
			t.Errorf("no rule decides for %s", class)
		}
	}
	want := []string{"auth", "bad_params", "billing", "data_missing", "known_transaction", "pool", "range", "rate_limit", "revert", "sender_limited", "server", "unknown", "unsupported"}
	if got := Classes(); !slices.Equal(got, want) {
		t.Errorf("classes %v", got)
	}
}

func TestEachClassAnswersTheThreeQuestions(t *testing.T) {
	_, classes, err := decode()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Outcome{
		{Class: "revert"}, {Class: "sender_limited"}, {Class: "pool"}, {Class: "bad_params"},
		{Class: "range", Elsewhere: Yes}, {Class: "data_missing", Elsewhere: Yes},
		{Class: "unsupported", Elsewhere: Yes, NothingRan: true},
		{Class: "rate_limit", Elsewhere: Yes, Hold: Brief, NothingRan: true},
		{Class: "billing", Elsewhere: Yes, Hold: Long, NothingRan: true},
		{Class: "auth", Elsewhere: Yes, Sick: true, Hold: Long, NothingRan: true},
		{Class: "server", Elsewhere: Yes, Sick: true},
		{Class: "unknown", Elsewhere: Once},
	} {
		if got := classes[want.Class]; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// What providers and nodes answer, as they spell it.
func TestProvidersErrorsAreToldApart(t *testing.T) {
	table := builtinTable(t)
	for class, rows := range map[string][]Evidence{
		"revert": {
			rpc(3, "execution reverted"), rpc(3, "execution reverted: ERC20: transfer amount exceeds balance"), rpc(-32000, "execution reverted"),
			rpc(-32000, "err: execution reverted (supplied gas 50000000)"), rpc(-32015, "VM execution error."), rpc(-32603, "Error: VM Exception while processing transaction: reverted with reason string 'no'"),
			rpc(-32000, "Execution reverted"), withData(rpc(-32000, "no reason given"), `"0x08c379a00000"`), withData(rpc(-32603, "Internal error"), `"0x4e487b710000"`),
			rpc(3, ""), rpc(-32603, "execution reverted: rate limit exceeded"), rpc(-32000, "execution reverted: too many requests, api key, block not found"),
		},
		"range": {
			rpc(-32602, "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit on the response size. Based on your parameters and the response size limit, this block range should work: [0x1, 0x2]"),
			rpc(-32600, "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range. Based on your parameters, this block range should work: [0x1, 0xa]. Upgrade to PAYG for expanded block range."),
			rpc(-32005, "query returned more than 10000 results. Try with this block range [0x1, 0x2]."), rpc(-32602, "query returned more than 10000 results"),
			rpc(-32614, "eth_getLogs is limited to a 10,000 range"), rpc(-32000, "eth_getLogs and eth_newFilter are limited to a 10,000 blocks range, range is too large"),
			rpc(-32600, "block range is too wide"), rpc(-32062, "Block range is too large"), rpc(-32000, "block range too large, range: 100000, max: 10000"), rpc(-32000, "range too wide"),
			rpc(-32000, "query exceeds range of 5000"), rpc(-32000, "exceeds the range allowed for your plan"), rpc(-32000, "exceed maximum block range: 5000"), rpc(-32000, "eth_getLogs max block range is 1000"),
			rpc(-32000, "too many results, narrow the query"), rpc(-32000, "response size should not greater than 10000000 bytes"), rpc(-32000, "query exceeds limit 50000"), rpc(-32005, "please limit the query to at most 1000 blocks"),
			rpc(-32000, "logs over more than 10000 blocks"), rpc(-32000, "Try paginating"), rpc(-32000, "block range exceeds limit of 2000"), rpc(-32000, "response is too big"),
			both(400, rpc(-32602, "block range greater than 10000 max")),
		},
		"sender_limited": {rpc(-32017, "sender is over rate limit"), both(429, rpc(-32017, "sender is over rate limit"))},
		"billing": {
			status(402, ""), status(402, "Payment Required"), both(402, rpc(-32005, "too many requests")),
			both(403, rpc(-32600, "App is inactive. Please create a new app or contact support at https://dashboard.alchemyapi.io/support")), status(403, "App is inactive. Please create a new app"),
			rpc(-32000, "App is inactive"), rpc(-32600, "App is inactive. Please create a new app or contact support"),
			both(429, rpc(429, "Monthly capacity limit exceeded. Visit https://dashboard.alchemy.com/settings/billing to upgrade your scaling policy for continued service.")),
			rpc(-32000, "You have reached the free tier limits"), rpc(-32005, "You've exceeded the limit for your current plan"), rpc(-32000, "please upgrade your tier to continue"), both(401, rpc(-32000, "Upgrade your tier")),
		},
		"rate_limit": {
			status(429, ""), status(429, "error code: 1015"), both(429, rpc(-32005, "project ID request rate exceeded")), both(429, rpc(-32005, "daily request count exceeded, request rate limited")),
			both(429, rpc(429, "Your app has exceeded its compute units per second capacity. If you have retries enabled, you can safely ignore this message.")),
			rpc(429, "whatever"), rpc(-32029, "slow down"), rpc(-32097, ""), rpc(-32005, "Too Many Requests"), rpc(-32005, "daily request count exceeded, request rate limited"),
			rpc(-32007, "50/second request limit reached - reduce calls per second or upgrade your account at quicknode.com"), rpc(-32009, "trace requests limited to 40/sec"),
			rpc(-32000, "Too many requests, reason: call rate limit exhausted, retry in 10s"), rpc(-32000, "more than 25 requests per second"), rpc(-32000, "You have exceeded the quota"), rpc(-32603, "the node is under too much load"),
			rpc(-32016, "over rate limit"), both(503, rpc(-32000, "rate limit")), both(429, rpc(-32602, "block range is too large")), both(429, rpc(-32601, "method not found")),
		},
		"data_missing": {
			rpc(-32000, "missing trie node 27a3ee (path ) state 0x27a3ee is not available"), rpc(-32000, "header not found"), rpc(-32000, "header for hash not found: block not found"), rpc(-32602, "could not find block"),
			rpc(-32001, "Unknown block"), rpc(-39001, "Unknown block"), rpc(4444, "Pruned history unavailable"), rpc(-32000, "state at block #100 is pruned"), rpc(-32000, "no historical RPC is available for this historical (pre-bedrock) execution request"),
			rpc(-32000, "historical state 2b7a10 is not available"), rpc(-32000, "historical state of account is not available, required historical block 5"), rpc(-32000, "cannot query unfinalized data"),
			rpc(-26, "height 1234567 is not available, lowest height is 1300000"), rpc(-32000, "block number is greater than latest"), rpc(-32000, "hash 0x12 is not currently canonical"), rpc(-32000, "requested block is after last accepted block"),
			both(404, rpc(-32000, "header not found")), both(500, rpc(-32603, "block not found")),
			both(403, rpc(-32002, "Archive, Debug and Trace requests are not available on your current plan.")),
		},
		"known_transaction": {
			rpc(-32000, "already known"), rpc(-32000, "known transaction: 0x12"), rpc(-32000, "Known transaction"), rpc(-32000, "nonce too low: next nonce 5, tx nonce 4"), rpc(-32603, "nonce too low"),
			rpc(-32003, "transaction already imported"), rpc(-32010, "AlreadyKnown"), rpc(-32010, "OldNonce, Current nonce: 4, nonce of rejected tx: 3"),
		},
		"pool": {
			rpc(-32000, "unknown transaction pool: txpool is full"), rpc(-32000, "nonce too high"), rpc(-32000, "replacement transaction underpriced"),
			rpc(-32000, "transaction underpriced: gas tip cap 0"), rpc(-32000, "insufficient funds for gas * price + value: balance 0"), rpc(-32000, "intrinsic gas too low: gas 0, minimum needed 21000"), rpc(-32003, "txpool is full"),
			rpc(-32000, "exceeds block gas limit"), rpc(-32000, "Gas limit exceeded"), rpc(-32000, "max initcode size exceeded: code size 49153"), rpc(-32000, "INTERNAL_ERROR: insufficient funds"),
			rpc(-32000, "max fee per gas less than block base fee: address 0x1"), rpc(-32010, "FeeTooLow, FeePerGas needs to be higher"), rpc(-32010, "InsufficientFunds, Account balance: 0"),
		},
		"unsupported": {
			rpc(-32601, "the method eth_foo does not exist/is not available"), rpc(-32601, "rate limit"), rpc(-32004, "method not supported"), rpc(-32601, ""), rpc(-32601, "execution reverted"),
			rpc(-32000, "the method trace_block does not exist/is not available"), rpc(-32000, "Method not found"), rpc(-32000, "method debug_traceCall is disabled"), rpc(-32000, "The method is not available on this node"),
			rpc(-32001, "rpc method is not whitelisted"), rpc(-32053, "trace_block is not included in your current plan"), status(405, "Method Not Allowed"), status(415, ""), both(405, rpc(-32000, "x")),
			both(403, rpc(-32601, "rpc method is not whitelisted")), status(403, "Forbidden - custom trace not found in allowed custom traces"), both(403, rpc(-32000, "method trace_block is not allowed")),
			status(403, `{"error":"debug methods not permitted"}`), both(403, rpc(-32002, "Debug and Trace requests are not available on your current plan")),
			rpc(-32600, "trace_block is not available on the Free tier - upgrade to Pay As You Go"), both(400, rpc(-32600, "debug_traceCall is not available on the Free tier")),
		},
		"auth": {
			status(401, ""), both(401, rpc(-32600, "Must be authenticated!")), status(403, ""), status(403, "<html>Request blocked</html>"), both(403, rpc(-32000, "project ID does not have access to the network")),
			rpc(-32000, "invalid api key"), rpc(-32051, "Unauthorized: You must authenticate your request with an API key."), rpc(-32002, "invalid project id"), both(401, rpc(-32602, "invalid argument 0")), both(403, rpc(-32000, "Invalid API key")),
		},
		"bad_params": {
			rpc(-32602, "invalid argument 0: hex string without 0x prefix"), rpc(-32602, "invalid argument 1: json: cannot unmarshal hex string of odd length into Go value"), rpc(-32000, "cannot unmarshal object into Go value of type string"),
			rpc(-32602, "odd length hex"), rpc(-32602, "missing value for required argument 0"), rpc(-32700, "parse error"), rpc(-32600, "invalid request"), rpc(-32700, "rate limit"), rpc(-32600, "header not found"),
			both(400, rpc(-32602, "invalid argument 0")), both(500, rpc(-32602, "invalid argument 0")), rpc(-32603, "invalid argument 0"),
		},
		"server": {
			status(500, ""), status(502, "<html>Bad Gateway</html>"), status(503, ""), status(504, ""), status(520, ""), status(522, ""), status(529, ""), rpc(-32603, ""), rpc(-32603, "whatever"), rpc(-32000, "execution timeout"),
			rpc(-32000, "Internal error"), rpc(-32000, "internal server error"), both(500, rpc(-32000, "what is this")), both(503, rpc(-32011, "no backend is currently healthy to serve traffic")), rpc(-32011, "no backend is currently healthy to serve traffic"),
		},
		"unknown": {
			rpc(-32000, ""), rpc(-32000, "gas required exceeds allowance (30000000)"), rpc(-32602, "too many arguments, want at most 2"), rpc(-32005, "whatever"), rpc(-32001, "Resource not found"), rpc(0, "x"), rpc(-32000, "429"),
			rpc(5, "5"), both(400, rpc(-32000, "what")), status(404, "not here"), status(301, ""), status(0, ""), rpc(402, "x"), rpc(500, "x"),
		},
	} {
		for _, e := range rows {
			if got := table.Classify(e); got.Class != class {
				t.Errorf("%d %d %q: %s, want %s", e.Status, e.Code, e.Message, got.Class, class)
			}
		}
	}
}

func TestRevertDataBeatsEverything(t *testing.T) {
	table := builtinTable(t)
	for _, data := range []string{`"0x08c379a0"`, `"0x08c379a0000000000000000000000000"`, `"0x4e487b71"`} {
		for _, code := range []int{200, 400, 402, 403, 429, 500} {
			for _, rpcCode := range []int64{3, -32601, -32005, 429, -32603} {
				if got := table.Classify(withData(both(code, rpc(rpcCode, "rate limit, invalid api key")), data)); got.Class != "revert" || got.Sick || got.Hold != None {
					t.Errorf("%d %d %s: %+v", code, rpcCode, data, got)
				}
			}
		}
	}
	for _, data := range []string{``, `null`, `"0x"`, `"0x08c379"`, `{"data":"0x08c379a0"}`, `"Reverted 0x08c379a0"`} {
		if got := table.Classify(withData(both(429, rpc(-32005, "x")), data)); got.Class != "rate_limit" {
			t.Errorf("%s: %+v", data, got)
		}
	}
}

func TestFirmNeedsAStatusOrACodeThatNoClientBringsAbout(t *testing.T) {
	table := builtinTable(t)
	for _, row := range []struct {
		e    Evidence
		firm bool
	}{
		{status(429, ""), true}, {status(402, ""), true}, {rpc(429, ""), true}, {rpc(-32029, ""), true}, {rpc(-32005, "rate limit"), true}, {both(403, rpc(-32600, "App is inactive")), true}, {status(401, ""), true}, {status(403, "invalid api key"), true},
		{rpc(-32000, "rate limit"), false}, {rpc(-32000, "App is inactive"), false}, {rpc(-32600, "App is inactive"), false}, {rpc(-32000, "invalid api key"), false},
		// A firewall answers 403 to bytes that it dislikes, and clients choose those.
		{status(403, "<html>Sorry, you have been blocked</html>"), false}, {both(403, rpc(-32000, "forbidden")), false},
	} {
		got := table.Classify(row.e)
		if got.Firm != row.firm || got.Hold == None {
			t.Errorf("%d %d %q: %+v, want firm %v", row.e.Status, row.e.Code, row.e.Message, got, row.firm)
		}
	}
}

// A chained gateway answers 403 and -32601 to what is not mapped there, and 429
// and -32017 to a sender's limit: no client may take it down with those.
func TestWhatAClientCanBringAboutHoldsNobodyOff(t *testing.T) {
	table := builtinTable(t)
	for _, e := range []Evidence{
		both(403, rpc(-32601, "rpc method is not whitelisted")),
		both(429, rpc(-32017, "sender is over rate limit")),
		both(403, rpc(-32002, "Archive, Debug and Trace requests are not available on your current plan.")),
		status(403, "Forbidden - custom trace not found in allowed custom traces"),
		both(413, rpc(-32021, "request body too large")),
		both(403, rpc(-32001, "method trace_block is not allowed")),
	} {
		if got := table.Classify(e); got.blames() {
			t.Errorf("%d %d %q: %+v", e.Status, e.Code, e.Message, got)
		}
	}
}

func TestOperatorRulesComeFirstWithAllTheirConditions(t *testing.T) {
	code := func(c int64) *int64 { return &c }
	table, err := New([]OperatorRule{
		{Backend: "a", Status: 429, Code: code(-32005), Match: "Odd Text", Class: "unknown"},
		{Backend: "a", Match: `/quota of \d+ .*used up/`, Class: "billing"},
		{Code: code(-32601), Match: "come back later", Class: "rate_limit"},
		{Status: 200, Match: "soft limit", Class: "rate_limit"},
		{Status: 503, Class: "rate_limit"},
		{Match: "execution reverted", Backend: "c", Class: "server"},
		{Match: "//", Backend: "d", Class: "pool"},
		{Match: "/^$/", Backend: "e", Class: "pool"},
		{Match: "***", Backend: "e", Class: "range"},
	})
	if err != nil {
		t.Fatal(err)
	}
	on := func(backend string, e Evidence) Evidence { e.Backend = backend; return e }
	for _, row := range []struct {
		e     Evidence
		class string
		firm  bool
	}{
		{on("a", both(429, rpc(-32005, "an odd text here"))), "unknown", true},
		{on("b", both(429, rpc(-32005, "an odd text here"))), "rate_limit", true},
		{on("a", both(429, rpc(-32000, "an odd text here"))), "rate_limit", true},
		{on("a", both(200, rpc(-32005, "an odd text here"))), "unknown", false},
		{on("a", both(429, rpc(-32005, "another text"))), "rate_limit", true},
		{on("a", status(429, "odd text")), "rate_limit", true},
		{on("a", rpc(-32000, "Quota of 100 calls USED UP")), "billing", false},
		{on("b", rpc(-32000, "quota of 100 calls used up")), "unknown", false},
		{on("a", rpc(-32000, "quota of x calls used up")), "unknown", false},
		{rpc(-32601, "Come back later"), "rate_limit", true},
		{rpc(-32601, "no"), "unsupported", true},
		{rpc(-32000, "soft limit"), "rate_limit", false},
		{both(0, rpc(-32000, "soft limit")), "rate_limit", false},
		{both(400, rpc(-32000, "soft limit")), "unknown", false},
		{status(503, ""), "rate_limit", true},
		{status(502, ""), "server", true},
		{on("c", withData(rpc(3, "execution reverted"), `"0x08c379a0"`)), "server", false},
		{on("d", rpc(-32000, "http://x")), "pool", false},
		{on("d", rpc(-32000, "x")), "unknown", false},
		{on("e", rpc(-32000, "")), "pool", false},
		{on("e", rpc(-32000, "a***b")), "range", false},
	} {
		if got := table.Classify(row.e); got.Class != row.class || got.Firm != row.firm {
			t.Errorf("%s %d %d %q: %+v, want %s, firm %v", row.e.Backend, row.e.Status, row.e.Code, row.e.Message, got, row.class, row.firm)
		}
	}
}

func TestFaultyOperatorRulesAreRefused(t *testing.T) {
	for _, rule := range []OperatorRule{{Match: "x"}, {Match: "x", Class: "Billing"}, {Match: "/(/", Class: "billing"}} {
		if _, err := New([]OperatorRule{{Match: "fine", Class: "pool"}, rule}); err == nil || !strings.HasPrefix(err.Error(), "error rule 2: ") {
			t.Errorf("%+v: %v", rule, err)
		}
	}
	if CheckMatch("/[/") == nil || CheckMatch("[") != nil || CheckMatch("/a.*b/") != nil || CheckMatch("") != nil || CheckMatch("/") != nil {
		t.Error("CheckMatch")
	}
}

// nodes are the ways in which a node brings a request into its message.
var nodes = []string{
	`invalid thing: %s`, `invalid thing "%s" here`, `bad value (%s), try again`, `%s`, `tag %s: no such tag`,
	`method handler: got '%s'`, `the height of %s is odd`, `archive says %s`,
}

var texts = []string{
	"rate limit", "too many requests", "RATE LIMIT", "api key", "unauthorized", "app is inactive", "monthly capacity limit", "compute units", "internal error", "execution timeout",
	"exceeded the quota and more", "invalid project id", "Internal Server Error", "rate\tlimit rate limit",
}

func TestTextsOfTheRequestHoldNobodyOff(t *testing.T) {
	table := builtinTable(t)
	quote := func(text string) string { return string(jsonrpc.AppendString(nil, text)) }
	for _, text := range texts {
		for name, params := range map[string]string{
			"value":       `[` + quote(text) + `]`,
			"member name": `[{` + quote(text) + `:1}]`,
			"deep":        `[[{"a":[{"b":` + quote("xx "+text+" yy") + `}]}]]`,
			"upper case":  `[` + quote(strings.ToUpper(text)) + `]`,
			"escaped":     `["` + escaped(text) + `"]`,
			"split":       `[` + quote(strings.Fields(text)[0]) + `,` + quote(strings.TrimPrefix(text, strings.Fields(text)[0]+" ")) + `]`,
			"object":      `{` + quote(text) + `:null}`,
		} {
			for _, node := range nodes {
				for _, code := range []int64{-32000, -32602, -32005} {
					e := asked(rpc(code, fmt.Sprintf(node, text)), "eth_call", params)
					if got := table.Classify(e); got.blames() || got.NothingRan {
						t.Errorf("%s %s: %q: %+v", name, params, e.Message, got)
					}
				}
			}
		}
		// The same text from the node, with a request that has not brought it.
		for _, node := range nodes {
			if got := table.Classify(rpc(-32000, fmt.Sprintf(node, text))); !got.blames() {
				t.Errorf("genuine %q: %+v", fmt.Sprintf(node, text), got)
			}
		}
	}
}

func escaped(text string) string {
	var b strings.Builder
	for _, c := range text {
		fmt.Fprintf(&b, `\u%04x`, c)
	}
	return b.String()
}

func TestMethodNamesHoldNobodyOff(t *testing.T) {
	table, err := New([]OperatorRule{{Match: "/method .*exceeded/", Class: "billing"}, {Match: "over_quota", Class: "billing"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"eth_unauthorized", "unauthorized", "eth_exceeded", "eth_over_quota", "ETH_UNAUTHORIZED", "apikey"} {
		for _, node := range []string{"the method %s is odd", "method %s: what?", "no %s"} {
			if got := table.Classify(asked(rpc(-32000, fmt.Sprintf(node, method)), method, `[]`)); got.blames() {
				t.Errorf("%s: %+v", method, got)
			}
		}
	}
	if got := table.Classify(asked(rpc(-32000, "method eth_call: calls exceeded"), "eth_call", `[]`)); got.Class != "billing" {
		t.Errorf("genuine: %+v", got)
	}
}

// If the text that clears a backend stands in the params, it may be the node's
// all the same: nobody is blamed for the code beside it.
func TestTextsOfTheRequestDoNotMakeABackendSick(t *testing.T) {
	table := builtinTable(t)
	for _, text := range []string{"execution reverted", "already known", "header not found", "block range too large", "invalid argument 0", "method not found"} {
		params := `[{"to":"0x1","note":"` + text + `"},"latest"]`
		for _, e := range []Evidence{rpc(-32603, text), rpc(-32603, "Internal error: "+text), both(500, rpc(-32000, text)), both(503, rpc(-32000, text))} {
			if got := table.Classify(asked(e, "eth_call", params)); got.blames() || got.Firm {
				t.Errorf("%d %d %q: %+v", e.Status, e.Code, e.Message, got)
			}
			if got := table.Classify(e); got.blames() {
				t.Errorf("genuine: %d %d %q: %+v", e.Status, e.Code, e.Message, got)
			}
		}
		// Without the text in the message the params clear nobody.
		if got := table.Classify(asked(rpc(-32603, "whatever"), "eth_call", params)); !got.Sick {
			t.Errorf("%+v", got)
		}
	}
}

// The gaps of a pattern are meant for what the client asked for.
func TestPatternsMatchAroundTheRequestsOwnWords(t *testing.T) {
	table := builtinTable(t)
	for _, e := range []Evidence{
		asked(rpc(-32000, "height 0x1234567 is not available"), "eth_getBalance", `["0xabcdef0123","0x1234567"]`),
		asked(rpc(-32000, "historical state for block latest is not available"), "eth_getBalance", `["0xabcdef0123","latest"]`),
		asked(rpc(-32000, "historical state data of 0xabcdef0123 is not available"), "eth_call", `[{"to":"0xabcdef0123","data":"0x"},"0x5"]`),
	} {
		if got := table.Classify(e); got.Class != "data_missing" {
			t.Errorf("%q: %+v", e.Message, got)
		}
	}
	if got := table.Classify(asked(rpc(-32000, "the method trace_block is not available"), "trace_block", `["0x5"]`)); got.Class != "unsupported" {
		t.Errorf("%+v", got)
	}
}

func TestPatternsDoNotMatchWhatTheRequestBrought(t *testing.T) {
	table, err := New([]OperatorRule{{Match: "/limit .*cap/", Class: "billing"}, {Match: "/out of credits?$/", Class: "billing"}})
	if err != nil {
		t.Fatal(err)
	}
	long := "limit of the cap and " + strings.Repeat("so on ", 300)
	for _, row := range []struct{ message, params string }{
		{`bad "limit x cap"`, `["limit x cap"]`}, {`limit "cap" here`, `["cap"]`}, {`bad LIMIT x CAP`, `["Limit X Cap"]`}, {`bad "` + long[:100] + `"...`, `["` + long + `"]`},
		{`bad "rat" and "rat limit x cap y"`, `["rat","rat limit x cap y"]`}, {`got """"""""""limit x cap"`, `["\"\"\"\"\"\"\"\"\"limit x cap"]`},
		{`what is out of credit`, `["out of credit"]`}, {`what is out of credit`, `[{"out of credit":"credit"}]`},
	} {
		if got := table.Classify(asked(rpc(-32000, row.message), "eth_call", row.params)); got.blames() {
			t.Errorf("%.80q %.80s: %+v", row.message, row.params, got)
		}
	}
	for _, message := range []string{"limit on cap", "Limit : your CAP", "you are out of credits", "out of credit"} {
		if got := table.Classify(asked(rpc(-32000, message), "eth_call", `["latest",{"data":"0x"}]`)); got.Class != "billing" {
			t.Errorf("genuine %q: %+v", message, got)
		}
	}
	// Work on a message that is full of one beginning is bounded, and nobody is
	// blamed for what was not looked at.
	full := strings.Repeat("a", 1800) + " limit x cap"
	many := `["` + strings.Repeat(`aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab","`, 5000) + `x"]`
	if got := table.Classify(asked(rpc(-32000, full), "eth_call", many)); got.blames() {
		t.Errorf("%+v", got)
	}
}

func TestLongMessagesAreReadAtBothEnds(t *testing.T) {
	table := builtinTable(t)
	filler := strings.Repeat("lorem ipsum é ", 100_000)
	for message, class := range map[string]string{
		"rate limit " + filler:                          "rate_limit",
		filler + " execution reverted":                  "revert",
		filler + " rate limit " + filler:                "unknown",
		"archive " + filler + " not available":          "unknown",
		strings.Repeat("x", 1015) + " header not found": "data_missing",
		strings.Repeat("x", 2040) + " header not found": "data_missing",
		strings.Repeat("\xff", 5000):                    "unknown",
	} {
		if got := table.Classify(rpc(-32000, message)); got.Class != class {
			t.Errorf("%.20q… of %d bytes: %s, want %s", message, len(message), got.Class, class)
		}
	}
	// A long echo in front does not hide what clears the backend.
	if got := table.Classify(asked(rpc(-32603, filler+": execution reverted"), "eth_call", `["`+filler+`"]`)); got.blames() {
		t.Errorf("%+v", got)
	}
}

func TestClassifyReadsEmptyEvidence(t *testing.T) {
	if got := builtinTable(t).Classify(Evidence{}); got != (Outcome{Class: "unknown", Elsewhere: Once}) {
		t.Errorf("%+v", got)
	}
}

func BenchmarkClassifyRevert(b *testing.B) { benchmark(b, rpc(3, "execution reverted")) }
func BenchmarkClassifyUnknown(b *testing.B) {
	benchmark(b, rpc(-32000, "what may this be, says the node"))
}
func BenchmarkClassifyLongEcho(b *testing.B) {
	data := strings.Repeat("0123456789abcdef", 1<<16)
	benchmark(b, asked(rpc(-32000, "rate limit method not found is disabled 0x"+data), "eth_call", `[{"data":"0x`+data+`"}]`))
}

func benchmark(b *testing.B, e Evidence) {
	table := builtinTable(b)
	b.ReportAllocs()
	for b.Loop() {
		table.Classify(e)
	}
}
