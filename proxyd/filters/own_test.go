package filters

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// logs are the logs with index 0 of the blocks from..to of a branch.
func logsOf(branch string, from, to int) []string {
	var logs []string
	for n := from; n <= to; n++ {
		logs = append(logs, logOf(branch, n, 0))
	}
	return logs
}

// takenBack is a log as it comes when its block is gone.
func takenBack(branch string, from, to int) []string {
	logs := logsOf(branch, from, to)
	for i, s := range logs {
		s = strings.NewReplacer(`", "removed": false`, `","removed":true`, `": `, `":`, `", "`, `","`).Replace(s)
		logs[i] = s
	}
	return logs
}

func hashesOf(branch string, from, to int) []string {
	var hashes []string
	for n := from; n <= to; n++ {
		hashes = append(hashes, `"`+hashOf(branch, n)+`"`)
	}
	return hashes
}

func TestLogsAreDeliveredOnceWithTheProvidersBytes(t *testing.T) {
	h, c, _ := onChain(t, 5, Options{})
	id := opens(t, h, newFilter, "{}")
	check(t, "at once", ask(h, getChanges, id), "[]")
	c.mine("x", 3, 2)
	want := "[ " + strings.Join([]string{logOf("x", 6, 0), logOf("x", 6, 1), logOf("x", 7, 0), logOf("x", 7, 1), logOf("x", 8, 0), logOf("x", 8, 1)}, " , ") + "]"
	check(t, "new", ask(h, getChanges, id), want)
	check(t, "again", ask(h, getChanges, id), "[]")
	c.mine("x", 1, 0)
	check(t, "no logs", tidy(ask(h, getChanges, id)), "[]")
	c.mine("x", 1, 1)
	check(t, "later", tidy(ask(h, getChanges, id)), array(logsOf("x", 10, 10)...))
}

func TestNothingNewCostsOneCall(t *testing.T) {
	h, c, _ := onChain(t, 5, Options{})
	id, blocks := opens(t, h, newFilter, "{}"), opens(t, h, newBlockFilter)
	c.history()
	ask(h, getChanges, id)
	ask(h, getChanges, blocks)
	check(t, "asked", c.history(), "a:eth_getBlockByNumber a:eth_getBlockByNumber")
	c.mine("x", 1, 1)
	ask(h, getChanges, id)
	ask(h, getChanges, blocks)
	check(t, "asked", c.history(), "a:eth_getBlockByNumber a:eth_getLogs a:eth_getBlockByNumber")
}

func TestFilterDeliversOnlyItsRange(t *testing.T) {
	for object, want := range map[string]string{
		`{"fromBlock":"0x1","toBlock":"0x7"}`:       array(logsOf("x", 6, 7)...),
		`{"fromBlock":"0x8"}`:                       array(logsOf("x", 8, 9)...),
		`{"fromBlock":"0x20"}`:                      "[]",
		`{"toBlock":"0x2"}`:                         "[]",
		`{"toBlock":"earliest"}`:                    "[]",
		`{"fromBlock":"earliest"}`:                  array(logsOf("x", 6, 9)...),
		`{"toBlock":"pending"}`:                     array(logsOf("x", 6, 9)...),
		`{"toBlock":"safe"}`:                        array(logsOf("x", 6, 7)...),
		`{"blockHash":"` + hashOf("x", 3) + `"}`:    "[]",
		`{"fromBlock":"latest","toBlock":"latest"}`: array(logsOf("x", 6, 9)...),
	} {
		h, c, _ := onChain(t, 5, Options{})
		id := opens(t, h, newFilter, object)
		c.mine("x", 4, 1)
		check(t, object, tidy(ask(h, getChanges, id)), want)
		check(t, object, tidy(ask(h, getChanges, id)), "[]")
	}
}

func TestLogsOfAReplacedBlockComeAgainAsRemoved(t *testing.T) {
	h, c, reg := onChain(t, 5, Options{})
	id := opens(t, h, newFilter, "{}")
	c.mine("x", 4, 1) // 6 to 9
	check(t, "first", tidy(ask(h, getChanges, id)), array(logsOf("x", 6, 9)...))
	c.drop(2)
	c.mine("y", 2, 1) // same height
	check(t, "same height", tidy(ask(h, getChanges, id)), array(append(takenBack("x", 8, 9), logsOf("y", 8, 9)...)...))
	c.drop(1)
	c.mine("z", 2, 1) // one more
	check(t, "longer", tidy(ask(h, getChanges, id)), array(append(takenBack("y", 9, 9), logsOf("z", 9, 10)...)...))
	c.drop(3)
	c.mine("w", 10, 1) // much more
	check(t, "much longer", tidy(ask(h, getChanges, id)),
		array(slices.Concat(takenBack("y", 8, 8), takenBack("z", 9, 10), logsOf("w", 8, 17))...))
	check(t, "again", ask(h, getChanges, id), "[]")
	shown(t, reg, "proxyd_filters_gaps_total 0")
}

func TestReorganisationWithoutNewLogsTakesTheOldBack(t *testing.T) {
	h, c, _ := onChain(t, 5, Options{})
	id := opens(t, h, newFilter, "{}")
	c.mine("x", 2, 1)
	ask(h, getChanges, id)
	c.drop(2)
	c.mine("y", 3, 0)
	check(t, "changes", tidy(ask(h, getChanges, id)), array(takenBack("x", 6, 7)...))
}

func TestBlockThatWasTheHeadWhenTheFilterWasMadeMayBeReplaced(t *testing.T) {
	h, c, reg := onChain(t, 5, Options{})
	logs, blocks := opens(t, h, newFilter, "{}"), opens(t, h, newBlockFilter)
	c.drop(1)
	c.mine("y", 2, 1)
	check(t, "logs", tidy(ask(h, getChanges, logs)), array(logsOf("y", 5, 6)...))
	check(t, "blocks", ask(h, getChanges, blocks), array(hashesOf("y", 5, 6)...))
	shown(t, reg, "proxyd_filters_gaps_total 0")
}

func TestBlocksAreDeliveredInOrderAlsoThoseOfANewBranch(t *testing.T) {
	h, c, _ := onChain(t, 5, Options{})
	id := opens(t, h, newBlockFilter)
	check(t, "at once", ask(h, getChanges, id), "[]")
	c.mine("x", 5, 0)
	check(t, "new", ask(h, getChanges, id), array(hashesOf("x", 6, 10)...))
	c.drop(3)
	c.mine("y", 3, 0)
	check(t, "same height", ask(h, getChanges, id), array(hashesOf("y", 8, 10)...))
	c.drop(1)
	c.mine("z", 4, 0)
	check(t, "longer", ask(h, getChanges, id), array(hashesOf("z", 10, 13)...))
	check(t, "again", ask(h, getChanges, id), "[]")
	check(t, "logs", ask(h, getLogs, id), notFound)
}

func TestLongAbsenceIsMadeUpForInPieces(t *testing.T) {
	h, c, _ := onChain(t, 5, Options{MaxBlocks: 10})
	logs, blocks := opens(t, h, newFilter, "{}"), opens(t, h, newBlockFilter)
	c.mine("x", 25, 1) // 6 to 30
	for _, piece := range [][2]int{{6, 15}, {16, 25}, {26, 30}} {
		check(t, "logs", tidy(ask(h, getChanges, logs)), array(logsOf("x", piece[0], piece[1])...))
		check(t, "blocks", ask(h, getChanges, blocks), array(hashesOf("x", piece[0], piece[1])...))
	}
	check(t, "logs", ask(h, getChanges, logs), "[]")

	h, c, _ = onChain(t, 5, Options{})
	blocks = opens(t, h, newBlockFilter)
	c.mine("x", 200, 0)
	check(t, "blocks", ask(h, getChanges, blocks), array(hashesOf("x", 6, 133)...))
	check(t, "blocks", ask(h, getChanges, blocks), array(hashesOf("x", 134, 205)...))
}

func TestDeepReorganisationIsToldAsFarAsItIsRemembered(t *testing.T) {
	h, c, reg := onChain(t, 5, Options{})
	id := opens(t, h, newFilter, "{}")
	c.mine("x", 200, 1) // 6 to 205
	ask(h, getChanges, id)
	c.drop(190)
	c.mine("y", 191, 1)
	check(t, "changes", tidy(ask(h, getChanges, id)), array(append(takenBack("x", 78, 205), logsOf("y", 78, 206)...)...))
	shown(t, reg, "proxyd_filters_gaps_total 1")
}

func TestBackendThatIsBehindChangesNothing(t *testing.T) {
	h, c, _ := onChain(t, 5, Options{})
	logs, blocks := opens(t, h, newFilter, "{}"), opens(t, h, newBlockFilter)
	c.mine("x", 3, 1)
	want := tidy(ask(h, getChanges, logs))
	ask(h, getChanges, blocks)
	c.mine("x", 1, 1)
	c.behind["b"] = 2
	c.takes = []string{"b", "b"}
	check(t, "logs", ask(h, getChanges, logs), "[]")
	check(t, "blocks", ask(h, getChanges, blocks), "[]")
	check(t, "logs", tidy(ask(h, getChanges, logs)), array(logsOf("x", 9, 9)...))
	check(t, "blocks", ask(h, getChanges, blocks), array(hashesOf("x", 9, 9)...))
	check(t, "before", want, array(logsOf("x", 6, 8)...))
}

func TestLogsComeFromTheBackendThatGaveTheHead(t *testing.T) {
	h, c, _ := onChain(t, 5, Options{})
	id := opens(t, h, newFilter, "{}")
	c.mine("x", 3, 1)
	c.behind["b"] = 2
	c.takes = []string{"a", "b"}
	check(t, "changes", tidy(ask(h, getChanges, id)), array(logsOf("x", 6, 8)...))
}

// A backend that has no logs at all must not keep the filter from another that has.
func TestOtherBackendIsAskedForLogsWhenTheFirstHasNone(t *testing.T) {
	h, c, _ := onChain(t, 5, Options{})
	id := opens(t, h, newFilter, "{}")
	c.mine("x", 3, 1)
	c.fail("a:eth_getLogs", "no such method")
	c.behind["b"] = 1
	c.takes = []string{"a", "a", "a", "b"} // b is behind: without its word for the head it proves nothing
	check(t, "changes", ask(h, getChanges, id), "[]")
	c.behind["b"] = 0
	c.takes = []string{"a", "a", "a", "b"}
	check(t, "changes", tidy(ask(h, getChanges, id)), array(logsOf("x", 6, 8)...))
}

func TestFailureInTheMiddleLosesNothing(t *testing.T) {
	for _, fails := range []string{"eth_getLogs", "eth_getBlockByNumber"} {
		for _, message := range []string{"", "out of range"} {
			h, c, _ := onChain(t, 5, Options{})
			logs, blocks := opens(t, h, newFilter, "{}"), opens(t, h, newBlockFilter)
			c.mine("x", 3, 1)
			c.fail(fails, message)
			want := "failed: down"
			if message != "" {
				want = "error -32001: out of range"
			}
			check(t, fails, ask(h, getChanges, logs), want)
			if fails != "eth_getLogs" {
				check(t, fails, ask(h, getChanges, blocks), want)
			}
			c.heal()
			check(t, "logs", tidy(ask(h, getChanges, logs)), array(logsOf("x", 6, 8)...))
			check(t, "blocks", ask(h, getChanges, blocks), array(hashesOf("x", 6, 8)...))
		}
	}
}

func TestFilterSurvivesItsBackend(t *testing.T) {
	h, c, _ := onChain(t, 5, Options{})
	id := opens(t, h, newFilter, "{}")
	c.mine("x", 3, 1)
	c.fail("a:eth_getLogs", "") // it dies behind the head
	c.takes = []string{"a", "b", "b", "b"}
	check(t, "changes", tidy(ask(h, getChanges, id)), array(logsOf("x", 6, 8)...))
	check(t, "asked", c.history(), "a:eth_getBlockByNumber a:eth_getBlockByNumber a:eth_getBlockByNumber a:eth_getLogs b:eth_getBlockByNumber b:eth_getBlockByNumber b:eth_getLogs")
}

func TestChainThatMovesWhileItIsReadIsReadAgain(t *testing.T) {
	for name, what := range map[string]struct{ method, open string }{"logs": {"eth_getLogs", newFilter}, "blocks": {"eth_getBlockByNumber", newBlockFilter}} {
		t.Run(name, func(t *testing.T) {
			h, c, _ := onChain(t, 5, Options{})
			id := opens(t, h, what.open, "{}")
			c.mine("x", 3, 1)
			times := 0
			c.hook = func(call *jsonrpc.Call) {
				if call.Method == what.method && !strings.Contains(string(call.Params), "latest") {
					if times++; times == 1 { // behind the head
						c.blocks = c.blocks[:6]
						c.mu.Unlock()
						c.mine("y", 4, 1)
						c.mu.Lock()
					}
				}
			}
			check(t, "changes", ask(h, getChanges, id), "[]")
			want := array(logsOf("y", 6, 9)...)
			if name == "blocks" {
				want = array(hashesOf("y", 6, 9)...)
			}
			check(t, "changes", tidy(ask(h, getChanges, id)), want)
		})
	}
}

func TestAllLogsAreThoseOfTheOriginalRange(t *testing.T) {
	h, c, _ := onChain(t, 5, Options{MaxBlocks: 10})
	c.mine("x", 5, 1)
	whole, last := opens(t, h, newFilter, `{"fromBlock":"0x5","toBlock":"0x8"}`), opens(t, h, newFilter, "{}")
	wide := opens(t, h, newFilter, `{"fromBlock":"earliest","toBlock":"latest"}`)
	check(t, "whole", ask(h, getLogs, whole), "[ "+strings.Join(logsOf("x", 6, 8), " , ")+"]")
	check(t, "last", tidy(ask(h, getLogs, last)), array(logsOf("x", 10, 10)...))
	check(t, "wide", ask(h, getLogs, wide), "error -32005: block range too wide: 11 blocks, at most 10 are looked at")
	c.fail("eth_getLogs", "too many results")
	check(t, "whole", ask(h, getLogs, whole), "error -32001: too many results")
	c.fail("eth_getLogs", "")
	check(t, "whole", ask(h, getLogs, whole), "failed: down")
}

func TestUninstalledFilterIsGone(t *testing.T) {
	h, _, reg := onChain(t, 5, Options{})
	id := opens(t, h, newFilter, "{}")
	calls := []*jsonrpc.Call{call(getChanges, id), call(uninstall, id), call(getChanges, id), call(getLogs, id), call(uninstall, id)}
	h.ServeRPC(t.Context(), calls)
	for i, want := range []string{"[]", "true", notFound, notFound, "false"} {
		check(t, fmt.Sprint("call ", i), outcome(calls[i]), want)
	}
	shown(t, reg, "proxyd_filters 0")
}

func TestFilterIsNotMadeWithoutAHead(t *testing.T) {
	h, c, reg := onChain(t, 5, Options{})
	c.fail("eth_getBlockByNumber", "")
	check(t, "down", ask(h, newBlockFilter), "failed: down")
	c.fail("eth_getBlockByNumber", "syncing")
	check(t, "error", ask(h, newFilter, "{}"), "error -32001: syncing")
	c.heal()
	c.behind["a"] = 6
	check(t, "null", ask(h, newFilter, "{}"), "failed: "+errNoHead.Error())
	shown(t, reg, "proxyd_filters 0")
}

func TestProviderThatAnswersNoChainBreaksNothing(t *testing.T) {
	f, _ := stage(Options{Mode: ModeGateway})
	c := newChain(5)
	id := opens(t, f.Middleware(c), newFilter, "{}")
	blocks := opens(t, f.Middleware(c), newBlockFilter)
	c.mine("x", 3, 1)
	for _, result := range []string{"null", "[]", "{}", "17", `"0x1"`, `{"number":"0x7fffffffffffffff","hash":"0x","parentHash":"0x"}`,
		`{"number":"0xffffffffffffffff","hash":"` + hashOf("x", 1) + `","parentHash":"` + hashOf("x", 1) + `"}`,
		`{"number":"0x7fffffffffffffff","hash":"` + hashOf("x", 1) + `","parentHash":"` + hashOf("x", 1) + `"}`} {
		odd := f.Middleware(jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) {
			for _, c := range calls {
				c.Answer = &jsonrpc.Answer{Result: []byte(result), Backend: "a"}
			}
		}))
		for _, id := range []string{id, blocks} {
			if got := ask(odd, getChanges, id); got != "[]" && !strings.HasPrefix(got, "failed: eth_get") {
				t.Errorf("%s became %s", result, got)
			}
		}
	}
	open := f.Middleware(jsonrpc.HandlerFunc(func(context.Context, []*jsonrpc.Call) {}))
	check(t, "no answer", ask(open, getChanges, id), "failed: no answer")
	check(t, "logs", tidy(ask(f.Middleware(c), getChanges, id)), array(logsOf("x", 6, 8)...))
	check(t, "blocks", ask(f.Middleware(c), getChanges, blocks), array(hashesOf("x", 6, 8)...))
}

func TestChangesOfOneFilterAreAskedOneAfterAnother(t *testing.T) {
	h, c, _ := onChain(t, 5, Options{})
	id := opens(t, h, newFilter, "{}")
	var mu sync.Mutex
	seen := make(map[string]int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				c.mine("x", 1, 1)
				got := ask(h, getChanges, id)
				ok := jsonrpc.Elements([]byte(got), func(log []byte) bool {
					mu.Lock()
					seen[string(log)]++
					mu.Unlock()
					return true
				})
				if !ok {
					t.Error(got)
				}
			}
		})
	}
	wg.Wait()
	if len(seen) != 160 {
		t.Errorf("%d logs of 160", len(seen))
	}
	for log, n := range seen {
		if n != 1 {
			t.Errorf("%d times %s", n, log)
		}
	}
}

func TestWaitForAFiltersTurnEndsWithTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, _ := onChain(t, 5, Options{})
		id := opens(t, h, newFilter, "{}")
		hold := make(chan struct{})
		c.hook = func(*jsonrpc.Call) { c.mu.Unlock(); <-hold; c.mu.Lock() }
		first := make(chan string)
		go func() { first <- ask(h, getChanges, id) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		late := call(getChanges, id)
		h.ServeRPC(ctx, []*jsonrpc.Call{late})
		if !errors.Is(late.Err, context.DeadlineExceeded) {
			t.Error(outcome(late))
		}
		close(hold)
		check(t, "first", <-first, "[]")
	})
}

func TestOldLogsAreForgottenBeforeTheyFillTheMemory(t *testing.T) {
	big := func(n int) told {
		return told{number: uint64(n), logs: [][]byte{make([]byte, maxToldBytes/4)}}
	}
	var news []told
	for n := range 10 {
		news = append(news, big(n))
	}
	p := past{{number: 100}}.with(0, news)
	if p.bytes() > maxToldBytes || len(p) != 10 || !p[0].forgot || p[9].forgot {
		t.Errorf("%d bytes", p.bytes())
	}
	if _, gap := p.removed(9); gap {
		t.Error("a gap where all is remembered")
	}
	if _, gap := p.removed(0); !gap {
		t.Error("no gap where logs were forgotten")
	}
}

func TestWholeMemoryOfFiltersIsBounded(t *testing.T) {
	f, reg := stage(Options{Mode: ModeGateway, MaxPerClient: 1 << 20})
	l := f.ledger
	for i := range 300 {
		l.reserve("x")
		l.keep(fmt.Sprint(i), "x", &watch{}, 1<<20)
	}
	shown(t, reg, "proxyd_filters 256")
	shown(t, reg, "proxyd_filters_evicted_total 44")
	last := l.use("299")
	if l.grow(last, 1) {
		t.Error("there is room behind the bound")
	}
	if !l.grow(last, -1) || !l.grow(last, 1) || l.use("0") != nil || l.clients["x"] != 256 {
		t.Errorf("%d bytes, %v", l.bytes, l.clients)
	}
	w := &watch{filter: last, past: past{{}}}
	f.move(w, past{{number: 1, logs: [][]byte{[]byte("log")}}})
	if w.past[0].logs != nil || !w.past[0].forgot {
		t.Error("logs are kept for which there is no room")
	}
	if l.drop("299"); l.grow(last, -5) || l.bytes != 255<<20 {
		t.Errorf("%d bytes", l.bytes)
	}
	for i := range maxFilters {
		l.reserve(fmt.Sprint("client", i))
		l.keep(fmt.Sprint("many", i), fmt.Sprint("client", i), nil, 0)
	}
	if l.len() != maxFilters || l.bytes != 0 || len(l.clients) != maxFilters {
		t.Errorf("%d filters, %d bytes, %d clients", l.len(), l.bytes, len(l.clients))
	}
}
