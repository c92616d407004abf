package devchain

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

const (
	maxTopics    = 4
	maxAddresses = 1000 // in one filter, and of alternatives for one topic
)

// filter selects logs. No addresses: any; a position without topics: any topic, even none.
type filter struct {
	from, to  blockRef
	addresses []address
	topics    [][]hash
}

func decodeFilter(raw json.RawMessage) (filter, error) {
	f := filter{from: blockRef{tag: "latest"}, to: blockRef{tag: "latest"}}
	var in struct {
		FromBlock json.RawMessage   `json:"fromBlock"`
		ToBlock   json.RawMessage   `json:"toBlock"`
		BlockHash json.RawMessage   `json:"blockHash"`
		Address   json.RawMessage   `json:"address"`
		Topics    []json.RawMessage `json:"topics"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return f, errors.New("want a filter object")
	}
	var err error
	if given(in.BlockHash) {
		if given(in.FromBlock) || given(in.ToBlock) {
			return f, errors.New("cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other")
		}
		if f.from, err = decodeBlockHash(in.BlockHash); err != nil {
			return f, fmt.Errorf("blockHash: %w", err)
		}
	}
	if given(in.FromBlock) {
		if f.from, err = decodeBlockNumber(in.FromBlock); err != nil {
			return f, fmt.Errorf("fromBlock: %w", err)
		}
	}
	if given(in.ToBlock) {
		if f.to, err = decodeBlockNumber(in.ToBlock); err != nil {
			return f, fmt.Errorf("toBlock: %w", err)
		}
	}
	addresses, err := alternatives(in.Address)
	if err != nil {
		return f, fmt.Errorf("address: %w", err)
	}
	for _, one := range addresses {
		var a address
		if err := decodeFixed(one, a[:]); err != nil {
			return f, fmt.Errorf("address: %w", err)
		}
		f.addresses = append(f.addresses, a)
	}
	if len(in.Topics) > maxTopics {
		return f, errors.New("exceed max topics")
	}
	for i, position := range in.Topics {
		list, err := decodeTopics(position)
		if err != nil {
			return f, fmt.Errorf("topics[%d]: %w", i, err)
		}
		f.topics = append(f.topics, list)
	}
	return f, nil
}

// decodeTopics reads one position of the topics. A null among alternatives makes the position match any topic, as it does in geth.
func decodeTopics(raw json.RawMessage) ([]hash, error) {
	list, err := alternatives(raw)
	if err != nil {
		return nil, err
	}
	var topics []hash
	for _, one := range list {
		if !given(one) {
			return nil, nil
		}
		var h hash
		if err := decodeFixed(one, h[:]); err != nil {
			return nil, err
		}
		topics = append(topics, h)
	}
	return topics, nil
}

func given(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// alternatives reads null, one value, or a list of values.
func alternatives(raw json.RawMessage) ([]json.RawMessage, error) {
	if !given(raw) {
		return nil, nil
	}
	if raw[0] != '[' {
		return []json.RawMessage{raw}, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	if len(list) > maxAddresses {
		return nil, fmt.Errorf("more than %d values", maxAddresses)
	}
	return list, nil
}

func (f filter) matches(e *event) bool {
	if len(f.addresses) > 0 && !slices.Contains(f.addresses, e.address) {
		return false
	}
	if len(f.topics) > len(e.topics) {
		return false
	}
	for i, wanted := range f.topics {
		if len(wanted) > 0 && !slices.Contains(wanted, e.topics[i]) {
			return false
		}
	}
	return true
}

// follows reports whether a subscriber to the filter's logs is told of this one, now that its block comes or goes. As in geth a range counts
// as far as it is given in numbers, and a block hash does not.
func (f filter) follows(e *event) bool {
	number := e.tx.block.number
	before := f.from.tag == "" && f.from.hash == nil && number < f.from.number
	after := f.to.tag == "" && number > f.to.number
	return !before && !after && f.matches(e)
}

func getLogs(b *Backend, p *params) (any, *rpcError) {
	f, err := decodeFilter(p.list[0])
	if err != nil {
		return nil, invalidParams("invalid argument 0: %v", err)
	}
	return b.logs(f)
}

// logs are those of the blocks that the filter names.
func (b *Backend) logs(f filter) (any, *rpcError) {
	var blocks []*block
	if f.from.hash != nil {
		one := b.horizon().at(f.from)
		if one == nil {
			return nil, &rpcError{Code: codeServer, Message: "unknown block"}
		}
		blocks = []*block{one}
	} else {
		ordered := false
		if blocks, ordered = b.horizon().between(f.from, f.to); !ordered {
			return nil, invalidParams("invalid block range params")
		}
	}
	list := []logView{}
	for _, one := range blocks {
		for _, e := range one.events() {
			if f.matches(e) {
				list = append(list, viewLog(e, false))
			}
		}
	}
	return list, nil
}
