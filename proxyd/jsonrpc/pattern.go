package jsonrpc

import (
	"fmt"
	"slices"
	"strings"
)

// Patterns maps method names to values by exact names and by patterns that end
// in a star: "eth_*", "debug_trace*", "*". An exact name beats every pattern, a
// longer pattern a shorter one. The zero value is empty; Lookup may be called by
// many goroutines once the last Set is done.
type Patterns[T any] struct {
	exact    map[string]T
	prefixes []prefix[T] // longest first
}

type prefix[T any] struct {
	text    string
	pattern string // text with its star
	value   T
}

// CheckPattern says what is wrong with a name or pattern, or nil.
func CheckPattern(pattern string) error {
	name, star := strings.CutSuffix(pattern, "*")
	if name == "" && star {
		return nil
	}
	if !ValidMethod(name) {
		return fmt.Errorf("%q is neither a method name (letters, digits and _, at most %d) nor such a name with one * at its end", pattern, MaxMethodLen)
	}
	return nil
}

// Set gives pattern a value, in place of an earlier one.
func (p *Patterns[T]) Set(pattern string, value T) {
	text, star := strings.CutSuffix(pattern, "*")
	if !star {
		if p.exact == nil {
			p.exact = make(map[string]T)
		}
		p.exact[pattern] = value
		return
	}
	for i := range p.prefixes {
		if p.prefixes[i].text == text {
			p.prefixes[i].value = value
			return
		}
	}
	p.prefixes = append(p.prefixes, prefix[T]{text, pattern, value})
	slices.SortStableFunc(p.prefixes, func(a, b prefix[T]) int { return len(b.text) - len(a.text) })
}

// Lookup returns the value for a method and the name or pattern it came from.
func (p *Patterns[T]) Lookup(method string) (value T, pattern string, ok bool) {
	if v, ok := p.exact[method]; ok {
		return v, method, true
	}
	for i := range p.prefixes {
		if strings.HasPrefix(method, p.prefixes[i].text) {
			return p.prefixes[i].value, p.prefixes[i].pattern, true
		}
	}
	return value, "", false
}

// Len is the number of names and patterns.
func (p *Patterns[T]) Len() int { return len(p.exact) + len(p.prefixes) }
