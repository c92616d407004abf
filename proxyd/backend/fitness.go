package backend

import (
	"slices"
	"sync"
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
	h := &b.health.heads
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.seen) == maxHeads {
		h.seen = append(h.seen[:0], h.seen[1:]...)
	}
	h.seen = append(h.seen, head{number, time.Now()})
}

// maxHeads is how many heads are remembered: heads are compared as of one moment, and
// those of backends are seen at different ones.
const maxHeads = 256

type head struct {
	number uint64
	at     time.Time
}

type heads struct {
	mu   sync.Mutex
	seen []head
}

// Head is the number of the backend's latest block and when it was seen; the zero
// time when nobody has looked.
func (b *Backend) Head() (number uint64, seen time.Time) {
	h := &b.health.heads
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.seen) == 0 {
		return 0, time.Time{}
	}
	last := h.seen[len(h.seen)-1]
	return last.number, last.at
}

// sameMoment is how far apart two looks may be for being called one.
const sameMoment = 2 * time.Second

// HeadAt is the backend's head at a moment, and the look behind it: between two looks
// as if it grew steadily, after the last one that. Before the first one nothing is known
// but what was seen at about the same moment.
func (b *Backend) HeadAt(moment time.Time) (number uint64, seen time.Time) {
	h := &b.health.heads
	h.mu.Lock()
	defer h.mu.Unlock()
	after := -1 // the first look that is not before the moment
	for i, look := range slices.Backward(h.seen) {
		if look.at.Before(moment) {
			break
		}
		after = i
	}
	switch {
	case len(h.seen) == 0 || after == 0 && h.seen[0].at.Sub(moment) > sameMoment:
		return 0, time.Time{}
	case after < 0:
		after = len(h.seen) - 1
		fallthrough
	case after == 0:
		return h.seen[after].number, h.seen[after].at
	}
	from, to := h.seen[after-1], h.seen[after]
	if to.number < from.number || !to.at.After(from.at) {
		return to.number, to.at
	}
	grown := float64(to.number-from.number) * float64(moment.Sub(from.at)) / float64(to.at.Sub(from.at))
	return from.number + uint64(grown), to.at
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
