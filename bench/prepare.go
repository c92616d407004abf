package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// openFiles is how many the idle connections need, on both sides of HAProxy.
const openFiles = 17000

// prepare builds the programs, finds the others and chooses the cores.
func (b *bench) prepare(ctx context.Context) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	b.out = filepath.Join(root, "bench", "out")
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return fmt.Errorf("directory for the results: %w", err)
	}
	if err := b.findCores(); err != nil {
		return err
	}
	if err := b.moreFiles(); err != nil {
		return err
	}
	for _, pkg := range []string{"cmd/proxyd", "bench/upstream", "bench/load", "bench/reverseproxy", "bench/bareserver"} {
		fmt.Fprintf(b.progress, "building %s\n", pkg)
		cmd := exec.CommandContext(ctx, "go", "build", "-o", b.program(filepath.Base(pkg)), "./"+pkg)
		cmd.Dir = root
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build ./%s: %w\n%s", pkg, err, text)
		}
	}
	b.haproxy, err = b.find(ctx, nameHAProxy, "haproxy")
	if err != nil {
		return err
	}
	b.nginx, err = b.find(ctx, nameNginx, "nginx-light")
	return err
}

func moduleRoot(ctx context.Context) (string, error) {
	text, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w; run it inside the repository, with Go installed", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// find returns where a program is. A missing one is installed where that can be
// done, else it is an error that says how to do without it.
func (b *bench) find(ctx context.Context, name, pkg string) (string, error) {
	if len(b.only) > 0 && !slices.Contains(b.only, name) {
		return "", nil
	}
	look := func() string {
		for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
			if file, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return file
			}
		}
		return ""
	}
	if file := look(); file != "" {
		return file, nil
	}
	remedy := fmt.Sprintf("install the Debian package %s, or leave it out with BENCH_GATEWAYS=proxyd,…", pkg)
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return "", fmt.Errorf("there is no %s: %s", name, remedy)
	}
	fmt.Fprintf(b.progress, "installing %s\n", pkg)
	if aptGet(ctx, "install", "-y", "--no-install-recommends", pkg) != nil {
		// A new machine has no lists of packages yet.
		if err := aptGet(ctx, "update"); err != nil {
			return "", fmt.Errorf("%w; %s", err, remedy)
		}
		if err := aptGet(ctx, "install", "-y", "--no-install-recommends", pkg); err != nil {
			return "", fmt.Errorf("%w; %s", err, remedy)
		}
	}
	if file := look(); file != "" {
		return file, nil
	}
	return "", fmt.Errorf("package %s is installed and there is no %s: %s", pkg, name, remedy)
}

// aptGet runs apt-get so that no service of a package is started, whichever way
// they are started here.
func aptGet(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "SYSTEMD_OFFLINE=1")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, text)
	}
	return nil
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
// too. Only the idle connections need many.
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
	idle := slices.IndexFunc(works, func(w work) bool { return w.id == "j" })
	if l.Max < openFiles && b.chosen(&works[idle]) {
		return fmt.Errorf("at most %d files may be open, work j needs %d: raise it with ulimit -Hn %d, or leave j out with BENCH_WORKS", l.Max, openFiles, openFiles)
	}
	return nil
}
