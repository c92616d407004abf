package filters

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gateway.internal/proxyd/jsonrpc"
)

var table, _ = jsonrpc.NewTable(nil)

// stage builds Filters over the backends a, b and c.
func stage(o Options) (*Filters, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	o.Metrics, o.Log = NewMetrics(reg), slog.New(slog.DiscardHandler)
	if o.Backends == nil {
		o.Backends = []string{"a", "b", "c"}
	}
	return New(o), reg
}

func shown(t *testing.T, reg *prometheus.Registry, line string) {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if !strings.Contains(w.Body.String(), "\n"+line+"\n") {
		t.Errorf("the metrics do not show %s", line)
	}
}

var someone = &jsonrpc.Client{Key: "1.1.1.1"}

// call is a call of someone; each of params is JSON.
func call(method string, params ...string) *jsonrpc.Call {
	row, _ := table.Lookup(method)
	return &jsonrpc.Call{Method: method, Label: method, Row: row, ID: []byte("7"), Params: []byte("[" + strings.Join(params, ",") + "]"), Client: someone}
}

// ask sends one call, and returns the result, or "error" with the code and message, or "failed" with the
// Go error.
func ask(h jsonrpc.Handler, method string, params ...string) string {
	c := call(method, params...)
	h.ServeRPC(context.Background(), []*jsonrpc.Call{c})
	return outcome(c)
}

func outcome(c *jsonrpc.Call) string {
	switch {
	case c.Err != nil:
		return "failed: " + c.Err.Error()
	case c.Answer == nil:
		return "open"
	case c.Answer.Error != nil:
		e, err := jsonrpc.ParseError(c.Answer.Error)
		if err != nil || e.Code != c.Answer.Code {
			return "broken error: " + string(c.Answer.Error)
		}
		return fmt.Sprintf("error %d: %s", e.Code, e.Message)
	}
	return string(c.Answer.Result)
}

func check(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

const notFound = "error -32000: filter not found"

// mined is a block of the fake chain.
type mined struct {
	hash, parent string
	logs         []string
}

// chain is a small chain behind three backends. All of its fields are under the lock.
type chain struct {
	mu     sync.Mutex
	blocks []mined
	behind map[string]int    // blocks that a backend has not got yet
	fails  map[string]string // by method, or backend and method: an error's message, "" for none that answers
	takes  []string          // who answers the next slices without Only; a when it is empty
	asked  []string          // backend and method
	hook   func(c *jsonrpc.Call)
	broken string // a rule of Handler that was broken
}

// newChain has the blocks 0 to head.
func newChain(head int) *chain {
	c := &chain{behind: map[string]int{}, fails: map[string]string{}}
	c.mine("x", head+1, 0)
	return c
}

func hashOf(branch string, number int) string {
	return fmt.Sprintf("0x%x", sha256.Sum256([]byte(branch+strconv.Itoa(number))))
}

// logOf is the log with the index, as this provider spells it: with spaces.
func logOf(branch string, number, index int) string {
	return fmt.Sprintf(`{"address": "0x%040x", "blockNumber":"0x%x","blockHash":"%s","logIndex":"0x%x", "removed": false}`, 1, number, hashOf(branch, number), index)
}

// mine puts n blocks of a branch behind the head, each with that many logs.
func (c *chain) mine(branch string, n, logs int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		number := len(c.blocks)
		b := mined{hash: hashOf(branch, number), parent: fmt.Sprintf("0x%064x", 0)}
		if number > 0 {
			b.parent = c.blocks[number-1].hash
		}
		for i := range logs {
			b.logs = append(b.logs, logOf(branch, number, i))
		}
		c.blocks = append(c.blocks, b)
	}
}

// drop takes the last n blocks away.
func (c *chain) drop(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocks = c.blocks[:len(c.blocks)-n]
}

func (c *chain) fail(what, message string) { c.mu.Lock(); c.fails[what] = message; c.mu.Unlock() }
func (c *chain) heal()                     { c.mu.Lock(); clear(c.fails); c.mu.Unlock() }

// history returns and forgets who was asked what.
func (c *chain) history() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.asked = nil }()
	return strings.Join(c.asked, " ")
}

func (c *chain) ServeRPC(ctx context.Context, calls []*jsonrpc.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from := "a"
	if len(c.takes) > 0 && calls[0].Only == "" {
		from, c.takes = c.takes[0], c.takes[1:]
	}
	for _, call := range calls {
		if call.Only != "" && len(calls) > 1 {
			c.broken = "a call with Only does not travel alone"
		}
		if call.Only != "" {
			from = call.Only
		}
		if call.Row == nil || call.Client == nil || call.Label != call.Method {
			c.broken = call.Method + " lacks a row, a client or a label"
		}
		if c.hook != nil {
			c.hook(call)
		}
		c.answer(call, from)
	}
}

var errDown = errors.New("down")

func (c *chain) answer(call *jsonrpc.Call, from string) {
	c.asked = append(c.asked, from+":"+call.Method)
	for _, key := range []string{call.Method, from + ":" + call.Method} {
		if message, ok := c.fails[key]; ok && message == "" {
			call.Err = errDown
			return
		} else if ok {
			call.Answer = &jsonrpc.Answer{Error: fmt.Appendf(nil, `{"code":-32001,"message":%q}`, message), Code: -32001, Backend: from}
			return
		}
	}
	seen := c.blocks[:len(c.blocks)-c.behind[from]]
	call.Answer = &jsonrpc.Answer{Backend: from, Result: []byte("null")}
	var words []string
	jsonrpc.Strings(call.Params, func(s []byte) bool { words = append(words, string(s)); return true })
	at := func(word string) int {
		switch word {
		case "latest", "pending":
			return len(seen) - 1
		case "safe", "finalized":
			return len(seen) - 3
		case "earliest":
			return 0
		}
		n, err := strconv.ParseInt(word, 0, 64)
		if err != nil {
			c.broken = "not a block: " + word
		}
		return int(n)
	}
	switch call.Method {
	case "eth_getBlockByNumber":
		if n := at(words[0]); n >= 0 && n < len(seen) {
			call.Answer.Result = fmt.Appendf(nil, `{"number":"0x%x","hash":%q,"parentHash":%q,"transactions":[]}`, n, seen[n].hash, seen[n].parent)
		}
	case "eth_getLogs":
		var logs []string
		for n := at(words[1]); n <= min(at(words[3]), len(seen)-1); n++ {
			logs = append(logs, seen[n].logs...)
		}
		call.Answer.Result = []byte("[ " + strings.Join(logs, " , ") + "]")
	default:
		c.broken = "asked for " + call.Method
	}
}

// sound reports broken rules.
func (c *chain) sound(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != "" {
		t.Error(c.broken)
	}
}

// onChain is a stage in mode gateway in front of a chain.
func onChain(t *testing.T, head int, o Options) (jsonrpc.Handler, *chain, *prometheus.Registry) {
	t.Helper()
	c := newChain(head)
	o.Mode = ModeGateway
	f, reg := stage(o)
	t.Cleanup(func() { c.sound(t) })
	return f.Middleware(c), c, reg
}

// opens makes a filter and returns its id as JSON.
func opens(t *testing.T, h jsonrpc.Handler, method string, params ...string) string {
	t.Helper()
	id := ask(h, method, params...)
	if !strings.HasPrefix(id, `"0x`) {
		t.Fatalf("%s: %s", method, id)
	}
	return id
}

// array is a JSON array of the elements.
func array(elements ...string) string { return "[" + strings.Join(elements, ",") + "]" }

// tidy takes the chain's white space out of an answer.
func tidy(s string) string {
	return strings.NewReplacer(" , ", ",", "[ ", "[").Replace(s)
}
