package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// nodes are upstreams that are processes of their own with one chain, so that they
// can be killed and started again. They do so over HTTP, for the load generator:
// GET /kill?at=nanoseconds kills the one that the gateway follows at that moment,
// GET /start starts it again; both answer when they did.
type nodes struct {
	b     *bench
	args  []string
	addrs []string
	held  []int      // sockets that keep the ports from others
	all   []*process // nil for one that is down
	// do has one thread start all: a process is told to end when the thread does
	// that has started it.
	do chan func()
	// patience is how long no node may be followed.
	patience time.Duration
}

// history is how many blocks the chain has to begin with.
const history = 100

// startNodes starts upstreams with heads so far apart.
func (b *bench) startNodes(ctx context.Context, count int, heads time.Duration) (*nodes, error) {
	epoch := time.Now().Add(-history * heads)
	n := &nodes{b: b, args: []string{"-heads", heads.String(), "-epoch", fmt.Sprint(epoch.UnixNano())}, do: make(chan func()), patience: 10 * time.Second}
	go func() {
		runtime.LockOSThread()
		for f := range n.do {
			f()
		}
	}()
	for i := range count {
		fd, addr, err := holdPort()
		if err != nil {
			n.stop()
			return nil, err
		}
		n.held, n.addrs, n.all = append(n.held, fd), append(n.addrs, addr), append(n.all, nil)
		if err := n.start(ctx, i); err != nil {
			n.stop()
			return nil, err
		}
	}
	return n, nil
}

// stop ends all.
func (n *nodes) stop() {
	for _, p := range n.all {
		if p != nil {
			n.b.processes.stop(p)
		}
	}
	close(n.do)
	for _, fd := range n.held {
		_ = syscall.Close(fd)
	}
}

// start starts a node at its address.
func (n *nodes) start(ctx context.Context, i int) error {
	started := make(chan error)
	n.do <- func() {
		p, _, err := n.b.upstream(ctx, append(slices.Clone(n.args), "-listen", n.addrs[i])...)
		n.all[i] = p
		started <- err
	}
	return <-started
}

// restore starts what is down.
func (n *nodes) restore(ctx context.Context) error {
	for i, p := range n.all {
		if p == nil {
			if err := n.start(ctx, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// running are the processes of those that are not down.
func (n *nodes) running() []*process {
	return slices.DeleteFunc(slices.Clone(n.all), func(p *process) bool { return p == nil })
}

// kill kills the node that is followed, not before some moment.
func (n *nodes) kill(ctx context.Context, at time.Time) (killed time.Time, err error) {
	if slices.Contains(n.all, nil) {
		return killed, errors.New("one upstream is down already")
	}
	i, err := n.followed(ctx)
	if err != nil {
		return killed, err
	}
	select {
	case <-time.After(time.Until(at)):
	case <-ctx.Done():
		return killed, ctx.Err()
	}
	killed = time.Now()
	n.b.processes.kill(n.all[i])
	n.all[i] = nil
	return killed, nil
}

// followed is the node that has most subscriptions, once one has any.
func (n *nodes) followed(ctx context.Context) (int, error) {
	for deadline := time.Now().Add(n.patience); ; {
		which, most := 0, 0
		for i, addr := range n.addrs {
			count, err := listening(ctx, addr)
			if err != nil {
				return 0, err
			}
			if count > most {
				which, most = i, count
			}
		}
		if most > 0 {
			return which, nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("no upstream has had subscriptions for %v", n.patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// listening is how many subscriptions an upstream has.
func listening(ctx context.Context, addr string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/listening", nil)
	if err != nil {
		return 0, err
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, fmt.Errorf("subscriptions at the upstream: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, fmt.Errorf("subscriptions at the upstream: %w", err)
	}
	return strconv.Atoi(string(text))
}

// ServeHTTP implements http.Handler, for one client.
func (n *nodes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at, err := time.Now(), error(nil)
	switch r.URL.Path {
	case "/kill":
		var ns int64
		if ns, err = strconv.ParseInt(r.FormValue("at"), 10, 64); err == nil {
			at, err = n.kill(r.Context(), time.Unix(0, ns))
		}
	case "/start":
		err = n.restore(r.Context())
		at = time.Now()
	default:
		err = errors.New("there is only /kill and /start")
	}
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, err)
		return
	}
	fmt.Fprint(w, at.UnixNano())
}

// serve listens to the load generator, until it is done; then all run again.
func (n *nodes) serve(ctx context.Context) (addr string, done func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("listen for the load generator: %w", err)
	}
	s := &http.Server{Handler: n, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(l) // until it is shut down
	}()
	return l.Addr().String(), func() error {
		// Who asks is gone, or has been answered.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		err := s.Shutdown(ctx)
		<-ended
		return errors.Join(err, n.restore(ctx))
	}, nil
}

// holdPort takes a port that others can listen on who are told, but that nobody is
// given by chance while they do not.
func holdPort() (fd int, addr string, err error) {
	fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, "", fmt.Errorf("take a port: %w", err)
	}
	err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	var name syscall.Sockaddr
	if err == nil {
		name, err = syscall.Getsockname(fd)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return 0, "", fmt.Errorf("take a port: %w", err)
	}
	return fd, fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port), nil
}
