package backend

import (
	"sync"
	"time"
)

// linesPerSecond is how many lines about one method and code are written in a
// second.
const linesPerSecond = 10

// LineLimit keeps a log readable while everything fails: of lines about the same
// method and code it lets ten a second pass and counts the rest. The zero value
// is ready for use. Both parts of the key must be bounded by the caller.
type LineLimit struct {
	mu   sync.Mutex
	seen map[[2]string]*lines
}

type lines struct {
	second     int64
	n, dropped int
}

// Allow reports whether one more line may be written, and how many were dropped
// since the last one that was.
func (l *LineLimit) Allow(label, code string) (ok bool, dropped int) {
	second := time.Now().Unix()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = make(map[[2]string]*lines)
	}
	s := l.seen[[2]string{label, code}]
	if s == nil {
		s = new(lines)
		l.seen[[2]string{label, code}] = s
	}
	if s.second != second {
		s.second, s.n = second, 0
	}
	if s.n >= linesPerSecond {
		s.dropped++
		return false, 0
	}
	s.n++
	dropped, s.dropped = s.dropped, 0
	return true, dropped
}
