package server

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestWhoMayAsk(t *testing.T) {
	keys := map[string]string{"k1": "alice", "k2": "bob", "noname": "", "with space": "carol", "a/b": "dave"}
	const refused = ""
	for _, row := range []struct {
		name    string
		public  bool
		target  string
		headers []string
		alias   string // refused for 401
		exempt  bool
	}{
		{"no key", false, "/", nil, refused, false},
		{"path key", false, "/k1", nil, "alice", false},
		{"unknown path key", false, "/k9", nil, refused, false},
		{"key without an alias", false, "/noname", nil, refused, false},
		{"escaped path key", false, "/%6b1", nil, "alice", false},
		{"path key with a space", false, "/with%20space", nil, "carol", false},
		{"path key with a slash", false, "/a%2Fb", nil, "dave", false},
		{"case counts", false, "/K1", nil, refused, false},
		{"query is no key", false, "/?key=k1", nil, refused, false},
		{"bearer", false, "/", []string{"Authorization", "Bearer k2"}, "bob", false},
		{"bearer in lower case", false, "/", []string{"Authorization", "bearer  k2 "}, "bob", false},
		{"basic is no bearer", false, "/", []string{"Authorization", "Basic k2"}, refused, false},
		{"bare key", false, "/", []string{"Authorization", "k2"}, refused, false},
		{"empty bearer", false, "/", []string{"Authorization", "Bearer "}, refused, false},
		{"api key header", false, "/", []string{"X-Api-Key", "k1"}, "alice", false},
		{"unknown header keys", false, "/", []string{"X-Api-Key", "k9", "Authorization", "Bearer k8"}, refused, false},
		{"second header tried", false, "/", []string{"X-Api-Key", "k1", "Authorization", "Bearer k8"}, "alice", false},
		{"header without an alias", false, "/", []string{"X-Api-Key", "noname"}, refused, false},
		{"path key decides alone", false, "/k9", []string{"X-Api-Key", "k1", "Authorization", "Bearer k2"}, refused, false},
		{"path key before headers", false, "/k1", []string{"Authorization", "Bearer k2"}, "alice", false},
		{"API_KEYS only exempt", false, "/", []string{"X-Api-Key", "free"}, refused, true},
		{"API_KEYS beside a path key", false, "/k1", []string{"X-Api-Key", "free"}, "alice", true},
		{"API_KEYS beside a bearer", false, "/", []string{"X-Api-Key", "free", "Authorization", "Bearer k2"}, "bob", true},
		{"API_KEYS are no path keys", false, "/free", nil, refused, false},
		{"API_KEYS are no bearers", true, "/", []string{"Authorization", "Bearer free"}, "none", false},
		{"key that is in both only exempts", false, "/", []string{"X-Api-Key", "k2both"}, refused, true},
		{"public access", true, "/", nil, "none", false},
		{"public access with a key", true, "/k1", nil, "alice", false},
		{"public access with a header", true, "/", []string{"X-Api-Key", "k2"}, "bob", false},
		{"public access with a wrong path key", true, "/k9", nil, refused, false},
		{"public access, exempt", true, "/", []string{"X-Api-Key", "free"}, "none", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFront(t, func(o *Options) {
				o.Keys = map[string]string{"k2both": "both"}
				for k, v := range keys {
					o.Keys[k] = v
				}
				o.APIKeys, o.PublicAccess = []string{"free", "k2both"}, row.public
			}, nil)
			w := f.do("POST", row.target, chainID, row.headers...)
			if row.alias == refused {
				is(t, w, 401, `{"jsonrpc":"2.0","error":{"code":-32600,"message":"unauthorized: no valid key"},"id":null}`+"\n")
				if w.Header().Get("WWW-Authenticate") != "Bearer" || len(f.asked) != 0 {
					t.Errorf("%v, %d calls went on", w.Header(), len(f.asked))
				}
			} else {
				is(t, w, 200, okAnswer)
				if c := f.client(t); c.Auth != row.alias || c.Exempt != row.exempt {
					t.Errorf("alias %q, exempt %v; want %q, %v", c.Auth, c.Exempt, row.alias, row.exempt)
				}
			}
			seen := f.metrics() + f.log.String()
			for _, secret := range []string{"k1", "k2", "k9", "free", "noname", "%6b"} {
				if strings.Contains(seen, secret) {
					t.Errorf("metrics or log hold the key %s", secret)
				}
			}
			if strings.Contains(seen, `auth=""`) || strings.Contains(seen, `"auth":""`) {
				t.Error("an empty alias is shown")
			}
		})
	}
}

func TestKeysAreIgnoredWithoutAuthentication(t *testing.T) {
	f := newFront(t, func(o *Options) { o.APIKeys = []string{"free"} }, nil)
	for _, headers := range [][]string{nil, {"Authorization", "Bearer x"}, {"X-Api-Key", "x"}} {
		is(t, f.do("POST", "/whatever", chainID, headers...), 200, okAnswer)
		if c := f.client(t); c.Auth != "none" || c.Exempt {
			t.Errorf("%+v", c)
		}
	}
	f.post(chainID, "X-Api-Key", "free")
	if !f.client(t).Exempt {
		t.Error("not exempt")
	}
}

func TestEmptyAPIKeyExemptsNobody(t *testing.T) {
	f := newFront(t, func(o *Options) { o.APIKeys = []string{""} }, nil)
	f.post(chainID, "X-Api-Key", "")
	if f.client(t).Exempt {
		t.Error("exempt without a key")
	}
}

func TestNothingIsReadOfUnauthorizedRequests(t *testing.T) {
	f := newFront(t, func(o *Options) { o.Keys = map[string]string{"k": "a"} }, nil)
	r := httptest.NewRequest("POST", "/", nil)
	r.Body = panicBody{}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	if w.Code != 401 {
		t.Errorf("HTTP %d", w.Code)
	}
}
