package probe

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// clock is a chain whose head is one more every so often, from a thousand.
type clock struct {
	mu      sync.Mutex
	begun   time.Time
	every   time.Duration
	stopped time.Time // zero while it runs
	behind  uint64
}

func (c *clock) head() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !c.stopped.IsZero() {
		now = c.stopped
	}
	return 1000 + uint64(now.Sub(c.begun)/c.every) - c.behind
}

func (c *clock) set(change func(*clock)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

// serve answers eth_blockNumber with the head, after fail if that is not "".
func (c *clock) serve(fail *string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		text := ""
		if fail != nil {
			text = *fail
		}
		c.mu.Unlock()
		if text == "" {
			text = `{"jsonrpc":"2.0","id":$id,"result":"0x$head"}`
		}
		if text == "redirect" {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
			return
		}
		var id int
		if _, rest, ok := strings.Cut(string(body), `"id":`); ok {
			fmt.Sscanf(rest, "%d", &id)
		}
		io.WriteString(w, strings.NewReplacer("$id", fmt.Sprint(id), "$head", fmt.Sprintf("%x", c.head())).Replace(text))
	}
}

// observed runs a Prober of one backend on the chain member, with a reference on
// the chain there.
func observed(t *testing.T, interval time.Duration, member, there *clock, fail *string) *world {
	member.begun, there.begun = time.Now(), time.Now()
	w := newWorld(t, 2, setting{idle: true, probe: func(o *Options) {
		o.Checks = []string{blockNumber}
		o.Interval = interval
	}})
	r := newReference(w.Prober, Reference{Group: "g", URL: "http://reference.memory/reference-key", Members: w.backends, Interval: interval})
	r.client = memoryClient(t, there.serve(fail))
	w.o.References = append(w.o.References, r.r)
	w.loops = append(w.loops, r)
	// Heads of the nodes follow the member's chain.
	w.running.Go(func() {
		for w.sleep(w.ctx, 100*time.Millisecond) {
			for _, n := range w.nodes {
				n.says(blockNumber, answer{result: fmt.Sprintf(`"0x%x"`, member.head())})
			}
		}
	})
	pass(200 * time.Millisecond)
	w.Start()
	return w
}

func (w *world) lines(text string) int { return strings.Count(w.logs.String(), text) }

const (
	behindLine  = "all backends of the group are behind the reference"
	reachedLine = "backends of the group have reached the reference"
)

func TestAStallThatAllMembersShareShowsBesideTheReference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		member, there := &clock{every: 12 * time.Second}, &clock{every: 12 * time.Second}
		w := observed(t, 30*time.Second, member, there, nil)
		pass(10 * time.Minute)
		if got := w.value("proxyd_reference_lag_blocks", "g"); got > 1 || got < 0 {
			t.Fatalf("lag %v", got)
		}
		if got := w.value("proxyd_reference_head", "g"); got < 1047 || got > 1051 {
			t.Fatalf("head %v after ten minutes", got)
		}
		member.set(func(c *clock) { c.stopped = time.Now() })
		pass(time.Minute)
		if w.lines(behindLine) != 0 {
			t.Fatal("told of a small lag")
		}
		pass(10 * time.Minute)
		if got := w.value("proxyd_reference_lag_blocks", "g"); got < 48 || got > 56 {
			t.Fatalf("lag %v after eleven minutes", got)
		}
		if w.lines(behindLine) != 1 {
			t.Fatalf("told %d times of the stall", w.lines(behindLine))
		}
		member.set(func(c *clock) { c.stopped = time.Time{} })
		pass(2 * time.Minute)
		if got := w.value("proxyd_reference_lag_blocks", "g"); got > 1 || w.lines(reachedLine) != 1 {
			t.Fatalf("lag %v, told %d times of the end", got, w.lines(reachedLine))
		}
		if strings.Contains(w.logs.String(), "reference-key") {
			t.Fatal("the URL is in the log")
		}
	})
}

func TestAFastChainIsNotBehindForWhatItMadeBetweenTwoChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		member, there := &clock{every: 250 * time.Millisecond}, &clock{every: 250 * time.Millisecond}
		w := observed(t, 30*time.Second, member, there, nil)
		for range 100 {
			pass(7 * time.Second)
			if got := w.value("proxyd_reference_lag_blocks", "g"); got > 3 {
				t.Fatalf("lag %v after %s", got, time.Since(w.begun))
			}
		}
		if w.lines(behindLine) != 0 {
			t.Fatal("told of a lag that is none")
		}
		member.set(func(c *clock) { c.behind = 40 })
		pass(3 * time.Minute)
		if got := w.value("proxyd_reference_lag_blocks", "g"); got < 37 || got > 43 || w.lines(behindLine) != 1 {
			t.Fatalf("lag %v, told %d times", got, w.lines(behindLine))
		}
	})
}

func TestHeadsThatNobodyAsksForAreNotBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		member, there := &clock{every: time.Second}, &clock{every: time.Second}
		w := observed(t, 0, member, there, nil)
		for _, b := range w.backends {
			b.NoteHead(1000)
		}
		pass(5 * time.Second)
		if got := w.value("proxyd_reference_lag_blocks", "g"); got < 0 || got > 1 {
			t.Fatalf("lag %v", got)
		}
		pass(time.Hour)
		if got := w.value("proxyd_reference_lag_blocks", "g"); got != -1 || w.lines(behindLine) != 0 {
			t.Fatalf("lag %v from old heads", got)
		}
	})
}

func TestAReferenceThatDoesNotAnswerIsCounted(t *testing.T) {
	for name, says := range map[string]string{
		"error": `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"reference-key"}}`, "page": "<html>reference-key</html>", "null": `{"jsonrpc":"2.0","id":1,"result":null}`,
		"large": `{"jsonrpc":"2.0","id":1,"result":"` + strings.Repeat("0", maxReferenceBody) + `"}`, "redirect": "redirect",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				member, there := &clock{every: time.Second}, &clock{every: time.Second}
				fail := says
				w := observed(t, 10*time.Second, member, there, &fail)
				pass(time.Minute)
				if got := w.value("proxyd_reference_errors_total", "g"); got < 5 || got > 7 {
					t.Errorf("%v errors", got)
				}
				if got := w.value("proxyd_reference_head", "g"); got != -1 {
					t.Errorf("head %v", got)
				}
				if strings.Contains(w.logs.String(), "reference-key") {
					t.Errorf("what the node said is in the log")
				}
				there.set(func(*clock) { fail = "" })
				pass(time.Minute)
				if got := w.value("proxyd_reference_head", "g"); got < 1060 {
					t.Errorf("head %v", got)
				}
			})
		})
	}
}
