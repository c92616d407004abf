// Command clients measures what it takes to ask an upstream with each HTTP/1.1
// client that the gateway could use, so that figures show the choice of
// proxyd/backend, a pool of its own. It is run in its folder, with go run .
//
// Each client is measured in a process of its own on core 0, the upstream of the
// benchmark runs on core 1. An answer that fails or is wrong ends the run. Results
// go to bench/out/clients.md and stdout, progress to stderr.
//
// Environment: CLIENTS_SECONDS how long a round is (default 3), CLIENTS_ROUNDS how
// many there are (default 3).
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// root is the gateway's module.
const root = "../.."

func main() {
	// Children are told to end when the thread that started them does: that
	// must be one that lives as long as the program.
	runtime.LockOSThread()
	run := compare
	if len(os.Args) > 1 { // this is a child
		run = func() error { return measure(os.Args[1:]) }
	}
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "clients: %v\n", err)
		os.Exit(1)
	}
}

// compare measures all clients in all works, by turns.
func compare() error {
	length, err := time.ParseDuration(cmp.Or(os.Getenv("CLIENTS_SECONDS"), "3") + "s")
	if err != nil || length <= 0 {
		return errors.New("CLIENTS_SECONDS must be a number above 0, like 0.5")
	}
	rounds, err := strconv.Atoi(cmp.Or(os.Getenv("CLIENTS_ROUNDS"), "3"))
	if err != nil || rounds < 1 {
		return errors.New("CLIENTS_ROUNDS must be a whole number above 0")
	}
	addr, err := startUpstream()
	if err != nil {
		return fmt.Errorf("start the upstream: %w", err)
	}
	text := head(fmt.Sprintf("%d of %v, clients by turns on core 0, the upstream on core 1", rounds, length))
	for i := range works {
		all := make([][]figures, len(clients)) // by client and round
		for round := range rounds {
			for k, c := range clients {
				fmt.Fprintf(os.Stderr, "%s, round %d of %d, %s: ", works[i].name, round+1, rounds, c.name)
				out, err := output(command("taskset", "-c", "0", os.Args[0], strconv.Itoa(i), strconv.Itoa(k), addr, length.String()))
				var f figures
				if err = cmp.Or(err, json.Unmarshal(out, &f)); err != nil {
					return err
				}
				fmt.Fprintf(os.Stderr, "%.1f µs of CPU, %.1f allocations, %.0f requests/s\n", f[cpuTime], f[allocations], f[rate])
				all[k] = append(all[k], f)
			}
		}
		text += rows(works[i].name, all)
	}
	fmt.Print(text)
	out := filepath.Join(root, "bench", "out")
	return cmp.Or(os.MkdirAll(out, 0o755), os.WriteFile(filepath.Join(out, "clients.md"), []byte(text), 0o644))
}

// startUpstream builds the benchmark's upstream and starts it. It returns its
// address.
func startUpstream() (string, error) {
	dir, err := os.MkdirTemp("", "clients-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir) // what runs needs no file
	if _, err := output(command("go", "build", "-C", root, "-o", dir, "./bench/upstream")); err != nil {
		return "", err
	}
	cmd := command("taskset", "-c", "1", filepath.Join(dir, "upstream"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err = cmp.Or(err, cmd.Start()); err != nil {
		return "", err
	}
	var addrs [1]string
	err = json.NewDecoder(out).Decode(&addrs)
	return addrs[0], err
}

// command is a program that does not outlive this one.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return cmd
}

// output runs a program and returns what it says.
func output(cmd *exec.Cmd) ([]byte, error) {
	out, err := cmd.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		err = fmt.Errorf("%w, %s", err, bytes.TrimSpace(failed.Stderr))
	}
	return out, err
}
