package server

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// addressing says who a client is.
type addressing struct {
	header  string // canonical name of the forwarding header
	trusted []netip.Prefix
}

// client returns the client's address and what goes upstream as
// X-Forwarded-For. ok is false when neither header nor connection has an
// address.
func (a addressing) client(r *http.Request) (addr netip.Addr, forwarded string, ok bool) {
	peer, havePeer := peerOf(r)
	lines := r.Header[a.header]
	if len(a.trusted) == 0 {
		// As the incumbent: the first entry of the first line, whoever wrote it.
		if len(lines) > 0 && lines[0] != "" {
			first, _, _ := strings.Cut(lines[0], ",")
			if addr, ok := parseAddr(strings.TrimSpace(first)); ok {
				return addr, forwardable(lines[:1]), true
			}
		}
		return peer, hostOf(peer, havePeer), havePeer
	}
	if !havePeer || !a.trusts(peer) {
		return peer, hostOf(peer, havePeer), havePeer
	}
	// The peer is a proxy of ours: walk from the right to the first hop that
	// is not. An entry that is no address ends the walk.
	if addr = peer; len(lines) == 0 {
		return addr, addr.String(), true
	}
	hops := strings.Split(strings.Join(lines, ","), ",")
	for _, hop := range slices.Backward(hops) {
		h, ok := parseAddr(strings.TrimSpace(hop))
		if !ok {
			break
		}
		addr = h
		if !a.trusts(h) {
			break
		}
	}
	if forwarded = forwardable(lines); forwarded == "" {
		forwarded = addr.String()
	}
	return addr, forwarded, true
}

// peerOf returns the address of the other end of the connection.
func peerOf(r *http.Request) (netip.Addr, bool) {
	if p, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return p.Addr().Unmap().WithZone(""), true
	}
	return parseAddr(r.RemoteAddr)
}

// maxHops is how many entries of a forwarding header go upstream.
const maxHops = 16

// forwardable returns the first entries of a forwarding header that are
// addresses. Anything else stays here: a client must not be able to send a
// provider a header that it refuses, and so make it look ill.
func forwardable(lines []string) string {
	var hops []string
	for _, line := range lines {
		for hop := range strings.SplitSeq(line, ",") {
			if hop = strings.TrimSpace(hop); len(hops) < maxHops && isAddr(hop) {
				hops = append(hops, hop)
			}
		}
	}
	return strings.Join(hops, ", ")
}

func isAddr(s string) bool {
	_, ok := parseAddr(s)
	return ok
}

func (a addressing) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(a.trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func hostOf(addr netip.Addr, ok bool) string {
	if !ok {
		return ""
	}
	return addr.String()
}

// parseAddr reads an address, with or without a port.
func parseAddr(s string) (netip.Addr, bool) {
	if len(s) > 64 {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		host, _, err := net.SplitHostPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		if addr, err = netip.ParseAddr(host); err != nil {
			return netip.Addr{}, false
		}
	}
	return addr.Unmap().WithZone(""), true
}

// limitKey is what limits count an address by: IPv6 by its /64, which is what
// one customer gets.
func limitKey(addr netip.Addr) string {
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

// limitKeyOf is limitKey without allocation where the forwarding header to send is
// the key already, as for most clients.
func limitKeyOf(addr netip.Addr, forwarded string) string {
	var room [len("255.255.255.255")]byte
	if addr.Is4() && forwarded == string(addr.AppendTo(room[:0])) {
		return forwarded
	}
	return limitKey(addr)
}
