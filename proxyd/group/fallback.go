package group

// fallback asks the members in the order of the list. With weighted routing
// each tier is shuffled by weight instead.
type fallback struct{ weighted bool }

func newFallback(o Options) Strategy { return fallback{o.Weighted} }

func (f fallback) Arrange(members []*Member, _ Ask) {
	if f.weighted {
		shuffleByWeight(members)
	}
}

// inList reports whether the list's order stands.
func (f fallback) inList() bool { return !f.weighted }

func (f fallback) Spreads() bool { return f.weighted }
