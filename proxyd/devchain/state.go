package devchain

import (
	"encoding/json"
	"errors"
	"fmt"
)

// state returns the block whose state ref asks for. Unlike the block methods, these answer an error when it is unknown.
func (b *Backend) state(ref blockRef) (*block, *rpcError) {
	if one := b.horizon().at(ref); one != nil {
		return one, nil
	}
	if ref.hash != nil {
		return nil, &rpcError{Code: codeServer, Message: "header for hash not found"}
	}
	return nil, &rpcError{Code: codeServer, Message: "header not found"}
}

func getBalance(b *Backend, p *params) (any, *rpcError) {
	a := p.address(0)
	one, fail := b.state(p.blockOrHash(1))
	if fail != nil {
		return nil, fail
	}
	return wei{balance(a, one)}, nil
}

func getTransactionCount(b *Backend, p *params) (any, *rpcError) {
	a, ref := p.address(0), p.blockOrHash(1)
	one, fail := b.state(ref)
	if fail != nil {
		return nil, fail
	}
	if a != sender {
		return quantity(0), nil
	}
	return quantity(b.horizon().nonce(one, ref.tag == "pending")), nil
}

func getCode(b *Backend, p *params) (any, *rpcError) {
	a := p.address(0)
	if _, fail := b.state(p.blockOrHash(1)); fail != nil {
		return nil, fail
	}
	return code(a), nil
}

func getStorageAt(b *Backend, p *params) (any, *rpcError) {
	a := p.address(0)
	slot, err := decodeSlot(p.list[1])
	p.reject(1, err)
	one, fail := b.state(p.blockOrHash(2))
	if fail != nil {
		return nil, fail
	}
	if a == token && slot == (hash{}) {
		return padded(one.number), nil
	}
	return hash{}, nil
}

// decodeSlot reads a storage slot, which clients write as a quantity or as a padded word.
func decodeSlot(raw json.RawMessage) (h hash, err error) {
	digits, err := decodePrefix(raw)
	if err != nil {
		return h, err
	}
	if len(digits) > 2*len(h) {
		return h, errors.New("storage key too long, want at most 32 bytes")
	}
	return h, decodeFixed(fmt.Appendf(nil, `"0x%064s"`, digits), h[:])
}

// message is what eth_call and eth_estimateGas look at in their transaction.
type message struct {
	to   address
	data []byte
}

func decodeMessage(raw json.RawMessage) (m message, err error) {
	var in struct {
		To    json.RawMessage `json:"to"`
		Data  json.RawMessage `json:"data"`
		Input json.RawMessage `json:"input"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return m, errors.New("want a transaction object")
	}
	if given(in.To) {
		if err := decodeFixed(in.To, m.to[:]); err != nil {
			return m, fmt.Errorf("to: %w", err)
		}
	}
	if !given(in.Input) {
		in.Input = in.Data
	}
	if given(in.Input) {
		if m.data, err = decodeBytes(in.Input); err != nil {
			return m, fmt.Errorf("input: %w", err)
		}
	}
	return m, nil
}

// execute reads the transaction and refuses what the chain would revert.
func execute(b *Backend, p *params) (message, *rpcError) {
	m, err := decodeMessage(p.list[0])
	p.reject(0, err)
	if _, fail := b.state(p.blockOrHash(1)); fail != nil {
		return m, fail
	}
	if m.to == reverter {
		return m, &rpcError{Code: codeReverted, Message: "execution reverted", Data: RevertData}
	}
	return m, nil
}

func ethCall(b *Backend, p *params) (any, *rpcError) {
	m, fail := execute(b, p)
	if fail != nil {
		return nil, fail
	}
	if m.to == echo {
		return hexBytes(m.data), nil
	}
	return hexBytes{}, nil
}

// estimateGas is the intrinsic gas of the transaction (Yellow Paper, section 6.2): 4 for a zero byte of input, 16 for any other.
func estimateGas(b *Backend, p *params) (any, *rpcError) {
	m, fail := execute(b, p)
	if fail != nil {
		return nil, fail
	}
	gas := quantity(21_000)
	for _, c := range m.data {
		if c == 0 {
			gas += 4
		} else {
			gas += 16
		}
	}
	return gas, nil
}
