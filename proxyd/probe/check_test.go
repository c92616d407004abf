package probe

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway.internal/proxyd/backend"
)

func TestANodeThatSyncsIsUnfit(t *testing.T) {
	skip := func(i int, tg *Target) { tg.SkipSyncing = i == 1 }
	inBubble(t, 2, setting{target: skip}, func(t *testing.T, w *world) {
		for i := range w.nodes {
			w.nodes[i].says(syncing, answer{result: `{"startingBlock":"0x0","currentBlock":"0x1","highestBlock":"0x2"}`})
		}
		pass(2 * time.Minute)
		w.state(0, backend.Unfit)
		w.reason(0, "eth_syncing: is syncing")
		w.state(1, backend.Well)
		w.nodes[0].says(syncing, answer{})
		pass(2 * time.Minute)
		w.state(0, backend.Well)
	})
}

func TestWhatACheckFinds(t *testing.T) {
	for _, test := range []struct {
		name, method string
		says         answer
		want         string
	}{
		{"syncing is true", syncing, answer{result: "true"}, "eth_syncing: is syncing"},
		{"syncing is null", syncing, answer{result: "null"}, "eth_syncing: neither false nor a progress"},
		{"no number", blockNumber, answer{result: `"latest"`}, "eth_blockNumber: no block number"},
		{"no chain", chainID, answer{result: "null"}, "eth_chainId: invalid answer"},
		{"an error", "net_version", answer{err: `{"code":-32603,"message":"internal error at http://node.memory/secret-key"}`}, "net_version: answered an error of class server, code -32603"},
		{"a status", "net_version", answer{status: 502}, "net_version: status 502"},
		{"a refused key", "net_version", answer{status: 401}, "net_version: status 401"},
		{"no answer", "net_version", answer{delay: time.Minute}, "net_version: timeout"},
		{"no JSON", "net_version", answer{result: "<html>"}, "net_version: invalid answer"},
		{"null", "net_version", answer{result: "null"}, ""},
		{"anything", "net_version", answer{result: `{"a":[1]}`}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			one := func(o *Options) {
				o.FailureThreshold, o.Checks = 1, []string{blockNumber, syncing, chainID, "net_version"}
			}
			chain := func(_ int, o *backend.Options) { o.ChainID = 1 }
			inBubble(t, 1, setting{probe: one, backend: chain, idle: true}, func(t *testing.T, w *world) {
				w.nodes[0].says(test.method, test.says)
				w.check(0)
				w.reason(0, test.want)
				if strings.Contains(w.logs.String(), "secret") {
					t.Error("a secret in the log")
				}
			})
		})
	}
}

func TestBlockZeroIsUnfitOnlyBesideAHigherHead(t *testing.T) {
	zero := func(_ int, n *node) { n.says(blockNumber, answer{result: `"0x0"`}) }
	inBubble(t, 2, setting{node: zero}, func(t *testing.T, w *world) {
		pass(5 * time.Minute)
		w.state(0, backend.Well) // a new chain
		w.state(1, backend.Well)
		w.nodes[1].says(blockNumber, answer{result: `"0x1"`})
		pass(2 * time.Minute)
		w.state(0, backend.Unfit)
		w.reason(0, "eth_blockNumber: block number 0 while others are above")
		w.state(1, backend.Well)
		w.nodes[0].says(blockNumber, answer{result: `"0x2"`})
		pass(2 * time.Minute)
		w.state(0, backend.Well)
		if head, seen := w.backends[0].Head(); head != 2 || time.Since(seen) > 35*time.Second {
			t.Fatalf("head %d, seen at %s", head, seen)
		}
		if got := w.value("proxyd_backend_head", "b0"); got != 2 {
			t.Fatalf("the gauge says %v", got)
		}
	})
}

func TestABackendOnAnotherChainIsForeignUntilItsChainIsRight(t *testing.T) {
	chain := func(_ int, o *backend.Options) { o.ChainID = 10 }
	none := func(o *Options) { o.Checks = []string{blockNumber} }
	for name, s := range map[string]setting{
		"checked":             {backend: chain},
		"eth_chainId is left": {backend: chain, probe: none}, // only clients ask for it
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, s, func(t *testing.T, w *world) {
				synctest.Wait()
				w.clientCall(0, chainID, false)
				w.state(0, backend.Foreign)
				w.reason(0, "serves chain id 1, not 10")
				pass(10 * time.Minute)
				w.state(0, backend.Foreign)
				w.nodes[0].says(chainID, answer{result: `"0xa"`})
				pass(100 * time.Second)
				w.state(0, backend.Well)
			})
		})
	}
}

func TestAForeignBackendComesBackWithIntervalZero(t *testing.T) {
	chain := func(_ int, o *backend.Options) { o.ChainID = 10 }
	inBubble(t, 1, setting{backend: chain, probe: interval0}, func(t *testing.T, w *world) {
		w.clientCall(0, chainID, false)
		w.state(0, backend.Foreign)
		pass(time.Hour)
		w.state(0, backend.Foreign)
		w.nodes[0].says(chainID, answer{result: `"0xa"`})
		pass(2 * time.Minute)
		w.state(0, backend.Well)
		w.nodes[0].took()
		pass(time.Hour)
		if got := w.nodes[0].took(); len(got) != 0 {
			t.Fatalf("still asked, at %v", got)
		}
	})
}

func TestTheFirstRoundFindsAForeignBackend(t *testing.T) {
	chain := func(_ int, o *backend.Options) { o.ChainID = 10 }
	inBubble(t, 1, setting{backend: chain}, func(t *testing.T, w *world) {
		<-w.FirstRound()
		w.state(0, backend.Foreign)
	})
}

func TestChecksDoNotCountAsTrafficOfClients(t *testing.T) {
	inBubble(t, 2, setting{}, func(t *testing.T, w *world) {
		w.clientCall(0, "eth_gasPrice", false)
		before := w.rpc()
		w.nodes[1].saysAll(&answer{status: 500})
		pass(10 * time.Minute)
		w.nodes[0].saysAll(tooMany)
		pass(10 * time.Minute)
		if after := w.rpc(); after != before {
			t.Fatalf("before:\n%s\nafter:\n%s", before, after)
		}
		if got := w.value("proxyd_health_checks_total", "b1", blockNumber, "failure"); got < 36 {
			t.Errorf("%v failed checks", got)
		}
		if got := w.value("proxyd_health_checks_total", "b0", syncing, "success"); got < 18 {
			t.Errorf("%v good checks", got)
		}
		if got := w.value("proxyd_health_checks_total", "b0", blockNumber, "limited"); got < 5 {
			t.Errorf("%v checks met a limit", got)
		}
		if got := w.value("proxyd_health_check_duration_seconds", "b0", syncing); got < 18 {
			t.Errorf("%v durations", got)
		}
		// Neither in the health of client traffic.
		if got := w.value("proxyd_backend_error_rate", "b1"); got != 0 {
			t.Errorf("error rate %v", got)
		}
	})
}

// rpc is the text of all series that clients' calls make.
func (w *world) rpc() string {
	var text strings.Builder
	for _, f := range must(w.reg.Gather()) {
		name := f.GetName()
		if strings.HasPrefix(name, "proxyd_rpc_") || strings.HasPrefix(name, "proxyd_provider_") || strings.HasPrefix(name, "proxyd_too_many") || strings.HasPrefix(name, "proxyd_backend_out_of") {
			text.WriteString(f.String() + "\n")
		}
	}
	return text.String()
}
