package server

import (
	"encoding/json"
	"net/http"
)

// healthz says whether the process serves at all.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	if s.draining.Load() {
		http.Error(w, "Server is draining", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("OK"))
}

// readyz says whether calls can be served: not during drain, and not while no
// group has a usable backend; with ?strict=1 not while any group has none.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	strict := r.URL.Query().Get("strict")
	ok, groups := s.opts.Ready(strict == "1" || strict == "true")
	draining := s.draining.Load()
	status := http.StatusOK
	if !ok || draining {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct {
		Ready    bool          `json:"ready"`
		Draining bool          `json:"draining"`
		Groups   []GroupStatus `json:"groups"`
	}{status == http.StatusOK, draining, groups})
}
