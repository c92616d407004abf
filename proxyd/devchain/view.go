package devchain

// The shapes in which blocks, transactions, receipts and logs go out, with the fields of a London block (no withdrawals, no blobs).

// headerView has the members of a header, as newHeads sends it.
type headerView struct {
	Number           quantity `json:"number"`
	Hash             hash     `json:"hash"`
	ParentHash       hash     `json:"parentHash"`
	Nonce            string   `json:"nonce"`
	Sha3Uncles       hash     `json:"sha3Uncles"`
	LogsBloom        bloom    `json:"logsBloom"`
	TransactionsRoot hash     `json:"transactionsRoot"`
	StateRoot        hash     `json:"stateRoot"`
	ReceiptsRoot     hash     `json:"receiptsRoot"`
	Miner            address  `json:"miner"`
	Difficulty       quantity `json:"difficulty"`
	ExtraData        hexBytes `json:"extraData"`
	GasLimit         quantity `json:"gasLimit"`
	GasUsed          quantity `json:"gasUsed"`
	Timestamp        quantity `json:"timestamp"`
	BaseFeePerGas    quantity `json:"baseFeePerGas"`
	MixHash          hash     `json:"mixHash"`
}

type blockView struct {
	headerView
	Size         quantity `json:"size"`
	Transactions []any    `json:"transactions"`
	Uncles       []hash   `json:"uncles"`
}

type txView struct {
	BlockHash            *hash     `json:"blockHash"`
	BlockNumber          *quantity `json:"blockNumber"`
	From                 address   `json:"from"`
	Gas                  quantity  `json:"gas"`
	GasPrice             quantity  `json:"gasPrice"`
	MaxFeePerGas         quantity  `json:"maxFeePerGas"`
	MaxPriorityFeePerGas quantity  `json:"maxPriorityFeePerGas"`
	Hash                 hash      `json:"hash"`
	Input                hexBytes  `json:"input"`
	Nonce                quantity  `json:"nonce"`
	To                   address   `json:"to"`
	TransactionIndex     *quantity `json:"transactionIndex"`
	Value                quantity  `json:"value"`
	Type                 quantity  `json:"type"`
	AccessList           []any     `json:"accessList"`
	ChainID              quantity  `json:"chainId"`
	V                    quantity  `json:"v"`
	R                    hash      `json:"r"`
	S                    hash      `json:"s"`
	YParity              quantity  `json:"yParity"`
}

type receiptView struct {
	TransactionHash   hash      `json:"transactionHash"`
	TransactionIndex  quantity  `json:"transactionIndex"`
	BlockHash         hash      `json:"blockHash"`
	BlockNumber       quantity  `json:"blockNumber"`
	From              address   `json:"from"`
	To                address   `json:"to"`
	CumulativeGasUsed quantity  `json:"cumulativeGasUsed"`
	GasUsed           quantity  `json:"gasUsed"`
	ContractAddress   *address  `json:"contractAddress"`
	Logs              []logView `json:"logs"`
	LogsBloom         bloom     `json:"logsBloom"`
	Status            quantity  `json:"status"`
	EffectiveGasPrice quantity  `json:"effectiveGasPrice"`
	Type              quantity  `json:"type"`
}

type logView struct {
	Address          address  `json:"address"`
	Topics           []hash   `json:"topics"`
	Data             hexBytes `json:"data"`
	BlockNumber      quantity `json:"blockNumber"`
	TransactionHash  hash     `json:"transactionHash"`
	TransactionIndex quantity `json:"transactionIndex"`
	BlockHash        hash     `json:"blockHash"`
	LogIndex         quantity `json:"logIndex"`
	Removed          bool     `json:"removed"`
}

func viewHeader(b *block) headerView {
	v := headerView{
		Number:           quantity(b.number),
		Hash:             b.hash,
		ParentHash:       b.parent,
		Nonce:            "0x0000000000000000",
		Sha3Uncles:       emptyUncles,
		LogsBloom:        b.bloom,
		TransactionsRoot: emptyRoot,
		StateRoot:        label("state", b.hash[:]),
		ReceiptsRoot:     emptyRoot,
		Miner:            miner,
		ExtraData:        hexBytes("devchain"),
		GasLimit:         blockGasLimit,
		GasUsed:          quantity(b.gasUsed),
		Timestamp:        quantity(b.timestamp),
		BaseFeePerGas:    baseFee,
		MixHash:          label("mix", b.hash[:]),
	}
	if len(b.txs) > 0 {
		v.TransactionsRoot = label("transactions", b.hash[:])
		v.ReceiptsRoot = label("receipts", b.hash[:])
	}
	return v
}

func (c *Chain) viewBlock(b *block, full bool) blockView {
	v := blockView{
		headerView:   viewHeader(b),
		Size:         quantity(600 + 150*len(b.txs)),
		Transactions: make([]any, 0, len(b.txs)),
		Uncles:       []hash{},
	}
	for _, t := range b.txs {
		if full {
			v.Transactions = append(v.Transactions, c.viewTx(t))
		} else {
			v.Transactions = append(v.Transactions, t.hash)
		}
	}
	return v
}

func (c *Chain) viewTx(t *transaction) txView {
	v := txView{
		From:                 sender,
		Gas:                  quantity(t.gas),
		GasPrice:             gasPrice,
		MaxFeePerGas:         gasPrice,
		MaxPriorityFeePerGas: priorityFee,
		Hash:                 t.hash,
		Input:                t.input,
		Nonce:                quantity(t.nonce),
		To:                   t.to,
		Type:                 2,
		AccessList:           []any{},
		ChainID:              quantity(c.id),
		R:                    label("r", t.hash[:]),
		S:                    label("s", t.hash[:]),
	}
	// Clients read r and s as quantities and want s in the lower half of the curve: no leading zero, and a small first digit.
	v.R[0], v.S[0] = 0x11, 0x11
	if t.block != nil {
		number, index := quantity(t.block.number), quantity(t.index)
		v.BlockHash, v.BlockNumber, v.TransactionIndex = &t.block.hash, &number, &index
	}
	return v
}

func viewReceipt(t *transaction) receiptView {
	v := receiptView{
		TransactionHash:   t.hash,
		TransactionIndex:  quantity(t.index),
		BlockHash:         t.block.hash,
		BlockNumber:       quantity(t.block.number),
		From:              sender,
		To:                t.to,
		CumulativeGasUsed: quantity(t.gasUpTo),
		GasUsed:           quantity(t.gas),
		Logs:              []logView{},
		LogsBloom:         t.bloom,
		Status:            1,
		EffectiveGasPrice: gasPrice,
		Type:              2,
	}
	if t.event != nil {
		v.Logs = append(v.Logs, viewLog(t.event, false))
	}
	return v
}

func viewReceipts(b *block) []receiptView {
	list := make([]receiptView, 0, len(b.txs))
	for _, t := range b.txs {
		list = append(list, viewReceipt(t))
	}
	return list
}

func viewLog(e *event, removed bool) logView {
	return logView{
		Address:          e.address,
		Topics:           e.topics,
		Data:             e.data,
		BlockNumber:      quantity(e.tx.block.number),
		TransactionHash:  e.tx.hash,
		TransactionIndex: quantity(e.tx.index),
		BlockHash:        e.tx.block.hash,
		Removed:          removed,
	}
}
