package devchain

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
)

// maxBody is the largest request body, and the largest message of a WebSocket, that a Backend reads, in bytes.
const maxBody = 5 << 20

// Backend serves a Chain over HTTP: JSON-RPC by POST and over WebSockets on every path but /fault, which shows (GET) and changes (POST) the
// fault. It is safe for concurrent use.
//
// What happens on the Chain is published before the call that did it returns, in so far as it stands in the queues of the WebSockets then.
// So a fault is in force for exactly the blocks that are mined between its SetFault and the next.
type Backend struct {
	name string

	requests atomic.Int64
	calls    atomic.Int64
	byMethod map[string]*atomic.Int64 // one for each known method; never changed

	moving sync.Mutex              // held by SetChain and SetLag; taken before a Chain's lock, which is taken before mu
	sight  atomic.Pointer[horizon] // changed with all three of them held

	mu          sync.Mutex
	fault       Fault
	changed     chan struct{} // closed by the next SetFault
	closed      chan struct{}
	isOver      bool
	lastUpgrade http.Header
	sockets     map[*socket]struct{}
	filters     map[string]*installed
	filterOrder []string // the ids of filters, oldest first

	subscribed atomic.Int64
	active     sync.WaitGroup // the goroutines of the sockets
}

// NewBackend returns a Backend of chain without a fault. name tells it from others in web3_clientVersion.
func NewBackend(chain *Chain, name string) *Backend {
	b := &Backend{
		name:     name,
		byMethod: make(map[string]*atomic.Int64, len(methods)),
		fault:    Fault{Kind: FaultNone},
		changed:  make(chan struct{}),
		closed:   make(chan struct{}),
		sockets:  make(map[*socket]struct{}),
		filters:  make(map[string]*installed),
	}
	b.sight.Store(&horizon{chain: chain})
	for m := range methods {
		b.byMethod[m] = new(atomic.Int64)
	}
	chain.watch(b)
	return b
}

// Close drops the requests that a fault holds up, now and from now on. It does not wait for their handlers: Shutdown of the http.Server does.
// It resets all WebSockets, refuses further ones and waits until their goroutines are at an end.
func (b *Backend) Close() {
	b.mu.Lock()
	if !b.isOver {
		b.isOver = true
		close(b.closed)
	}
	b.dropSockets()
	b.mu.Unlock()
	b.active.Wait()
}

// Name is the name given to NewBackend.
func (b *Backend) Name() string { return b.name }

// Requests is how many HTTP requests came, with those that open a WebSocket, without those for /fault.
func (b *Backend) Requests() int64 { return b.requests.Load() }

// Calls is how many valid JSON-RPC calls came, by POST and over WebSockets, of known and unknown methods, answered or not.
func (b *Backend) Calls() int64 { return b.calls.Load() }

// CallsOf is how many of the calls were for a method. It is 0 for a method that the Backend does not know.
func (b *Backend) CallsOf(method string) int64 {
	if n := b.byMethod[method]; n != nil {
		return n.Load()
	}
	return 0
}

// Fault is the present fault; its Times is what is left of them.
func (b *Backend) Fault() Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fault
}

// SetFault changes the fault, fills in the defaults of what it leaves empty, and lets the requests go on that the one before held up: they
// are answered as without a fault. FaultDrop drops the open WebSockets at once.
func (b *Backend) SetFault(f Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = f.filled()
	close(b.changed)
	b.changed = make(chan struct{})
	if b.fault.Kind == FaultDrop {
		b.dropSockets()
	}
}

// takeFault returns the fault that meets r, which came in that way, and a channel that is closed when it is changed.
func (b *Backend) takeFault(w way, r request) (Fault, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.fault
	if !f.meets(w) {
		return Fault{Kind: FaultNone}, b.changed
	}
	if f.Method != "" {
		hit := false
		for _, c := range r.calls {
			hit = hit || c.valid && f.hits(c)
		}
		if !hit {
			return Fault{Kind: FaultNone}, b.changed
		}
	}
	if f.Times == 1 {
		b.fault = Fault{Kind: FaultNone}
	} else if f.Times > 1 {
		b.fault.Times--
	}
	return f, b.changed
}

// ServeHTTP implements http.Handler.
func (b *Backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/fault" {
		b.serveFault(w, r)
		return
	}
	b.requests.Add(1)
	if isUpgrade(r) {
		b.serveSocket(w, r)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "JSON-RPC wants POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		http.Error(w, fmt.Sprintf("request body larger than %d bytes", maxBody), http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(w, "read request body: "+err.Error(), http.StatusBadRequest)
		return
	}
	in := parseRequest(body)
	b.count(in)
	b.serve(w, r, in)
}

func (b *Backend) count(in request) {
	for _, c := range in.calls {
		if !c.valid {
			continue
		}
		b.calls.Add(1)
		if n := b.byMethod[c.method]; n != nil {
			n.Add(1)
		}
	}
}

func (b *Backend) serveFault(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
	case http.MethodPost:
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			http.Error(w, "read query: "+err.Error(), http.StatusBadRequest)
			return
		}
		f, err := ParseFault(query)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b.SetFault(f)
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "/fault wants GET or POST", http.StatusMethodNotAllowed)
		return
	}
	out, err := json.Marshal(b.Fault())
	if err != nil {
		http.Error(w, "encode fault: "+err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, http.StatusOK, append(out, '\n'))
}
