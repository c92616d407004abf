package group

import (
	"testing"
	"time"

	"gateway.internal/proxyd/classify"
)

func TestFinalTextsMayBePatternsAndAreNoEchoes(t *testing.T) {
	for name, c := range map[string]struct{ text, params, says, order string }{
		"a pattern":             {"/^sad (old|new) times/", "[]", "Sad NEW times indeed", "0"},
		"another text":          {"/^sad (old|new) times/", "[]", "these are sad new times", "01"},
		"an echo":               {"/sad (old|new) times/", `[{"data":"sad old times"}]`, "no such thing: sad old times", "01"},
		"an echo of a part":     {"sad times", `[{"data":"sad times"}]`, "no such thing: sad times", "01"},
		"not that of a request": {"sad times", `[{"data":"good times"}]`, "no such thing: sad times", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			final := Final{Texts: must(classify.NewTexts([]string{"nothing", c.text}))}
			w := newWorld(t, 3, setting{group: func(o *Options) { o.Final = final }})
			w.nodes[0].errs(-32000, c.says)
			q := call("eth_call", c.params)
			w.do(10*time.Second, q)
			wantOrder(t, w, c.order)
			if c.order == "0" {
				wantRPCError(t, q, `{"code":-32000,"message":"`+c.says+`"}`)
			}
		})
	}
}

// An error that says nothing about the transaction does not hide that an attempt
// before it may have sent it, though it is final for other calls.
func TestFinalErrorDoesNotHideThatASendMayHaveArrived(t *testing.T) {
	for name, c := range map[string]struct {
		final Final
		code  int
		text  string
	}{
		"a code":        {Final{Codes: []int64{-32601}}, -32601, "method not found"},
		"a class":       {Final{Classes: []string{"unsupported"}}, -32601, "method not found"},
		"a text":        {Final{Texts: must(classify.NewTexts([]string{"not found"}))}, -32601, "method not found"},
		"a sick node's": {Final{Classes: []string{"server"}}, -32603, "internal error"},
		"a limit":       {Final{Codes: []int64{-32005}}, -32005, "rate limit"},
	} {
		for _, strategy := range []string{"fallback", "sticky"} {
			t.Run(name+", "+strategy, func(t *testing.T) {
				inBubble(t, 2, setting{group: func(o *Options) { o.Strategy, o.Final = strategy, c.final }}, func(t *testing.T, w *world) {
					w.nodes[0].does(cut)
					w.nodes[1].errs(c.code, c.text)
					unknown(t, w.send(), legacyHash)
					wantOrder(t, w, "01")
				})
			})
		}
	}
}
