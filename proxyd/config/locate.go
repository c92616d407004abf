package config

import (
	"strconv"
	"strings"
)

// lines says on which line each key of a TOML text stands. BurntSushi/toml
// keeps positions to itself, so the text is walked once more here. The walk
// trusts that the text is valid TOML; on other text it finds less, and nothing
// worse.
type lines map[string]int

// of returns the line of a key, or of the nearest key around it.
func (l lines) of(p path) int {
	for n := len(p); n > 0; n-- {
		if line, ok := l[p[:n].String()]; ok {
			return line
		}
	}
	return 0
}

func locate(text string) lines {
	for _, mark := range []string{"\xef\xbb\xbf", "\xff\xfe", "\xfe\xff"} {
		text = strings.TrimPrefix(text, mark) // byte order marks, as the library
	}
	w := &walker{text: text, line: 1, found: lines{}, implicit: map[string]bool{}, tables: map[string]int{}}
	w.document()
	return w.found
}

type walker struct {
	text     string
	at       int
	line     int
	found    lines
	implicit map[string]bool // tables found only as a part of longer keys
	tables   map[string]int  // how many [[x]] there were
}

func (w *walker) peek() byte {
	if w.at < len(w.text) {
		return w.text[w.at]
	}
	return 0
}

// next consumes a byte and counts lines.
func (w *walker) next() {
	if w.at < len(w.text) {
		if w.text[w.at] == '\n' {
			w.line++
		}
		w.at++
	}
}

// skip consumes white space and comments, and line ends if wanted.
func (w *walker) skip(lineEnds bool) {
	for w.at < len(w.text) {
		switch c := w.peek(); {
		case c == ' ' || c == '\t' || c == '\r' || lineEnds && c == '\n':
			w.next()
		case c == '#':
			for w.at < len(w.text) && w.peek() != '\n' {
				w.next()
			}
		default:
			return
		}
	}
}

// mark notes the line of a key, and of the tables around it from the given
// depth on when nothing else tells theirs.
func (w *walker) mark(p path, from, line int) {
	for n := from + 1; n < min(len(p), maxWalk); n++ {
		key := p[:n].String()
		if _, ok := w.found[key]; !ok {
			w.found[key] = line
			w.implicit[key] = true
		}
	}
	key := p.String()
	if _, ok := w.found[key]; !ok || w.implicit[key] {
		w.found[key] = line
		delete(w.implicit, key)
	}
}

func (w *walker) document() {
	var table path
	for {
		w.skip(true)
		if w.at >= len(w.text) {
			return
		}
		before := w.at
		if w.peek() != '[' {
			w.pair(table)
		} else {
			table = w.header()
		}
		if w.at == before {
			w.next() // not TOML; go on
		}
	}
}

// header reads [a.b] or [[a.b]].
func (w *walker) header() path {
	line := w.line
	array := strings.HasPrefix(w.text[w.at:], "[[")
	w.next()
	if array {
		w.next()
	}
	table := w.resolve(w.key())
	if array {
		name := table.String()
		table = table.with("[" + strconv.Itoa(w.tables[name]) + "]")
		w.tables[name]++
	}
	w.mark(table, 0, line)
	for w.peek() == ']' {
		w.next()
	}
	return table
}

// resolve puts the index of the latest element behind each array of tables.
func (w *walker) resolve(key path) path {
	var p path
	for i, s := range key {
		p = p.with(s)
		if n := w.tables[p.String()]; n > 0 && i < len(key)-1 {
			p = p.with("[" + strconv.Itoa(n-1) + "]")
		}
	}
	return p
}

// pair reads key = value.
func (w *walker) pair(table path) {
	line := w.line
	key := table.with(w.key()...)
	w.mark(key, len(table), line)
	w.skip(false)
	if w.peek() == '=' {
		w.next()
		w.value(key, 0)
	}
}

// key reads a dotted key.
func (w *walker) key() path {
	var p path
	for {
		w.skip(false)
		switch c := w.peek(); {
		case c == '"' || c == '\'':
			p = p.with(w.quoted())
		default:
			from := w.at
			for w.at < len(w.text) && !strings.ContainsRune(" \t\r\n.=]#\"'", rune(w.peek())) {
				w.next()
			}
			p = p.with(w.text[from:w.at])
		}
		w.skip(false)
		if w.peek() != '.' {
			return p
		}
		w.next()
	}
}

// quoted reads a string of any of the four kinds and returns its text.
func (w *walker) quoted() string {
	quote := w.text[w.at : w.at+1]
	if strings.HasPrefix(w.text[w.at:], strings.Repeat(quote, 3)) {
		quote = strings.Repeat(quote, 3)
	}
	for range quote {
		w.next()
	}
	from := w.at
	for w.at < len(w.text) && !strings.HasPrefix(w.text[w.at:], quote) {
		if w.peek() == '\\' && quote[0] == '"' {
			w.next()
		}
		w.next()
	}
	text := w.text[from:w.at]
	for range quote {
		w.next()
	}
	for len(quote) == 3 && w.peek() == quote[0] { // """a"""" ends with a quote
		w.next()
	}
	if quote[0] == '"' && strings.Contains(text, `\`) {
		return unescape(text)
	}
	return text
}

// unescape resolves the escapes of a TOML basic string; one that TOML does not
// know stays as it is.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, `\`)
		b.WriteString(before)
		if !ok || after == "" {
			return b.String()
		}
		digits := 0
		switch c := after[0]; c {
		case 'b', 't', 'n', 'f', 'r', 'e', '"', '\\':
			b.WriteByte(map[byte]byte{'b': '\b', 't': '\t', 'n': '\n', 'f': '\f', 'r': '\r', 'e': 0x1b, '"': '"', '\\': '\\'}[c])
		case 'x':
			digits = 2
		case 'u':
			digits = 4
		case 'U':
			digits = 8
		default:
			b.WriteString(`\` + after[:1])
		}
		if len(after) > digits && digits > 0 {
			if r, err := strconv.ParseUint(after[1:1+digits], 16, 32); err == nil {
				b.WriteRune(rune(r))
			}
		}
		s = after[min(len(after), 1+digits):]
	}
}

// maxWalk bounds the depth to which nested values are looked into.
const maxWalk = 100

// skipNested passes an array or inline table without looking into it.
func (w *walker) skipNested() {
	for depth := 0; w.at < len(w.text); {
		switch w.peek() {
		case '"', '\'':
			w.quoted()
			continue
		case '#':
			w.skip(false)
			continue
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		w.next()
		if depth == 0 {
			return
		}
	}
}

// value reads a value and marks the keys and elements in it.
func (w *walker) value(p path, depth int) {
	w.skip(false)
	switch c := w.peek(); {
	case depth > maxWalk && (c == '[' || c == '{'):
		w.skipNested()
	case c == '"' || c == '\'':
		w.quoted()
	case c == '[':
		w.next()
		for i := 0; ; i++ {
			w.skip(true)
			if w.at >= len(w.text) || w.peek() == ']' {
				w.next()
				return
			}
			before := w.at
			element := p.with("[" + strconv.Itoa(i) + "]")
			w.mark(element, len(p), w.line)
			w.value(element, depth+1)
			w.skip(true)
			if w.peek() == ',' {
				w.next()
			}
			if w.at == before {
				return
			}
		}
	case c == '{':
		w.next()
		for {
			w.skip(true)
			if w.at >= len(w.text) || w.peek() == '}' {
				w.next()
				return
			}
			before := w.at
			key := p.with(w.key()...)
			w.mark(key, len(p), w.line)
			w.skip(false)
			if w.peek() == '=' {
				w.next()
				w.value(key, depth+1)
			}
			w.skip(true)
			if w.peek() == ',' {
				w.next()
			}
			if w.at == before {
				return
			}
		}
	default:
		for w.at < len(w.text) && !strings.ContainsRune(",]}\n#", rune(w.peek())) {
			w.next()
		}
	}
}
