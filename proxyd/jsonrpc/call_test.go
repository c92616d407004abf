package jsonrpc

import (
	"context"
	"errors"
	"slices"
	"testing"
)

func TestPendingKeepsTheOrderOfOpenCalls(t *testing.T) {
	a, b, c := new(Call), new(Call), new(Call)
	all := []*Call{a, b, c}
	if got := Pending(all); &got[0] != &all[0] || len(got) != 3 {
		t.Error("the slice is copied although all are open")
	}
	b.Err = errors.New("x")
	if got := Pending(all); !slices.Equal(got, []*Call{a, c}) || !b.Done() || all[1] != b {
		t.Errorf("%v", got)
	}
	a.Answer = new(Answer)
	c.Answer = new(Answer)
	if got := Pending(all); len(got) != 0 || len(Pending(nil)) != 0 {
		t.Errorf("%v", got)
	}
}

func TestChainCallsTheFirstMiddlewareFirst(t *testing.T) {
	var order []string
	name := func(s string) Middleware {
		return func(next Handler) Handler {
			return HandlerFunc(func(ctx context.Context, calls []*Call) { order = append(order, s); next.ServeRPC(ctx, calls) })
		}
	}
	end := HandlerFunc(func(context.Context, []*Call) { order = append(order, "end") })
	Chain(end, name("one"), nil, name("two")).ServeRPC(t.Context(), nil)
	if !slices.Equal(order, []string{"one", "two", "end"}) {
		t.Errorf("%v", order)
	}
}
