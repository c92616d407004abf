package devchain

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// notice is a notification.
type notice struct {
	Version string `json:"jsonrpc"`
	Method  string `json:"method"`
	Params  struct {
		Subscription string          `json:"subscription"`
		Result       json.RawMessage `json:"result"`
	} `json:"params"`
}

func (c *client) next() notice {
	c.t.Helper()
	text := c.read()
	var n notice
	if err := json.Unmarshal([]byte(text), &n); err != nil || n.Version != "2.0" || n.Method != "eth_subscription" {
		c.t.Fatalf("not a notification: %.200s", text)
	}
	return n
}

func (n notice) head(t *testing.T) uint64 {
	t.Helper()
	return numberOf(t, object(t, string(n.Params.Result))["number"])
}

func numberOf(t *testing.T, quantity any) uint64 {
	t.Helper()
	v, err := strconv.ParseUint(fmt.Sprint(quantity), 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// heads reads n notifications of newHeads.
func (c *client) heads(n int) (list []uint64) {
	c.t.Helper()
	for range n {
		list = append(list, c.next().head(c.t))
	}
	return list
}

// logs reads n notifications of logs, each as the number of its block, with a minus when it is removed.
func (c *client) logs(n int) (list []int) {
	c.t.Helper()
	for range n {
		log := object(c.t, string(c.next().Params.Result))
		number := int(numberOf(c.t, log["blockNumber"]))
		if log["removed"].(bool) {
			number = -number
		}
		list = append(list, number)
	}
	return list
}

func TestNewHeadsAreHeaders(t *testing.T) {
	chain := New(Options{})
	b, c := connect(t, chain)
	id := c.subscribe(`["newHeads"]`)
	chain.Mine(1)
	got := c.next()
	if got.Params.Subscription != id {
		t.Errorf("subscription %s, want %s", got.Params.Subscription, id)
	}
	head, block := object(t, string(got.Params.Result)), object(t, result(t, b, "eth_getBlockByNumber", `["latest",false]`))
	members := slices.Sorted(maps.Keys(head))
	want := []string{"baseFeePerGas", "difficulty", "extraData", "gasLimit", "gasUsed", "hash", "logsBloom", "miner", "mixHash", "nonce", "number",
		"parentHash", "receiptsRoot", "sha3Uncles", "stateRoot", "timestamp", "transactionsRoot"}
	if !slices.Equal(members, want) {
		t.Errorf("members %v, want %v", members, want)
	}
	for _, name := range want {
		if head[name] != block[name] {
			t.Errorf("%s: %v in the head, %v in the block", name, head[name], block[name])
		}
	}
}

func TestHeadsComeOneByOneInOrder(t *testing.T) {
	chain := New(Options{})
	_, c := connect(t, chain)
	c.subscribe(`["newHeads"]`)
	chain.Mine(5)
	if got := c.heads(5); !slices.Equal(got, []uint64{17, 18, 19, 20, 21}) {
		t.Errorf("heads %v", got)
	}
}

func TestLogsAreThoseThatTheFilterSelects(t *testing.T) {
	chain := New(Options{})
	b, c := connect(t, chain)
	all := c.subscribe(`["logs",{"address":"` + TokenAddress + `","topics":["` + TransferTopic + `"]}]`)
	for _, nothing := range []string{`{"address":"` + EchoAddress + `"}`, `{"topics":[null,"` + TransferTopic + `"]}`, `{"fromBlock":"0x13"}`, `{"toBlock":"0x11"}`} {
		c.subscribe(`["logs",` + nothing + `]`)
	}
	chain.Mine(1) // 0x11, which the last one selects
	c.next()
	c.next()
	chain.Mine(1)
	got := c.next()
	want := strings.Trim(result(t, b, "eth_getLogs", `[{}]`), "[]")
	if got.Params.Subscription != all || string(got.Params.Result) != want {
		t.Errorf("got %s\nwant %s", got.Params.Result, want)
	}
	if got := c.ask("eth_chainId", `[]`); got != `"0x7a69"` {
		t.Error(got)
	}
}

func TestReorgRemovesTheOldLogsBeforeTheNewOnes(t *testing.T) {
	chain := New(Options{})
	b := NewBackend(chain, "one")
	address := listen(t, b)
	logs, heads := dial(t, address), dial(t, address)
	logs.subscribe(`["logs",{}]`)
	heads.subscribe(`["newHeads"]`)
	chain.Mine(2)
	chain.Reorg(3, 4)
	chain.Mine(1)
	if got, want := logs.logs(10), []int{17, 18, -18, -17, -16, 16, 17, 18, 19, 20}; !slices.Equal(got, want) {
		t.Errorf("logs %v, want %v", got, want)
	}
	if got, want := heads.heads(7), []uint64{17, 18, 16, 17, 18, 19, 20}; !slices.Equal(got, want) {
		t.Errorf("heads %v, want %v", got, want)
	}
}

func TestARemovedLogNamesTheReplacedBlock(t *testing.T) {
	chain := New(Options{})
	_, c := connect(t, chain)
	c.subscribe(`["logs",{}]`)
	chain.Mine(1)
	old := object(t, string(c.next().Params.Result))
	chain.Reorg(1, 1)
	gone, come := object(t, string(c.next().Params.Result)), object(t, string(c.next().Params.Result))
	if gone["blockHash"] != old["blockHash"] || come["blockHash"] == old["blockHash"] || gone["transactionHash"] != old["transactionHash"] {
		t.Errorf("%v\nbecame %v\nand %v", old, gone, come)
	}
}

func TestPendingTransactionsComeAsHashesOrWhole(t *testing.T) {
	chain := New(Options{})
	b := NewBackend(chain, "one")
	address := listen(t, b)
	short, whole := dial(t, address), dial(t, address)
	short.subscribe(`["newPendingTransactions"]`)
	whole.subscribe(`["newPendingTransactions",true]`)
	id := result(t, b, "eth_sendRawTransaction", `["0x01"]`)
	if got := string(short.next().Params.Result); got != id {
		t.Errorf("got %s, want %s", got, id)
	}
	if got, want := string(whole.next().Params.Result), result(t, b, "eth_getTransactionByHash", `[`+id+`]`); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestSyncingSaysAtOnceThatItIsNot(t *testing.T) {
	_, c := connect(t, New(Options{}))
	id := c.subscribe(`["syncing"]`)
	if got := c.next(); got.Params.Subscription != id || string(got.Params.Result) != "false" {
		t.Errorf("got %+v", got)
	}
}

func TestNoNotificationComesAheadOfItsSubscription(t *testing.T) {
	chain := New(Options{})
	_, c := connect(t, chain)
	known := map[string]bool{}
	for range 20 {
		mined := make(chan struct{})
		go func() {
			defer close(mined)
			chain.Mine(20)
		}()
		c.send(`{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}`)
		for answered := false; !answered; {
			var m struct {
				notice
				Result string `json:"result"`
			}
			if err := json.Unmarshal([]byte(c.read()), &m); err != nil {
				t.Fatal(err)
			}
			if answered = m.Result != ""; answered {
				known[m.Result] = true
			} else if !known[m.Params.Subscription] {
				t.Fatalf("a notification of %s, which no answer has named", m.Params.Subscription)
			}
		}
		<-mined
	}
}

func TestUnsubscribeEndsTheNotifications(t *testing.T) {
	chain := New(Options{})
	_, c := connect(t, chain)
	id := c.subscribe(`["newHeads"]`)
	if got := c.ask("eth_unsubscribe", `["`+id+`"]`); got != "true" {
		t.Error(got)
	}
	chain.Mine(1)
	if got := c.ask("eth_unsubscribe", `["`+id+`"]`); got != "-32000 subscription not found" {
		t.Error(got)
	}
}

func TestABatchMaySubscribe(t *testing.T) {
	chain := New(Options{})
	b, c := connect(t, chain)
	c.send(`[{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]},{"jsonrpc":"2.0","id":2,"method":"eth_subscribe","params":["logs",{}]}]`)
	var answers []reply
	if err := json.Unmarshal([]byte(c.read()), &answers); err != nil || len(answers) != 2 || b.Subscriptions() != 2 {
		t.Fatalf("%v, %d answers, %d subscriptions", err, len(answers), b.Subscriptions())
	}
	chain.Mine(1)
	c.next()
	c.next()
}

func TestSubscribeRefusesWhatGethRefuses(t *testing.T) {
	b, c := connect(t, New(Options{}))
	for params, want := range map[string]string{
		`["xyz"]`:                           `-32601 no "xyz" subscription in eth namespace`,
		`[]`:                                "-32602 expected subscription name as first argument",
		`[7]`:                               "-32602 expected subscription name as first argument",
		`["logs"]`:                          "-32602 missing value for required argument 1",
		`["logs",7]`:                        "-32602 invalid argument 1: want a filter object",
		`["newHeads",{}]`:                   "-32602 too many arguments, want at most 1",
		`["newPendingTransactions","true"]`: "-32602 invalid argument 1: want true or false",
	} {
		if got := c.ask("eth_subscribe", params); got != want {
			t.Errorf("%s: got %s, want %s", params, got, want)
		}
	}
	if got := result(t, b, "eth_subscribe", `["newHeads"]`); got != "-32601 notifications not supported" {
		t.Errorf("by POST: %s", got)
	}
	if got := result(t, b, "eth_unsubscribe", `["0x1"]`); got != "-32000 subscription not found" {
		t.Errorf("by POST: %s", got)
	}
	if b.Subscriptions() != 0 || b.SubscriptionsMade() != 0 {
		t.Errorf("%d subscriptions of %d", b.Subscriptions(), b.SubscriptionsMade())
	}
}
