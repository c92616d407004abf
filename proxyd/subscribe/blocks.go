package subscribe

import (
	"bytes"
	"slices"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// block is what is remembered of a head that clients were told.
type block struct {
	number       uint64
	hash, parent string // JSON strings, as the backend spelled them in lower case
}

// head is a block header as a backend sent it.
type head struct {
	block
	raw   []byte
	whole bool // a whole block, and not a live head
}

// parseHead reads a header, or a whole block.
func parseHead(raw []byte) (h head, ok bool) {
	h.raw = raw
	number := false
	isObject := jsonrpc.Members(raw, func(name, value []byte) {
		switch string(name) {
		case "number":
			h.number, number = backend.Quantity(value)
		case "hash":
			h.hash = string(bytes.ToLower(value))
		case "parentHash":
			h.parent = string(bytes.ToLower(value))
		}
	})
	return h, isObject && number && len(h.hash) == 68 && len(h.parent) == 68 && h.number < mostNumber
}

// mostNumber is above the number of every block that there will be.
const mostNumber = 1 << 62

// blocks are the last blocks that clients were told, in order and each the parent
// of the next: the chain as they know it. Its bound is how deep a reorganisation, or
// how wide a gap, can be followed.
type blocks struct {
	most int
	list []block
	// cut is true when older ones were forgotten. Otherwise the first one is where
	// clients began: what was before nobody told them.
	cut bool
}

// tip is the last block; ok is false when there is none.
func (b *blocks) tip() (last block, ok bool) {
	if len(b.list) == 0 {
		return block{}, false
	}
	return b.list[len(b.list)-1], true
}

// at returns the block with the number.
func (b *blocks) at(number uint64) (found block, ok bool) {
	if len(b.list) == 0 || number < b.list[0].number || number > b.list[len(b.list)-1].number {
		return block{}, false
	}
	return b.list[number-b.list[0].number], true
}

// has reports whether clients know the block as part of the chain.
func (b *blocks) has(one block) bool {
	known, ok := b.at(one.number)
	return ok && known.hash == one.hash
}

// follows reports whether clients know the block's parent.
func (b *blocks) follows(one block) bool {
	if one.number == 0 {
		return false
	}
	parent, ok := b.at(one.number - 1)
	return ok && parent.hash == one.parent
}

// push puts a block that follows in its place; what stood there and behind is gone.
func (b *blocks) push(one block) {
	if len(b.list) > 0 {
		b.list = b.list[:max(one.number, b.list[0].number)-b.list[0].number]
	}
	if b.list = append(b.list, one); len(b.list) > b.most {
		b.list, b.cut = slices.Delete(b.list, 0, len(b.list)-b.most), true
	}
}

// restart forgets all and begins with a block.
func (b *blocks) restart(one block) { b.list, b.cut = append(b.list[:0], one), false }

// begins reports whether a block stands where clients began, so that it need not follow
// one that they know.
func (b *blocks) begins(one block) bool {
	return !b.cut && len(b.list) > 0 && one.number == b.list[0].number
}

// precedes reports whether a block is from before clients began: whatever branch it is
// on, nobody was promised it.
func (b *blocks) precedes(one block) bool {
	return !b.cut && len(b.list) > 0 && one.number < b.list[0].number
}

// shape knows which members live heads have, so that replayed ones are alike.
type shape struct {
	names []string
	null  map[string]bool // what live heads have as null, and blocks may not have at all
}

// headerMembers are those of geth's live heads.
var headerMembers = []string{
	"parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty", "number", "gasLimit", "gasUsed",
	"timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas", "withdrawalsRoot", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot",
	"requestsHash", "hash",
}

// maxMembers bounds the members of a head that are looked at.
const maxMembers = 128

// learn takes the members of a live head.
func (s *shape) learn(raw []byte) {
	s.names, s.null = nil, make(map[string]bool)
	jsonrpc.Members(raw, func(name, value []byte) {
		if len(s.names) < maxMembers {
			s.names = append(s.names, string(name))
			s.null[string(name)] = string(value) == "null"
		}
	})
}

// cut makes a live head's likeness of a block.
func (s *shape) cut(block []byte) []byte {
	names := s.names
	if len(names) == 0 {
		names = headerMembers
	}
	values := make(map[string][]byte)
	jsonrpc.Members(block, func(name, value []byte) { values[string(name)] = value })
	out := []byte{'{'}
	for _, name := range names {
		value, ok := values[name]
		if !ok && !s.null[name] {
			continue
		}
		if !ok {
			value = []byte("null")
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(append(out, '"'), name...), `":`...), value...)
	}
	return append(out, '}')
}
