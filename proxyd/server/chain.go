package server

import (
	"log/slog"
	"net/http"

	"gateway.internal/proxyd/backend"
)

// chain is what the requests of one chain are served by.
type chain struct {
	routes  *Routes // nil for a top level that serves none
	metrics *Metrics
	log     *slog.Logger // names the chain, apart from that of the top level
	lines   backend.LineLimit
	top     bool // it is at the root
}

// serve returns the handler of one chain's requests.
func (s *Server) serve(ch *chain) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { s.serveRPC(w, r, ch) }
}

// misplaced says what is wrong with a path that leads to no chain. Beside chains a
// first segment that is not one must be a key that was accepted; what it was is
// not repeated, since it may be a secret.
func (s *Server) misplaced(ch *chain, key string, accepted bool) error {
	switch {
	case ch.routes == nil:
		return errNoChain
	case !ch.top || len(s.opts.Chains) == 0 || key == "":
		return nil
	case len(s.keys) == 0 || !accepted:
		return errUnknownChain
	}
	return nil
}
