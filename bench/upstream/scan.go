package main

import "bytes"

// request is what was read of a JSON-RPC request, as it was spelled.
type request struct {
	version, id, params []byte
	method              []byte // without quotes
}

// scanner takes requests out of a JSON text. It finds where values end and does
// not check their grammar: what gateways send is checked elsewhere.
type scanner struct {
	b  []byte
	at int
}

// batch reports whether the text is an array, and steps into it.
func (s *scanner) batch() bool { return s.take('[') }

// more reports whether another element follows, and steps to it.
func (s *scanner) more() bool { return s.take(',') }

// end reports whether nothing follows.
func (s *scanner) end() bool {
	s.space()
	return s.at == len(s.b)
}

// request reads an object.
func (s *scanner) request(r *request) bool {
	*r = request{}
	if !s.take('{') {
		return false
	}
	for {
		name := s.value()
		if !s.take(':') {
			return false
		}
		value := s.value()
		if len(value) == 0 {
			return false
		}
		switch string(name) {
		case `"jsonrpc"`:
			r.version = value
		case `"id"`:
			r.id = value
		case `"params"`:
			r.params = value
		case `"method"`:
			if len(value) < 2 || value[0] != '"' {
				return false
			}
			r.method = value[1 : len(value)-1]
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scanner) space() {
	for s.at < len(s.b) && s.b[s.at] <= ' ' {
		s.at++
	}
}

// take steps over c if it is next.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

// value steps over a value and returns it, empty when there is none.
func (s *scanner) value() []byte {
	s.space()
	from, depth := s.at, 0
	for s.at < len(s.b) {
		switch c := s.b[s.at]; c {
		case '"':
			s.text()
			if depth == 0 {
				return s.b[from:s.at]
			}
			continue
		case '[', '{':
			depth++
		case ']', '}':
			if depth == 0 {
				return s.b[from:s.at]
			}
			if depth--; depth == 0 {
				s.at++
				return s.b[from:s.at]
			}
		case ',', ':', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return s.b[from:s.at]
			}
		}
		s.at++
	}
	return s.b[from:s.at]
}

// text steps over a string.
func (s *scanner) text() {
	for s.at++; s.at < len(s.b); {
		end := bytes.IndexByte(s.b[s.at:], '"')
		if end < 0 {
			break
		}
		end += s.at
		slashes := 0
		for s.b[end-1-slashes] == '\\' {
			slashes++ // ends at the opening quote at the latest
		}
		s.at = end + 1
		if slashes%2 == 0 {
			return
		}
	}
	s.at = len(s.b)
}
