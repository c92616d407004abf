package backend

import (
	"slices"
	"time"
)

// What is not learnt from clients' calls: what health checks found, the chain
// that the backend serves, and its head.

// Unfit says why a health check finds that the backend cannot serve; "" is that
// it can. Each source speaks for itself: the backend is fit when none finds a
// reason.
func (b *Backend) Unfit(source, reason string) {
	h := &b.health
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.unfit, func(u unfitness) bool { return u.source == source })
	switch {
	case i < 0 && reason == "":
		return
	case i < 0:
		h.unfit = append(h.unfit, unfitness{source, reason, time.Now()})
		h.opts.Log.Warn("backend unfit, it is left alone", "backend", h.opts.Name, "found_by", source, "reason", reason)
	case reason == "":
		since := h.unfit[i].since
		h.unfit = slices.Delete(h.unfit, i, i+1)
		h.returned, h.trouble = time.Now(), Trouble{}
		h.opts.Log.Info("backend fit again", "backend", h.opts.Name, "found_by", source, "unfit_for", time.Since(since).Round(time.Millisecond).String())
	default:
		h.unfit[i].reason = reason
	}
}

// unfitness is one source's finding.
type unfitness struct {
	source, reason string
	since          time.Time
}

// Unfitness is why the backend is Unfit or Foreign, "" when it is neither.
func (b *Backend) Unfitness() string {
	h := &b.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.foreign != "" {
		return h.foreign
	}
	if h.unverified {
		return "its chain id has not been checked yet"
	}
	if len(h.unfit) > 0 {
		return h.unfit[0].reason
	}
	return ""
}

// ChainID is the chain that the backend must serve, 0 when none was declared.
func (b *Backend) ChainID() uint64 { return b.opts.ChainID }

// Unverified reports whether the backend must serve a certain chain and has not
// been asked yet which one it serves.
func (b *Backend) Unverified() bool {
	b.health.mu.Lock()
	defer b.health.mu.Unlock()
	return b.health.unverified && b.health.foreign == ""
}

// answersChain notes which chain the backend says that it serves, and reports
// whether that is the one that it must serve.
func (h *health) answersChain(id uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	right := id == h.opts.ChainID
	if right {
		h.unverified = false
	}
	switch {
	case right && h.foreign != "":
		h.foreign = ""
		h.returned = time.Now()
		h.opts.Log.Info("backend serves the right chain again", "backend", h.opts.Name, "chain_id", id)
	case !right && h.foreign == "":
		h.foreign = wrongChain(id, h.opts.ChainID).Error()
		h.foreignSince = time.Now()
		h.noteChange()
		h.opts.Log.Error("backend serves another chain, it is refused: correct its URL or its chain_id", "backend", h.opts.Name, "chain_id", id, "want", h.opts.ChainID)
	}
	return right
}

// Quantity reads a JSON string with a hexadecimal number, as Ethereum writes it.
func Quantity(result []byte) (n uint64, ok bool) {
	if len(result) < 5 || len(result) > 20 || result[0] != '"' || result[1] != '0' || result[2] != 'x' || result[len(result)-1] != '"' {
		return 0, false
	}
	for _, c := range result[3 : len(result)-1] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		n = n<<4 | uint64(c)
	}
	return n, true
}

// NoteHead notes the number of the backend's latest block.
func (b *Backend) NoteHead(number uint64) {
	b.health.head.Store(&head{number, time.Now()})
}

type head struct {
	number uint64
	at     time.Time
}

// Head is the number of the backend's latest block and when it was seen; the zero
// time when no check has asked for it.
func (b *Backend) Head() (number uint64, seen time.Time) {
	if h := b.health.head.Load(); h != nil {
		return h.number, h.at
	}
	return 0, time.Time{}
}

// Changed receives when a failure counted against the backend or it was held
// off, so that whoever checks it looks sooner. It has room for one.
func (b *Backend) Changed() <-chan struct{} { return b.health.changed }

// Blamed is the number of failures that have counted against the backend.
func (b *Backend) Blamed() uint64 { return b.health.blamed.Load() }

func (h *health) noteChange() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}
