package devchain

const (
	blockGasLimit = 30_000_000
	transferGas   = 51_000 // of the transfer that ends every block
	poolTxGas     = 21_000 // of a transaction from eth_sendRawTransaction
)

// block is one block; nothing changes it once it is part of a Chain.
type block struct {
	number    uint64
	hash      hash
	parent    hash
	timestamp uint64
	txs       []*transaction
	bloom     bloom
	gasUsed   uint64
	gasTotal  uint64 // used by the chain up to and with this block
	txTotal   uint64 // transactions of the chain up to and with this block
}

// transaction is a mined transaction, or one in the pool, which has no block.
type transaction struct {
	hash    hash
	nonce   uint64
	to      address
	input   hexBytes
	gas     uint64 // limit and use
	gasUpTo uint64 // used by the block up to and with this transaction
	index   int
	block   *block
	event   *event
	bloom   bloom
	raw     []byte // as it was sent; nil for the chain's own transfer
}

// event is what a transaction logs. No transaction logs more than one, and no block more than one, so that its index is always 0.
type event struct {
	address address
	topics  []hash
	data    hexBytes
	tx      *transaction
}

func (c *Chain) newGenesis() *block {
	b := &block{timestamp: c.timestamp(0)}
	b.hash = label("block", c.seed[:], word(0), word(b.timestamp))
	return b
}

// newBlock follows parent with transactions of the pool and one transfer of the token, so that every block but the first has a log.
func (c *Chain) newBlock(parent *block, pooled []waiting) *block {
	b := &block{number: parent.number + 1, parent: parent.hash, timestamp: c.timestamp(parent.number + 1)}
	nonce := parent.txTotal
	for _, w := range pooled {
		b.txs = append(b.txs, w.at(nonce))
		nonce++
	}
	b.txs = append(b.txs, c.transfer(b.number, nonce))

	content := [][]byte{c.seed[:], parent.hash[:], word(b.number), word(b.timestamp)}
	if c.forks > 0 {
		content = append(content, word(c.forks)) // or the blocks after a reorg could be those that it replaced
	}
	for i, t := range b.txs {
		b.gasUsed += t.gas
		t.index, t.block, t.gasUpTo = i, b, b.gasUsed
		for n := range b.bloom {
			b.bloom[n] |= t.bloom[n]
		}
		content = append(content, t.hash[:])
	}
	b.hash = label("block", content...)
	b.gasTotal = parent.gasTotal + b.gasUsed
	b.txTotal = parent.txTotal + uint64(len(b.txs))
	return b
}

// transfer is the transaction that the chain itself makes in block n: n units of the token, from the sender to one of four accounts.
func (c *Chain) transfer(n, nonce uint64) *transaction {
	recipient := miner
	recipient[len(recipient)-1] = byte(0x10 + n%4)
	to, amount := recipient.topic(), padded(n)
	t := &transaction{
		hash:  label("transfer", c.seed[:], word(n)),
		nonce: nonce,
		to:    token,
		input: append(append([]byte{0xa9, 0x05, 0x9c, 0xbb}, to[:]...), amount[:]...), // transfer(address,uint256)
		gas:   transferGas,
	}
	t.event = &event{address: token, topics: []hash{transferTopic, sender.topic(), to}, data: amount[:], tx: t}
	t.bloom.add(token[:])
	for _, topic := range t.event.topics {
		t.bloom.add(topic[:])
	}
	return t
}

// events lists what the block logged, in order.
func (b *block) events() []*event {
	var list []*event
	for _, t := range b.txs {
		if t.event != nil {
			list = append(list, t.event)
		}
	}
	return list
}
