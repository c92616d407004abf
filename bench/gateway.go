package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// setting is what a gateway is started for.
type setting struct {
	// upstreams are the addresses to forward to, the first one preferred.
	upstreams []string
	// running are the programs behind them.
	running []*process
	// nodes are those programs, where they are killed and started again.
	nodes *nodes
	// ca is the file of the authority that signs for the upstreams, "" for
	// plain HTTP.
	ca string
	// timeout is how long an upstream may take, in milliseconds.
	timeout int
	// group is what this gateway's group of backends is configured with.
	group string
	// pprof is the address that this gateway's profiler shall listen on, "" for
	// none: other gateways have no such thing.
	pprof string
	// ws has this gateway forward WebSockets, and heads is how often a head is
	// published, 0 for never.
	ws    bool
	heads time.Duration
	// metrics is set by the command of a gateway that says how many goroutines it
	// has: the address where it does.
	metrics string
	// everyAllocation has it note each allocation instead of one in 512 KiB.
	everyAllocation bool
}

func (s *setting) scheme() string {
	if s.ca != "" {
		return "https"
	}
	return "http"
}

// gateway is one of the programs that are compared.
type gateway struct {
	name string
	// command writes what configuration it needs into a directory of its own
	// and returns the command line that listens on addr, in the foreground. It
	// is nil where the client does without a gateway.
	command func(b *bench, s *setting, addr, dir string) ([]string, error)
}

// The names of the gateways.
const (
	nameProxyd  = "proxyd"
	nameHAProxy = "haproxy"
	nameNginx   = "nginx"
	nameReverse = "reverseproxy"
	nameBare    = "net/http bare"
	nameSocket  = "coder/websocket bare"
)

// gateways is the table of all. A new one is a file and a line here.
var gateways = []gateway{
	{nameProxyd, proxydCommand},
	{nameHAProxy, haproxyCommand},
	{nameNginx, nginxCommand},
	{nameReverse, reverseCommand},
	{nameBare, bareCommand},
	{nameSocket, bareCommand},
	{nameViem, nil},
}

// server is a gateway that runs.
type server struct {
	*process
	addr string
	// metrics is where it says how many goroutines it has, "" for nowhere.
	metrics string
}

// serve starts a gateway and waits until it listens.
func (b *bench) serve(ctx context.Context, g *gateway, s *setting) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, strings.NewReplacer("/", "-", " ", "-").Replace(g.name)+"-")
	if err != nil {
		return nil, fmt.Errorf("directory for %s: %w", g.name, err)
	}
	s.metrics = ""
	args, err := g.command(b, s, addr, dir)
	if err != nil {
		return nil, fmt.Errorf("configure %s: %w", g.name, err)
	}
	p, err := b.processes.start(g.name, b.gatewayCore, nil, args...)
	if err != nil {
		return nil, err
	}
	if err := p.ready(ctx, addr); err != nil {
		b.processes.stop(p)
		return nil, err
	}
	return &server{p, addr, s.metrics}, nil
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// writeConfig writes a configuration and keeps a copy beside the results.
func (b *bench) writeConfig(dir, name, text string) (string, error) {
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	return file, os.WriteFile(filepath.Join(b.out, "last-"+name), []byte(text), 0o644)
}

func reverseCommand(b *bench, s *setting, addr, _ string) ([]string, error) {
	args := []string{b.program("reverseproxy"), "-listen", addr, "-upstream", s.scheme() + "://" + s.upstreams[0]}
	if s.ca != "" {
		args = append(args, "-ca", s.ca)
	}
	return args, nil
}

func bareCommand(b *bench, s *setting, addr, _ string) ([]string, error) {
	if s.ws {
		s.metrics = addr
	}
	return []string{b.program("bareserver"), "-listen", addr, "-heads", s.heads.String()}, nil
}
