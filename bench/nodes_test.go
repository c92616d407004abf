package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gateway.internal/bench/internal/measure"
)

// benchWithUpstream is a benchmark that has built its upstream.
func benchWithUpstream(t *testing.T) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir(), out: t.TempDir(), gatewayCore: -1, loadCore: -1, progress: io.Discard}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", b.program("upstream"), "gateway.internal/bench/upstream").CombinedOutput(); err != nil {
		t.Skipf("go build: %v\n%s", err, out)
	}
	t.Cleanup(b.processes.stopAll)
	return b
}

// fetched is the status and the body of an answer.
func fetched(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestTheNodeThatIsFollowedIsKilled(t *testing.T) {
	b := benchWithUpstream(t)
	n, err := b.startNodes(t.Context(), 2, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop()
	addr, done, err := n.serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(what string) (int, string) { return fetched(t, http.MethodGet, "http://"+addr+"/"+what, "") }
	block := func(i int) string {
		_, text := fetched(t, http.MethodPost, "http://"+n.addrs[i], `{"jsonrpc":"2.0","id":1,"method":"eth_getBlockByNumber","params":["latest",false]}`)
		return text
	}
	if x, y := block(0), block(1); x != y || !strings.Contains(x, fmt.Sprintf(`"number":"0x%x"`, 23_000_000+history)) {
		t.Errorf("%s and %s", x, y)
	}

	n.patience = 50 * time.Millisecond
	if status, text := ask("kill?at=0"); status != http.StatusServiceUnavailable || !strings.Contains(text, "no upstream has had subscriptions") {
		t.Errorf("nobody is followed: %d %s", status, text)
	}
	n.patience = 30 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+n.addrs[1], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(ctx, websocket.MessageText, []byte(`{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}`)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(ctx); err != nil {
		t.Fatal(err)
	}

	before, victim := block(1), n.all[1]
	at := time.Now().Add(100 * time.Millisecond)
	status, text := ask(fmt.Sprintf("kill?at=%d", at.UnixNano()))
	if killed, err := strconv.ParseInt(text, 10, 64); status != http.StatusOK || err != nil || time.Unix(0, killed).Before(at) {
		t.Errorf("killed: %d %s", status, text)
	}
	if w, ok := victim.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || w.Signal() != syscall.SIGKILL || n.all[1] != nil || len(n.running()) != 1 {
		t.Errorf("it ended with %s, and %d of 2 run", victim.cmd.ProcessState, len(n.running()))
	}
	if _, _, err := c.Read(ctx); err == nil {
		t.Error("its WebSocket is still open")
	}
	if status, text := ask("kill?at=0"); status != http.StatusServiceUnavailable || !strings.Contains(text, "down already") {
		t.Errorf("two are down: %d %s", status, text)
	}
	if status, text := ask("start"); status != http.StatusOK || block(1) != before {
		t.Errorf("started: %d %s, %s", status, text, block(1))
	}
	if status, _ := ask("kill"); status != http.StatusServiceUnavailable {
		t.Errorf("without a time: %d", status)
	}
	if status, _ := ask("other"); status != http.StatusServiceUnavailable {
		t.Errorf("something else: %d", status)
	}

	// What is down at the end is started.
	b.processes.kill(n.all[0])
	n.all[0] = nil
	if err := done(); err != nil || len(n.running()) != 2 || block(0) != before {
		t.Errorf("%v, %d run", err, len(n.running()))
	}
}

// outages is a report of work q.
func outages(second measure.Result) *report {
	r := &report{Machine: new(machine), Rows: []row{{Work: "q", Title: "killed", Gateway: nameProxyd, Rounds: []measure.Result{
		{Requests: 2000, Seconds: 1, CPU: 0.02, Listeners: 100, Felt: []float64{1000, 7000, 3000}, Calm: 500}, second,
	}}}}
	r.Rows[0].sumUp()
	return r
}

func TestOutagesHaveATableAndATarget(t *testing.T) {
	good := outages(measure.Result{Requests: 2000, Seconds: 1, CPU: 0.02, Listeners: 100, Felt: []float64{2000, 9000, 5000}, Calm: 800})
	text := good.markdown()
	for _, want := range []string{"| q killed | proxyd | 2 | 6 | 4000 | 0 | 0 | 0 | 0 | 4.0 | 9.0 | 0.8 | 10.0 | 0 | 0 | 0 |\n", "are killed | 0 | 0.00 | met |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "| × HAProxy |\n") || good.verdict() != nil {
		t.Errorf("%v:\n%s", good.verdict(), text)
	}
	bad := outages(measure.Result{Requests: 1990, Seconds: 1, CPU: 0.02, Listeners: 100, Felt: []float64{1000}, Closed: 1, Missed: 2, Twice: 3, Disordered: 4,
		Failed: map[string]int{"WebSocket closed": 1}, Wrong: map[string]int{"head that did not come": 2, "log that came twice": 3, "log that came after a later one": 4}})
	text = bad.markdown()
	for _, want := range []string{"| 3990 | 1 | 2 | 3 | 4 |", "- q proxyd: 2 wrong: head that did not come\n", "are killed | 0 | 10.00 | missed |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if bad.verdict() == nil {
		t.Error("it is no error")
	}
	if text := brief(&bad.Rows[0].Rounds[1]); !strings.Contains(text, "1 closed, 2 missed, 3 twice, 4 out of order, 1 failed, 9 WRONG") {
		t.Error(text)
	}
}

func TestOutagesHaveTimeForThree(t *testing.T) {
	i := slices.IndexFunc(works, func(w work) bool { return w.outages })
	for length, want := range map[time.Duration]time.Duration{time.Second: 12 * time.Second, 5 * time.Second: 20 * time.Second} {
		if warmup, got := (&bench{length: length}).times(&works[i]); got != want || warmup != 0 {
			t.Errorf("%v: %v after %v", length, got, warmup)
		}
	}
}

func TestAHeldPortIsForWhoIsTold(t *testing.T) {
	fd, addr, err := holdPort()
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	b := benchWithUpstream(t)
	for range 2 {
		p, addrs, err := b.upstream(t.Context(), "-listen", addr)
		if err != nil || !slices.Equal(addrs, []string{addr}) {
			t.Fatalf("%v, %v", addrs, err)
		}
		b.processes.kill(p)
	}
	if text, err := exec.CommandContext(t.Context(), filepath.Join(b.dir, "upstream"), "-listen", addr, "-listeners", "2").CombinedOutput(); err == nil || !bytes.Contains(text, []byte("is the address of one port")) {
		t.Errorf("%s, %v", text, err)
	}
}
