package devchain

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FaultKind is what a Backend does wrong.
type FaultKind string

// The faults, by the name that ParseFault reads. On a WebSocket they meet its messages, which is what answers are meant to there; FaultStatus
// meets the request that opens it instead, and FaultHang and FaultSlow meet both. What would be published during a FaultHang is never
// published, unless the fault is one of a single method.
const (
	FaultNone        FaultKind = "none"      // answer as it should be
	FaultStatus      FaultKind = "status"    // answer Fault.Status and a short text
	FaultHang        FaultKind = "hang"      // do not answer before the fault is changed; drop the connection when the Backend is closed
	FaultGarbage     FaultKind = "garbage"   // answer 200 with a page that is not JSON; on a WebSocket, send that page
	FaultRateLimited FaultKind = "429"       // answer 429, Fault.RetryAfter, and a JSON-RPC error; on a WebSocket, the error for each call
	FaultRPCError    FaultKind = "rpc-error" // answer the call with the error Fault.RPCCode and Fault.RPCMessage
	FaultSlow        FaultKind = "slow"      // answer after Fault.Delay, or when the fault is changed; publish without delay
	FaultWrongID     FaultKind = "wrong-id"  // answer the call under an id that was not asked
	FaultClose       FaultKind = "close"     // reset the connection when half of the answer is written
	FaultTruncate    FaultKind = "truncate"  // answer 200 with the first half of the body, as if it were all
	FaultMute        FaultKind = "mute"      // publish nothing over WebSockets, but answer every call; what happens meanwhile is never published
	FaultDrop        FaultKind = "drop"      // reset all WebSockets and refuse new ones with 503; POST is not met
)

// way is how something comes to a Backend that a fault may meet.
type way uint8

const (
	byPost    way = 1 << iota // a POST
	byUpgrade                 // a request to open a WebSocket
	bySocket                  // a message on one
)

// faultRow is a fault with what it meets and the parameters that it takes besides kind.
type faultRow struct {
	kind   FaultKind
	ways   way
	fields []string
}

// faultTable lists the faults in the order in which people read them.
var faultTable = []faultRow{
	{FaultNone, 0, nil},
	{FaultStatus, byPost | byUpgrade, []string{"status", "times", "method"}},
	{FaultHang, byPost | byUpgrade | bySocket, []string{"times", "method"}},
	{FaultGarbage, byPost | bySocket, []string{"times", "method"}},
	{FaultRateLimited, byPost | bySocket, []string{"retry_after", "code", "message", "times", "method"}},
	{FaultRPCError, byPost | bySocket, []string{"code", "message", "times", "method"}},
	{FaultSlow, byPost | byUpgrade | bySocket, []string{"delay", "times", "method"}},
	{FaultWrongID, byPost | bySocket, []string{"times", "method"}},
	{FaultClose, byPost | bySocket, []string{"times", "method"}},
	{FaultTruncate, byPost | bySocket, []string{"times", "method"}},
	{FaultMute, 0, nil},
	{FaultDrop, byUpgrade, []string{"times"}},
}

const (
	maxFaultDelay = 10 * time.Minute
	maxFaultTimes = 1_000_000
	maxFaultText  = 1024
)

// Fault is a fault with its settings. One that a Kind does not use is ignored by it. The zero value is no fault.
type Fault struct {
	Kind       FaultKind
	Status     int           // FaultStatus: 200 to 599; anything else is 503
	Delay      time.Duration // FaultSlow: up to 10 minutes; 0 is one second
	RPCCode    int           // FaultRPCError, FaultRateLimited: 0 is -32000, or 429, which on a WebSocket is sent as -32005
	RPCMessage string        // FaultRPCError, FaultRateLimited: empty is "devchain fault", or "too many requests"
	RetryAfter string        // FaultRateLimited: the Retry-After header; empty is no header
	Times      int           // how many HTTP requests and messages of WebSockets it meets before it ends by itself; 0: until it is changed
	Method     string        // only requests with a call of this method, and in a batch only those calls; empty is all
}

// meets reports whether the fault is one for what comes in that way.
func (f Fault) meets(w way) bool {
	for _, row := range faultTable {
		if row.kind == f.Kind {
			return row.ways&w != 0
		}
	}
	return false
}

// silences reports whether nothing is published while the fault lasts. A hang does that unless it is one of a single method.
func (f Fault) silences() bool {
	return f.Kind == FaultMute || f.Kind == FaultHang && f.Method == ""
}

// filled is the fault with its defaults in place. An unknown Kind is no fault.
func (f Fault) filled() Fault {
	known := func(row faultRow) bool { return row.kind == f.Kind }
	if !slices.ContainsFunc(faultTable, known) || f.Kind == FaultNone {
		return Fault{Kind: FaultNone}
	}
	f.Times = max(f.Times, 0)
	switch f.Kind {
	case FaultMute:
		f.Times, f.Method = 0, "" // it meets no requests that could be counted or chosen from
	case FaultDrop:
		f.Method = ""
	case FaultStatus:
		if f.Status < 200 || f.Status > 599 {
			f.Status = http.StatusServiceUnavailable
		}
	case FaultSlow:
		if f.Delay <= 0 {
			f.Delay = time.Second
		}
		f.Delay = min(f.Delay, maxFaultDelay)
	case FaultRateLimited:
		f.RPCCode, f.RPCMessage = orElse(f.RPCCode, http.StatusTooManyRequests), orElse(f.RPCMessage, "too many requests")
	case FaultRPCError:
		f.RPCCode, f.RPCMessage = orElse(f.RPCCode, codeServer), orElse(f.RPCMessage, "devchain fault")
	}
	return f
}

func orElse[T comparable](v, instead T) T {
	var zero T
	if v == zero {
		return instead
	}
	return v
}

// hits reports whether the fault is meant for the call.
func (f Fault) hits(c call) bool { return f.Method == "" || f.Method == c.method }

// MarshalJSON writes the fault under the parameter names of ParseFault, without what is not set.
func (f Fault) MarshalJSON() ([]byte, error) {
	out := struct {
		Kind       FaultKind `json:"kind"`
		Status     int       `json:"status,omitempty"`
		Delay      string    `json:"delay,omitempty"`
		RPCCode    int       `json:"code,omitempty"`
		RPCMessage string    `json:"message,omitempty"`
		RetryAfter string    `json:"retry_after,omitempty"`
		Times      int       `json:"times,omitempty"`
		Method     string    `json:"method,omitempty"`
	}{f.Kind, f.Status, "", f.RPCCode, f.RPCMessage, f.RetryAfter, f.Times, f.Method}
	if f.Delay != 0 {
		out.Delay = f.Delay.String()
	}
	return json.Marshal(out)
}

// ParseFault reads a fault from the parameters kind, status, delay, code, message, retry_after, times and method. kind is required. An error
// names the parameter and what it may be; a parameter that the kind does not use is an error too.
func ParseFault(v url.Values) (Fault, error) {
	kinds := make([]string, 0, len(faultTable))
	allowed := []string(nil)
	kind := FaultKind(v.Get("kind"))
	for _, row := range faultTable {
		kinds = append(kinds, string(row.kind))
		if row.kind != kind {
			continue
		}
		allowed = append([]string{"kind"}, row.fields...)
	}
	if allowed == nil {
		return Fault{}, fmt.Errorf("parameter kind: got %.40q, want one of %s", kind, strings.Join(kinds, ", "))
	}
	names := make([]string, 0, len(v))
	for name := range v {
		names = append(names, name)
	}
	slices.Sort(names)
	f := Fault{Kind: kind}
	for _, name := range names {
		if !slices.Contains(allowed, name) {
			return Fault{}, fmt.Errorf("parameter %.40q: not used by kind=%s, which takes %s", name, kind, strings.Join(allowed, ", "))
		}
		if len(v[name]) != 1 {
			return Fault{}, fmt.Errorf("parameter %s: given %d times, want it once", name, len(v[name]))
		}
		if err := f.set(name, v.Get(name)); err != nil {
			return Fault{}, fmt.Errorf("parameter %s: got %.40q, want %w", name, v.Get(name), err)
		}
	}
	return f.filled(), nil
}

// set reads one parameter. The error says what it may be.
func (f *Fault) set(name, value string) (err error) {
	switch name {
	case "status":
		f.Status, err = within(value, 200, 599)
	case "delay":
		f.Delay, err = time.ParseDuration(value)
		if err != nil || f.Delay <= 0 || f.Delay > maxFaultDelay {
			return fmt.Errorf("a duration above 0 and up to %s, like 250ms", maxFaultDelay)
		}
	case "code":
		f.RPCCode, err = within(value, -1<<31, 1<<31-1)
	case "times":
		f.Times, err = within(value, 0, maxFaultTimes)
	case "message":
		f.RPCMessage = value
		if len(value) > maxFaultText {
			return fmt.Errorf("at most %d bytes", maxFaultText)
		}
	case "retry_after":
		f.RetryAfter = value
		if !printable(value) {
			return fmt.Errorf("seconds or an HTTP date, in at most 64 printable ASCII characters")
		}
	case "method":
		f.Method = value
		if !printable(value) {
			return fmt.Errorf("the name of a method, in at most 64 printable ASCII characters")
		}
	}
	return err
}

func within(value string, least, most int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("a whole number from %d to %d", least, most)
	}
	return n, nil
}

func printable(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
