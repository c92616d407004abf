package server

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func TestClientAddress(t *testing.T) {
	proxies := []string{"10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.1/32"}
	for _, row := range []struct {
		name      string
		trusted   bool
		peer      string
		xff       []string
		key       string // "" when the request is refused
		forwarded string
	}{
		{"no header", false, "1.2.3.4:99", nil, "1.2.3.4", "1.2.3.4"},
		{"first entry", false, "1.2.3.4:99", []string{"5.5.5.5, 6.6.6.6"}, "5.5.5.5", "5.5.5.5, 6.6.6.6"},
		{"first entry with spaces", false, "1.2.3.4:99", []string{"  5.5.5.5  ,x"}, "5.5.5.5", "5.5.5.5"},
		{"first line only", false, "1.2.3.4:99", []string{"5.5.5.5", "6.6.6.6"}, "5.5.5.5", "5.5.5.5"},
		{"entry with a port", false, "1.2.3.4:99", []string{"5.5.5.5:1234"}, "5.5.5.5", "5.5.5.5:1234"},
		{"garbage", false, "1.2.3.4:99", []string{"garbage"}, "1.2.3.4", "1.2.3.4"},
		{"empty first entry", false, "1.2.3.4:99", []string{", 5.5.5.5"}, "1.2.3.4", "1.2.3.4"},
		{"empty header", false, "1.2.3.4:99", []string{""}, "1.2.3.4", "1.2.3.4"},
		{"huge garbage", false, "1.2.3.4:99", []string{strings.Repeat("9", 10000)}, "1.2.3.4", "1.2.3.4"},
		{"leading zeros", false, "1.2.3.4:99", []string{"005.5.5.5"}, "1.2.3.4", "1.2.3.4"},
		{"IPv6 by its /64", false, "1.2.3.4:99", []string{"2001:db8:1:2:3:4:5:6"}, "2001:db8:1:2::/64", "2001:db8:1:2:3:4:5:6"},
		{"IPv6 in brackets", false, "1.2.3.4:99", []string{"[2001:db8::1]"}, "2001:db8::/64", "[2001:db8::1]"},
		{"IPv6 with a port", false, "1.2.3.4:99", []string{"[2001:db8::1]:443"}, "2001:db8::/64", "[2001:db8::1]:443"},
		{"IPv6 with a zone", false, "1.2.3.4:99", []string{"fe80::1%eth0"}, "fe80::/64", "fe80::1%eth0"},
		{"mapped IPv4", false, "1.2.3.4:99", []string{"::ffff:5.5.5.5"}, "5.5.5.5", "::ffff:5.5.5.5"},
		{"IPv6 peer", false, "[2001:db8:9:9::7]:99", nil, "2001:db8:9:9::/64", "2001:db8:9:9::7"},
		{"mapped peer", false, "[::ffff:1.2.3.4]:99", nil, "1.2.3.4", "1.2.3.4"},
		{"zone of the peer", false, "[fe80::1%eth0]:99", nil, "fe80::/64", "fe80::1"},
		{"no address at all", false, "@", nil, "", ""},
		{"no address, garbage", false, "@", []string{"garbage"}, "", ""},
		{"no peer but a header", false, "@", []string{"5.5.5.5"}, "5.5.5.5", "5.5.5.5"},

		{"untrusted peer's header is nothing", true, "1.2.3.4:99", []string{"5.5.5.5"}, "1.2.3.4", "1.2.3.4"},
		{"trusted peer without a header", true, "10.1.1.1:99", nil, "10.1.1.1", "10.1.1.1"},
		{"one hop", true, "10.1.1.1:99", []string{"5.5.5.5"}, "5.5.5.5", "5.5.5.5"},
		{"forged entries stand to the left", true, "10.1.1.1:99", []string{"9.9.9.9, 8.8.8.8, 5.5.5.5"}, "5.5.5.5", "9.9.9.9, 8.8.8.8, 5.5.5.5"},
		{"several trusted hops", true, "10.1.1.1:99", []string{"9.9.9.9, 5.5.5.5, 10.2.2.2, 127.0.0.1"}, "5.5.5.5", "9.9.9.9, 5.5.5.5, 10.2.2.2, 127.0.0.1"},
		{"hops over lines", true, "10.1.1.1:99", []string{"9.9.9.9", "5.5.5.5", "10.2.2.2"}, "5.5.5.5", "9.9.9.9, 5.5.5.5, 10.2.2.2"},
		{"all trusted", true, "10.1.1.1:99", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3", "10.3.3.3, 10.2.2.2"},
		{"garbage ends the walk", true, "10.1.1.1:99", []string{"9.9.9.9, garbage, 10.2.2.2"}, "10.2.2.2", "9.9.9.9, 10.2.2.2"},
		{"garbage at the right", true, "10.1.1.1:99", []string{"9.9.9.9, garbage"}, "10.1.1.1", "9.9.9.9"},
		{"empty entry at the right", true, "10.1.1.1:99", []string{"9.9.9.9,"}, "10.1.1.1", "9.9.9.9"},
		{"ports of hops", true, "10.1.1.1:99", []string{"5.5.5.5:1, 10.2.2.2:2"}, "5.5.5.5", "5.5.5.5:1, 10.2.2.2:2"},
		{"mapped trusted peer", true, "[::ffff:10.1.1.1]:99", []string{"5.5.5.5"}, "5.5.5.5", "5.5.5.5"},
		{"mapped trusted hop", true, "10.1.1.1:99", []string{"5.5.5.5, ::ffff:10.2.2.2"}, "5.5.5.5", "5.5.5.5, ::ffff:10.2.2.2"},
		{"IPv6 proxies", true, "[2001:db8:ffff::1]:99", []string{"2001:db8:1:2::9, 2001:db8:ffff::2"}, "2001:db8:1:2::/64", "2001:db8:1:2::9, 2001:db8:ffff::2"},
		{"no peer", true, "@", []string{"5.5.5.5"}, "", ""},
	} {
		for _, header := range []string{"", "cf-connecting-ip"} {
			t.Run(row.name+" "+header, func(t *testing.T) {
				f := newFront(t, func(o *Options) {
					o.AddressHeader = header
					if row.trusted {
						for _, p := range proxies {
							o.TrustedProxies = append(o.TrustedProxies, netip.MustParsePrefix(p))
						}
					}
				}, nil)
				r := httptest.NewRequest("POST", "/", strings.NewReader(chainID))
				r.RemoteAddr = row.peer
				name := "X-Forwarded-For"
				if header != "" {
					r.Header.Set(name, "7.7.7.7") // not the header that counts
					name = "Cf-Connecting-Ip"
				}
				if row.xff != nil {
					r.Header[name] = row.xff
				}
				w := httptest.NewRecorder()
				f.ServeHTTP(w, r)
				if row.key == "" {
					is(t, w, 400, `{"jsonrpc":"2.0","error":{"code":-32600,"message":"request does not include a remote IP"},"id":null}`+"\n")
					return
				}
				is(t, w, 200, okAnswer)
				if c := f.client(t); c.Key != row.key || c.ForwardedFor != row.forwarded {
					t.Errorf("key %q, forwarded %q; want %q, %q", c.Key, c.ForwardedFor, row.key, row.forwarded)
				}
			})
		}
	}
}

func FuzzLimitKeyIsAShortAddress(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "[::1]:80", "::ffff:1.2.3.4", "fe80::1%z", "[[", "1.2.3.4:", ":80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		addr, ok := parseAddr(s)
		if !ok {
			return
		}
		key := limitKey(addr)
		if p, err := netip.ParsePrefix(key); err == nil && p.Bits() == 64 {
			return
		}
		if a, err := netip.ParseAddr(key); err != nil || !a.Is4() {
			t.Errorf("%q became the key %q", s, key)
		}
	})
}

func TestOnlyAddressesOfAForwardingHeaderGoUpstream(t *testing.T) {
	long := strings.Repeat("9.9.9.9,", 100)
	for header, want := range map[string]string{
		"1.2.3.4, 5.6.7.8":                      "1.2.3.4, 5.6.7.8",
		"1.2.3.4,5.6.7.8:99":                    "1.2.3.4, 5.6.7.8:99",
		"1.2.3.4, " + strings.Repeat("a", 9000): "1.2.3.4",
		"1.2.3.4, \xff, unknown, 2001:db8::1":   "1.2.3.4, 2001:db8::1",
		long:                                    strings.TrimSuffix(strings.Repeat("9.9.9.9, ", maxHops), ", "),
		"unknown":                               "10.0.0.9",
	} {
		r := &http.Request{RemoteAddr: "10.0.0.9:1", Header: http.Header{"X-Forwarded-For": {header}}}
		_, got, ok := addressing{header: "X-Forwarded-For"}.client(r)
		if !ok || got != want {
			t.Errorf("%.40q goes upstream as %q, want %q", header, got, want)
		}
	}
}

func TestSignatureThatNoRelayWroteStaysHere(t *testing.T) {
	for value, want := range map[string]string{
		"0xAb:0x12":               "0xAb:0x12",
		strings.Repeat("a", 9000): "",
		"a\xffb":                  "",
		"a\tb":                    "",
	} {
		if got := signature(&http.Request{Header: http.Header{"X-Optimism-Signature": {value}}}); got != want {
			t.Errorf("%.20q goes upstream as %q, want %q", value, got, want)
		}
	}
}
