package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// machine says what the figures were measured with.
type machine struct {
	Date     string   `json:"date"`
	CPU      string   `json:"cpu"`
	Cores    int      `json:"cores"`
	Memory   string   `json:"memory"`
	Kernel   string   `json:"kernel"`
	Go       string   `json:"go"`
	HAProxy  string   `json:"haproxy"`
	Nginx    string   `json:"nginx"`
	Viem     string   `json:"viem"`
	Proxyd   string   `json:"proxyd"`
	Commit   string   `json:"commit"`
	Missing  []string `json:"missing,omitempty"`
	Pinning  string   `json:"pinning"`
	Load     string   `json:"load_average"`
	Length   string   `json:"length"`
	Settings string   `json:"settings"`
}

func machineOf(b *bench) *machine {
	m := &machine{
		Date: time.Now().UTC().Format("2006-01-02 15:04 MST"), Cores: runtime.NumCPU(), Go: runtime.Version(),
		CPU: lineOf("/proc/cpuinfo", "model name"), Memory: lineOf("/proc/meminfo", "MemTotal"),
		HAProxy: version(b.haproxy, "-v"), Nginx: version(b.nginx, "-v"), Proxyd: version(b.program("proxyd"), "version"), Viem: b.viemVersion(),
		Pinning: fmt.Sprintf("gateway on core %d, upstream and load generator on core %d", b.gatewayCore, b.loadCore),
		Length: fmt.Sprintf("%d of %v after %v of warm-up, gateways by turns, medians; h0, h, i, m and q begin with a gateway just started; i has one of %v, m3 one; l has a warm-up of %v before its first round; o has rounds of %v, q of %v",
			b.rounds, b.length, b.warmup(), time.Duration(hangingLong*float64(b.length)).Round(time.Millisecond), b.learning().Round(time.Millisecond), time.Duration(headsLong*float64(b.length)).Round(time.Millisecond),
			max(outagesLeast, time.Duration(outagesLong*float64(b.length))).Round(time.Millisecond)),
		Load: loadAverage(), Commit: commit(), Missing: b.missing,
		Settings: "proxyd: limits per client, cache and metrics on, log level error, two backends (three in l), upstream batches of up to 100; HAProxy: 1 thread; nginx: 1 worker; HTTP/1.1 with keep-alive on both sides",
	}
	if b.gatewayCore < 0 {
		m.Pinning = "none: there is only one core"
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = "Linux " + strings.TrimSpace(string(text))
	}
	return m
}

// commit is what was built.
func commit() string {
	text, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

// loadAverage says how busy the machine was in the last minute: figures from a
// busy one are too high.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// lineOf returns the value of the first line with a key.
func lineOf(file, key string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// version is the first line that a program says about itself.
func version(program string, arg string) string {
	if program == "" {
		return "left out"
	}
	text, err := exec.Command(program, arg).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	line = strings.TrimPrefix(line, "nginx version: ")
	line, _, _ = strings.Cut(line, " - ")
	return line
}

func (m *machine) String() string {
	return fmt.Sprintf(`- Date: %s
- Machine: %s, %d cores, memory %s, %s
- Versions: %s, commit %s; %s; HAProxy: %s; nginx: %s; viem: %s
- Pinning: %s
- Load average: %s
- Rounds: %s
- Settings: %s
`, m.Date, m.CPU, m.Cores, m.Memory, m.Kernel, m.Proxyd, m.Commit, m.Go, m.HAProxy, m.Nginx, m.Viem, m.Pinning, m.Load, m.Length, m.Settings)
}
