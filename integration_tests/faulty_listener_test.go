package integration_tests

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// faultyListener stands in front of a node, passes bytes both ways and breaks on demand.
type faultyListener struct {
	addr   string
	target string

	mu      sync.Mutex
	ln      net.Listener // nil while refusing
	fault   fault
	delay   time.Duration         // of every piece of an answer
	conns   map[net.Conn]net.Conn // client side → node side
	traffic traffic
	wg      sync.WaitGroup
}

// faultyAddrs are those of all faulty listeners.
var faultyAddrs sync.Map

type fault int

const (
	none        fault = iota
	hanging           // connections are accepted and bytes swallowed, both ways
	loseAnswers       // requests reach the node; the connection is cut when its answer comes
)

// traffic counts what went through.
type traffic struct {
	requests    int       // reads of bytes from clients, swallowed ones too
	answers     int       // reads of bytes from the node that clients got
	lastRequest time.Time // arrival of the latest
}

func newFaultyListener(t *testing.T, target string) *faultyListener {
	t.Helper()
	l := &faultyListener{target: target, conns: make(map[net.Conn]net.Conn)}
	// The port must stay ours while nobody listens on it, so it is one that is never given to an outgoing connection,
	// nor to another listener of these tests.
	for range 100 {
		l.addr = fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))
		if _, taken := faultyAddrs.LoadOrStore(l.addr, true); !taken && l.listen() == nil {
			t.Cleanup(func() {
				l.refuse()
				l.wg.Wait()
			})
			return l
		}
	}
	t.Fatal("no free port between 20000 and 32000")
	return nil
}

func (l *faultyListener) url() string { return "http://" + l.addr }

func (l *faultyListener) seen() traffic {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.traffic
}

// cut resets every open connection; new ones are served.
func (l *faultyListener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for client, node := range l.conns {
		reset(client)
		node.Close()
	}
}

// refuse resets every open connection and listens no more.
func (l *faultyListener) refuse() {
	l.mu.Lock()
	if l.ln != nil {
		l.ln.Close()
		l.ln = nil
	}
	l.mu.Unlock()
	l.cut()
}

// become starts a fault, on open connections too.
func (l *faultyListener) become(f fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = f
}

// delayBy makes answers late from now on; it is no fault and stays.
func (l *faultyListener) delayBy(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// restore ends all faults. Connections that lived through them are reset.
func (l *faultyListener) restore(t *testing.T) {
	t.Helper()
	l.cut()
	l.become(none)
	l.mu.Lock()
	refusing := l.ln == nil
	l.mu.Unlock()
	if refusing {
		if err := l.listen(); err != nil {
			t.Fatalf("listen again: %v", err)
		}
	}
}

func (l *faultyListener) listen() error {
	ln, err := net.Listen("tcp", l.addr)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.ln = ln
	l.mu.Unlock()
	l.wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			l.wg.Go(func() { l.serve(ln, client) })
		}
	})
	return nil
}

func (l *faultyListener) serve(ln net.Listener, client net.Conn) {
	defer client.Close()
	node, err := net.Dial("tcp", l.target)
	if err != nil {
		reset(client)
		return
	}
	defer node.Close()
	l.mu.Lock()
	if l.ln != ln { // refused since it was accepted
		l.mu.Unlock()
		reset(client)
		return
	}
	l.conns[client] = node
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.conns, client)
		l.mu.Unlock()
	}()

	l.wg.Go(func() {
		pipe(node, client, func() fault {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.traffic.requests++
			l.traffic.lastRequest = time.Now()
			if l.fault == loseAnswers {
				return none
			}
			return l.fault
		})
		node.Close()
	})
	pipe(client, node, func() fault {
		l.mu.Lock()
		delay := l.delay
		l.mu.Unlock()
		if delay > 0 {
			<-time.After(delay)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.fault == none {
			l.traffic.answers++
		}
		return l.fault
	})
}

// pipe copies until either end closes; what happens to each piece is asked for when it was read.
func pipe(to io.Writer, from net.Conn, fate func() fault) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			switch fate() {
			case none:
				if _, err := to.Write(buf[:n]); err != nil {
					return
				}
			case hanging:
			case loseAnswers:
				if client, ok := to.(net.Conn); ok {
					reset(client)
				}
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// reset closes a connection so that the other end sees a reset, not an orderly end.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}
