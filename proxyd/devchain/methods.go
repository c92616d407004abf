package devchain

import (
	"encoding/json"
	"math/big"
	"strconv"
)

// method is one row of the method table: how many parameters it needs and takes, and what it answers.
type method struct {
	least, most int
	run         func(*Backend, *params) (any, *rpcError)
}

// methods is every method that a Backend knows; it is also the list of names that are counted.
var methods = map[string]method{
	"web3_clientVersion": {0, 0, func(b *Backend, _ *params) (any, *rpcError) { return "devchain/v1/" + b.name, nil }},
	"web3_sha3":          {1, 1, func(_ *Backend, p *params) (any, *rpcError) { return keccak(p.bytes(0)), nil }},
	"net_version": {0, 0, func(b *Backend, _ *params) (any, *rpcError) {
		return strconv.FormatUint(b.horizon().chain.id, 10), nil
	}},
	"net_listening": {0, 0, func(*Backend, *params) (any, *rpcError) { return true, nil }},
	"net_peerCount": {0, 0, func(*Backend, *params) (any, *rpcError) { return quantity(0), nil }},

	"eth_chainId":              {0, 0, func(b *Backend, _ *params) (any, *rpcError) { return quantity(b.horizon().chain.id), nil }},
	"eth_syncing":              {0, 0, func(*Backend, *params) (any, *rpcError) { return false, nil }},
	"eth_blockNumber":          {0, 0, func(b *Backend, _ *params) (any, *rpcError) { return quantity(b.horizon().number()), nil }},
	"eth_gasPrice":             {0, 0, func(*Backend, *params) (any, *rpcError) { return quantity(gasPrice), nil }},
	"eth_maxPriorityFeePerGas": {0, 0, func(*Backend, *params) (any, *rpcError) { return quantity(priorityFee), nil }},
	"eth_accounts":             {0, 0, func(*Backend, *params) (any, *rpcError) { return []address{sender}, nil }},
	"eth_feeHistory":           {2, 3, feeHistory},

	"eth_getBalance":          {1, 2, getBalance},
	"eth_getTransactionCount": {1, 2, getTransactionCount},
	"eth_getCode":             {1, 2, getCode},
	"eth_getStorageAt":        {2, 3, getStorageAt},
	"eth_call":                {1, 4, ethCall},
	"eth_estimateGas":         {1, 4, estimateGas},

	"eth_getBlockByNumber":                 {2, 2, withBlock(getBlock)},
	"eth_getBlockByHash":                   {2, 2, withBlockHash(getBlock)},
	"eth_getBlockReceipts":                 {1, 1, withBlockOrHash(getBlockReceipts)},
	"eth_getBlockTransactionCountByNumber": {1, 1, withBlock(countTransactions)},
	"eth_getBlockTransactionCountByHash":   {1, 1, withBlockHash(countTransactions)},
	"eth_getUncleCountByBlockNumber":       {1, 1, withBlock(countUncles)},
	"eth_getUncleCountByBlockHash":         {1, 1, withBlockHash(countUncles)},

	"eth_getTransactionByBlockNumberAndIndex": {2, 2, withBlock(getIndexed)},
	"eth_getTransactionByBlockHashAndIndex":   {2, 2, withBlockHash(getIndexed)},
	"eth_getTransactionByHash":                {1, 1, getTransaction},
	"eth_getTransactionReceipt":               {1, 1, getReceipt},
	"eth_getLogs":                             {1, 1, getLogs},
	"eth_sendRawTransaction":                  {1, 1, sendRawTransaction},

	"eth_subscribe":                   {0, 3, subscribe},
	"eth_unsubscribe":                 {1, 1, unsubscribe},
	"eth_newFilter":                   {1, 1, newFilter},
	"eth_newBlockFilter":              {0, 0, newBlockFilter},
	"eth_newPendingTransactionFilter": {0, 1, newPendingFilter},
	"eth_getFilterChanges":            {1, 1, getFilterChanges},
	"eth_getFilterLogs":               {1, 1, getFilterLogs},
	"eth_uninstallFilter":             {1, 1, uninstallFilter},

	"dev_payload": {1, 1, payload},
}

// blockMethod answers about one block that exists. The block is parameter 0.
type blockMethod func(*Backend, *params, *block) any

// about runs m on the block that ref names; an unknown one makes the result null.
func about(b *Backend, p *params, ref blockRef, m blockMethod) (any, *rpcError) {
	if one := b.horizon().at(ref); one != nil && p.fail == nil {
		return m(b, p, one), nil
	}
	return nil, nil
}

func withBlock(m blockMethod) func(*Backend, *params) (any, *rpcError) {
	return func(b *Backend, p *params) (any, *rpcError) { return about(b, p, p.block(0), m) }
}

func withBlockHash(m blockMethod) func(*Backend, *params) (any, *rpcError) {
	return func(b *Backend, p *params) (any, *rpcError) {
		h := p.hash(0)
		return about(b, p, blockRef{hash: &h}, m)
	}
}

func withBlockOrHash(m blockMethod) func(*Backend, *params) (any, *rpcError) {
	return func(b *Backend, p *params) (any, *rpcError) { return about(b, p, p.blockOrHash(0), m) }
}

func getBlock(b *Backend, p *params, one *block) any {
	return b.horizon().chain.viewBlock(one, p.bool(1))
}
func getBlockReceipts(_ *Backend, _ *params, o *block) any { return viewReceipts(o) }
func countTransactions(_ *Backend, _ *params, o *block) any {
	return quantity(len(o.txs))
}
func countUncles(*Backend, *params, *block) any { return quantity(0) }

func getIndexed(b *Backend, p *params, one *block) any {
	i := p.quantity(1)
	if i >= uint64(len(one.txs)) {
		return nil
	}
	return b.horizon().chain.viewTx(one.txs[i])
}

func getTransaction(b *Backend, p *params) (any, *rpcError) {
	t := b.horizon().transaction(p.hash(0))
	if t == nil {
		return nil, nil
	}
	return b.horizon().chain.viewTx(t), nil
}

func getReceipt(b *Backend, p *params) (any, *rpcError) {
	t := b.horizon().transaction(p.hash(0))
	if t == nil || t.block == nil {
		return nil, nil
	}
	return viewReceipt(t), nil
}

func sendRawTransaction(b *Backend, p *params) (any, *rpcError) {
	raw := p.bytes(0)
	if p.fail != nil {
		return nil, p.fail
	}
	h, err := b.horizon().chain.send(raw)
	if err != nil {
		return nil, &rpcError{Code: codeServer, Message: err.Error()}
	}
	return h, nil
}

const maxFeeHistory = 1024

// feeHistory answers constant fees. A range that starts before the blocks that are known is cut, as the specification allows.
func feeHistory(b *Backend, p *params) (any, *rpcError) {
	count, newest := p.number(0), b.horizon().at(p.block(1))
	percentiles := []float64{}
	if p.has(2) {
		if err := json.Unmarshal(p.list[2], &percentiles); err != nil {
			return nil, invalidParams("invalid argument 2: want a list of numbers")
		}
	}
	if len(percentiles) > 100 {
		return nil, invalidParams("invalid argument 2: over the query limit 100")
	}
	for i, q := range percentiles {
		if q < 0 || q > 100 || (i > 0 && q <= percentiles[i-1]) {
			return nil, &rpcError{Code: codeServer, Message: "invalid reward percentile: want rising numbers from 0 to 100"}
		}
	}
	if newest == nil {
		return nil, &rpcError{Code: codeServer, Message: "request beyond head block"}
	}
	count = min(count, maxFeeHistory, newest.number+1)
	if count == 0 {
		return map[string]any{"oldestBlock": quantity(0), "gasUsedRatio": []float64{}}, nil
	}
	blocks, _ := b.horizon().between(blockRef{number: newest.number + 1 - count}, blockRef{number: newest.number})
	fees, ratios, rewards := []quantity{baseFee}, []float64{}, [][]quantity{}
	for _, one := range blocks {
		fees = append(fees, baseFee)
		ratios = append(ratios, float64(one.gasUsed)/blockGasLimit)
		reward := make([]quantity, len(percentiles))
		for i := range reward {
			reward[i] = priorityFee
		}
		rewards = append(rewards, reward)
	}
	history := map[string]any{
		"oldestBlock":   quantity(newest.number + 1 - uint64(len(blocks))),
		"baseFeePerGas": fees,
		"gasUsedRatio":  ratios,
	}
	if len(percentiles) > 0 {
		history["reward"] = rewards
	}
	return history, nil
}

// maxPayload bounds dev_payload, in bytes.
const maxPayload = 64 << 20

// payload is a JSON string of n characters, the same ones on every call.
func payload(_ *Backend, p *params) (any, *rpcError) {
	const pattern = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
	n := p.number(0)
	if n > maxPayload {
		return nil, invalidParams("invalid argument 0: want at most %d", maxPayload)
	}
	out := make([]byte, 1+n+1)
	out[0], out[n+1] = '"', '"'
	for body := out[1 : 1+n]; len(body) > 0; {
		body = body[copy(body, pattern):]
	}
	return encoded(out), nil
}

// wei is a quantity that may be larger than 64 bits.
type wei struct{ *big.Int }

func (w wei) MarshalJSON() ([]byte, error) { return []byte(`"0x` + w.Text(16) + `"`), nil }
