package group

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
)

func TestHeadsOfMembersThatCannotBeAskedMakeNobodyLag(t *testing.T) {
	inBubble(t, 5, lagging("fallback", 5), func(t *testing.T, w *world) {
		w.heads(0xffff, 0xffff, 100, 100, 100)
		w.backends[0].Unfit("check", "eth_syncing: is syncing")
		w.backends[1].Unfit("check", "eth_syncing: is syncing")
		w.nodes[2].is(devchain.FaultStatus)
		w.nodes[3].is(devchain.FaultStatus)
		w.well("b4")
		wantOrder(t, w, "234")
		if s, behind := w.Status(w.Members()[4]); s.State != backend.Well || behind != 0 {
			t.Errorf("%s, %d behind", s.State, behind)
		}
	})
}

func TestLaggardsAreAskedInOrderWhenOnlyTheyMayBe(t *testing.T) {
	s := lagging("fallback", 5)
	plain := s.group
	s.group = func(o *Options) {
		plain(o)
		o.Members[1].Archive, o.Members[2].Archive = true, true
	}
	inBubble(t, 3, s, func(t *testing.T, w *world) {
		w.heads(100, 80, 100)
		w.backends[2].Unfit("check", "no")
		w.heads(100, 80, 100)
		w.nodes[1].errs(-32000, "header not found")
		w.do(time.Second, archived())
		wantOrder(t, w, "1")
		if s, behind := w.Status(w.Members()[1]); s.State != backend.Lagging || behind != 20 {
			t.Errorf("%s, %d behind", s.State, behind)
		}
	})
}

func TestQuickErrorsDoNotWinTheFirstPlace(t *testing.T) {
	inBubble(t, 2, setting{group: byScore}, func(t *testing.T, w *world) {
		w.nodes[0].SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 40 * time.Millisecond})
		w.nodes[1].errs(-32000, "header not found")
		for range 700 {
			w.get()
			time.Sleep(100 * time.Millisecond)
		}
		wantRanking(t, w, "eth_blockNumber", "01")
	})
}

func TestPoisonCallMovesNoPreference(t *testing.T) {
	w := newWorld(t, 3, stickyGroup())
	w.all(func(n *node) { n.errs(-32603, "internal error") })
	for range 6 {
		wantRPCError(t, w.get(), `{"code":-32603,"message":"internal error"}`)
	}
	w.preferredIs("b0")
}

// lineLog keeps the messages that were logged.
type lineLog struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func (l *lineLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *lineLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, r.Message)
	return nil
}

func (l *lineLog) count(message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(strings.Join(l.lines, "\n"), message)
}

func TestFailingPingsAndLagAreToldOnce(t *testing.T) {
	log := &lineLog{Handler: slog.DiscardHandler}
	s := lagging("ranked", 5)
	plain := s.group
	s.group = func(o *Options) { plain(o); o.Rank.Interval, o.Log = time.Second, slog.New(log) }
	inBubble(t, 2, s, func(t *testing.T, w *world) {
		w.nodes[1].is(devchain.FaultGarbage)
		w.heads(100, 50)
		w.Start()
		for range 5 {
			w.well("b0")
			time.Sleep(time.Second)
		}
		w.nodes[1].is(devchain.FaultNone)
		w.heads(100, 100)
		w.well("b0")
		time.Sleep(2 * time.Second)
		w.Close(context.Background())
		for _, message := range []string{"ping failed", "ping answered again", "backend behind its group", "backend no longer behind"} {
			if n := log.count(message); n != 1 {
				t.Errorf("%q was logged %d times", message, n)
			}
		}
	})
}

func TestALaggardThatCannotBeAskedHasNotCaughtUp(t *testing.T) {
	log := &lineLog{Handler: slog.DiscardHandler}
	s := lagging("fallback", 5)
	plain := s.group
	s.group = func(o *Options) { plain(o); o.Log = slog.New(log) }
	inBubble(t, 2, s, func(t *testing.T, w *world) {
		w.heads(100, 50)
		w.well("b0")
		w.backends[1].Unfit("check", "no")
		w.well("b0")
		w.backends[1].Unfit("check", "")
		w.well("b0")
		if behind, again := log.count("backend behind its group"), log.count("backend no longer behind"); behind != 1 || again != 0 {
			t.Errorf("told %d times that it is behind, %d times that it is not", behind, again)
		}
	})
}
