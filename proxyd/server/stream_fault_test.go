package server

import (
	"testing"

	"gateway.internal/proxyd/jsonrpc"
)

// Whatever goes wrong behind the head breaks the connection off: a client must not
// take what came for the whole.
func TestPanicWithinAStreamBreaksTheAnswerOff(t *testing.T) {
	f := streaming(t, nil, func(*jsonrpc.Call) jsonrpc.Stream {
		s := newTap(t)
		s.panics = true
		return s
	})
	a := f.ask(7)
	if <-a.done; !a.aborted {
		t.Errorf("the answer was ended in order, as %s", a.Body)
	}
}
