package backend

import (
	"bytes"
	"net/url"
	"sort"
	"strings"

	"gateway.internal/proxyd/jsonrpc"
)

// redactor knows a backend's secrets and takes them out of texts.
type redactor struct {
	secrets  []string
	replacer *strings.Replacer
}

// newRedactor collects what of the URL, credentials and headers is secret: the
// path, each long segment of it, the query and its values, passwords, and
// header values.
func newRedactor(u *url.URL, o Options) *redactor {
	found := map[string]bool{}
	add := func(secret string, least int) {
		if len(secret) < least {
			return
		}
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
			found[form] = true
			quoted := string(jsonrpc.AppendString(nil, form))
			found[quoted[1:len(quoted)-1]] = true
			found[strings.ReplaceAll(form, "/", `\/`)] = true
		}
	}
	for _, segment := range strings.Split(u.Path, "/") {
		add(segment, 8)
	}
	add(strings.Trim(u.Path, "/"), 8)
	add(u.RawQuery, 4)
	for _, values := range u.Query() {
		for _, v := range values {
			add(v, 4)
		}
	}
	if u.User != nil {
		password, _ := u.User.Password()
		add(password, 4)
	}
	add(o.Password, 4)
	for name, v := range o.Headers {
		if !harmlessHeaders[strings.ToLower(name)] {
			add(v, 4)
			_, token, _ := strings.Cut(v, " ") // "Bearer TOKEN"
			add(token, 4)
		}
	}
	r := new(redactor)
	for secret := range found {
		r.secrets = append(r.secrets, secret)
	}
	// The longest first, so that no rest of a longer one is left standing.
	sort.Slice(r.secrets, func(i, j int) bool { return len(r.secrets[i]) > len(r.secrets[j]) })
	pairs := make([]string, 0, 2*len(r.secrets))
	for _, secret := range r.secrets {
		pairs = append(pairs, secret, "***")
	}
	r.replacer = strings.NewReplacer(pairs...)
	return r
}

var harmlessHeaders = map[string]bool{"content-type": true, "accept": true, "accept-encoding": true, "user-agent": true, "host": true, "x-forwarded-for": true}

func (r *redactor) text(s string) string { return r.replacer.Replace(s) }

// raw returns b itself when no secret stands in it.
func (r *redactor) raw(b []byte) []byte {
	for _, secret := range r.secrets {
		if bytes.Contains(b, []byte(secret)) {
			return []byte(r.replacer.Replace(string(b)))
		}
	}
	return b
}
