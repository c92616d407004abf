package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"gateway.internal/proxyd/config"
	"gateway.internal/proxyd/jsonrpc"
)

// endpoints reads the URLs of a flag, with commas between them. White space
// around an entry and empty entries are skipped. Faults name an entry by its
// position among those that are left, since a URL may hold a secret.
func endpoints(flag, list string) ([]config.Secret, error) {
	var found []config.Secret
	var webSockets []int
	first := map[string]int{}
	for _, raw := range entries(list) {
		found = append(found, config.Secret(raw))
		at := len(found)
		u, err := endpoint(raw)
		if err != nil {
			return nil, fmt.Errorf("endpoint %d of --%s %w", at, flag, err)
		}
		if strings.HasPrefix(u.Scheme, "ws") {
			webSockets = append(webSockets, at)
		}
		key := sameEndpoint(u)
		if other, twice := first[key]; twice {
			return nil, fmt.Errorf("endpoints %d and %d of --%s are the same: remove one of them", other, at, flag)
		}
		first[key] = at
	}
	const remedy = "give http:// or https:// URLs, or a single ws:// or wss:// one"
	switch n := len(webSockets); {
	case len(found) == 0:
		return nil, fmt.Errorf("--%s needs an endpoint: an http:// or https:// URL, or several with commas between them", flag)
	case n == 0, len(found) == 1:
		return found, nil
	case n < len(found):
		return nil, fmt.Errorf("--%s has both HTTP and WebSocket URLs (endpoint %d is a WebSocket one): %s", flag, webSockets[0], remedy)
	default:
		return nil, fmt.Errorf("--%s has %d WebSocket URLs, and several cannot take over from each other: %s", flag, n, remedy)
	}
}

// entries splits a list at its commas and drops what is empty.
func entries(list string) []string {
	var found []string
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry != "" {
			found = append(found, entry)
		}
	}
	return found
}

// endpoint reads one URL. The error goes on from "endpoint 2 of --flag".
func endpoint(raw string) (*url.URL, error) {
	scheme, _, ok := strings.Cut(raw, "://")
	switch scheme = strings.ToLower(scheme); {
	case !ok || scheme != "http" && scheme != "https" && scheme != "ws" && scheme != "wss":
		return nil, fmt.Errorf("does not begin with http:// or https://: write it like http://10.0.0.7:8545")
	case strings.ContainsFunc(raw, unicode.IsSpace):
		return nil, fmt.Errorf("has a space in it: separate URLs with commas, and write a space in a URL as %%20")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, fmt.Errorf("is not a valid URL: check its host and its port, and that two hex digits follow each %%")
	case u.Hostname() == "":
		return nil, fmt.Errorf("has no host: write it like http://10.0.0.7:8545")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("has a port that is not between 1 and 65535: correct it")
		}
	}
	return u, nil
}

// sameEndpoint is equal for URLs that are the same but for their spelling.
func sameEndpoint(u *url.URL) string {
	same := *u
	same.Host = strings.ToLower(strings.TrimSuffix(u.Host, ":"))
	if port := u.Port(); port == "80" && u.Scheme == "http" || port == "443" && u.Scheme == "https" {
		same.Host = strings.TrimSuffix(same.Host, ":"+port)
	}
	if same.Path == "" {
		same.Path = "/"
	}
	same.Fragment, same.RawFragment = "", ""
	return same.String()
}

// isURL reports whether a text may have a URL in it, which is not to be shown.
func isURL(text string) bool { return strings.Contains(text, "://") }

// shown is how an argument appears in a message.
func shown(arg string) string {
	if isURL(arg) {
		return "a URL"
	}
	return strconv.Quote(arg)
}

// guarded are the beginnings of methods that are for a node's owner. Without a
// configuration file they are refused.
var guarded = []string{"admin_", "personal_", "engine_", "debug_", "miner_"}

// mappings says where methods go without a configuration file: to the group,
// but for the guarded ones that are not allowed. idle are the names and patterns
// that allow nothing which is not served anyhow.
func mappings(group string, allow []string) (methods map[string]string, idle []string, err error) {
	methods = map[string]string{"*": group}
	for _, prefix := range guarded {
		methods[prefix+"*"] = config.Refuse
	}
	for _, name := range allow {
		if isURL(name) {
			return nil, nil, fmt.Errorf("--%s takes the names of methods, not URLs", flagAllow)
		}
		if err := jsonrpc.CheckPattern(name); err != nil {
			return nil, nil, fmt.Errorf("--%s: %w", flagAllow, err)
		}
		stem, pattern := strings.CutSuffix(name, "*")
		useful := false
		for _, prefix := range guarded {
			switch {
			case pattern && strings.HasPrefix(prefix, stem): // all of them
				methods[prefix+"*"] = group
				useful = true
			case strings.HasPrefix(name, prefix):
				methods[name] = group
				useful = true
			}
		}
		if !useful {
			idle = append(idle, name)
		}
	}
	return methods, idle, nil
}
