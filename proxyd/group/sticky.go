package group

import (
	"sync/atomic"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
)

// sticky asks the preferred member first and then the next ones in a circle;
// whoever answers becomes preferred (op-reth's sequencer endpoints).
type sticky struct {
	// preferred is the index of the preferred member and, above it, the time in
	// milliseconds at which the first member lost the preference.
	preferred atomic.Uint64
	g         *Group
	first     *Member
	failBack  time.Duration
}

func newSticky(o Options) Strategy {
	return &sticky{first: o.Members[0], failBack: o.FailBack}
}

func (s *sticky) bind(g *Group) { s.g = g }

const stickyIndex = 1<<16 - 1 // the bits of the index

func (s *sticky) Arrange(members []*Member, _ Ask) {
	preferred := int(s.current() & stickyIndex)
	for i, m := range members {
		if m.index >= preferred {
			rotate(members, i)
			return
		}
	}
}

func (*sticky) Spreads() bool { return false }

// current returns the preference, moved back to the first member when FailBack has
// passed since it lost it and it is well.
func (s *sticky) current() uint64 {
	p := s.preferred.Load()
	if s.failBack <= 0 || p&stickyIndex == 0 {
		return p
	}
	now := time.Now()
	if now.Sub(time.UnixMilli(int64(p>>16))) < s.failBack || s.first.StandingAt(now).State > backend.Trial {
		return p
	}
	back := preference(0, now)
	if s.preferred.CompareAndSwap(p, back) {
		s.g.opts.Log.Info("first backend preferred again", "backend_group", s.g.opts.Name, "backend", s.first.Name())
		s.g.notePreferred()
		return back
	}
	return s.preferred.Load()
}

func preference(index int, now time.Time) uint64 {
	return uint64(now.UnixMilli())<<16 | uint64(index)
}

// begin returns what the preference is when a call begins.
func (s *sticky) begin() uint64 { return s.current() }

// answered makes m preferred, unless the preference has moved since the call
// began.
func (s *sticky) answered(begun uint64, m *Member) (moved bool) {
	lost := time.Now()
	switch was := int(begun & stickyIndex); {
	case was == m.index:
		return false
	case was != 0 && m.index != 0:
		lost = time.UnixMilli(int64(begun >> 16)) // the first has not had it since
	}
	return s.preferred.CompareAndSwap(begun, preference(m.index, lost))
}

// prefers is the index of the member that is preferred now.
func (s *sticky) prefers() int { return int(s.preferred.Load() & stickyIndex) }

// final reports whether an error of a member is the client's at once: all are but
// rate limits, what comes with a status of 429 or 5xx, and what a node says of a
// fault of its own, like an internal error.
func (*sticky) final(o classify.Outcome, status int) bool {
	return o.Hold == classify.None && !o.Sick && status < 429
}
