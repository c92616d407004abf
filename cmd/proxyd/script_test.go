package main

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"proxyd": main})
}

// TestScripts runs the command lines in testdata. Beside the usual commands of
// testscript they have:
//
//	exits CODE PROGRAM ARG...   runs a program that must end with CODE
//	start NAME ARG...           starts proxyd and goes on
//	await NAME REGEXP VAR...    waits for a line of its stdout; the groups become variables
//	signal NAME                 sends it SIGTERM
//	ended NAME CODE             waits for its end; its output is stdout and stderr
//	paste NAME N                runs the Nth curl line that it printed, in a shell
//	get URL                     prints the answer's body
func TestScripts(t *testing.T) {
	example, err := filepath.Abs("../../example.config.toml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("curl"); err != nil && os.Getenv("CI") != "" {
		t.Error("curl is missing, which CI must have")
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("EXAMPLE", example)
			p := &programs{running: map[string]*program{}}
			env.Values[programsKey{}] = p
			env.Defer(p.killAll)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "start": start, "await": await, "signal": sendSignal, "ended": ended, "paste": paste, "get": get,
		},
	})
}

// patience bounds every wait. It is for tests that hang, so it is long.
const patience = 60 * time.Second

type programsKey struct{}

type programs struct{ running map[string]*program }

// program is a started proxyd.
type program struct {
	cmd    *exec.Cmd
	stderr strings.Builder
	done   chan struct{} // closed when stdout has ended

	mu     sync.Mutex
	stdout strings.Builder
	grown  chan struct{} // closed and replaced with each line
}

func (p *programs) killAll() {
	for _, r := range p.running {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	}
}

func named(ts *testscript.TestScript, args []string, atLeast int) *program {
	if len(args) < atLeast {
		ts.Fatalf("too few arguments")
	}
	r := ts.Value(programsKey{}).(*programs).running[args[0]]
	if r == nil {
		ts.Fatalf("%s was not started", args[0])
	}
	return r
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: start NAME ARG...")
	}
	bin := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if file := filepath.Join(dir, "proxyd"); bin == "" && isFile(file) {
			bin = file
		}
	}
	r := &program{cmd: exec.Command(bin, args[1:]...), done: make(chan struct{}), grown: make(chan struct{})}
	r.cmd.Dir = ts.Getenv("WORK")
	r.cmd.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"))
	r.cmd.Stderr = &r.stderr
	stdout, err := r.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(r.cmd.Start())
	ts.Value(programsKey{}).(*programs).running[args[0]] = r
	go r.read(stdout)
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.IsDir()
}

func (r *program) read(stdout io.Reader) {
	defer close(r.done)
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		r.mu.Lock()
		r.stdout.WriteString(line)
		close(r.grown)
		r.grown = make(chan struct{})
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// output returns what was written so far and a channel that closes with the next
// line.
func (r *program) output() (string, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stdout.String(), r.grown
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	r := named(ts, args, 2)
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	enough := time.After(patience)
	for {
		text, grown := r.output()
		if m := re.FindStringSubmatch(text); m != nil {
			for i, name := range args[2:] {
				ts.Setenv(name, m[i+1])
			}
			return
		}
		select {
		case <-grown:
		case <-r.done:
			text, _ := r.output()
			if !re.MatchString(text) {
				ts.Fatalf("%s ended without %s:\n%s", args[0], args[1], text)
			}
		case <-enough:
			ts.Fatalf("%s did not say %s:\n%s", args[0], args[1], text)
		}
	}
}

func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(named(ts, args, 1).cmd.Process.Signal(syscall.SIGTERM))
}

func ended(ts *testscript.TestScript, neg bool, args []string) {
	r := named(ts, args, 2)
	select {
	case <-r.done:
	case <-time.After(patience):
		text, _ := r.output()
		ts.Fatalf("%s did not end:\n%s", args[0], text)
	}
	_ = r.cmd.Wait() // the exit code tells
	delete(ts.Value(programsKey{}).(*programs).running, args[0])
	text, _ := r.output()
	_, err := ts.Stdout().Write([]byte(text))
	ts.Check(err)
	_, err = ts.Stderr().Write([]byte(r.stderr.String()))
	ts.Check(err)
	if got := strconv.Itoa(r.cmd.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("exit code %s, want %s:\n%s%s", got, args[1], text, r.stderr.String())
	}
}

func paste(ts *testscript.TestScript, neg bool, args []string) {
	text, _ := named(ts, args, 2).output()
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	lines := regexp.MustCompile(`(?m)^ +(curl .*)$`).FindAllStringSubmatch(text, -1)
	if n > len(lines) {
		ts.Fatalf("%s printed %d curl lines", args[0], len(lines))
	}
	ts.Check(ts.Exec("sh", "-c", lines[n-1][1]+" --fail --max-time 30"))
}

func get(ts *testscript.TestScript, neg bool, args []string) {
	client := http.Client{Timeout: patience}
	resp, err := client.Get(args[0])
	ts.Check(err)
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
}
