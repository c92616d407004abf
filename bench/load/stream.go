package main

import (
	"bytes"
	"fmt"
)

// stream compares a large answer with what is expected while it comes.
type stream struct {
	x        *exchange
	begun    []byte // until it is known which spelling it is
	expected [3][]byte
	part, at int // where the comparison stands
	known    bool
	total    int
}

// maxOpening is how many bytes tell the spelling for sure.
const maxOpening = 128

// feed takes the next bytes. It returns an error once they differ; what comes
// after that is of no interest. An answer that does not begin as expected is
// kept, up to 1 MiB, to say what it is.
func (s *stream) feed(chunk []byte) error {
	s.total += len(chunk)
	if !s.known {
		s.begun = append(s.begun, chunk...)
		if len(s.begun) < maxOpening {
			return nil
		}
		if !s.spelling() {
			if len(s.begun) > 1<<20 {
				return wrong("large answer that begins otherwise than expected")
			}
			return nil
		}
		s.known = true
		chunk = s.begun
	}
	for len(chunk) > 0 && s.part < len(s.expected) {
		want := s.expected[s.part][s.at:]
		n := min(len(want), len(chunk))
		if !bytes.Equal(chunk[:n], want[:n]) {
			return wrong(fmt.Sprintf("large answer with other bytes than expected within the 64 KiB after byte %d", (s.total-len(chunk))&^0xffff))
		}
		chunk = chunk[n:]
		if s.at += n; n == len(want) {
			s.part, s.at = s.part+1, 0
		}
	}
	if len(bytes.TrimSpace(chunk)) > 0 {
		return wrong("large answer with bytes after its end")
	}
	return nil
}

// spelling finds out how the answer is spelled.
func (s *stream) spelling() bool {
	id := s.x.calls[0].id
	result := s.x.large.Bytes()
	before := append(append([]byte(`{"jsonrpc":"2.0","id":`), id...), `,"result":[`...)
	if bytes.HasPrefix(s.begun, before) {
		s.expected = [3][]byte{before[:len(before)-1], result, []byte("}")}
		return true
	}
	before = []byte(`{"jsonrpc":"2.0","result":[`)
	if bytes.HasPrefix(s.begun, before) {
		after := append(append([]byte(`,"id":`), id...), '}')
		s.expected = [3][]byte{before[:len(before)-1], result, after}
		return true
	}
	return false
}

// end says what the answer was, now that it is complete.
func (s *stream) end() error {
	switch {
	case !s.known:
		return s.x.explain(s.begun)
	case s.part < len(s.expected):
		return wrong(fmt.Sprintf("large answer that is cut short after %d bytes", s.total))
	}
	return nil
}
