package content

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// FirstHead is the number of the block that the chain of the benchmark begins
// with.
const FirstHead = 23_000_000

// AppendHead appends the header of a block as geth announces it, less the filter
// of logs. All of it follows from the number and from when it was published:
// the hashes link one to the next, and the time stands in nanoseconds in
// extraData.
func AppendHead(dst []byte, number uint64, published time.Time) []byte {
	h := func(what string, n uint64) []byte {
		s := StampOf(what, strconv.AppendUint(nil, n, 16))
		return s[:]
	}
	parent, own := BlockHash(number-1), BlockHash(number)
	ns := published.UnixNano()
	return fmt.Appendf(dst, `{"parentHash":"0x%s","miner":"0x95222290dd7278aa3ddd389cc1e1d165cc4bafe5","stateRoot":"0x%s","transactionsRoot":"0x%s","receiptsRoot":"0x%s",`+
		`"number":"0x%x","gasLimit":"0x2adfd72","gasUsed":"0x1b0d4e7","timestamp":"0x%x","extraData":"0x%016x62656e6368","baseFeePerGas":"0x1ff44a6b","hash":"0x%s"}`,
		parent[:], h("state", number), h("transactions", number), h("receipts", number), number, ns/1e9, ns, own[:])
}

// BlockHash is the hash of a block, without the 0x before it.
func BlockHash(number uint64) Stamp { return StampOf("block", strconv.AppendUint(nil, number, 16)) }

// ReadHead returns what a header was made of.
func ReadHead(text []byte) (number uint64, published time.Time, err error) {
	var head struct{ Number, ExtraData string }
	if err := json.Unmarshal(text, &head); err != nil {
		return 0, time.Time{}, fmt.Errorf("header of a block: %w", err)
	}
	if len(head.ExtraData) < 18 {
		return 0, time.Time{}, fmt.Errorf("extraData %.80q is too short for a time", head.ExtraData)
	}
	if number, err = strconv.ParseUint(head.Number, 0, 64); err != nil {
		return 0, time.Time{}, fmt.Errorf("number of a block: %w", err)
	}
	ns, err := strconv.ParseInt(head.ExtraData[:18], 0, 64)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("time in extraData: %w", err)
	}
	return number, time.Unix(0, ns), nil
}

// AppendNotification appends the message that announces a header to a
// subscription, whose id is spelled with its quotes.
func AppendNotification(dst []byte, subscription, head []byte) []byte {
	dst = append(append(dst, `{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":`...), subscription...)
	return append(append(append(dst, `,"result":`...), head...), "}}"...)
}
