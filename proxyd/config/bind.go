package config

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// binder puts a decoded TOML document into a struct. Unlike the library's own
// decoder it goes on after a fault, so that every one is reported, and it knows
// the key of each.
type binder struct {
	*findings
	env     Lookup
	defined map[string]bool // keys that were set
	leaves  []setKey        // those that are no tables, in the order of the walk
}

// setKey is a key that stands in the file.
type setKey struct {
	at path
	// nothing is true for a value that asks for nothing: false, 0 or "".
	nothing bool
}

// fault records a value that cannot be read.
func (b *binder) fault(at path, format string, args ...any) {
	b.findings.fault(at, format, args...)
	if b.unread == nil {
		b.unread = map[string]bool{}
	}
	b.unread[at.String()] = true
}

var (
	durationType = reflect.TypeFor[Duration]()
	secretType   = reflect.TypeFor[Secret]()
)

// table binds a TOML table to a struct.
func (b *binder) table(at path, table map[string]any, dst reflect.Value) {
	fields := map[string]int{}
	for i := range dst.NumField() {
		fields[dst.Type().Field(i).Tag.Get("toml")] = i
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		key := at.with(name)
		i, ok := fields[name]
		if !ok {
			b.unknown(key, table[name], slices.Collect(maps.Keys(fields)))
			continue
		}
		b.defined[key.String()] = true
		field := dst.Field(i)
		b.value(key, table[name], field, dst.Type().Field(i).Tag)
		of := field.Type()
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if k := of.Kind(); k != reflect.Struct && k != reflect.Map {
			b.leaves = append(b.leaves, setKey{key, field.IsZero()})
		}
	}
}

func (b *binder) unknown(key path, value any, known []string) {
	what, hint := "unknown key", ""
	if _, ok := value.(map[string]any); ok {
		what = "unknown table"
	}
	if near := nearest(key[len(key)-1], known); near != "" {
		hint = "; did you mean " + near + "?"
	}
	b.warn(key, "%s: it does nothing%s", what, hint)
	b.warnings[len(b.warnings)-1].Unknown = true
}

func (b *binder) value(at path, value any, dst reflect.Value, tag reflect.StructTag) {
	switch dst.Type() {
	case durationType:
		b.duration(at, value, dst, tag.Get("unit"))
		return
	case secretType:
		b.text(at, value, dst, true)
		return
	}
	switch dst.Kind() {
	case reflect.Pointer:
		dst.Set(withDefaults(dst.Type().Elem()))
		b.value(at, value, dst.Elem(), tag)
	case reflect.String:
		b.text(at, value, dst, tag.Get("env") == "value")
	case reflect.Bool:
		if v, ok := value.(bool); ok {
			dst.SetBool(v)
		} else {
			b.wrongType(at, value, "true or false")
		}
	case reflect.Int, reflect.Int64, reflect.Uint, reflect.Uint64:
		b.integer(at, value, dst)
	case reflect.Float64:
		switch v := value.(type) {
		case float64:
			dst.SetFloat(v)
		case int64:
			dst.SetFloat(float64(v))
		default:
			b.wrongType(at, value, "a number")
		}
	case reflect.Slice:
		b.slice(at, value, dst, tag)
	case reflect.Map:
		b.mapping(at, value, dst, tag)
	case reflect.Struct:
		if v, ok := value.(map[string]any); ok {
			b.table(at, v, dst)
		} else {
			b.wrongType(at, value, "a table")
		}
	case reflect.Interface:
		if _, ok := value.(string); ok {
			text := reflect.New(reflect.TypeFor[string]()).Elem()
			b.text(at, value, text, false)
			dst.Set(text)
			return
		}
		dst.Set(reflect.ValueOf(value))
	}
}

// withDefaults returns a pointer to a new value for what stands in the file, with
// the defaults for which 0 does not stand.
func withDefaults(t reflect.Type) reflect.Value {
	v := reflect.New(t)
	if d, ok := v.Interface().(interface{ setNewDefaults() }); ok {
		d.setNewDefaults()
	}
	return v
}

func (b *binder) wrongType(at path, value any, want string) {
	b.fault(at, "must be %s, not %s", want, describe(value))
}

// describe names a TOML value's type; the value itself may be a secret.
func describe(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case bool:
		return "true or false"
	case int64:
		return "an integer"
	case float64:
		return "a fraction"
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "an array"
	}
	return "a date or time"
}

func (b *binder) text(at path, value any, dst reflect.Value, whole bool) {
	v, ok := value.(string)
	if !ok {
		b.wrongType(at, value, "a string")
		dst.SetString(unresolved)
		return
	}
	v, err := expand(v, whole, b.env)
	if err != nil {
		b.fault(at, "%v", err)
		// Something stands there, so that no second fault says that it is missing.
		v = unresolved
	}
	dst.SetString(v)
}

// unresolved stands for a value that could not be read.
const unresolved = "\x00unresolved"

func (b *binder) integer(at path, value any, dst reflect.Value) {
	v, ok := value.(int64)
	switch {
	case !ok:
		b.wrongType(at, value, "an integer")
	case dst.CanUint() && v < 0:
		b.fault(at, "must not be negative")
	case dst.CanUint():
		dst.SetUint(uint64(v))
	default:
		dst.SetInt(v)
	}
}

func (b *binder) duration(at path, value any, dst reflect.Value, unit string) {
	units := map[string]time.Duration{"s": time.Second, "ms": time.Millisecond}
	switch v := value.(type) {
	case string:
		text, err := expand(v, false, b.env)
		if err != nil {
			b.fault(at, "%v", err)
			return
		}
		d, err := time.ParseDuration(text)
		switch {
		case err != nil:
			// As it stands in the file: a variable may hold anything.
			b.fault(at, "%q is not a duration: write it like \"30s\" or \"1m30s\"", v)
			return
		case d > maxDuration || d < -maxDuration:
			b.fault(at, "is out of range")
			return
		}
		dst.SetInt(int64(d))
	case int64:
		switch {
		case unit == "" && v == 0:
		case unit == "":
			b.fault(at, "a duration needs its unit: write \"%ds\" for seconds", v)
			return
		case v > int64(maxDuration/units[unit]) || v < -int64(maxDuration/units[unit]):
			b.fault(at, "is out of range")
			return
		}
		dst.SetInt(v * int64(units[unit]))
	case float64:
		if unit == "" || !(v > -1e9 && v < 1e9) {
			b.fault(at, "a duration is written like \"30s\"")
			return
		}
		dst.SetInt(int64(v * float64(units[unit])))
	default:
		b.wrongType(at, value, "a duration like \"30s\"")
	}
}

// maxDuration keeps sums of durations from overflowing.
const maxDuration = time.Duration(1 << 62)

func (b *binder) slice(at path, value any, dst reflect.Value, tag reflect.StructTag) {
	var elements []any
	switch v := value.(type) {
	case []any:
		elements = v
	case []map[string]any:
		for _, t := range v {
			elements = append(elements, t)
		}
	default:
		b.wrongType(at, value, "an array")
		return
	}
	out := reflect.MakeSlice(dst.Type(), len(elements), len(elements))
	for i, e := range elements {
		b.value(at.with("["+strconv.Itoa(i)+"]"), e, out.Index(i), tag)
	}
	dst.Set(out)
}

func (b *binder) mapping(at path, value any, dst reflect.Value, tag reflect.StructTag) {
	v, ok := value.(map[string]any)
	if !ok {
		b.wrongType(at, value, "a table")
		return
	}
	out := reflect.MakeMapWithSize(dst.Type(), len(v))
	for _, name := range slices.Sorted(maps.Keys(v)) {
		key, element := at.with(name), withDefaults(dst.Type().Elem()).Elem()
		b.defined[key.String()] = true
		b.value(key, v[name], element, "")
		if tag.Get("env") == "keys" {
			expanded, err := expand(name, true, b.env)
			if err != nil {
				b.fault(key, "%v", err)
				continue
			}
			if out.MapIndex(reflect.ValueOf(expanded)).IsValid() {
				b.fault(key, "two entries are the same once their variables are filled in")
			}
			name = expanded
			b.lines[at.with(name).String()] = b.lines.of(key)
		}
		out.SetMapIndex(reflect.ValueOf(name), element)
	}
	dst.Set(out)
}

// nearest returns the known name closest to name, "" when none is close.
func nearest(name string, known []string) string {
	best, most := "", max(2, len(name)/4)+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(name, k); d < most {
			best, most = k, d
		}
	}
	return best
}

// distance is the edit distance of two short strings.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// Keys returns every key that a file may have, with * for names that the
// operator gives.
func Keys() []string {
	var keys []string
	var walk func(prefix string, t reflect.Type)
	walk = func(prefix string, t reflect.Type) {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch {
		case t == durationType || t == secretType:
			keys = append(keys, prefix)
		case t.Kind() == reflect.Struct:
			for i := range t.NumField() {
				walk(strings.TrimPrefix(prefix+"."+t.Field(i).Tag.Get("toml"), "."), t.Field(i).Type)
			}
		case t.Kind() == reflect.Map:
			walk(prefix+".*", t.Elem())
		case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
			walk(prefix, t.Elem())
		default:
			keys = append(keys, prefix)
		}
	}
	walk("", reflect.TypeFor[Config]())
	return keys
}
