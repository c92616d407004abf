package group

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrTimeout says that the deadline came, or that everything that was asked
// timed out.
var ErrTimeout = errors.New("gateway timeout")

// ErrTooLarge says that an answer was over the size limit.
var ErrTooLarge = errors.New("backend response too large")

// ErrOverCapacity says that every member is at its strict max_rps.
var ErrOverCapacity = errors.New("backend is over capacity")

// ErrNoArchive says that an archive was asked for and no member of the group is
// one.
var ErrNoArchive = errors.New("no archive node serves this method here")

// Unserviceable says that nobody answered.
type Unserviceable struct {
	Group string
	// Reasons has each failed attempt's error, oldest first.
	Reasons []error
	// RetryAfter is when the first backend may serve again, 0 for unknown.
	RetryAfter time.Duration
}

// Error names the group and each reason.
func (e *Unserviceable) Error() string { return "nobody answered: " + e.text() }

func (e *Unserviceable) text() string {
	if len(e.Reasons) == 0 {
		return fmt.Sprintf("backend group %s: no backend could be asked", e.Group)
	}
	reasons := make([]string, len(e.Reasons))
	for i, r := range e.Reasons {
		reasons[i] = r.Error()
	}
	return fmt.Sprintf("backend group %s: %s", e.Group, strings.Join(reasons, "; "))
}

// Unwrap returns the reasons.
func (e *Unserviceable) Unwrap() []error { return e.Reasons }

// AllFailed says that every endpoint of a sticky group failed.
type AllFailed struct {
	// Endpoints has for each endpoint its name and, in a word or two, how it
	// failed, or why it was not asked.
	Endpoints []string
	// TimedOut is true when all that were asked timed out.
	TimedOut bool
	cause    *Unserviceable
}

// Error names every endpoint's reason; a client may see it.
func (e *AllFailed) Error() string { return "all endpoints failed: " + strings.Join(e.Endpoints, "; ") }

// Unwrap returns the *Unserviceable with the whole reasons.
func (e *AllFailed) Unwrap() error { return e.cause }

// OutcomeUnknown says that a transaction may have reached a backend, but that
// nobody can tell.
type OutcomeUnknown struct {
	// Hash is the transaction's hash, "" when it cannot be computed.
	Hash string
}

// Error says what is unknown.
func (e *OutcomeUnknown) Error() string {
	return "outcome unknown: the transaction may have been accepted"
}
