package filters

import (
	"errors"

	"gateway.internal/proxyd/jsonrpc"
)

// parseLogs groups the elements of the answer to an eth_getLogs by their blocks.
// Logs without a block are left out: a pending one cannot
// be taken back.
func parseLogs(raw []byte) (blocks []told, err error) {
	isArray := jsonrpc.Elements(raw, func(element []byte) bool {
		var t told
		var hasNumber, hasHash bool
		jsonrpc.Members(element, func(name, value []byte) {
			switch string(name) {
			case "blockNumber":
				text, _ := jsonrpc.Text(value)
				t.number, hasNumber = quantity(text)
			case "blockHash":
				t.hash, hasHash = parseHash(value)
			}
		})
		if !hasNumber || !hasHash {
			return true
		}
		if n := len(blocks); n == 0 || blocks[n-1].number != t.number || blocks[n-1].hash != t.hash {
			blocks = append(blocks, t)
		}
		last := &blocks[len(blocks)-1]
		last.logs = append(last.logs, element)
		return true
	})
	if !isArray {
		return nil, errors.New("eth_getLogs: the answer is no array")
	}
	return blocks, nil
}

// appendRemoved appends the log with "removed":true, and all else as it was.
func appendRemoved(dst, log []byte) []byte {
	dst = append(dst, '{')
	jsonrpc.Members(log, func(name, value []byte) {
		if string(name) == "removed" {
			return
		}
		dst = append(append(dst, '"'), name...)
		dst = append(append(dst, `":`...), value...)
		dst = append(dst, ',')
	})
	return append(dst, `"removed":true}`...)
}

// joinLogs returns an array of those that are taken back and, behind them, the
// elements of the array raw as they are. Without the former it is raw itself.
func joinLogs(removed [][]byte, raw []byte) []byte {
	if len(removed) == 0 {
		return raw
	}
	out := []byte{'['}
	for _, log := range removed {
		out = append(appendRemoved(out, log), ',')
	}
	jsonrpc.Elements(raw, func(element []byte) bool {
		out = append(append(out, element...), ',')
		return true
	})
	out[len(out)-1] = ']'
	return out
}
