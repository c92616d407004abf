package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// works is what is asked for. Each goroutine asks again when its answer has come.
var works = []struct {
	name              string
	goroutines, batch int
	method, params    string // params with room for a number
	size              int    // of a result, in bytes
}{
	{"small call, 64 at once", 64, 1, "eth_getBalance", `["0x%040x","latest"]`, 68},
	{"batch of 100, 8 at once", 8, 100, "eth_getBalance", `["0x%040x","latest"]`, 68},
	{"1 MiB result, 8 at once", 8, 1, "eth_getLogs", `[{"address":"0x%040x","size":1048576}]`, 1 << 20},
}

// figures are what a request takes, and how many there were in a second.
type figures [3]float64

const (
	cpuTime = iota // in µs
	allocations
	rate
)

// measure does one round in this process and prints its figures. The arguments are
// the work's index, the client's, the upstream's address and the length.
func measure(args []string) error {
	if len(args) != 4 {
		return errors.New("there are no arguments, only CLIENTS_SECONDS and CLIENTS_ROUNDS in the environment")
	}
	w, ask := works[must(strconv.Atoi(args[0]))], clients[must(strconv.Atoi(args[1]))].open(args[2])
	length := must(time.ParseDuration(args[3]))
	calls := make([][]*jsonrpc.Call, w.goroutines)
	row, label := must(jsonrpc.NewTable(nil)).Lookup(w.method)
	asker := &jsonrpc.Client{Auth: "none", Source: "http", Batched: w.batch > 1}
	for i := range w.goroutines * w.batch {
		c := &jsonrpc.Call{Method: w.method, Params: fmt.Appendf(nil, w.params, i), Row: row, Label: label, Client: asker}
		calls[i/w.batch] = append(calls[i/w.batch], c)
	}
	if _, err := drive(ask, calls, w.size, min(length/3, time.Second)); err != nil { // warm up
		return err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	used, from := processorTime(), time.Now()
	n, err := drive(ask, calls, w.size, length)
	used, took := processorTime()-used, time.Since(from)
	runtime.ReadMemStats(&after)
	f := figures{used.Seconds() * 1e6 / n, float64(after.Mallocs-before.Mallocs) / n, n / took.Seconds()}
	return cmp.Or(err, json.NewEncoder(os.Stdout).Encode(f))
}

// drive has a goroutine for each of calls ask for length, and returns how many
// requests were answered. It waits for the last answer, so that nothing is counted
// in part.
func drive(ask ask, calls [][]*jsonrpc.Call, size int, length time.Duration) (n float64, err error) {
	var over atomic.Bool
	time.AfterFunc(length, func() { over.Store(true) })
	counts, errs := make([]int, len(calls)), make([]error, len(calls))
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			for errs[i] == nil && (counts[i] == 0 || !over.Load()) {
				errs[i] = ask(calls[i], size)
				counts[i]++
			}
		})
	}
	wg.Wait()
	for i := range counts {
		n += float64(counts[i])
		err = cmp.Or(err, errs[i])
	}
	return n, err
}

// processorTime is the user and system time of this process.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
