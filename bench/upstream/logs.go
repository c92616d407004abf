package main

import (
	"encoding/json"
	"slices"
	"strings"

	"gateway.internal/bench/internal/content"
)

// filter says which logs are wanted, as far as the upstream of the benchmark looks.
type filter struct {
	FromBlock, ToBlock, BlockHash string
	Address                       addresses
}

// addresses is one or a list; none are all.
type addresses []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *addresses) UnmarshalJSON(text []byte) error {
	if text[0] == '[' {
		return json.Unmarshal(text, (*[]string)(a))
	}
	var one *string
	err := json.Unmarshal(text, &one)
	if one != nil {
		*a = addresses{*one}
	}
	return err
}

// filterOf reads a filter.
func filterOf(text string) (f filter, ok bool) {
	return f, json.Unmarshal([]byte(text), &f) == nil
}

// wants reports whether the logs of the one contract are wanted.
func (f *filter) wants() bool {
	return len(f.Address) == 0 || slices.ContainsFunc(f.Address, func(a string) bool { return strings.EqualFold(a, content.LogAddress) })
}

// blocks are the first and the last block of a filter, as far as the chain has
// them.
func (c *chain) blocks(f *filter) (from, to uint64, ok bool) {
	if f.BlockHash != "" {
		from, ok = c.named(f.BlockHash)
		return from, from, ok && from != 0
	}
	bound := func(name string) (number uint64) {
		if name == "" {
			return c.latest()
		}
		if ok {
			number, ok = c.named(name)
		}
		return number
	}
	ok = true
	from, to = bound(f.FromBlock), bound(f.ToBlock)
	return max(from, content.FirstHead), min(to, c.latest()), ok
}

// appendLogs appends the logs that a filter selects.
func (c *chain) appendLogs(dst []byte, f *filter, from, to uint64) []byte {
	dst = append(dst, '[')
	for number := from; number <= to && f.wants(); number++ {
		if number > from {
			dst = append(dst, ',')
		}
		dst = content.AppendLog(dst, number)
	}
	return append(dst, ']')
}
