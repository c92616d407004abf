// Command load asks a gateway over keep-alive connections or WebSockets, or
// subscribes to heads and logs there, and checks every answer and notification: its
// id, its length and each of its bytes.
//
// It prints one line of JSON, see package measure.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"gateway.internal/bench/internal/content"
	"gateway.internal/bench/internal/measure"
	"gateway.internal/bench/internal/proc"
)

// options are what one run is to do.
type options struct {
	target      string
	connections int
	window      time.Duration
	warmup      time.Duration
	rate        float64
	idle        int
	silent      bool
	subscribers int
	ws          bool
	pid         int
	counts      string
	metrics     string
	listeners   int
	outages     string
	heads       time.Duration
	patience    time.Duration // with a head that does not come
	calls       calls
}

func main() {
	result, err := run()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "load: %v\n", err)
		os.Exit(1)
	}
}

func run() (*measure.Result, error) {
	o := options{patience: exchangeTimeout}
	flag.StringVar(&o.target, "target", "", "address of the gateway")
	flag.IntVar(&o.connections, "connections", 64, "how many connections ask in a closed loop")
	flag.DurationVar(&o.window, "time", 3*time.Second, "how long to measure")
	flag.DurationVar(&o.warmup, "warmup", 500*time.Millisecond, "how long to ask before measuring")
	flag.Float64Var(&o.rate, "rate", 0, "requests a second in an open loop, instead of a closed one")
	flag.IntVar(&o.idle, "idle", 0, "measure the memory of so many idle connections instead")
	flag.BoolVar(&o.silent, "silent", false, "idle connections ask nothing until they have been measured, instead of once")
	flag.IntVar(&o.subscribers, "subscribers", 0, "have so many WebSockets subscribe to heads instead")
	flag.IntVar(&o.listeners, "listeners", 0, "have so many WebSockets subscribe to heads and logs instead, while the upstream that is followed is killed again and again")
	flag.StringVar(&o.outages, "outages", "", "address of the benchmark, which kills upstreams for -listeners")
	flag.DurationVar(&o.heads, "heads", time.Second, "how often the upstreams publish a head to -listeners")
	flag.BoolVar(&o.ws, "ws", false, "ask over WebSockets")
	flag.StringVar(&o.metrics, "metrics", "", "address where the gateway says how many goroutines it has, to count those of idle connections")
	flag.IntVar(&o.pid, "pid", 0, "process of the gateway")
	flag.StringVar(&o.counts, "counts", "", "address of the upstream that says how many requests came, to count them in a closed loop, and how many subscriptions")
	flag.StringVar(&o.calls.method, "method", content.Small, "method to call")
	flag.IntVar(&o.calls.size, "size", 1<<20, "bytes of a result of "+content.Logs)
	flag.IntVar(&o.calls.batch, "batch", 0, "calls in a batch, 0 for single calls")
	flag.IntVar(&o.calls.clients, "clients", 0, "how many client addresses to name in X-Forwarded-For")
	flag.Parse()
	switch {
	case flag.NArg() > 0:
		return nil, fmt.Errorf("%q is too much: there are only flags, see -help", flag.Arg(0))
	case o.target == "":
		return nil, fmt.Errorf("-target is missing: the gateway's address, like 127.0.0.1:8545")
	case o.pid == 0:
		return nil, fmt.Errorf("-pid is missing: the gateway's process, whose use of time and memory is measured")
	case o.listeners > 0 && (o.outages == "" || o.heads <= 0):
		return nil, fmt.Errorf("-listeners needs -outages, which is the address of the benchmark, and -heads")
	case o.ws && (o.calls.method == content.Logs || o.calls.clients > 0):
		return nil, fmt.Errorf("-ws goes together neither with -method %s nor with -clients", content.Logs)
	case o.calls.batch > 0 && o.calls.method == content.Logs:
		return nil, fmt.Errorf("-batch and -method %s do not go together: large results come one by one", content.Logs)
	case o.calls.method == content.Logs && (o.calls.size < content.MinLarge || o.calls.size > content.MaxLarge):
		return nil, fmt.Errorf("-size %d: must be %d to %d", o.calls.size, content.MinLarge, content.MaxLarge)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() { <-signals; os.Exit(1) }()

	pids, err := proc.Tree(o.pid)
	if err != nil {
		return nil, err
	}
	o.calls.host = o.target
	o.calls.sequence.Store(uint64(time.Now().UnixMicro()) << 8 & (1<<53 - 1))
	switch {
	case o.listeners > 0:
		return listen(&o, pids)
	case o.subscribers > 0:
		return subscribe(&o, pids)
	case o.idle > 0:
		return idle(&o, pids)
	case o.rate > 0:
		return openLoop(&o, pids)
	}
	return closedLoop(&o, pids)
}
