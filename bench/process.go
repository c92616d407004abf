package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that the benchmark has started and will end.
type process struct {
	name   string
	cmd    *exec.Cmd
	stderr lastLines
	ended  chan struct{} // closed when it is gone
}

// processes are those that run, so that none outlives the benchmark.
type processes struct {
	mu      sync.Mutex
	running map[*process]bool
	closed  bool
}

// start starts a program on one core; core < 0 means on any. It is in a process
// group of its own and is told to end when the benchmark dies.
func (ps *processes) start(name string, core int, stdout *os.File, args ...string) (*process, error) {
	if core >= 0 {
		args = append([]string{"taskset", "-c", fmt.Sprint(core)}, args...)
	}
	p := &process{name: name, cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	if stdout != nil {
		p.cmd.Stdout = stdout
	} else {
		p.cmd.Stdout = &p.stderr // what it says is shown when it ends early
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.closed {
		return nil, errors.New("the benchmark is ending")
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if ps.running == nil {
		ps.running = map[*process]bool{}
	}
	ps.running[p] = true
	go func() {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		close(p.ended)
	}()
	return p, nil
}

// stop ends a process and its children.
func (ps *processes) stop(p *process) {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(2 * time.Second):
	}
	ps.kill(p) // the rest of its group too
}

// kill ends a process and its children without a word.
func (ps *processes) kill(p *process) {
	p.signal(syscall.SIGKILL)
	<-p.ended
	ps.mu.Lock()
	delete(ps.running, p)
	ps.mu.Unlock()
}

func (p *process) signal(s syscall.Signal) {
	_ = syscall.Kill(-p.cmd.Process.Pid, s) // it may have ended by itself
}

// stopAll ends what still runs and lets nothing start any more.
func (ps *processes) stopAll() {
	ps.mu.Lock()
	ps.closed = true
	var left []*process
	for p := range ps.running {
		left = append(left, p)
	}
	ps.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range left {
		wg.Go(func() { ps.stop(p) })
	}
	wg.Wait()
}

// pid is the process that was started; taskset has become it.
func (p *process) pid() int { return p.cmd.Process.Pid }

// ready waits until the process accepts connections.
func (p *process) ready(ctx context.Context, addr string) error {
	const patience = 15 * time.Second
	for deadline := time.Now().Add(patience); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended at once (%s); it said last:\n%s", p.name, p.cmd.ProcessState, p.stderr.String())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not listen on %s after %v; it said last:\n%s", p.name, addr, patience, p.stderr.String())
		}
	}
}

// alive is an error when the process has ended.
func (p *process) alive() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended during the work (%s); it said last:\n%s", p.name, p.cmd.ProcessState, p.stderr.String())
	default:
		return nil
	}
}

// freeAddr returns an address of 127.0.0.1 that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// lastLines keeps the end of what a process says.
type lastLines struct {
	mu  sync.Mutex
	buf []byte
}

// lastBytes is how much of it is kept.
const lastBytes = 4096

func (l *lastLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, b...)
	if over := len(l.buf) - lastBytes; over > 0 {
		l.buf = append(l.buf[:0], l.buf[over:]...)
	}
	return len(b), nil
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(bytes.TrimSpace(l.buf)) == 0 {
		return "(nothing)"
	}
	return strings.TrimSpace(string(l.buf))
}
