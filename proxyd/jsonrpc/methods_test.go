package jsonrpc

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

func table(t *testing.T, extra map[string]RowSpec) *Table {
	t.Helper()
	tab, err := NewTable(extra)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func TestEveryRowOfTheMethodTableDecodes(t *testing.T) {
	var file struct {
		Rows []struct {
			Names []string `toml:"names"`
			RowSpec
		} `toml:"rows"`
	}
	meta, err := toml.Decode(builtinRows, &file)
	if err != nil {
		t.Fatal(err)
	}
	if keys := meta.Undecoded(); len(keys) > 0 {
		t.Errorf("keys that nothing reads: %v", keys)
	}
	tab := table(t, nil)
	seen := map[string]bool{}
	for _, r := range file.Rows {
		if len(r.Names) == 0 {
			t.Error("a row without names")
		}
		want, err := r.Row()
		if err != nil {
			t.Errorf("%v: %v", r.Names, err)
			continue
		}
		for _, name := range r.Names {
			if seen[name] {
				t.Errorf("%s stands twice", name)
			}
			seen[name] = true
			if err := CheckPattern(name); err != nil {
				t.Error(err)
			}
			method := strings.Replace(name, "*", "Something", 1)
			if row, label := tab.Lookup(method); *row != *want || label != name {
				t.Errorf("%s: %+v as %q, want %+v", method, row, label, want)
			}
		}
	}
}

func TestOnlyReadsAreCacheableCoalescedOrHedged(t *testing.T) {
	tab := table(t, nil)
	for _, row := range slices.Concat(slices.Collect(maps.Values(tab.rows.exact)), values(tab.rows.prefixes)) {
		if row.Class != Read && (row.Cacheable || row.Coalesce || row.Hedge || row.Immutable != Never) {
			t.Errorf("%+v", row)
		}
		if row.Class == SignedSend && row.Nullable {
			t.Errorf("a send that may answer null: %+v", row)
		}
	}
	yes := true
	for _, class := range []string{"other", "signed_send"} {
		for _, spec := range []RowSpec{{Class: class, Cacheable: &yes}, {Class: class, Coalesce: &yes}, {Class: class, Hedge: &yes}, {Class: class, Immutable: "always"}} {
			if _, err := spec.Row(); err == nil {
				t.Errorf("%+v is accepted", spec)
			}
		}
	}
}

func values(prefixes []prefix[*Row]) (rows []*Row) {
	for _, p := range prefixes {
		rows = append(rows, p.value)
	}
	return rows
}

func TestTheTableKnowsTheImportantMethods(t *testing.T) {
	tab := table(t, nil)
	type facts struct {
		class     Class
		nullable  bool
		block     int
		immutable Immutable
		empty     bool
	}
	read := facts{class: Read, block: -1}
	found := facts{class: Read, nullable: true, block: -1}
	other := facts{class: Other, nullable: true, block: -1}
	send := facts{class: SignedSend, block: -1}
	always := facts{class: Read, nullable: true, block: -1, immutable: Always}
	at := func(f facts, block int) facts { f.block = block; return f }
	for _, row := range []struct {
		facts
		methods string
	}{
		{facts{class: Read, block: -1, immutable: Always}, "eth_chainId net_version"},
		{read, "eth_blockNumber eth_gasPrice eth_maxPriorityFeePerGas eth_syncing web3_clientVersion web3_sha3 net_listening net_peerCount eth_getLogs eth_config"},
		{read, "eth_supportedEntryPoints eth_estimateUserOperationGas linea_estimateGas"},
		{at(read, 1), "eth_getBalance eth_getCode eth_getTransactionCount eth_call eth_estimateGas eth_createAccessList eth_simulateV1 eth_feeHistory eth_getStorageValues"},
		{at(read, 2), "eth_getStorageAt eth_getProof"},
		{always, "eth_getBlockByHash eth_getBlockTransactionCountByHash eth_getUncleCountByBlockHash eth_getTransactionByBlockHashAndIndex eth_getUncleByBlockHashAndIndex"},
		{at(found, 0), "eth_getBlockByNumber eth_getBlockTransactionCountByNumber eth_getUncleCountByBlockNumber eth_getTransactionByBlockNumberAndIndex eth_getUncleByBlockNumberAndIndex"},
		{at(found, 0), "eth_getHeaderByNumber eth_getRawTransactionByBlockNumberAndIndex eth_getBlockAccessList debug_getRawBlock debug_getRawHeader"},
		{at(found, 1), "eth_getAccount eth_getAccountInfo"},
		{found, "eth_getTransactionByHash eth_getTransactionReceipt eth_getRawTransactionByHash eth_getRawTransactionByBlockHashAndIndex eth_getTransactionBySenderAndNonce"},
		{found, "eth_blobBaseFee eth_baseFee eth_getHeaderByHash eth_getUserOperationByHash eth_getUserOperationReceipt"},
		{found, "debug_traceTransaction debug_traceCall debug_traceBlockByNumber trace_block trace_filter trace_call trace_rawTransaction ots_getApiLevel erigon_getHeaderByNumber"},
		{found, "txpool_content alchemy_getAssetTransfers alchemy_simulateExecution qn_fetchNFTs bor_getAuthor zks_getBlockDetails zks_estimateFee optimism_syncStatus rollup_gasPrices"},
		{facts{class: Read, nullable: true, block: 0, empty: true}, "eth_getBlockReceipts consensus_getReceipts alchemy_getTransactionReceipts parity_getBlockReceipts"},
		{facts{class: Read, nullable: true, block: 0, immutable: ByHash, empty: true}, "debug_getRawReceipts"},
		{send, "eth_sendRawTransaction eth_sendRawTransactionConditional eth_sendPrivateRawTransaction qn_broadcastRawTransaction"},
		{other, "eth_accounts eth_sendTransaction eth_sign eth_signTransaction eth_sendBundle eth_sendUserOperation eth_sendRawTransactionSync eth_fillTransaction"},
		{other, "eth_newFilter eth_newBlockFilter eth_newPendingTransactionFilter eth_getFilterChanges eth_getFilterLogs eth_uninstallFilter eth_subscribe eth_unsubscribe"},
		{other, "admin_addPeer personal_sign engine_newPayloadV4 miner_start debug_setHead debug_standardTraceBlockToFile eth_unheardOf zks_sendRawTransactionWithDetailedOutput qn_unheardOf x ETH_CALL"},
	} {
		for method := range strings.FieldsSeq(row.methods) {
			r, _ := tab.Lookup(method)
			if got := (facts{r.Class, r.Nullable, r.Block, r.Immutable, r.EmptyIsNull}); got != row.facts {
				t.Errorf("%s: %+v, want %+v", method, got, row.facts)
			}
			if reads := r.Class == Read; r.Cacheable != reads || r.Coalesce != reads || r.Hedge != reads {
				t.Errorf("%s: cacheable %v, coalesce %v, hedge %v", method, r.Cacheable, r.Coalesce, r.Hedge)
			}
		}
	}
}

func TestUnknownMethodsHaveNoLabelOfTheirOwn(t *testing.T) {
	tab := table(t, map[string]RowSpec{"zk_*": {Class: "read"}})
	for method, want := range map[string]string{"eth_call": "eth_call", "debug_traceX": "debug_trace*", "zk_anything": "zk_*", "nobody_knows": "", "": ""} {
		if row, label := tab.Lookup(method); label != want || row == nil {
			t.Errorf("%q: label %q, want %q", method, label, want)
		}
	}
}

func TestOperatorRowsReplaceBuiltInOnes(t *testing.T) {
	no, two := false, 2
	tab := table(t, map[string]RowSpec{
		"eth_call":           {Class: "read", Hedge: &no, Block: &two},
		"trace_*":            {Class: "other"},
		"eth_newFilter":      {Class: "read"},
		"zk_*":               {Class: "read", Immutable: "by_hash"},
		"zk_send*":           {Class: "signed_send"},
		"debug_traceSpecial": {Class: "other", Nullable: &no},
	})
	for method, want := range map[string]Row{
		"eth_call":               {Class: Read, Block: 2, Cacheable: true, Coalesce: true},
		"trace_block":            {Class: Other, Nullable: true, Block: -1},
		"eth_newFilter":          {Class: Read, Block: -1, Cacheable: true, Coalesce: true, Hedge: true},
		"zk_get":                 {Class: Read, Block: -1, Immutable: ByHash, Cacheable: true, Coalesce: true, Hedge: true},
		"zk_sendTx":              {Class: SignedSend, Block: -1},
		"debug_traceSpecial":     {Class: Other, Block: -1},
		"debug_traceTransaction": {Class: Read, Nullable: true, Block: -1, Cacheable: true, Coalesce: true, Hedge: true},
	} {
		if row, _ := tab.Lookup(method); *row != want {
			t.Errorf("%s: %+v, want %+v", method, *row, want)
		}
	}
	// A broad row of the operator's does not make reads of known sends.
	if row, _ := table(t, map[string]RowSpec{"*": {Class: "read"}}).Lookup("eth_sendRawTransaction"); row.Class != SignedSend {
		t.Errorf("%+v", row)
	}
	if row, _ := table(t, nil).Lookup("trace_block"); row.Class != Read {
		t.Error("one table's rows have changed another's")
	}
}

func TestFaultyOperatorRowsAreRefused(t *testing.T) {
	for name, spec := range map[string]RowSpec{
		"eth_call":   {},
		"eth_get":    {Class: "write"},
		"eth_two":    {Class: "read", Immutable: "sometimes"},
		"eth call":   {Class: "read"},
		"":           {Class: "read"},
		"e*h":        {Class: "read"},
		"*_call":     {Class: "read"},
		"eth_call**": {Class: "read"},
	} {
		if _, err := NewTable(map[string]RowSpec{name: spec}); err == nil {
			t.Errorf("%q %+v is accepted", name, spec)
		}
	}
	_, err := NewTable(map[string]RowSpec{"eth_x": {Class: "write"}})
	if want := `methods."eth_x": class "write": must be one of other, read, signed_send`; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestClassesHaveTheNamesOfTheTable(t *testing.T) {
	for name, class := range classNames {
		if class.String() != name {
			t.Errorf("%d: %s, want %s", class, class, name)
		}
	}
	if Class(9).String() != "unknown" {
		t.Error(Class(9).String())
	}
}
