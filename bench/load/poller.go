package main

import (
	"fmt"
	"net"
	"syscall"
	"time"
)

// poller waits for many connections at once, in one thread and with one system
// call to read what has come: a goroutine for each connection would take twice as
// long to read what the gateway writes, and would be what is measured.
type poller struct {
	epoll  int
	fds    []int
	events [256]syscall.EpollEvent
}

func newPoller(connections int) (*poller, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("wait for connections: %w", err)
	}
	p := &poller{epoll: epoll, fds: make([]int, connections)}
	for i := range p.fds {
		p.fds[i] = -1
	}
	return p, nil
}

// add takes a connection over from Go, which waits for it no more.
func (p *poller) add(i int, c net.Conn) error {
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	if controlErr := raw.Control(func(own uintptr) { fd, err = syscall.Dup(int(own)) }); controlErr != nil {
		return controlErr
	}
	if err != nil {
		return err
	}
	p.fds[i] = fd
	return syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)})
}

// wait calls ready with each connection that has something to read, as long as
// that returns true.
func (p *poller) wait(patience time.Duration, ready func(i int) bool) error {
	n, err := syscall.EpollWait(p.epoll, p.events[:], int(patience.Milliseconds()))
	if err == syscall.EINTR {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wait for connections: %w", err)
	}
	for i := range n {
		if !ready(int(p.events[i].Fd)) {
			break
		}
	}
	return nil
}

// read reads what has come; n is 0 when that was nothing.
func (p *poller) read(i int, buf []byte) (n int, err error) {
	n, err = syscall.Read(p.fds[i], buf)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return 0, nil
	case err != nil:
		return 0, err
	case n == 0:
		return 0, errNoAnswer
	}
	return n, nil
}

func (p *poller) write(i int, b []byte) { _, _ = syscall.Write(p.fds[i], b) }

func (p *poller) remove(i int) {
	if p.fds[i] >= 0 {
		_ = syscall.Close(p.fds[i])
		p.fds[i] = -1
	}
}

func (p *poller) close() {
	for i := range p.fds {
		p.remove(i)
	}
	_ = syscall.Close(p.epoll)
}
