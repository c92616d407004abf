package config

import (
	"maps"
	"regexp"
	"slices"

	"gateway.internal/proxyd/jsonrpc"
)

// scope is what has mappings and groups: the top level, or one of
// [chains.NAME].
type scope struct {
	at path // chains.NAME, empty for the top level
	Chain
}

// String names a scope in messages.
func (s scope) String() string {
	if len(s.at) == 0 {
		return "the top level"
	}
	return s.at.String()
}

// scopes returns the top level and then the chains in the order of their names.
func (c *Config) scopes() []scope {
	all := []scope{{nil, Chain{c.ChainID, c.WSBackendGroup, c.WSMethodWhitelist, c.RPCMethodMappings, c.BackendGroups}}}
	for _, name := range slices.Sorted(maps.Keys(c.Chains)) {
		all = append(all, scope{path{"chains", name}, c.Chains[name]})
	}
	return all
}

// scopeOf returns the scope that a key stands in.
func (c *Config) scopeOf(at path) Chain {
	if len(at) > 2 && at[0] == "chains" {
		return c.Chains[at[1]]
	}
	return c.scopes()[0].Chain
}

// groupAt returns the group that a key belongs to, and the key as it is called
// at the top level.
func (c *Config) groupAt(at path) (Group, path) {
	groups, key := c.BackendGroups, local(at)
	if len(key) < len(at) {
		groups = c.Chains[at[1]].BackendGroups
	}
	if len(key) < 2 || key[0] != "backend_groups" {
		return Group{}, key
	}
	return groups[key[1]], key
}

// anyGroup reports whether a backend is in a group like that.
func (c *Config) anyGroup(backend string, like func(Group) bool) bool {
	for _, s := range c.scopes() {
		for _, g := range s.BackendGroups {
			if slices.Contains(g.Backends, backend) && like(g) {
				return true
			}
		}
	}
	return false
}

// hedges reports whether a group has [backend_groups.NAME.hedge].
func (c *Config) hedges() bool {
	for _, s := range c.scopes() {
		for _, g := range s.BackendGroups {
			if g.Hedge != nil {
				return true
			}
		}
	}
	return false
}

// local returns a key in a chain as it is called at the top level, other keys as
// they are.
func local(at path) path {
	if len(at) > 2 && at[0] == "chains" {
		return at[2:]
	}
	return at
}

var (
	chainName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	// ownPaths are what the gateway itself serves, or may serve one day.
	ownPaths = []string{"health", "healthz", "ready", "readyz", "debug", "metrics", "admin"}
)

func (v *validator) chains() {
	for _, name := range slices.Sorted(maps.Keys(v.c.Chains)) {
		switch at := (path{"chains", name}); {
		case !chainName.MatchString(name):
			v.fault(at, "the name of a chain is a part of its URL: it must be of letters, digits, _ and -, at most 64")
		case slices.Contains(ownPaths, name):
			v.fault(at, "the path /%s is the gateway's own: choose another name", name)
		}
	}
	webSocket := false
	for _, s := range v.c.scopes() {
		// The top level may be empty when there are chains.
		if len(s.at) > 0 || len(v.c.Chains) == 0 && !v.isUnread(path{"chains"}) || len(s.RPCMethodMappings)+len(s.BackendGroups) > 0 {
			v.mappings(s)
			v.groups(s)
		}
		if g := s.WSBackendGroup; g != "" {
			webSocket = true
			if _, ok := s.BackendGroups[g]; !ok {
				v.fault(s.at.with("ws_backend_group"), "there is no backend group %q%s", g, didYouMean(g, s.BackendGroups))
			}
			if s.WSMethodWhitelist != nil && len(s.WSMethodWhitelist) == 0 {
				v.warn(s.at.with("ws_method_whitelist"), "is empty: no method is served over WebSocket; without the key those that are mapped are, and subscriptions")
			}
			for i, method := range s.WSMethodWhitelist {
				if err := jsonrpc.CheckPattern(method); err != nil {
					v.fault(s.at.with("ws_method_whitelist", index(i)), "%v", err)
				}
			}
		}
	}
	v.webSocket(webSocket)
	v.oneChainEach()
}

func (v *validator) mappings(s scope) {
	at := s.at.with("rpc_method_mappings")
	if len(s.RPCMethodMappings) == 0 {
		v.fault(at, "must map at least one method to a group, like eth_chainId = \"main\"")
	}
	for _, method := range slices.Sorted(maps.Keys(s.RPCMethodMappings)) {
		group := s.RPCMethodMappings[method]
		if err := jsonrpc.CheckPattern(method); err != nil {
			v.fault(at.with(method), "%v", err)
		}
		if _, ok := s.BackendGroups[group]; !ok && group != Refuse && !v.isUnread(s.at.with("backend_groups")) {
			v.fault(at.with(method), "there is no backend group %q%s", group, didYouMean(group, s.BackendGroups))
		}
	}
}

// oneChainEach checks that a backend is in the groups of one chain only, and
// that its chain id is that chain's.
func (v *validator) oneChainEach() {
	first := map[string]scope{}
	for _, s := range v.c.scopes() {
		for _, name := range slices.Sorted(maps.Keys(s.BackendGroups)) {
			for i, b := range s.BackendGroups[name].Backends {
				other, known := first[b]
				switch c := v.c.Backends[b]; {
				case known && other.String() != s.String():
					v.fault(s.at.with("backend_groups", name, "backends", index(i)), "%q is in a group of %s too, and a backend belongs to one chain: give %s a backend of its own", b, other, s)
				case !known && c.ChainID != 0 && s.ChainID != 0 && c.ChainID != s.ChainID:
					v.fault(path{"backends", b, "chain_id"}, "is %d, but the backend is in a group of %s, whose chain_id is %d: correct one of them, or take the backend out of the group", c.ChainID, s, s.ChainID)
				}
				if !known {
					first[b] = s
				}
			}
		}
	}
}
