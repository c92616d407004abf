package backend

import (
	"strconv"
	"sync"
)

// codeLabels bounds the values of a backend's code and status labels: the known
// ones, and the first 32 others that it answers with.
type codeLabels struct {
	mu    sync.RWMutex
	codes map[int64]string
}

const otherCodes = 32

// knownCodes are the codes of the JSON-RPC 2.0 specification, of EIP-1474, of
// reverts, and of this gateway when it is itself a backend.
var knownCodes = func() map[int64]string {
	known := map[int64]string{-1: "-1", 3: "3", 429: "429", -32700: "-32700"}
	for code := int64(-32000); code >= -32030; code-- {
		known[code] = strconv.FormatInt(code, 10)
	}
	for code := int64(-32600); code >= -32603; code-- {
		known[code] = strconv.FormatInt(code, 10)
	}
	return known
}()

// label returns the label for a code.
func (l *codeLabels) label(code int64) string {
	if s, ok := knownCodes[code]; ok {
		return s
	}
	l.mu.RLock()
	s, ok := l.codes[code]
	l.mu.RUnlock()
	if ok {
		return s
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.codes) >= otherCodes {
		return "other"
	}
	if l.codes == nil {
		l.codes = make(map[int64]string)
	}
	s = strconv.FormatInt(code, 10)
	l.codes[code] = s
	return s
}

// boundedStatus returns a status with the same label that is one of few.
func boundedStatus(status int) int {
	if status == 0 || status >= 100 && status <= 599 {
		return status
	}
	return -1
}

// StatusLabel returns the label for an HTTP status.
func StatusLabel(status int) string {
	switch {
	case status == 0:
		return "none"
	case status < 100 || status > 599:
		return "other"
	}
	return statusTexts[status-100]
}

// statusTexts spell the HTTP statuses from 100 on.
var statusTexts = func() (texts [500]string) {
	for i := range texts {
		texts[i] = strconv.Itoa(100 + i)
	}
	return texts
}()
