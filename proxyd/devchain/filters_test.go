package devchain

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
)

// changes asks a filter and gives the list back.
func changes(t *testing.T, b *Backend, id string) (list []json.RawMessage) {
	t.Helper()
	got := result(t, b, "eth_getFilterChanges", `[`+id+`]`)
	if err := json.Unmarshal([]byte(got), &list); err != nil || list == nil {
		t.Fatalf("%v in %s", err, got)
	}
	return list
}

func TestBlockFilterGivesTheHashesSinceItWasAsked(t *testing.T) {
	chain := New(Options{})
	b := NewBackend(chain, "one")
	chain.Mine(1)
	id := result(t, b, "eth_newBlockFilter", `[]`)
	for _, n := range []int{0, 2, 1} {
		chain.Mine(n)
		got := changes(t, b, id)
		if len(got) != n {
			t.Fatalf("%d blocks gave %d hashes", n, len(got))
		}
		if n > 0 && string(got[n-1]) != fmt.Sprintf(`"0x%x"`, headHash(chain)) {
			t.Errorf("got %s", got)
		}
	}
}

func TestLogFilterGivesWhatCameAndWhatWasRemoved(t *testing.T) {
	chain := New(Options{})
	b := NewBackend(chain, "one")
	id := result(t, b, "eth_newFilter", `[{"address":"`+TokenAddress+`","fromBlock":"0x10"}]`)
	none := result(t, b, "eth_newFilter", `[{"address":"`+EchoAddress+`"}]`)
	chain.Mine(1)
	chain.Reorg(2, 2)
	var got []string
	for _, raw := range changes(t, b, id) {
		log := object(t, string(raw))
		got = append(got, fmt.Sprint(log["blockNumber"], " ", log["removed"]))
	}
	if want := []string{"0x11 false", "0x11 true", "0x10 true", "0x10 false", "0x11 false"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := changes(t, b, none); len(got) != 0 {
		t.Errorf("another address got %s", got)
	}
	if got, want := result(t, b, "eth_getFilterLogs", `[`+id+`]`), result(t, b, "eth_getLogs", `[{"fromBlock":"0x10"}]`); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestPendingFilterGivesHashesOrTransactions(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	short, whole := result(t, b, "eth_newPendingTransactionFilter", `[]`), result(t, b, "eth_newPendingTransactionFilter", `[true]`)
	id := result(t, b, "eth_sendRawTransaction", `["0x01"]`)
	if got := changes(t, b, short); len(got) != 1 || string(got[0]) != id {
		t.Errorf("got %s, want %s", got, id)
	}
	if got := changes(t, b, whole); len(got) != 1 || `"`+object(t, string(got[0]))["hash"].(string)+`"` != id {
		t.Errorf("got %s, want the transaction %s", got, id)
	}
}

func TestUnknownFiltersAreNotFound(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	other := NewBackend(New(Options{}), "two")
	id := result(t, b, "eth_newBlockFilter", `[]`)
	if got := result(t, b, "eth_getFilterLogs", `[`+id+`]`); got != "-32000 filter not found" {
		t.Errorf("logs of a block filter: %s", got)
	}
	if got := result(t, other, "eth_getFilterChanges", `[`+id+`]`); got != "-32000 filter not found" {
		t.Errorf("at another backend: %s", got)
	}
	for _, want := range []string{"true", "false"} {
		if got := result(t, b, "eth_uninstallFilter", `[`+id+`]`); got != want {
			t.Errorf("uninstall: got %s, want %s", got, want)
		}
	}
	for _, method := range []string{"eth_getFilterChanges", "eth_getFilterLogs"} {
		if got := result(t, b, method, `[`+id+`]`); got != "-32000 filter not found" {
			t.Errorf("%s after uninstall: %s", method, got)
		}
	}
}

func TestFiltersAreBounded(t *testing.T) {
	b := NewBackend(New(Options{}), "one")
	first, second := result(t, b, "eth_newBlockFilter", `[]`), result(t, b, "eth_newBlockFilter", `[]`)
	for range maxFilters - 1 {
		result(t, b, "eth_newPendingTransactionFilter", `[]`)
	}
	if got := result(t, b, "eth_getFilterChanges", `[`+first+`]`); got != "-32000 filter not found" {
		t.Errorf("the oldest: %s", got)
	}
	changes(t, b, second)
	if len(b.filters) != maxFilters || len(b.filterOrder) != maxFilters {
		t.Errorf("%d filters, %d in order", len(b.filters), len(b.filterOrder))
	}
}

func TestAFilterThatNobodyAsksIsForgotten(t *testing.T) {
	chain := New(Options{})
	b := NewBackend(chain, "one")
	asked, left := result(t, b, "eth_newBlockFilter", `[]`), result(t, b, "eth_newBlockFilter", `[]`)
	chain.Mine(maxChanges)
	if got := changes(t, b, asked); len(got) != maxChanges {
		t.Errorf("%d changes, want %d", len(got), maxChanges)
	}
	chain.Mine(1)
	if got := changes(t, b, asked); len(got) != 1 {
		t.Errorf("%d changes, want 1", len(got))
	}
	if got := result(t, b, "eth_getFilterChanges", `[`+left+`]`); got != "-32000 filter not found" {
		t.Errorf("the one that nobody asked: %s", got)
	}
}
