package group

import (
	"slices"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/jsonrpc"
)

// spent reports whether max_attempts have been made.
func (r *run) spent() bool {
	most := r.g.opts.MaxAttempts
	return most > 0 && r.attempts >= most
}

// pick takes the next member that can be asked now out of the round's order.
func (r *run) pick() (m *Member, trial bool) {
	if r.spent() {
		return nil, false
	}
	var full []*Member // at their max_rps
	for i, m := range r.order {
		state := m.Standing().State
		if state > backend.Trial && !r.desperate {
			continue // its state changed since the round began
		}
		if !m.TakeTokens(len(r.open)) {
			full = append(full, m)
			continue
		}
		if state == backend.Trial {
			if trial = m.TakeTrial(); !trial && !r.desperate {
				continue // another call has it
			}
		}
		if r.order = r.order[i+1:]; len(full) > 0 {
			r.order = slices.Concat(r.order, full)
		}
		return m, trial
	}
	// All are at their max_rps: the call still goes out, to the one with most
	// room, except where the limit is strict.
	r.order = nil
	for _, f := range full {
		if f.Strict() {
			for _, p := range r.open {
				p.limited = true
			}
		} else if m == nil || f.Room() > m.Room() {
			m = f
		}
	}
	if m == nil {
		return nil, false
	}
	r.order = slices.DeleteFunc(full, func(f *Member) bool { return f == m })
	return m, m.Standing().State == backend.Trial && m.TakeTrial()
}

// lastResort returns a member that is not usable and was not asked, once, for
// calls that nobody has answered: better than no answer at all. A member that
// asked to be left alone is left alone, as long as another was asked; one at its
// strict limit always is.
func (r *run) lastResort() *Member {
	limited := slices.ContainsFunc(r.open, func(p *progress) bool { return p.limited })
	if r.resorted || r.attempts == 0 && limited {
		return nil
	}
	r.resorted = true
	now := time.Now()
	c := r.g.candidates(r.calls(), now)
	tried := slices.Clone(r.asked)
	for {
		m := c.leastBad(func(m *Member) bool {
			return !slices.Contains(tried, m) && (r.attempts == 0 || !m.HeldUntil().After(now))
		})
		if m == nil || !m.Strict() || m.TakeTokens(len(r.open)) {
			return m
		}
		tried = append(tried, m)
	}
}

// calls are the calls without a verdict.
func (r *run) calls() []*jsonrpc.Call {
	calls := make([]*jsonrpc.Call, len(r.open))
	for i, p := range r.open {
		calls[i] = p.call
	}
	return calls
}
