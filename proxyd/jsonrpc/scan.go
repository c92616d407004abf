package jsonrpc

import (
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// MaxDepth is how deeply arrays and objects may nest, as in encoding/json.
const MaxDepth = 10000

var errSyntax = errors.New("not valid JSON")

// skipSpace returns the index of the first byte at or after i that is not
// JSON white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// scanValue checks the grammar of the value that begins at b[i], which may be
// white space, and returns where the value begins and the index behind it. It
// does not recurse, so that depth costs no stack.
func scanValue(b []byte, i int) (start, end int, err error) {
	i = skipSpace(b, i)
	start = i
	var room [4]uint64
	nest := nesting{words: room[:0]}
	for {
		if i >= len(b) {
			return 0, 0, errSyntax
		}
		opened := false
		switch c := b[i]; {
		case c == '"':
			i, err = scanString(b, i)
		case c == '{' || c == '[':
			i = skipSpace(b, i+1)
			if i < len(b) && b[i] == c+2 { // '{'+2 is '}', '['+2 is ']'
				i++
				break
			}
			if err = nest.push(c == '{'); err != nil {
				break
			}
			if c == '{' {
				i, err = scanName(b, i)
			}
			opened = true
		case c == '-' || c >= '0' && c <= '9':
			i, err = scanNumber(b, i)
		case c == 't':
			i, err = scanLiteral(b, i, "true")
		case c == 'f':
			i, err = scanLiteral(b, i, "false")
		case c == 'n':
			i, err = scanLiteral(b, i, "null")
		default:
			err = errSyntax
		}
		if err != nil {
			return 0, 0, err
		}
		for !opened {
			if nest.depth == 0 {
				return start, i, nil
			}
			i = skipSpace(b, i)
			if i >= len(b) {
				return 0, 0, errSyntax
			}
			object := nest.object()
			switch {
			case b[i] == ',':
				i = skipSpace(b, i+1)
				if object {
					if i, err = scanName(b, i); err != nil {
						return 0, 0, err
					}
				}
				opened = true
			case object && b[i] == '}', !object && b[i] == ']':
				i++
				nest.depth--
			default:
				return 0, 0, errSyntax
			}
		}
		i = skipSpace(b, i)
	}
}

// nesting is a stack of bits: one for each open object, zero for each array.
type nesting struct {
	words []uint64
	depth int
}

func (n *nesting) push(object bool) error {
	if n.depth >= MaxDepth {
		return errors.New("nested too deeply")
	}
	word, bit := n.depth/64, uint64(1)<<(n.depth%64)
	if word == len(n.words) {
		n.words = append(n.words, 0)
	}
	if object {
		n.words[word] |= bit
	} else {
		n.words[word] &^= bit
	}
	n.depth++
	return nil
}

func (n *nesting) object() bool {
	top := n.depth - 1
	return n.words[top/64]&(1<<(top%64)) != 0
}

// scanName checks a member name and its colon, and returns the index where the
// value, or white space before it, begins.
func scanName(b []byte, i int) (int, error) {
	if i >= len(b) || b[i] != '"' {
		return 0, errSyntax
	}
	i, err := scanString(b, i)
	if err != nil {
		return 0, err
	}
	i = skipSpace(b, i)
	if i >= len(b) || b[i] != ':' {
		return 0, errSyntax
	}
	return skipSpace(b, i+1), nil
}

// scanString checks the string whose opening quote is b[i].
func scanString(b []byte, i int) (int, error) {
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, nil
		case c < ' ':
			return 0, errSyntax
		case c == '\\':
			i++
			if i >= len(b) {
				return 0, errSyntax
			}
			switch b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if i+4 >= len(b) {
					return 0, errSyntax
				}
				for _, h := range b[i+1 : i+5] {
					if !isHex(h) {
						return 0, errSyntax
					}
				}
				i += 4
			default:
				return 0, errSyntax
			}
		}
	}
	return 0, errSyntax
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// scanNumber checks the number that begins at b[i].
func scanNumber(b []byte, i int) (int, error) {
	digits := func() bool {
		from := i
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		return i > from
	}
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return 0, errSyntax
	}
	if i < len(b) && b[i] == '.' {
		i++
		if !digits() {
			return 0, errSyntax
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return 0, errSyntax
		}
	}
	return i, nil
}

func scanLiteral(b []byte, i int, word string) (int, error) {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return 0, errSyntax
	}
	return i + len(word), nil
}

// scanMembers calls member for each member of the object whose brace is b[i],
// with the name between its quotes as spelled and the bytes of the value, and
// returns the index behind the object. An error of member ends the scan only
// after the whole object was checked, so that a syntax error comes first.
func scanMembers(b []byte, i int, member func(name, value []byte) error) (end int, err error) {
	var refused error
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1, nil
	}
	for {
		nameAt := i
		if i >= len(b) || b[i] != '"' {
			return 0, errSyntax
		}
		nameEnd, err := scanString(b, i)
		if err != nil {
			return 0, err
		}
		i = skipSpace(b, nameEnd)
		if i >= len(b) || b[i] != ':' {
			return 0, errSyntax
		}
		start, end, err := scanValue(b, i+1)
		if err != nil {
			return 0, err
		}
		if refused == nil {
			refused = member(b[nameAt+1:nameEnd-1], b[start:end])
		}
		i = skipSpace(b, end)
		if i >= len(b) {
			return 0, errSyntax
		}
		switch b[i] {
		case ',':
			i = skipSpace(b, i+1)
		case '}':
			return i + 1, refused
		default:
			return 0, errSyntax
		}
	}
}

// unquote returns the text of a string that stands between quotes as spelled.
// Only text with escapes or broken UTF-8 is copied.
func unquote(inner []byte) []byte {
	plain := true
	for _, c := range inner {
		if c == '\\' || c >= utf8.RuneSelf {
			plain = false
			break
		}
	}
	if plain {
		return inner
	}
	quoted := make([]byte, 0, len(inner)+2)
	quoted = append(append(append(quoted, '"'), inner...), '"')
	var s string
	if json.Unmarshal(quoted, &s) != nil {
		return inner // the scanner has accepted it, so this cannot happen
	}
	return []byte(s)
}

// Valid reports whether b is exactly one JSON value within MaxDepth.
func Valid(b []byte) bool {
	_, end, err := scanValue(b, 0)
	return err == nil && skipSpace(b, end) == len(b)
}

// Strings calls found with the text of each string in the JSON value v, member
// names included, until found returns false. It ends quietly at a syntax error.
func Strings(v []byte, found func(text []byte) bool) {
	for i := 0; i < len(v); {
		if v[i] != '"' {
			i++
			continue
		}
		end, err := scanString(v, i)
		if err != nil || !found(unquote(v[i+1:end-1])) {
			return
		}
		i = end
	}
}
