package subscribe

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/jsonrpc"
)

func FuzzSpec(f *testing.F) {
	for _, seed := range []string{
		``, `[]`, `["newHeads"]`, `["newHeads",{}]`, `["logs"]`, `["logs",null]`, `["logs",{}]`, `["syncing"]`, `["newPendingTransactions",true]`,
		`["logs",{"address":"` + devchain.TokenAddress + `","topics":["` + devchain.TransferTopic + `",null,[]]}]`,
		`["logs",{"address":["` + devchain.TokenAddress + `","` + devchain.EchoAddress + `"],"fromBlock":"latest"}]`,
		`["other",{"a":[1, "\u0000"]},5]`, `["logs",{"topics":[[null,"` + devchain.TransferTopic + `"]]}]`, ` [ "newHeads" ] `, `["logs" , {"Address":[] }]`,
		`["\u006cogs",{}]`, `{"0":"logs"}`, `["logs",{"topics":[[["x"]]]}]`, `["x",1e9999]`, `["logs",[`, "[\"logs\",{\"x\":\"\xff\"}]", "[\"x\",\"\xff\"]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, params []byte) {
		before := bytes.Clone(params)
		s, err := parseSpec(params)
		if !bytes.Equal(before, params) {
			t.Fatal("it changed what it read")
		}
		if err != nil {
			var refused rpcError
			if !errors.As(err, &refused) || refused.code != -32602 || !json.Valid(refused.json()) {
				t.Fatalf("%v", err)
			}
			return
		}
		if !json.Valid([]byte(s.params)) || s.key == "" {
			t.Fatalf("%q: params %q, key %q", params, s.params, s.key)
		}
		if s.kind == logs && !json.Valid([]byte(`[{"fromBlock":"0x1"`+s.members+`}]`)) {
			t.Fatalf("%q: members %q", params, s.members)
		}
		again, err := parseSpec([]byte(s.params))
		if err != nil || again != s {
			t.Fatalf("%q: again %+v, %v, want %+v", params, again, err, s)
		}
	})
}

func FuzzSubscriptionID(f *testing.F) {
	for _, seed := range []string{``, `["0x1"]`, `[]`, `["a","b"]`, `[1]`, `["\u0061"]`, `["a"`, `["a",]`, `["a"]]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, params []byte) {
		id, ok := subscriptionID(params)
		if !json.Valid(params) {
			return // the front has refused it
		}
		var list []json.RawMessage
		isList := json.Unmarshal(params, &list) == nil
		if ok != (isList && len(list) == 1 && len(list[0]) > 0 && list[0][0] == '"') {
			t.Fatalf("%q: %q, %t", params, id, ok)
		}
	})
}

func FuzzHeadAndLog(f *testing.F) {
	hash := `"0x` + strings.Repeat("aB", 32) + `"`
	for _, seed := range []string{
		`{"number":"0x10","hash":` + hash + `,"parentHash":` + hash + `,"transactions":[],"size":"0x1","withdrawals":null}`,
		`{"hash":` + hash + `,"number":"0x1","parentHash":` + hash + `}`,
		`{"address":"0x","blockNumber":"0x1","blockHash":` + hash + `,"logIndex":"0x0","removed":false,"data":"0x"}`,
		`{"blockNumber":"0x1","blockHash":` + hash + `,"logIndex":"0x0"}`, `{"removed":true,"blockNumber":"0x1","blockHash":` + hash + `,"logIndex":"0x0"}`,
		`{"removed" : false , "blockNumber":"0x1","blockHash":` + hash + `,"logIndex":"0x0","removed":false}`,
		`{}`, ``, `null`, `[]`, `{"number":"0x","hash":` + hash + `}`, `{"num\u0062er":"0x1"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		valid := json.Valid(raw)
		h, ok := parseHead(raw)
		if ok && valid {
			var learnt shape
			for _, s := range []*shape{{}, &learnt} {
				cut := s.cut(raw)
				if !json.Valid(cut) {
					t.Fatalf("%q cut to %q", raw, cut)
				}
				again, ok := parseHead(cut)
				if !ok || again.block != h.block {
					t.Fatalf("%q cut to %q: %+v, want %+v", raw, cut, again.block, h.block)
				}
				learnt.learn(raw)
			}
		}
		l, ok := parseLog(raw)
		if ok && valid {
			gone := takenBack(raw)
			if !json.Valid(gone) {
				t.Fatalf("%q taken back as %q", raw, gone)
			}
			again, ok := parseLog(gone)
			if !ok || !again.removed || again.number != l.number || again.index != l.index || again.hash != l.hash {
				t.Fatalf("%q taken back as %q", raw, gone)
			}
			n := 0
			jsonrpc.Members(gone, func(name, _ []byte) {
				if string(name) == "removed" {
					n++
				}
			})
			if n != 1 {
				t.Fatalf("%q taken back as %q", raw, gone)
			}
			memory := told{all: new(int)}
			if memory.take(l) == l.removed || memory.take(again) == l.removed || len(memory.logs) != 0 || *memory.all != 0 {
				t.Fatalf("%q: the memory holds %d logs", raw, len(memory.logs))
			}
		}
	})
}
