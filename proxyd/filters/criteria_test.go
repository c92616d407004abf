package filters

import (
	"strings"
	"testing"

	"gateway.internal/proxyd/jsonrpc"
)

var (
	addressA = `"0x` + strings.Repeat("aA", 20) + `"`
	topicA   = `"0x` + strings.Repeat("0b", 32) + `"`
)

func TestFilterObjectGoesUpstreamAsItWasMeant(t *testing.T) {
	for object, want := range map[string]string{
		`{}`:                  `[{"fromBlock":"latest","toBlock":"latest"}]`,
		`{"fromBlock":"0x5"}`: `[{"fromBlock":"0x5","toBlock":"latest"}]`,
		`{"fromBlock":"0x005","toBlock":"finalized","odd":[1]}`:                       `[{"fromBlock":"0x5","toBlock":"finalized"}]`,
		`{"fromBlock":null,"toBlock":null,"address":null,"topics":null}`:              `[{"fromBlock":"latest","toBlock":"latest"}]`,
		`{ "address" : ` + addressA + `, "topics": [ ] }`:                             `[{"fromBlock":"latest","toBlock":"latest","address":` + addressA + `,"topics":[ ]}]`,
		`{"topics":[null,` + topicA + `,[` + topicA + `,null],[]]}`:                   `[{"fromBlock":"latest","toBlock":"latest","topics":[null,` + topicA + `,[` + topicA + `,null],[]]}]`,
		`{"address":[` + addressA + `, ` + addressA + `],"blockHash":` + topicA + `}`: `[{"blockHash":` + topicA + `,"address":[` + addressA + `, ` + addressA + `]}]`,
	} {
		c, fault := parseCriteria([]byte(object))
		if fault != "" {
			t.Errorf("%s: %s", object, fault)
			continue
		}
		check(t, object, string(c.params(c.from.text(), c.to.text())), want)
	}
}

func TestFaultOfAFilterObjectIsNamed(t *testing.T) {
	h, chain, _ := onChain(t, 5, Options{MaxPerClient: 1})
	const bound = "must be a block number in hex or one of latest, pending, earliest, safe, finalized"
	for object, want := range map[string]string{
		`[]`:                                    "invalid filter: must be an object",
		`"0x"`:                                  "invalid filter: must be an object",
		`{"address":"0x12"}`:                    "invalid address: must be 20 bytes in hex or a list of such",
		`{"address":5}`:                         "invalid address: must be 20 bytes in hex or a list of such",
		`{"address":[null]}`:                    "invalid address: must be 20 bytes in hex or a list of such",
		`{"topics":"0x12"}`:                     "invalid topics: must be an array",
		`{"topics":["0x12"]}`:                   "invalid topic: must be 32 bytes in hex or a list of such",
		`{"topics":[[["0x"]]]}`:                 "invalid topic: must be 32 bytes in hex or a list of such",
		`{"topics":[null,null,null,null,null]}`: "invalid topics: at most 4 positions",
		`{"fromBlock":5}`:                       "invalid fromBlock: " + bound,
		`{"fromBlock":"5"}`:                     "invalid fromBlock: " + bound,
		`{"toBlock":"0x"}`:                      "invalid toBlock: " + bound,
		`{"toBlock":"0x8000000000000000"}`:      "invalid toBlock: " + bound,
		`{"fromBlock":"0x2","toBlock":"0x1"}`:   "invalid block range: fromBlock is after toBlock",
		`{"blockHash":"0x12"}`:                  "invalid blockHash: must be 32 bytes in hex",
		`{"blockHash":` + topicA + `,"fromBlock":"0x1"}`:                                                                     "cannot specify both blockHash and fromBlock/toBlock, choose one or the other",
		`{"address":[` + strings.Repeat(addressA+",", 1000) + addressA + `]}`:                                                "invalid address: at most 1000 in a list",
		`{"topics":[[` + strings.Repeat(topicA+",", 900) + topicA + `],[` + strings.Repeat(topicA+",", 999) + topicA + `]]}`: "filter too large: address and topics take more than 131072 bytes",
	} {
		check(t, object[:min(len(object), 80)], ask(h, newFilter, object), "error -32602: "+want)
	}
	check(t, "none", ask(h, newFilter), "error -32602: missing value for required argument 0")
	check(t, "two", ask(h, newFilter, "{}", "{}"), "error -32602: too many arguments, want at most 1")
	check(t, "asked", chain.history(), "")
	opens(t, h, newFilter, "{}") // none of them counts
}

func FuzzCriteria(f *testing.F) {
	for _, s := range []string{`{}`, `{"address":[` + addressA + `],"topics":[null,[` + topicA + `]],"fromBlock":"0x1"}`, `{"blockHash":` + topicA + `}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !jsonrpc.Valid([]byte(s)) {
			return // the front refuses it
		}
		c, fault := parseCriteria([]byte(s))
		if (c == nil) != (fault != "") {
			t.Fatalf("%q: %v and %q", s, c, fault)
		}
		if c == nil {
			return
		}
		params := c.params(c.from.text(), c.to.text())
		object, fault := onlyParam(params)
		if !jsonrpc.Valid(params) || fault != "" {
			t.Fatalf("%q goes upstream as %s", s, params)
		}
		again, fault := parseCriteria(object)
		if fault != "" || string(again.params(again.from.text(), again.to.text())) != string(params) {
			t.Errorf("%q goes upstream as %s, which is read as %+v, %s", s, params, again, fault)
		}
	})
}
