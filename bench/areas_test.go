package main

import (
	"reflect"
	"testing"
)

func TestASampleBelongsToItsFirstFrameInTheTable(t *testing.T) {
	for _, tc := range []struct {
		want  string
		stack []string // leaf first
	}{
		{"system call: write", []string{"internal/runtime/syscall/linux.Syscall6", "syscall.RawSyscall6", "syscall.Syscall", "syscall.write", "syscall.Write",
			"internal/poll.ignoringEINTRIO", "net.(*conn).Write", "gateway.internal/proxyd/backend.(*pooled).once"}},
		{"system call: read", []string{"internal/runtime/syscall/linux.Syscall6", "syscall.RawSyscall6", "syscall.Syscall", "syscall.read", "net/http.(*connReader).Read"}},
		{"system call: epoll", []string{"internal/runtime/syscall/linux.Syscall6", "internal/runtime/syscall/linux.EpollWait", "runtime.netpoll", "runtime.findRunnable"}},
		{"system call: futex", []string{"runtime.futex", "runtime.futexwakeup", "runtime.notewakeup", "runtime.startm", "runtime.wakep"}},
		{"system call: others", []string{"internal/runtime/syscall/linux.Syscall6", "syscall.RawSyscall6", "syscall.Syscall", "syscall.Close", "internal/poll.(*FD).decref"}},
		{"scheduler, channels, timers, stacks", []string{"runtime.casgstatus", "runtime.execute", "runtime.schedule", "runtime.park_m", "runtime.mcall"}},
		{"scheduler, channels, timers, stacks", []string{"runtime.lock2", "runtime.selectgo", "gateway.internal/proxyd/group.(*run).next"}},
		{"garbage collector", []string{"runtime.findObject", "runtime.scanblock", "runtime.markroot", "runtime.gcDrain"}},
		{"garbage collector", []string{"runtime.gcAssistAlloc", "runtime.mallocgc", "runtime.newobject", "net/http.readRequest"}},
		{"allocation", []string{"runtime.nextFreeFast", "runtime.mallocgcSmallScanNoHeader", "runtime.mallocgc", "gateway.internal/proxyd/jsonrpc.Parse"}},
		{"allocation", []string{"runtime.memclrNoHeapPointers", "runtime.(*mheap).alloc", "bytes.growSlice"}},
		{"gateway: jsonrpc", []string{"gateway.internal/proxyd/jsonrpc.skipPlain", "gateway.internal/proxyd/server.(*Server).ask", "net/http.(*conn).serve"}},
		{"gateway: ratelimit", []string{"aeshashbody", "internal/runtime/maps.(*Map).getWithoutKeySmallFastStr", "gateway.internal/proxyd/ratelimit.(*Limiter).take"}},
		{"gateway: server", []string{"net/textproto.MIMEHeader.Set", "net/http.Header.Set", "gateway.internal/proxyd/server.(*Server).write"}},
		{"gateway: cache", []string{"runtime.memmove", "gateway.internal/proxyd/cache/disk.(*Store).get"}},
		{"gateway: wiring", []string{"gateway.internal/proxyd.(*inFlight).ServeHTTP", "net/http.serverHandler.ServeHTTP"}},
		{"metrics library", []string{"github.com/prometheus/client_golang/prometheus.matchLabelValues", "gateway.internal/proxyd/server.(*Server).count"}},
		{"routing (chi, cors)", []string{"github.com/go-chi/chi/v5.(*node).findRoute", "github.com/go-chi/chi/v5.(*Mux).routeHTTP", "net/http.HandlerFunc.ServeHTTP"}},
		{"net/http server", []string{"net/textproto.readMIMEHeader", "net/http.readRequest", "net/http.(*conn).readRequest", "net/http.(*conn).serve"}},
		{"net/http client", []string{"net/http.Header.writeSubset", "net/http.(*persistConn).writeLoop"}},
		{"TLS and cryptography", []string{"crypto/internal/fips140/aes/gcm.gcmAesEnc", "crypto/tls.(*Conn).Read", "gateway.internal/proxyd/backend.headReader.Read"}},
		{"WebSocket library", []string{"bufio.(*Writer).Write", "github.com/coder/websocket.(*Conn).writeFrame", "gateway.internal/proxyd/server.(*socket).write"}},
		{"rest", []string{"runtime.main", "runtime.goexit"}},
		{"rest", nil},
	} {
		if got := areaOf(tc.stack); got != tc.want {
			t.Errorf("%q: %v", got, tc.stack)
		}
	}
}

func TestTracesAreReadAsTheToolPrintsThem(t *testing.T) {
	const text = `File: proxyd
Type: cpu
Duration: 2s, Total samples = 1.98s (98.98%)
-----------+-------------------------------------------------------
 bytes:  16
10000000ns   runtime.futex
             runtime.futexsleep (inline)
-----------+-------------------------------------------------------
        -3   slices.insertionSortCmpFunc[go.shape.struct { net/http.key string }] /go/sort.go:3
             main.main /main.go:7
-----------+-------------------------------------------------------
`
	got, err := parseTraces([]byte(text))
	want := []trace{
		{10000000, []string{"runtime.futex", "runtime.futexsleep"}},
		{-3, []string{"slices.insertionSortCmpFunc[go.shape.struct { net/http.key string }] /go/sort.go:3", "main.main /main.go:7"}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, empty := range []string{"", "File: proxyd\nType: cpu\n", "-----------+---\n"} {
		if got, err := parseTraces([]byte(empty)); err != nil || len(got) > 0 {
			t.Errorf("%q: %+v, %v", empty, got, err)
		}
	}
	if _, err := parseTraces([]byte("-----------+---\n  much runtime.futex\n")); err == nil {
		t.Error("a sample without a number was read")
	}
}
