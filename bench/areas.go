package main

import "regexp"

// areas is the table of what the gateway spends its time on, by names of
// functions. A sample belongs to the first of its frames, from leaf to root, that
// an entry matches, so that what a helper costs goes to who called it. Earlier
// entries win; $1 is what the pattern's group matched.
var areas = []struct {
	name    string
	pattern *regexp.Regexp
}{
	{"system call: read", frames(`^syscall\.(read|recv)`)},
	{"system call: write", frames(`^syscall\.(write|send)|^internal/poll\.writev$|^runtime\.write1?$`)},
	{"system call: epoll", frames(`^runtime\.netpoll|EpollWait$|EpollCtl$`)},
	{"system call: futex", frames(`^runtime\.futex`)},
	{"system call: others", frames(`^syscall\.[a-z]|^syscall\.(Close|SetNonblock|CloseOnExec)$|^runtime\.(usleep|osyield|madvise|mmap|munmap|nanotime1|tgkill)$`)},
	{"garbage collector", frames(`^runtime\.(gc|bgsweep|bgscavenge|sweep|scan|greyobject|markroot|wb|bulkBarrier|\(\*(gcWork|gcControllerState|sweepLocked|sweepLocker|wbBuf|spanInlineMarkBits|gcBits)\))`)},
	{"allocation", frames(`^runtime\.(malloc|newobject|newarray|makeslice|growslice|makechan|makemap|rawbyteslice|rawstring|concatstring|slicebytetostring|stringtoslicebyte|\(\*(mcache|mcentral|mheap|mspan|pageAlloc|fixalloc)\))`)},
	{"scheduler, channels, timers, stacks", frames(`^runtime\.(schedule|findRunnable|park_m|mcall|mstart|gopark|goready|ready|execute|exitsyscall|entersyscall|reentersyscall|newproc|goexit0|gdestroy|gosched|gopreempt|wakep|startm|stopm|sysmon|runqgrab|stealWork|chansend|chanrecv|closechan|selectgo|selectnb|block|sem|notetsleep|notesleep|notewakeup|newstack|morestack|copystack|gogo|asyncPreempt|sigtramp|sighandler|\(\*(timers?|waitq|semaRoot)\))`)},
	{"metrics library", frames(`^github\.com/prometheus/`)},
	{"WebSocket library", frames(`^github\.com/coder/websocket`)},
	{"TLS and cryptography", frames(`^crypto/`)},
	{"gateway: $1", frames(`^gateway\.internal/proxyd/(\w+)[./]`)},
	{"gateway: wiring", frames(`^gateway\.internal/|^main\.`)},
	{"routing (chi, cors)", frames(`^github\.com/(go-chi|rs)/`)},
	// What the client and the server share, headers and bodies, goes to who calls it.
	{"net/http client", frames(`^net/http\.\(\*(Transport|persistConn|transportRequest|bodyEOFSignal|Client|wantConn)\)`)},
	{"net/http server", frames(`^net/http\.(\(\*(Server|conn|connReader|response|chunkWriter|ServeMux)\)|checkConnErrorWriter|serverHandler|HandlerFunc)`)},
}

// rest is the area of what no entry matches.
const rest = "rest"

func frames(pattern string) *regexp.Regexp { return regexp.MustCompile(pattern) }

// areaOf returns the area of a stack, leaf first.
func areaOf(stack []string) string {
	for _, frame := range stack {
		for _, a := range areas {
			if at := a.pattern.FindStringSubmatchIndex(frame); at != nil {
				return string(a.pattern.ExpandString(nil, a.name, frame, at))
			}
		}
	}
	return rest
}
