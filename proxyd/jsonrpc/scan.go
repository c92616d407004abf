package jsonrpc

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/bits"
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
// does not recurse, so that depth costs no stack. around is how many arrays and
// objects the value stands in.
func scanValue(b []byte, i, around int) (start, end int, err error) {
	start = skipSpace(b, i)
	if start < len(b) && b[start] != '{' && b[start] != '[' {
		end, err = scanScalar(b, start)
		return start, end, err
	}
	return scanNested(b, start, around)
}

// scanScalar checks the string, number or literal that begins at b[i].
func scanScalar(b []byte, i int) (end int, err error) {
	switch c := b[i]; {
	case c == '"':
		return scanString(b, i)
	case c == '-' || c >= '0' && c <= '9':
		return scanNumber(b, i)
	case c == 't':
		return scanLiteral(b, i, "true")
	case c == 'f':
		return scanLiteral(b, i, "false")
	case c == 'n':
		return scanLiteral(b, i, "null")
	}
	return 0, errSyntax
}

// scanNested is scanValue for an array or object at b[i].
func scanNested(b []byte, i, around int) (start, end int, err error) {
	start = i
	nest := nesting{most: MaxDepth - around}
	for {
		if i >= len(b) {
			return 0, 0, errSyntax
		}
		opened := false
		switch c := b[i]; c {
		case '{', '[':
			if err = nest.push(c == '{'); err != nil {
				break
			}
			i = skipSpace(b, i+1)
			if i < len(b) && b[i] == c+2 { // '{'+2 is '}', '['+2 is ']'
				i++
				nest.depth--
				break
			}
			if c == '{' {
				i, err = scanName(b, i)
			}
			opened = true
		default:
			i, err = scanScalar(b, i)
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
	first [4]uint64 // what most values need, without allocation
	more  []uint64
	depth int
	most  int
}

func (n *nesting) push(object bool) error {
	if n.depth >= n.most {
		return errors.New("nested too deeply")
	}
	if n.depth == 64*(len(n.first)+len(n.more)) {
		n.more = append(n.more, 0)
	}
	word, bit := n.at(n.depth)
	if object {
		*word |= bit
	} else {
		*word &^= bit
	}
	n.depth++
	return nil
}

func (n *nesting) at(level int) (word *uint64, bit uint64) {
	bit = 1 << (level % 64)
	if i := level / 64; i < len(n.first) {
		return &n.first[i], bit
	}
	return &n.more[level/64-len(n.first)], bit
}

func (n *nesting) object() bool {
	word, bit := n.at(n.depth - 1)
	return *word&bit != 0
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
	for i++; ; i++ {
		if i = skipPlain(b, i); i >= len(b) {
			return 0, errSyntax
		}
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
}

// skipPlain returns the index of the first byte at or after i that may not stand
// in a string as it is: a quote, a backslash or a control character. It looks at
// eight bytes at a time, which is most of the cost of a large answer.
func skipPlain(b []byte, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, escape := w^ones*'"', w^ones*'\\'
		// The lowest marked byte is right; higher ones may be marked by a borrow.
		found := (w - ones*' ') & ^w
		found |= (quote - ones) & ^quote
		found |= (escape - ones) & ^escape
		if found &= highs; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(b) && b[i] != '"' && b[i] != '\\' && b[i] >= ' ' {
		i++
	}
	return i
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
// after the whole object was checked, so that a syntax error comes first; end is
// right with it. around is how many arrays the object stands in.
func scanMembers(b []byte, i, around int, member func(name, value []byte) error) (end int, err error) {
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
		start, end, err := scanValue(b, i+1, around+1)
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
	if bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
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
	_, end, err := scanValue(b, 0, 0)
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
