package subscribe

import "time"

// pace is how often heads come.
type pace struct {
	number uint64 // the highest so far
	last   time.Time
	mean   time.Duration // between heads, 0 for unknown
	still  int           // times that the whole chain was found standing still
	asked  time.Time     // when it last was
}

const (
	// Between leastStall and mostStall without a head, where nothing else is
	// configured, the source is suspected; before the pace is known after
	// unknownStall.
	leastStall, mostStall, unknownStall = 3 * time.Second, 2 * time.Minute, time.Minute
	// stallHeads is how many heads must be missing.
	stallHeads = 4
)

// heard notes a head.
func (p *pace) heard(number uint64, now time.Time) {
	if number <= p.number && !p.last.IsZero() {
		return
	}
	if !p.last.IsZero() && p.still == 0 {
		each := now.Sub(p.last) / time.Duration(max(1, min(number-p.number, 1000)))
		if p.mean == 0 {
			p.mean = each
		} else {
			p.mean += (each - p.mean) / 8
		}
	}
	p.number, p.last, p.still = number, now, 0
}

// standsStill notes that nobody has a newer head: the next look can wait longer.
func (p *pace) standsStill(now time.Time) { p.still, p.asked = min(p.still+1, 4), now }

// limit is how long no head may come.
func (p *pace) limit(configured time.Duration) time.Duration {
	switch {
	case configured > 0:
		return configured
	case p.mean == 0:
		return unknownStall
	}
	return max(leastStall, min(stallHeads*p.mean, mostStall))
}

// stalledAt is when the source is to be suspected.
func (p *pace) stalledAt(configured time.Duration) time.Time {
	if p.still > 0 {
		return p.asked.Add(p.limit(configured) << p.still)
	}
	return p.last.Add(p.limit(configured))
}

// patience is how long a source that is behind is waited for.
func (p *pace) patience(configured time.Duration) time.Duration { return 2 * p.limit(configured) }
