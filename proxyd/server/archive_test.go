package server

import (
	"context"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"gateway.internal/proxyd/jsonrpc"
)

func TestArchiveIsAskedForInTheQueryOrTheHeader(t *testing.T) {
	for _, row := range []struct {
		target  string
		headers []string
		archive bool
	}{
		{"/", nil, false},
		{"/?", nil, false},
		{"/?archive", nil, false},
		{"/?archive=", nil, false},
		{"/?archive=0", nil, false},
		{"/?archive=false", nil, false},
		{"/?archive=2", nil, false},
		{"/?archive=truest", nil, false},
		{"/?x=archive=true", nil, false},
		{"/?noarchive=true", nil, false},
		{"/?archives=1", nil, false},
		{"/?archive=true", nil, true},
		{"/?archive=TRUE", nil, true},
		{"/?archive=1", nil, true},
		{"/?x=1&archive=1", nil, true},
		{"/?archive=true&x=1", nil, true},
		{"/anykey?archive=true", nil, true},
		{"/", []string{"X-Archive", "true"}, true},
		{"/", []string{"X-Archive", "True"}, true},
		{"/", []string{"x-archive", "1"}, true},
		{"/", []string{"X-Archive", "0"}, false},
		{"/", []string{"X-Archive", "false"}, false},
		{"/", []string{"X-Archive", ""}, false},
		{"/", []string{"X-Archive", "yes"}, false},
		{"/?archive=0", []string{"X-Archive", "1"}, true},
		{"/?archive=1", []string{"X-Archive", "0"}, true},
	} {
		f := newFront(t, nil, nil)
		gateway := httptest.NewServer(f)
		for _, body := range []string{chainID, "[" + chainID + "]"} {
			if status, text, _ := send(t, gateway, "POST", row.target, body, row.headers...); status != 200 {
				t.Errorf("HTTP %d %s", status, text)
			}
			if got := f.client(t).Archive; got != row.archive {
				t.Errorf("%s %q: archive %v, want %v", row.target, row.headers, got, row.archive)
			}
		}
		gateway.Close()
	}
}

func TestArchiveIsAskedForOfAnyChain(t *testing.T) {
	var seen atomic.Bool
	_, gateway := newChains(t, func(o *Options) {
		o.Chains["base"].Routes.Map("net_version", &Target{Group: "base", Handler: jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) {
			seen.Store(calls[0].Client.Archive)
			calls[0].Answer = &jsonrpc.Answer{Result: []byte(`"1"`)}
		})})
	})
	body := `{"jsonrpc":"2.0","method":"net_version","id":1}`
	for _, target := range []string{"/base?archive=1", "/base/?archive=1", "/base/anykey?archive=1"} {
		if status, text, _ := send(t, gateway, "POST", target, body); status != 200 || !seen.Swap(false) {
			t.Errorf("%s: HTTP %d %s, or no archive", target, status, text)
		}
	}
}

func TestLookingForArchiveAllocatesNothing(t *testing.T) {
	for _, target := range []string{"/", "/?archive=true", "/?a=1&b=2&archive=0"} {
		r := httptest.NewRequest("POST", target, nil)
		r.Header.Set("X-Other", "1")
		if n := testing.AllocsPerRun(100, func() { wantsArchive(r) }); n != 0 {
			t.Errorf("%s: %v allocations", target, n)
		}
	}
}
