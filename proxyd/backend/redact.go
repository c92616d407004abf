package backend

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"gateway.internal/proxyd/jsonrpc"
)

// redactor knows a backend's secrets and takes them out of texts.
type redactor struct {
	secrets *regexp.Regexp // nil for none; without regard to case
	// raws are the secrets that are no UTF-8, which a regexp cannot name.
	raws []string
}

// newRedactor collects what of the URLs, credentials and headers is secret: the
// path, each long segment of it, the query and its values, names and passwords,
// and header values.
func newRedactor(o Options, urls ...*url.URL) *redactor {
	found := map[string]bool{}
	add := func(secret string, least int) {
		if len(secret) < least {
			return
		}
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
			found[form] = true
			// As text that is itself JSON spells it.
			quoted := string(jsonrpc.AppendString(nil, form))
			found[quoted[1:len(quoted)-1]] = true
			found[strings.ReplaceAll(form, "/", `\/`)] = true
		}
	}
	credentials := func(name, password string) {
		add(name, 8) // a shorter one is a word
		add(password, 4)
		if name != "" || password != "" {
			add(base64.StdEncoding.EncodeToString([]byte(name+":"+password)), 4)
		}
	}
	for _, u := range urls {
		if u == nil {
			continue
		}
		for _, path := range []string{u.Path, u.EscapedPath()} {
			for segment := range strings.SplitSeq(path, "/") {
				least := 8 // a shorter one is a word, unless it has a digit
				if strings.ContainsAny(segment, "0123456789") {
					least = 5
				}
				add(segment, least)
			}
			add(strings.Trim(path, "/"), 8)
		}
		add(u.RawQuery, 4)
		for _, values := range u.Query() {
			for _, v := range values {
				add(v, 4)
			}
		}
		if u.User != nil {
			password, _ := u.User.Password()
			credentials(u.User.Username(), password)
		}
	}
	credentials(o.Username, o.Password)
	for name, v := range o.Headers {
		if !harmlessHeaders[strings.ToLower(name)] {
			add(v, 4)
			_, token, _ := strings.Cut(v, " ") // "Bearer TOKEN"
			add(token, 4)
		}
	}
	r := new(redactor)
	secrets := slices.Collect(maps.Keys(found))
	// The longest first, so that no rest of a longer one is left standing.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	var exprs []string
	for _, secret := range secrets {
		if utf8.ValidString(secret) {
			exprs = append(exprs, regexp.QuoteMeta(secret))
		} else {
			r.raws = append(r.raws, secret)
		}
	}
	if len(exprs) > 0 {
		r.secrets = regexp.MustCompile("(?i)" + strings.Join(exprs, "|"))
	}
	return r
}

var harmlessHeaders = map[string]bool{"content-type": true, "accept": true, "accept-encoding": true, "user-agent": true, "host": true, "x-forwarded-for": true}

func (r *redactor) text(s string) string {
	for _, secret := range r.raws {
		s = strings.ReplaceAll(s, secret, "***")
	}
	if r.secrets == nil {
		return s
	}
	return r.secrets.ReplaceAllLiteralString(s, "***")
}

// raw takes the secrets out of the strings in the JSON value b, however they are
// escaped, and returns b itself when there are none. The names that make an error
// object and everything that is no string stay, so that the value stays JSON.
func (r *redactor) raw(b []byte) []byte {
	if r.secrets == nil || len(r.raws) == 0 && !r.secrets.Match(b) && bytes.IndexByte(b, '\\') < 0 {
		return b
	}
	var out []byte
	kept := 0 // b[:kept] is in out already
	for i := 0; i < len(b); i++ {
		if b[i] != '"' {
			continue
		}
		end := i + 1
		for end < len(b) && b[end] != '"' {
			if b[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(b) {
			break // not JSON, which the scanner has excluded
		}
		if token := b[i : end+1]; !errorMembers[string(token)] {
			var text string
			if json.Unmarshal(token, &text) == nil {
				if clean := r.text(text); clean != text {
					out = append(out, b[kept:i]...)
					out = jsonrpc.AppendString(out, clean)
					kept = end + 1
				}
			}
		}
		i = end
	}
	if kept == 0 {
		return b
	}
	return append(out, b[kept:]...)
}

// errorMembers are never taken for a secret that is spelled alike.
var errorMembers = map[string]bool{`"code"`: true, `"message"`: true, `"data"`: true}
