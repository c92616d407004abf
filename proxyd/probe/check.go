package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"gateway.internal/proxyd/backend"
)

// The methods whose results are judged.
const (
	blockNumber = "eth_blockNumber"
	syncing     = "eth_syncing"
	chainID     = "eth_chainId"
)

// check makes one check and notes its outcome. A backend that asked to be left
// alone is skipped, which is no outcome.
func (w *watch) check(ctx context.Context) {
	if w.leftAlone(time.Now()) || !w.p.take(ctx) {
		return
	}
	defer w.p.release()
	if reason, known := w.ask(ctx); known {
		w.counted = false
		w.observe(reason)
	}
}

// ask makes the calls of a check up to the first that fails, and returns why, ""
// for a good one. known is false when nothing is: the gateway ended the check
// itself, or the backend asked to be left alone.
func (w *watch) ask(ctx context.Context) (reason string, known bool) {
	defer func() {
		if v := recover(); v != nil {
			w.p.o.Log.Error("panic in a health check", "backend", w.b.Name(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			reason, known = "internal error", true
		}
	}()
	for _, method := range w.methods() {
		if w.leftAlone(time.Now()) {
			return "", false
		}
		reply := w.b.Own(ctx, method, "[]", w.b.ResponseTimeout())
		if reply.Canceled {
			return "", false
		}
		reason := w.judge(method, reply)
		w.p.o.Metrics.checked(w.b.Name(), method, reply, reason == "")
		if reply.Limited {
			return "", false
		}
		if reason != "" {
			return method + ": " + reason, true
		}
	}
	return "", true
}

// methods are what a check of this backend asks. One on another chain, or whose
// chain is not known yet, is asked for that in any case and before all else, since
// nothing else brings it in.
func (w *watch) methods() []string {
	methods := make([]string, 0, len(w.p.o.Checks)+1)
	if w.b.Standing().State == backend.Foreign {
		methods = append(methods, chainID)
	}
	for _, m := range w.p.o.Checks {
		if m == syncing && w.t.SkipSyncing || m == chainID && w.b.ChainID() == 0 || slices.Contains(methods, m) {
			continue
		}
		methods = append(methods, m)
	}
	return methods
}

// judge returns what is wrong with the reply to a method, "" for nothing.
func (w *watch) judge(method string, reply backend.Reply) string {
	if reply.Err != nil {
		return failure(w.b.Name(), method, reply.Err)
	}
	switch method {
	case blockNumber:
		head, ok := backend.Quantity(reply.Result)
		if !ok {
			return "no block number"
		}
		w.noteHead(head)
		if head == 0 && slices.ContainsFunc(w.t.Peers, isAboveZero) {
			return "block number 0 while others are above"
		}
	case syncing:
		switch result := bytes.TrimSpace(reply.Result); {
		case string(result) == "false":
		case string(result) == "true", len(result) > 0 && result[0] == '{':
			return "is syncing"
		default:
			return "neither false nor a progress"
		}
	case chainID: // which one it is, the backend itself has looked at
		if _, ok := backend.Quantity(reply.Result); !ok {
			return "no chain id"
		}
	}
	return ""
}

func isAboveZero(b *backend.Backend) bool {
	head, _ := b.Head()
	return head > 0
}

func (w *watch) noteHead(head uint64) {
	w.b.NoteHead(head)
	w.p.o.Metrics.head(w.b.Name(), head)
}

// failure is err in a few words, without a name or an address.
func failure(name, method string, err error) string {
	var e *backend.Error
	switch {
	case !errors.As(err, &e): // a JSON-RPC error
		return strings.TrimPrefix(err.Error(), "backend "+name+": "+method+" ")
	case e.Kind == backend.Status:
		return fmt.Sprintf("status %d", e.HTTP)
	case e.Kind == backend.WrongChain:
		return strings.TrimPrefix(err.Error(), "backend "+name+": ")
	}
	return strings.ReplaceAll(e.Kind.String(), "_", " ")
}
