package content

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// LogAddress is the contract that logs one event in each block of the chain.
const LogAddress = "0x6b175474e89094c44da98b954eedeac495271d0f"

// AppendLog appends the log of a block, all of which follows from its number.
func AppendLog(dst []byte, number uint64) []byte {
	h := func(what string) []byte {
		s := StampOf(what, strconv.AppendUint(nil, number, 16))
		return s[:]
	}
	own := BlockHash(number)
	return fmt.Appendf(dst, `{"address":"%s","topics":["0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef","0x%s"],"data":"0x%s",`+
		`"blockNumber":"0x%x","transactionHash":"0x%s","transactionIndex":"0x7","blockHash":"0x%s","logIndex":"0x1f","removed":false}`,
		LogAddress, h("holder"), h("amount"), number, h("transaction"), own[:])
}

// ReadLog returns the number of the block that a log is from.
func ReadLog(text []byte) (number uint64, err error) {
	var log struct{ BlockNumber string }
	if err := json.Unmarshal(text, &log); err != nil {
		return 0, fmt.Errorf("log: %w", err)
	}
	if number, err = strconv.ParseUint(log.BlockNumber, 0, 64); err != nil {
		return 0, fmt.Errorf("block of a log: %w", err)
	}
	return number, nil
}
