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
	w := &walker{text: text, line: 1, found: lines{}, tables: map[string]int{}}
	w.document()
	return w.found
}

type walker struct {
	text   string
	at     int
	line   int
	found  lines
	tables map[string]int // how many [[x]] there were
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

func (w *walker) mark(p path) {
	key := p.String()
	if _, ok := w.found[key]; !ok {
		w.found[key] = w.line
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
	if _, ok := w.found[table.String()]; !ok {
		w.found[table.String()] = line
	}
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
	for n := len(table) + 1; n <= len(key); n++ {
		if _, ok := w.found[key[:n].String()]; !ok {
			w.found[key[:n].String()] = line
		}
	}
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
		if plain, err := strconv.Unquote(`"` + text + `"`); err == nil {
			return plain
		}
	}
	return text
}

// maxWalk bounds the depth of nested values.
const maxWalk = 100

// value reads a value and marks the keys and elements in it.
func (w *walker) value(p path, depth int) {
	w.skip(false)
	switch c := w.peek(); {
	case depth > maxWalk:
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
			w.mark(element)
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
			w.mark(key)
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
