package filters

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/devchain"
	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/jsonrpc"
)

// overGroup is the stage in front of a group that asks the dev chain's backends a, b and c in turn.
func overGroup(t *testing.T, mode Mode) (jsonrpc.Handler, *devchain.Chain, []*devchain.Backend) {
	t.Helper()
	reg, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	chain := devchain.New(devchain.Options{})
	metrics := backend.NewMetrics(reg)
	errorTable, err := classify.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	o := group.Options{Name: "main", Strategy: "round_robin", Metrics: group.NewMetrics(reg), Log: log}
	var nodes []*devchain.Backend
	for _, name := range []string{"a", "b", "c"} {
		node := devchain.NewBackend(chain, name)
		nodes = append(nodes, node)
		server := httptest.NewServer(node)
		t.Cleanup(server.Close)
		b, err := backend.New(backend.Options{Name: name, URL: server.URL, Classify: errorTable, Metrics: metrics, Log: log, ResponseTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		o.Members = append(o.Members, &group.Member{Backend: b})
	}
	g, err := group.New(o)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := stage(Options{Mode: mode})
	return f.Middleware(g), chain, nodes
}

func count(t *testing.T, array string) (n int) {
	t.Helper()
	if !jsonrpc.Elements([]byte(array), func([]byte) bool { n++; return true }) {
		t.Errorf("no array: %s", array)
	}
	return n
}

func TestFiltersWorkOverAGroupInBothModes(t *testing.T) {
	for _, mode := range []Mode{ModeBackend, ModeGateway} {
		t.Run(string(mode), func(t *testing.T) {
			h, chain, _ := overGroup(t, mode)
			var ids []string
			for range 3 {
				ids = append(ids, opens(t, h, newBlockFilter))
			}
			for round := range 5 {
				chain.Mine(2)
				for _, id := range ids {
					if n := count(t, ask(h, getChanges, id)); n != 2 {
						t.Errorf("round %d: %d blocks", round, n)
					}
				}
			}
			chain.Reorg(1, 2)
			for _, id := range ids {
				if n := count(t, ask(h, getChanges, id)); n != 2 {
					t.Errorf("%d blocks of the new branch", n)
				}
				check(t, "uninstall", ask(h, uninstall, id), "true")
				begun := time.Now()
				check(t, "changes", ask(h, getChanges, id), notFound)
				if took := time.Since(begun); took > time.Second/2 {
					t.Errorf("an unknown filter took %v", took)
				}
			}
		})
	}
}

// Both modes must tell a client the same of logs, with those that are taken back.
func TestBothModesDeliverTheSameLogs(t *testing.T) {
	var told []string
	for _, mode := range []Mode{ModeBackend, ModeGateway} {
		h, chain, _ := overGroup(t, mode)
		id := opens(t, h, newFilter, "{}")
		all := ""
		for range 3 {
			chain.Mine(3)
			all += strings.ReplaceAll(ask(h, getChanges, id), " ", "")
			chain.Reorg(2, 4)
			all += strings.ReplaceAll(ask(h, getChanges, id), " ", "")
		}
		told = append(told, fmt.Sprint(strings.Count(all, `"removed":true`), " taken back, ", strings.Count(all, `"removed":false`), " delivered"))
	}
	if told[0] != told[1] || strings.HasPrefix(told[0], "0") {
		t.Errorf("backend: %s, gateway: %s", told[0], told[1])
	}
}

func TestOwnFilterSurvivesBackendsOfTheGroup(t *testing.T) {
	h, chain, nodes := overGroup(t, ModeGateway)
	id := opens(t, h, newBlockFilter)
	for i, node := range nodes[:2] {
		node.SetFault(devchain.Fault{Kind: devchain.FaultClose})
		chain.Mine(3)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		c := call(getChanges, id)
		h.ServeRPC(ctx, []*jsonrpc.Call{c})
		cancel()
		if n := count(t, outcome(c)); n != 3 {
			t.Errorf("%d backends less: %d blocks", i+1, n)
		}
	}
}
