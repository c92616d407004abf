// Command upstream is what the gateways of the benchmark forward to: a JSON-RPC
// node that answers at once, or after a delay, whose answers the load generator
// can compute too. It does so over HTTP and, on the same ports, over WebSockets,
// where it also publishes heads and their logs. Several with the same -epoch are nodes
// of one chain.
//
// It prints one line of JSON with its addresses and serves until it is killed.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "upstream: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	mode := flag.String("mode", "serve", "serve, 503 (answer this status), hang (accept and never answer) or refuse (no listener on the port)")
	listeners := flag.Int("listeners", 1, "how many ports of 127.0.0.1")
	delay := flag.String("delay", "0s", "how long each answer takes: one duration, or one for each port like 100ms,5ms")
	heads := flag.Duration("heads", 0, "how often a head is published to subscribers, 0 for never; the delay is not for them, nor for other answers over WebSockets")
	epoch := flag.Int64("epoch", 0, "when the chain began, in nanoseconds since 1970: heads are published by the clock, and two upstreams publish the same; 0 for now, and heads whose time is that of the first write")
	address := flag.String("listen", "127.0.0.1:0", "the address of the one port")
	idLast := flag.Bool("id-last", false, "put the id behind the result")
	ca := flag.String("tls", "", "serve TLS and write the certificate of the authority to this file")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("%q is too much: there are only flags, see -help", flag.Arg(0))
	}
	if *listeners > 1 && *address != "127.0.0.1:0" {
		return fmt.Errorf("-listen %s is the address of one port, and -listeners wants %d", *address, *listeners)
	}
	u := &upstream{idLast: *idLast, broken: *mode == "503", ports: make([]port, *listeners)}
	if err := u.setDelays(*delay); err != nil {
		return err
	}
	switch {
	case *heads > 0 && *epoch != 0:
		u.chain = chainSince(time.Unix(0, *epoch), *heads)
		go u.chain.publishWhenDue(*heads)
	case *heads > 0:
		u.chain = newChain()
		go u.chain.publishEvery(*heads)
	}
	var config *tls.Config
	if *ca != "" {
		var err error
		if config, err = selfSigned(*ca); err != nil {
			return err
		}
	}
	addrs := make([]string, *listeners)
	failed := make(chan error)
	for i := range addrs {
		var err error
		if *mode == "refuse" {
			addrs[i], err = closedPort()
		} else {
			addrs[i], err = u.listen(*mode, *address, &u.ports[i], config, failed)
		}
		if err != nil {
			return err
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(addrs); err != nil {
		return fmt.Errorf("say the addresses: %w", err)
	}
	return <-failed
}

// setDelays reads the delays of the ports.
func (u *upstream) setDelays(text string) error {
	parts := strings.Split(text, ",")
	if len(parts) > 1 && len(parts) != len(u.ports) {
		return fmt.Errorf("-delay %s: %d durations for %d ports", text, len(parts), len(u.ports))
	}
	for i := range u.ports {
		d, err := time.ParseDuration(parts[i%len(parts)])
		if err != nil || d < 0 {
			return fmt.Errorf("-delay %s: %q is no duration like 5ms", text, parts[i%len(parts)])
		}
		u.ports[i].delay = d
	}
	return nil
}

// listen serves at an address.
func (u *upstream) listen(mode, address string, p *port, config *tls.Config, failed chan<- error) (string, error) {
	serve := u.serve
	switch mode {
	case "serve", "503":
	case "hang":
		serve = hang
	default:
		return "", fmt.Errorf("-mode %q: must be serve, 503, hang or refuse", mode)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				failed <- fmt.Errorf("accept on %s: %w; a limit of open files (ulimit -n) is the usual cause", l.Addr(), err)
				return
			}
			if config != nil {
				c = tls.Server(c, config)
			}
			go serve(c, p)
		}
	}()
	return l.Addr().String(), nil
}

// hang reads and never answers.
func hang(c net.Conn, _ *port) {
	defer c.Close()
	buf := make([]byte, 4096)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// closedPort returns an address that refuses connections: the port is taken, so
// that nobody else gets it, and nothing listens on it. The process's end frees it.
func closedPort() (string, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		return "", fmt.Errorf("take a port: %w", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return "", fmt.Errorf("take a port: %w", err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port), nil
}
