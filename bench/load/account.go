package main

import "time"

// account is what one client has got of one subscription that has one event for each
// block.
type account struct {
	id          []byte // of the subscription, with its quotes
	first, last uint64 // blocks of the first and the newest event, 0 for none
	at          time.Time
	// passed are the blocks between whose events have not come.
	passed map[uint64]bool
}

// What is wrong with when an event came.
const (
	twice      = "came twice"
	disordered = "came after a later one"
)

// got notes the event of a block and returns what is wrong with when it came, ""
// for nothing.
func (a *account) got(number uint64, now time.Time) (fault string) {
	switch {
	case a.last == 0:
		a.first = number
	case number <= a.last && (a.passed[number] || number < a.first):
		delete(a.passed, number)
		return disordered
	case number <= a.last:
		return twice
	}
	if a.last != 0 {
		for n := a.last + 1; n < number; n++ {
			if a.passed == nil {
				a.passed = map[uint64]bool{}
			}
			a.passed[n] = true
		}
	}
	a.last, a.at = number, now
	return ""
}

// missed is how many of the events of some blocks have not come.
func (a *account) missed(from, to uint64) int {
	n := 0
	for number := from; number <= to; number++ {
		if number < a.first || number > a.last || a.passed[number] {
			n++
		}
	}
	return n
}
