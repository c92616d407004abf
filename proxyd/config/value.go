package config

import (
	"encoding/json"
	"log/slog"
	"time"
)

// Secret is a value that must not be seen: it prints as *** wherever it goes.
type Secret string

const hidden = "***"

// Reveal returns the value itself.
func (s Secret) Reveal() string { return string(s) }

// String returns *** for every value but the empty one.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue hides the value from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the value from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Duration is a time span. Keys take it as "1m30s"; those whose name holds a
// unit also as a number of that unit.
type Duration time.Duration

// D returns the time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String returns the form of time.Duration.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the form of time.Duration.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }
