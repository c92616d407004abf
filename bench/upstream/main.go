// Command upstream is what the gateways of the benchmark forward to: a JSON-RPC
// node that answers at once, whose answers the load generator can compute too.
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
	"syscall"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "upstream: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	mode := flag.String("mode", "serve", "serve, hang (accept and never answer) or refuse (no listener on the port)")
	listeners := flag.Int("listeners", 1, "how many ports of 127.0.0.1")
	idLast := flag.Bool("id-last", false, "put the id behind the result")
	ca := flag.String("tls", "", "serve TLS and write the certificate of the authority to this file")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("%q is too much: there are only flags, see -help", flag.Arg(0))
	}
	u := &upstream{idLast: *idLast}
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
			addrs[i], err = u.listen(*mode, config, failed)
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

// listen serves on a free port.
func (u *upstream) listen(mode string, config *tls.Config, failed chan<- error) (string, error) {
	serve := u.serve
	switch mode {
	case "serve":
	case "hang":
		serve = hang
	default:
		return "", fmt.Errorf("-mode %q: must be serve, hang or refuse", mode)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
			go serve(c)
		}
	}()
	return l.Addr().String(), nil
}

// hang reads and never answers.
func hang(c net.Conn) {
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
