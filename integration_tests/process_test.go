package integration_tests

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startLimit is how long a program may take until it says that it listens; generous, for busy machines.
const startLimit = 60 * time.Second

// process is a program run by a test, stopped at the test's end.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed after the last line was read

	mu    sync.Mutex
	lines []string // stdout and stderr, keep of them at most
	keep  int
	err   error
}

// dieWithParent makes a command end when the test binary does, where the system can do that.
var dieWithParent = func(*exec.Cmd) {}

// startProcess runs the command, hands every line of its output to each, and waits until each has returned true once.
// The last keep lines are held; zero keeps all.
func startProcess(t *testing.T, name string, cmd *exec.Cmd, keep int, each func(line string) (ready bool)) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, exited: make(chan struct{}), keep: keep}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	in.Close()
	ready := make(chan struct{})
	go p.read(out, each, ready)
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("%s said last:\n%s", name, strings.Join(p.last(25), "\n"))
		}
	})
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case <-ready:
	case <-p.exited:
		t.Fatalf("%s ended before it was ready: %v", name, p.exitError())
	case <-limit.C:
		t.Fatalf("%s was not ready after %s", name, startLimit)
	}
	return p
}

func (p *process) read(out *os.File, each func(string) bool, ready chan struct{}) {
	defer close(p.exited)
	defer out.Close()
	r := bufio.NewReader(out)
	told := false
	for {
		line, err := r.ReadString('\n')
		line = strings.TrimRight(line, "\n")
		if line != "" {
			p.mu.Lock()
			p.lines = append(p.lines, line)
			if p.keep > 0 && len(p.lines) > p.keep {
				p.lines = p.lines[len(p.lines)-p.keep:]
			}
			p.mu.Unlock()
			if !told && each(line) {
				told = true
				close(ready)
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				fmt.Fprintf(os.Stderr, "read output of %s: %v\n", p.name, err)
			}
			break
		}
	}
	err := p.cmd.Wait()
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
}

func (p *process) exitError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// output is all that was kept of what the program printed.
func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

func (p *process) last(n int) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.lines[max(0, len(p.lines)-n):]...)
}

func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("terminate %s: %v", p.name, err)
	}
}

// stop asks the program to end and kills it when it does not. Stopping twice is fine.
func (p *process) stop(t *testing.T) {
	t.Helper()
	select {
	case <-p.exited:
		return
	default:
	}
	p.terminate(t)
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	select {
	case <-p.exited:
	case <-limit.C:
		t.Errorf("%s still ran 20 s after SIGTERM", p.name)
		p.cmd.Process.Kill()
		<-p.exited
	}
}
