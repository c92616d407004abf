package integration_tests

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"
)

// filterClient is viem with filters; see node/filters.mjs.
type filterClient struct {
	*process
	in    io.WriteCloser
	taken int  // lines
	more  bool // there may be more blocks than were asked for
}

// filterChanges is what is new to one pair of filters.
type filterChanges struct {
	Blocks []string
	Events []struct {
		Number, Index uint64
		Value         int
	}
}

type filterAnswer struct {
	Made    int
	Filters []filterChanges
	Removed []bool
	Error   string
}

func startFilterClient(t *testing.T, url, contract string) *filterClient {
	t.Helper()
	cmd := nodeCommand(t, "filters.mjs", url, contract)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &filterClient{in: in, taken: 1}
	c.process = startProcess(t, "filters at "+url, cmd, 0, func(line string) bool { return line == `{"made":4}` })
	t.Cleanup(func() { in.Close() })
	return c
}

// do has a command done and returns what it printed.
func (c *filterClient) do(t *testing.T, command string) filterAnswer {
	t.Helper()
	w := bufio.NewWriter(c.in)
	fmt.Fprintln(w, command)
	if err := w.Flush(); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	var a filterAnswer
	eventually(t, 20*time.Second, c.name+" to "+command, func() error {
		lines := c.last(1 << 20)
		if len(lines) <= c.taken {
			return fmt.Errorf("nothing was printed")
		}
		return json.Unmarshal([]byte(lines[c.taken]), &a)
	})
	c.taken++
	return a
}

// poll wants each pair of filters to tell of exactly the blocks and events, by value.
func (c *filterClient) poll(t *testing.T, when string, blocks int, events ...int) {
	t.Helper()
	a := c.do(t, "poll")
	if a.Error != "" || len(a.Filters) != 4 {
		t.Errorf("%s, %s: %+v", c.name, when, a)
	}
	for i, f := range a.Filters {
		// geth may have mined blocks without events between.
		if got := f.values(); len(f.Blocks) < blocks || len(f.Blocks) > blocks && !c.more || !slices.Equal(got, events) {
			t.Errorf("%s, %s: filter %d told of %d blocks and events %v, want %d and %v", c.name, when, i, len(f.Blocks), got, blocks, events)
		}
	}
}

func (f filterChanges) values() []int {
	var values []int
	for _, e := range f.Events {
		values = append(values, e.Value)
	}
	return values
}

// inTurn is a group that asks its backends in turn.
const inTurn = `routing_strategy = "round_robin"`

func TestFiltersAreFoundAtTheNodeThatMadeThem(t *testing.T) {
	t.Parallel()
	// Two nodes with a chain each, so that an id is unknown to the other.
	nodes := []*source{socketSources["anvil"](t), socketSources["anvil"](t)}
	g := startSocketGateway(t, socketConfig{
		group:    inTurn,
		more:     "[filters]\nmode = \"backend\"\n",
		backends: []string{nodes[0].addr, nodes[1].addr},
	}.String())
	step := func(events int) {
		t.Helper()
		for _, s := range nodes {
			s.steps(t, events)
		}
	}
	clients := []*filterClient{startFilterClient(t, g.url, nodes[0].contract), startFilterClient(t, g.ws(), nodes[0].contract)}
	poll := func(when string, blocks int, events ...int) {
		t.Helper()
		for _, c := range clients {
			c.poll(t, when, blocks, events...)
		}
	}
	poll("nothing yet", 0)
	step(2)
	step(1)
	poll("two blocks", 2, 2, 1, 1)
	poll("nothing new", 0)
	step(3)
	poll("one block", 1, 3, 2, 1)
	for _, c := range clients {
		for i, f := range c.do(t, "logs").Filters {
			if got := f.values(); !slices.Equal(got, []int{3, 2, 1}) { // without fromBlock it is of the last block
				t.Errorf("%s: eth_getFilterLogs of filter %d: %v", c.name, i, got)
			}
		}
		if a := c.do(t, "remove"); len(a.Removed) != 8 || slices.Contains(a.Removed, false) {
			t.Errorf("%s: uninstalled %+v", c.name, a)
		}
		if a := c.do(t, "poll"); a.Error == "" {
			t.Errorf("%s: polled what was uninstalled: %+v", c.name, a)
		}
		if a := c.do(t, "remove"); len(a.Removed) != 8 || slices.Contains(a.Removed, true) {
			t.Errorf("%s: uninstalled twice: %+v", c.name, a)
		}
	}
}

func TestFiltersOfTheGatewayLoseNothingWhenABackendDies(t *testing.T) {
	t.Parallel()
	for kind, start := range map[string]func(*testing.T) *source{
		"anvil": socketSources["anvil"],
		"geth":  miningSources["geth"],
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			first, second := newFaultyListener(t, s.addr), newFaultyListener(t, s.addr)
			g := startSocketGateway(t, socketConfig{
				group:    inTurn,
				more:     "[filters]\nmode = \"gateway\"\n",
				plain:    true,
				backends: []string{first.addr, second.addr},
			}.String())
			step := func(events int) {
				t.Helper()
				s.steps(t, events)
				s.mined(t, []signedTx{{Hash: s.sent[len(s.sent)-1]}})
			}
			clients := []*filterClient{startFilterClient(t, g.url, s.contract), startFilterClient(t, g.ws(), s.contract)}
			for _, c := range clients {
				c.more = kind == "geth"
			}
			poll := func(when string, blocks int, events ...int) {
				t.Helper()
				for _, c := range clients {
					c.poll(t, when, blocks, events...)
				}
			}
			poll("nothing yet", 0)
			step(2)
			poll("one block", 1, 2, 1)
			step(1)
			first.refuse()
			step(3)
			poll("the first is gone", 2, 1, 3, 2, 1)
			step(1)
			first.restore(t)
			second.refuse()
			step(2)
			poll("the second is gone, the first is back", 2, 1, 2, 1)
			second.restore(t)
			poll("nothing new", 0)
			for _, c := range clients {
				for i, f := range c.do(t, "logs").Filters {
					if got := f.values(); !slices.Equal(got, []int{2, 1}) && !(c.more && len(got) == 0) { // without fromBlock it is of the last block, as nodes have it
						t.Errorf("%s: eth_getFilterLogs of filter %d: %v", c.name, i, got)
					}
				}
				if a := c.do(t, "remove"); len(a.Removed) != 8 || slices.Contains(a.Removed, false) {
					t.Errorf("%s: uninstalled %+v", c.name, a)
				}
				if a := c.do(t, "poll"); a.Error == "" {
					t.Errorf("%s: polled what was uninstalled: %+v", c.name, a)
				}
			}
		})
	}
}

// viem watches by filters when it is told to poll, over HTTP as by default.
func TestFiltersOfTheGatewayLetViemSeeEveryEventOnceWhileBackendsDie(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"http", "ws"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			s := socketSources["anvil"](t)
			first, second := newFaultyListener(t, s.addr), newFaultyListener(t, s.addr)
			g := startSocketGateway(t, socketConfig{
				group:    inTurn,
				more:     "[filters]\nmode = \"gateway\"\n",
				plain:    true,
				backends: []string{first.addr, second.addr},
			}.String())
			url := g.url
			if scheme == "ws" {
				url = g.ws()
			}
			w := startWatcher(t, "viem-poll", url, s.contract, "nopending")
			eventually(t, 10*time.Second, "its filters", func() error {
				if n := g.series(t, "proxyd_filters"); n != 2 {
					return fmt.Errorf("%v of 2", n)
				}
				return nil
			})
			stop := s.run(t)
			progress := func() {
				t.Helper()
				w.reaches(t, "block", s.quantity(t, "eth_blockNumber", "[]")+2)
			}
			progress()
			for _, l := range []*faultyListener{first, second} {
				l.refuse()
				progress()
				l.restore(t)
				progress()
				l.cut()
				progress()
			}
			stop()
			last, logs := s.settle(t), s.logs(t)
			w.reaches(t, "number", last)
			w.reaches(t, "block", last)
			w.seesEvents(t, len(logs))
			w.finish(t)
			w.saw(t, last, logs)
		})
	}
}

// A filter of mode backend is gone with its node. Only at this code viem makes another.
func TestFiltersOfADeadNodeAreNotFound(t *testing.T) {
	t.Parallel()
	nodes := []*source{socketSources["anvil"](t), socketSources["anvil"](t)}
	g := startSocketGateway(t, socketConfig{group: inTurn, backends: []string{nodes[0].addr, nodes[1].addr}}.String())
	var ids []string
	for range 4 {
		ids = append(ids, string(g.client.must(t, "eth_newBlockFilter", "[]")))
	}
	nodes[0].kill(t)
	lost := 0
	for _, id := range ids {
		a, err := g.client.send(request("1", "eth_getFilterChanges", "["+id+"]"))
		if err != nil {
			t.Fatal(err)
		}
		if a.Error == nil {
			continue
		}
		var refused struct{ Code int }
		if err := json.Unmarshal(a.Error, &refused); err != nil || refused.Code != -32000 {
			t.Errorf("filter of a dead node: %s, want code -32000", a.Error)
		}
		lost++
	}
	if lost == 0 || lost == len(ids) {
		t.Errorf("%d of %d filters were lost with one of two nodes", lost, len(ids))
	}
}
