package config

import (
	"encoding/json"
	"log/slog"
	"strconv"
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

// Duration is a time span. Keys take it as "1m30s"; those with a unit also as a
// number of that unit.
type Duration time.Duration

// D returns the time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String returns the form of time.Duration.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the form of time.Duration.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// ClientKeys are the keys that clients show, with their aliases. The keys are
// secrets: it prints how many there are.
type ClientKeys map[string]string

// String tells the number of keys.
func (k ClientKeys) String() string {
	if len(k) == 0 {
		return ""
	}
	return strconv.Itoa(len(k)) + " keys " + hidden
}

// GoString hides the keys from %#v.
func (k ClientKeys) GoString() string { return k.String() }

// LogValue hides the keys from slog.
func (k ClientKeys) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText hides the keys from encoders.
func (k ClientKeys) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
