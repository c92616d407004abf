package devchain

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// params are the positional parameters of one call. The first one that cannot be read is kept in fail and becomes the call's answer; what a
// method works out after that is thrown away, so that only a method with an effect has to look at fail itself.
type params struct {
	list []json.RawMessage
	fail *rpcError
	turn *turn // the message of a WebSocket in which the call came; nil when it came by POST
}

func invalidParams(format string, a ...any) *rpcError {
	return &rpcError{Code: codeInvalidParams, Message: fmt.Sprintf(format, a...)}
}

func parseParams(raw json.RawMessage, least, most int) (*params, *rpcError) {
	p := &params{}
	if len(raw) > 0 && raw[0] != '[' && string(raw) != "null" {
		return nil, invalidParams("non-array args")
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &p.list); err != nil {
			return nil, invalidParams("non-array args")
		}
	}
	if len(p.list) > most {
		return nil, invalidParams("too many arguments, want at most %d", most)
	}
	for i := range least {
		if !p.has(i) {
			return nil, invalidParams("missing value for required argument %d", i)
		}
	}
	return p, nil
}

// has reports whether parameter i is there and not null.
func (p *params) has(i int) bool {
	return i < len(p.list) && string(p.list[i]) != "null"
}

// reject keeps err, if any, as the fault of parameter i.
func (p *params) reject(i int, err error) {
	if err != nil && p.fail == nil {
		p.fail = invalidParams("invalid argument %d: %v", i, err)
	}
}

func (p *params) bool(i int) (v bool) {
	if err := json.Unmarshal(p.list[i], &v); err != nil {
		p.reject(i, errors.New("want true or false"))
	}
	return v
}

func (p *params) string(i int) (v string) {
	if err := json.Unmarshal(p.list[i], &v); err != nil {
		p.reject(i, errors.New("want a string"))
	}
	return v
}

func (p *params) hash(i int) (h hash) {
	p.reject(i, decodeFixed(p.list[i], h[:]))
	return h
}

func (p *params) address(i int) (a address) {
	p.reject(i, decodeFixed(p.list[i], a[:]))
	return a
}

func (p *params) bytes(i int) []byte {
	b, err := decodeBytes(p.list[i])
	p.reject(i, err)
	return b
}

func (p *params) quantity(i int) uint64 {
	n, err := decodeQuantity(p.list[i])
	p.reject(i, err)
	return n
}

// number reads a JSON number or a hexadecimal quantity.
func (p *params) number(i int) uint64 {
	if p.list[i][0] == '"' {
		return p.quantity(i)
	}
	n, err := strconv.ParseUint(string(p.list[i]), 10, 64)
	if err != nil {
		p.reject(i, errors.New("want a whole number that is not negative"))
	}
	return n
}

// block reads a tag or a number; left out, it is latest.
func (p *params) block(i int) blockRef {
	if !p.has(i) {
		return blockRef{tag: "latest"}
	}
	ref, err := decodeBlockNumber(p.list[i])
	p.reject(i, err)
	return ref
}

// blockOrHash reads a tag, a number, a hash or an object of EIP-1898; left out, it is latest.
func (p *params) blockOrHash(i int) blockRef {
	if !p.has(i) {
		return blockRef{tag: "latest"}
	}
	ref, err := decodeBlockOrHash(p.list[i])
	p.reject(i, err)
	return ref
}

func decodeBlockOrHash(raw json.RawMessage) (blockRef, error) {
	if raw[0] == '"' {
		if len(raw) == len(`"0x"`)+2*len(hash{}) {
			return decodeBlockHash(raw)
		}
		return decodeBlockNumber(raw)
	}
	var in struct {
		Number    json.RawMessage `json:"blockNumber"`
		Hash      json.RawMessage `json:"blockHash"`
		Canonical bool            `json:"requireCanonical"` // every known block is canonical: those that a reorg replaced are forgotten
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return blockRef{}, errors.New("want a block number, a tag, a hash or an object with one of blockNumber and blockHash")
	}
	switch {
	case in.Number != nil && in.Hash != nil:
		return blockRef{}, errors.New("cannot specify both BlockHash and BlockNumber, choose one or the other")
	case in.Hash != nil:
		return decodeBlockHash(in.Hash)
	case in.Number != nil:
		return decodeBlockNumber(in.Number)
	}
	return blockRef{}, errors.New("want blockNumber or blockHash")
}

func decodeBlockHash(raw json.RawMessage) (blockRef, error) {
	var h hash
	err := decodeFixed(raw, h[:])
	return blockRef{hash: &h}, err
}

func decodeBlockNumber(raw json.RawMessage) (blockRef, error) {
	switch string(raw) {
	case `"latest"`, `"pending"`, `"safe"`, `"finalized"`, `"earliest"`:
		return blockRef{tag: string(bytes.Trim(raw, `"`))}, nil
	}
	n, err := decodeQuantity(raw)
	if err == nil && n > 1<<63-1 {
		err = errors.New("block number larger than int64")
	}
	return blockRef{number: n}, err
}

// decodeQuantity reads a number in the form that the Ethereum JSON-RPC specification demands.
func decodeQuantity(raw json.RawMessage) (uint64, error) {
	digits, err := decodePrefix(raw)
	switch {
	case err != nil:
		return 0, err
	case digits == "":
		return 0, errors.New(`hex string "0x"`)
	case digits[0] == '0' && digits != "0":
		return 0, errors.New("hex number with leading zero digits")
	case len(digits) > 16:
		return 0, errors.New("hex number > 64 bits")
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	if err != nil {
		return 0, errors.New("invalid hex string")
	}
	return n, nil
}

func decodeBytes(raw json.RawMessage) ([]byte, error) {
	digits, err := decodePrefix(raw)
	if err != nil {
		return nil, err
	}
	if len(digits)%2 != 0 {
		return nil, errors.New("hex string of odd length")
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		return nil, errors.New("invalid hex string")
	}
	return b, nil
}

func decodeFixed(raw json.RawMessage, dst []byte) error {
	b, err := decodeBytes(raw)
	if err != nil {
		return err
	}
	if len(b) != len(dst) {
		return fmt.Errorf("hex string has length %d, want %d", 2*len(b), 2*len(dst))
	}
	copy(dst, b)
	return nil
}

// decodePrefix returns the digits of a JSON string that starts with 0x.
func decodePrefix(raw json.RawMessage) (string, error) {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil || string(raw) == "null" {
		return "", errors.New("want a hex string")
	}
	if len(s) < 2 || s[0] != '0' || (s[1] != 'x' && s[1] != 'X') {
		return "", errors.New("hex string without 0x prefix")
	}
	return s[2:], nil
}
