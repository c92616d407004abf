package devchain

import (
	"encoding/hex"
	"math/big"
)

// The accounts that exist on every Chain. Any other address is empty.
const (
	// SenderAddress sends every transaction of the chain, starts with 10000 ether and is the one entry of eth_accounts.
	SenderAddress = "0xde00000000000000000000000000000000000001"
	// MinerAddress receives the priority fees.
	MinerAddress = "0xde00000000000000000000000000000000000002"
	// TokenAddress emits the log of each block. Its storage slot 0 holds the number of the block that is asked about.
	TokenAddress = "0xde00000000000000000000000000000000000003"
	// ReverterAddress makes eth_call and eth_estimateGas answer error code 3 with RevertData.
	ReverterAddress = "0xde00000000000000000000000000000000000004"
	// EchoAddress makes eth_call answer with the call's input.
	EchoAddress = "0xde00000000000000000000000000000000000005"
)

// RevertData is the error data of ReverterAddress: Error(string) with the reason "devchain reverter".
const RevertData = "0x08c379a0" +
	"0000000000000000000000000000000000000000000000000000000000000020" +
	"0000000000000000000000000000000000000000000000000000000000000011" +
	"646576636861696e207265766572746572000000000000000000000000000000"

// TransferTopic is the first topic of every log: the event Transfer(address,address,uint256).
const TransferTopic = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"

var (
	sender        = address(fixed(SenderAddress))
	miner         = address(fixed(MinerAddress))
	token         = address(fixed(TokenAddress))
	reverter      = address(fixed(ReverterAddress))
	echo          = address(fixed(EchoAddress))
	transferTopic = hash(fixed(TransferTopic))

	// emptyUncles and emptyRoot are the hashes that real nodes give for a block without uncles and a trie without entries.
	emptyUncles = hash(fixed("0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347"))
	emptyRoot   = hash(fixed("0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"))
)

// Prices are constant, so that every fee can be worked out by hand.
const (
	baseFee     = 1_000_000_000
	priorityFee = 1_000_000_000
	gasPrice    = baseFee + priorityFee
)

// fixed decodes a hexadecimal constant of this package.
func fixed(s string) []byte {
	b, err := hex.DecodeString(s[2:])
	if err != nil {
		panic("devchain: constant " + s + ": " + err.Error())
	}
	return b
}

// code is the contract code of an account. Echo and reverter hold code that really does what eth_call answers.
func code(a address) hexBytes {
	switch a {
	case token:
		return hexBytes{0x00} // STOP
	case echo:
		return fixed("0x365f5f37365ff3") // copy the input to memory, return it
	case reverter:
		return append(fixed("0x6064600a5f3960645ffd"), fixed(RevertData)...) // copy the tail of the code to memory, revert with it
	}
	return hexBytes{}
}

// balance is the account's wei after block b.
func balance(a address, b *block) *big.Int {
	gas := new(big.Int).SetUint64(b.gasTotal)
	switch a {
	case sender:
		start := new(big.Int).Mul(big.NewInt(10_000), big.NewInt(1_000_000_000_000_000_000))
		return start.Sub(start, gas.Mul(gas, big.NewInt(gasPrice)))
	case miner:
		return gas.Mul(gas, big.NewInt(priorityFee))
	}
	return new(big.Int)
}
