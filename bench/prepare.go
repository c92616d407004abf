package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// openFiles is how many the works with thousands of connections need, on both
// sides of HAProxy.
const openFiles = 17000

// prepare builds the programs, finds the others and chooses the cores.
func (b *bench) prepare(ctx context.Context) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	b.root, b.out = root, filepath.Join(root, "bench", "out")
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return fmt.Errorf("directory for the results: %w", err)
	}
	if err := b.findCores(); err != nil {
		return err
	}
	if err := b.moreFiles(); err != nil {
		return err
	}
	fmt.Fprintln(b.progress, "building proxyd and the programs of the benchmark")
	build := exec.CommandContext(ctx, "go", "build", "-o", b.dir, "./cmd/proxyd", "./bench/upstream", "./bench/load", "./bench/reverseproxy", "./bench/bareserver")
	build.Dir = root
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, text)
	}
	installer := filepath.Join(root, "scripts", "install-packages")
	if b.haproxy, err = b.find(ctx, installer, nameHAProxy, "haproxy"); err != nil {
		return err
	}
	b.nginx, err = b.find(ctx, installer, nameNginx, "nginx")
	return err
}

func moduleRoot(ctx context.Context) (string, error) {
	text, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w; run it inside the repository, with Go installed", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// find returns where a program is, "" when it does not take part. A missing one is
// installed where that is allowed. Where it is not, that is an error in CI, as with
// the tools of the tests; elsewhere the run goes on without it and says so.
func (b *bench) find(ctx context.Context, installer, name, pkg string) (string, error) {
	if !b.wanted(name) {
		return "", nil
	}
	if file := look(name); file != "" {
		return file, nil
	}
	fmt.Fprintf(b.progress, "there is no %s: installing the Debian package %s\n", name, pkg)
	text, err := exec.CommandContext(ctx, installer, pkg).CombinedOutput()
	if file := look(name); file != "" {
		return file, nil
	}
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("interrupted while installing %s", pkg)
	case err == nil:
		err = errors.New("it is installed and brings no such program")
	}
	text = bytes.TrimSpace(text)
	if os.Getenv("CI") == "true" {
		return "", fmt.Errorf("there is no %s, and the Debian package %s could not be installed: %w\n%s", name, pkg, err, text)
	}
	fmt.Fprintf(b.progress, "SKIPPED: %s, since the Debian package %s could not be installed: %v\n%s\n", name, pkg, err, text)
	b.missing = append(b.missing, name)
	return "", nil
}

// look returns where a program is, also where only root's PATH leads.
func look(name string) string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		if file, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return file
		}
	}
	return ""
}

// findCores takes the first two cores that this process may run on.
func (b *bench) findCores() error {
	b.gatewayCore, b.loadCore = -1, -1
	if _, err := exec.LookPath("taskset"); err != nil {
		return fmt.Errorf("there is no taskset, which pins programs to cores: install the package util-linux")
	}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("which cores there are: %w; the benchmark needs Linux", err)
	}
	_, after, _ := strings.Cut(string(text), "\nCpus_allowed_list:")
	allowed, _, _ := strings.Cut(after, "\n")
	cores, err := coreList(strings.TrimSpace(allowed))
	if err != nil {
		return fmt.Errorf("/proc/self/status: Cpus_allowed_list: %w", err)
	}
	if len(cores) < 2 {
		fmt.Fprintln(b.progress, "only one core: nothing is pinned, and the figures compare badly with those of other machines")
		return nil
	}
	b.gatewayCore, b.loadCore = cores[0], cores[1]
	return nil
}

// coreList reads a list like 0-3,8.
func coreList(text string) (cores []int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err := strconv.Atoi(low)
		if err != nil {
			return nil, fmt.Errorf("%q is no list of cores", text)
		}
		to, err := strconv.Atoi(high)
		if err != nil || to < from || to-from > 1<<16 {
			return nil, fmt.Errorf("%q is no list of cores", text)
		}
		for c := from; c <= to; c++ {
			cores = append(cores, c)
		}
	}
	return cores, nil
}

// moreFiles raises the limit of open files as far as it goes, for the children
// too. Only works with thousands of connections need many.
func (b *bench) moreFiles() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if os.Geteuid() == 0 {
		l.Max = max(l.Max, openFiles)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	many := slices.IndexFunc(works, func(w work) bool { return w.needsFiles() && b.chosen(&w) })
	if l.Max < openFiles && many >= 0 {
		return fmt.Errorf("at most %d files may be open, work %s needs %d: raise it with ulimit -Hn %d, or leave it out with BENCH_WORKS", l.Max, works[many].id, openFiles, openFiles)
	}
	return nil
}
