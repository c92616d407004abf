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
	// seconds at which it became that.
	preferred atomic.Uint64
	first     *Member
	failBack  time.Duration
}

func newSticky(o Options) Strategy {
	return &sticky{first: o.Members[0], failBack: o.FailBack}
}

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

// current returns the preference, moved back to the first member when it is well
// again for FailBack since it lost it.
func (s *sticky) current() uint64 {
	p := s.preferred.Load()
	if s.failBack <= 0 || p&stickyIndex == 0 {
		return p
	}
	now := time.Now()
	if now.Sub(time.Unix(int64(p>>16), 0)) < s.failBack || s.first.StandingAt(now).State > backend.Trial {
		return p
	}
	back := preference(0, now)
	if s.preferred.CompareAndSwap(p, back) {
		return back
	}
	return s.preferred.Load()
}

func preference(index int, now time.Time) uint64 {
	return uint64(now.Unix())<<16 | uint64(index)
}

// begin returns what the preference is when a call begins.
func (s *sticky) begin() uint64 { return s.current() }

// answered makes m preferred, unless the preference has moved since the call
// began.
func (s *sticky) answered(begun uint64, m *Member) (moved bool) {
	return int(begun&stickyIndex) != m.index && s.preferred.CompareAndSwap(begun, preference(m.index, time.Now()))
}

// final reports whether an error of a member is the client's at once: all are but
// those that speak of the endpoint rather than of the call.
func (*sticky) final(o classify.Outcome, status int) bool {
	return o.Hold == classify.None && status < 429
}
