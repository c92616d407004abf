package proxyd

import (
	"context"
	"net/http"
	"sync"
)

// inFlight knows the requests that a handler serves, so that none outlives the
// objects that it uses: http.Server.Close closes connections and does not wait.
type inFlight struct {
	next http.Handler
	// base is the context of all requests; cut ends it.
	base context.Context
	end  context.CancelFunc

	mu     sync.Mutex
	over   bool
	served sync.WaitGroup
}

func newInFlight(next http.Handler) *inFlight {
	f := &inFlight{next: next}
	f.base, f.end = context.WithCancel(context.Background())
	return f
}

// ServeHTTP implements http.Handler.
func (f *inFlight) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	if f.over {
		f.mu.Unlock()
		panic(http.ErrAbortHandler) // its connection is closed already
	}
	f.served.Add(1)
	f.mu.Unlock()
	defer f.served.Done()
	f.next.ServeHTTP(w, r)
}

// cut ends the requests that are still served and waits for them. No further
// one is let in.
func (f *inFlight) cut() {
	f.mu.Lock()
	f.over = true
	f.mu.Unlock()
	f.end()
	f.served.Wait()
}
