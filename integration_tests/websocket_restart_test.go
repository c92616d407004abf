package integration_tests

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// startAnvilAt runs an anvil that is mined by the test at an address which another left.
func startAnvilAt(t *testing.T, addr string, args ...string) *node {
	t.Helper()
	bin := component(t, "anvil", "ANVIL_BIN", "node/node_modules/@foundry-rs/anvil-*/bin/anvil")
	host, port, _ := strings.Cut(addr, ":")
	cmd := exec.Command(bin, append([]string{"--host", host, "--port", port, "--no-mining"}, args...)...)
	return startNode(t, "anvil", cmd, t.TempDir(), anvilListens)
}

// reserved is an address that no outgoing connection is given and nobody listens on.
func reserved(t *testing.T) string {
	t.Helper()
	l := newFaultyListener(t, "127.0.0.1:1")
	l.refuse()
	return l.addr
}

// save writes anvil's chain as it is to a file that --load-state reads.
func (s *source) save(t *testing.T) (file string) {
	t.Helper()
	var text string
	if err := json.Unmarshal(s.must(t, "anvil_dumpState", "[true]"), &text); err != nil {
		t.Fatal(err)
	}
	packed, err := hex.DecodeString(strings.TrimPrefix(text, "0x"))
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// restart kills the node and starts it again in its place, with the arguments.
func (s *source) restart(t *testing.T, args ...string) {
	t.Helper()
	s.kill(t)
	s.node = startAnvilAt(t, s.addr, args...)
}

// startRestarting is an anvil that a gateway follows, and nothing else, with a client that knows nothing of the steps
// before.
func startRestarting(t *testing.T, before ...int) (*source, *gateway, *plainSocket) {
	t.Helper()
	s := newSource(t, startAnvilAt(t, reserved(t)), true)
	s.steps(t, before...)
	g := startSocketGateway(t, socketConfig{server: `ws_head_stall = "1s"`, backends: []string{s.addr}}.String())
	p := dialPlain(t, g.ws())
	p.subscribe(t, "newHeads", "")
	p.subscribe(t, "logs", fmt.Sprintf(`{"address":%q}`, s.contract))
	return s, g, p
}

// steps lets the chain go on by blocks with so many events each.
func (s *source) steps(t *testing.T, events ...int) {
	t.Helper()
	for _, n := range events {
		if err := s.step(n); err != nil {
			t.Fatal(err)
		}
	}
}

// tips waits until the last head that the client was told is the node's.
func (p *plainSocket) tips(t *testing.T, s *source) {
	t.Helper()
	var latest plainHead
	if err := json.Unmarshal(s.must(t, "eth_getBlockByNumber", `["latest",false]`), &latest); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "head "+latest.Number, func() error {
		select {
		case <-p.done:
			t.Fatalf("the connection was closed: %v", p.err)
		default:
		}
		heads, _ := p.seen(t)
		if len(heads) == 0 || heads[len(heads)-1] != latest {
			return fmt.Errorf("%d heads, the last %+v", len(heads), heads[max(0, len(heads)-1):])
		}
		return nil
	})
}

func TestWebSocketSubscriptionsGoOnWhenTheNodeIsKilledAndComesBack(t *testing.T) {
	t.Parallel()
	s, g, p := startRestarting(t)
	w := startWatcher(t, "viem", g.ws(), s.contract)
	s.steps(t, 1, 2, 3)
	p.tips(t, s)
	w.reaches(t, "block", s.quantity(t, "eth_blockNumber", "[]")) // a call that nobody can answer would be a fault
	s.restart(t, "--load-state", s.save(t))
	s.steps(t, 3, 2, 1)
	p.tips(t, s)
	logs := s.logs(t)
	w.seesEvents(t, len(logs))
	eventually(t, 10*time.Second, "all events over the plain connection", func() error {
		if _, got := p.seen(t); len(got) < len(logs) {
			return fmt.Errorf("%d of %d", len(got), len(logs))
		}
		return nil
	})
	last := s.quantity(t, "eth_blockNumber", "[]")
	w.reaches(t, "block", last)
	p.open(t)
	p.chained(t)
	_, got := p.seen(t)
	sameLogs(t, "plain connection", got, logs)
	w.finish(t)
	w.saw(t, last, logs)
}

// A node that was killed before it had written its last blocks makes others in their place: a reorganisation. Clients
// are told of it as of any other.
func TestWebSocketClientsAreToldOfAReorganisationWhenTheNodeComesBackWithoutItsLastBlocks(t *testing.T) {
	t.Parallel()
	for name, after := range map[string][]int{"longer": {1, 0, 2, 1, 1}, "shorter": {1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, p := startRestarting(t)
			s.steps(t, 1, 2)
			file := s.save(t)
			s.steps(t, 3, 1, 2)
			p.tips(t, s)
			lost := s.logs(t)
			eventually(t, 10*time.Second, "the events that will be lost", func() error {
				if _, got := p.seen(t); len(got) != len(lost) {
					return fmt.Errorf("%d of %d", len(got), len(lost))
				}
				return nil
			})
			s.restart(t, "--load-state", file)
			s.must(t, "evm_increaseTime", "[7]") // other blocks, even where they have the same transactions
			s.steps(t, after...)
			p.tips(t, s)

			// What clients know in the end is the node's chain.
			eventually(t, 10*time.Second, "what remains of the events", func() error {
				if got, want := p.standing(t), s.logs(t); !slices.Equal(got, want) {
					return fmt.Errorf("%v, want %v", got, want)
				}
				return nil
			})
			p.branched(t)
			p.open(t)
		})
	}
}

// standing are the logs that were told and not taken back, in the order of the chain.
func (p *plainSocket) standing(t *testing.T) []logID {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	type place struct {
		BlockHash, BlockNumber, LogIndex string
	}
	told := make(map[place]bool)
	for _, raw := range p.logs {
		var l struct {
			place
			Removed bool
		}
		if err := json.Unmarshal(raw, &l); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if told[l.place] != l.Removed {
			t.Errorf("log told twice, or taken back without: %s", raw)
		}
		if told[l.place] = !l.Removed; l.Removed {
			delete(told, l.place)
		}
	}
	var ids []logID
	for at := range told {
		var id logID
		if _, err := fmt.Sscanf(at.BlockNumber+" "+at.LogIndex, "0x%x 0x%x", &id.number, &id.index); err != nil {
			t.Fatalf("%+v: %v", at, err)
		}
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b logID) int {
		if a.number != b.number {
			return int(a.number) - int(b.number)
		}
		return int(a.index) - int(b.index)
	})
	return ids
}

// branched wants each head to be a child of one that was told before, and none to be told twice.
func (p *plainSocket) branched(t *testing.T) {
	t.Helper()
	heads, _ := p.seen(t)
	known := make(map[string]bool)
	for i, h := range heads {
		if known[h.Hash] {
			t.Errorf("head %+v was told twice", h)
		}
		if i > 0 && !known[h.ParentHash] {
			t.Errorf("head %+v is no child of one told before", h)
		}
		known[h.Hash] = true
		if i == 0 {
			known[h.ParentHash] = true
		}
	}
}

// A node that comes back with another chain has reorganised all that clients know, as long as that reaches the first
// block that they were told. Else nothing joins the two, and they are sent away: they come again and begin anew.
func TestWebSocketClientsAreToldOrSentAwayWhenTheNodeComesBackWithAnotherChain(t *testing.T) {
	t.Parallel()
	t.Run("that reaches what clients know", func(t *testing.T) {
		t.Parallel()
		s, _, p := startRestarting(t)
		s.steps(t, 1, 2, 3)
		p.tips(t, s)
		s.restart(t, "--timestamp", "1700000000")
		s.must(t, "evm_mine", "[]")
		p.tips(t, s)
		for range 4 { // the new chain becomes the longer one
			s.must(t, "evm_mine", "[]")
		}
		p.tips(t, s)
		eventually(t, 10*time.Second, "all events to be taken back", func() error {
			if got := p.standing(t); len(got) != 0 {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
		p.open(t)
	})
	t.Run("that is shorter than where clients began", func(t *testing.T) {
		t.Parallel()
		s, g, p := startRestarting(t, 1, 1, 1)
		s.steps(t, 2, 3)
		p.tips(t, s)
		s.restart(t, "--timestamp", "1700000000")
		s.must(t, "evm_mine", "[]")
		p.sentAway(t)
		if heads, _ := p.seen(t); len(heads) != 2 {
			t.Errorf("heads %+v, want the two before the end", heads)
		}

		again := dialPlain(t, g.ws())
		again.subscribe(t, "newHeads", "")
		s.must(t, "evm_mine", "[]")
		again.tips(t, s)
	})
}

// sentAway waits until the connection is closed because events were lost.
func (p *plainSocket) sentAway(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		t.Fatal("the connection was not closed")
	}
	if code := websocket.CloseStatus(p.err); code != websocket.StatusTryAgainLater {
		t.Errorf("closed by %v, want code 1013", p.err)
	}
}

func TestWebSocketClientsAreSentAwayWhenMoreWasMissedThanIsFetched(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"close", "count"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := socketSources["anvil"](t)
			way := newFaultyListener(t, s.addr)
			g := startSocketGateway(t, socketConfig{
				server:   fmt.Sprintf("ws_replay_blocks = 4\nws_gap = %q", what),
				backends: []string{way.addr},
			}.String())
			p := dialPlain(t, g.ws())
			p.subscribe(t, "newHeads", "")
			w := startWatcher(t, "viem", g.ws(), s.contract)
			s.steps(t, 1, 1)
			p.tips(t, s)
			way.refuse()
			s.steps(t, 1, 1, 1, 1, 1)
			way.restore(t)
			if what == "close" {
				p.sentAway(t)
				if heads, _ := p.seen(t); len(heads) != 2 {
					t.Errorf("heads %+v, want the two before the gap", heads)
				}
			}
			series := `proxyd_subscription_gaps_total{backend_group_name="main"}`
			eventually(t, 15*time.Second, "the gap to be counted", func() error {
				if n := g.series(t, series); n != 1 {
					return fmt.Errorf("%s is %v", series, n)
				}
				return nil
			})

			// viem opens another connection and subscribes again, where it was sent away.
			last := s.quantity(t, "eth_blockNumber", "[]")
			eventually(t, 15*time.Second, "viem to see a block behind the gap", func() error {
				s.steps(t, 1)
				for _, one := range w.sights(t, "number") {
					if uint64(one.Number) > last {
						return nil
					}
				}
				return fmt.Errorf("none")
			})
			closes := w.sights(t, "closed")
			switch {
			case what == "count" && len(closes) > 0:
				t.Errorf("closed: %+v", closes)
			case what == "count":
				p.tips(t, s)
			case len(closes) != 1 || closes[0].Code != 1013 || closes[0].Text == "":
				t.Errorf("viem's connection: %+v, want one close with code 1013 and a reason", closes)
			}
		})
	}
}
