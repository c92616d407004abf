package server

import (
	"crypto/sha256"
	"net/http"
	"strings"
)

// keyring knows keys by their SHA-256. What a look-up's time can tell is about
// the hash of a guess, which tells nothing about a key.
type keyring map[[sha256.Size]byte]string

func newKeyring(keys map[string]string) keyring {
	k := make(keyring, len(keys))
	for key, alias := range keys {
		k[sha256.Sum256([]byte(key))] = alias
	}
	return k
}

// alias returns the alias of a key.
func (k keyring) alias(key string) (alias string, ok bool) {
	alias, ok = k[sha256.Sum256([]byte(key))]
	return alias, ok
}

// noAlias is the alias of clients without a key.
const noAlias = "none"

// authenticate returns the client's alias, whether it may ask at all, and
// whether it is exempt from limits. A key in the path decides alone; a key in a
// header counts only without one.
func (s *Server) authenticate(r *http.Request, pathKey string) (alias string, ok, exempt bool) {
	header := r.Header.Get("X-Api-Key")
	if header != "" && len(s.apiKeys) > 0 {
		_, exempt = s.apiKeys.alias(header)
	}
	if len(s.keys) == 0 {
		return noAlias, true, exempt
	}
	if pathKey != "" {
		if alias, ok = s.keys.alias(pathKey); ok && alias != "" {
			return alias, true, exempt
		}
		return noAlias, false, exempt
	}
	if bearer, found := bearerToken(r); found {
		if alias, ok = s.keys.alias(bearer); ok && alias != "" {
			return alias, true, exempt
		}
	}
	if header != "" && !exempt {
		if alias, ok = s.keys.alias(header); ok && alias != "" {
			return alias, true, exempt
		}
	}
	return noAlias, s.opts.PublicAccess, exempt
}

func bearerToken(r *http.Request) (token string, ok bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}
