package proxyd

import (
	"testing"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/config"
)

func TestFallbacksStayLastWhateverTheirRole(t *testing.T) {
	b := &builder{
		c:      &config.Config{Backends: map[string]config.Backend{"a": {Role: "public"}, "b": {Role: "public"}, "c": {Role: "primary"}}},
		byName: map[string]*backend.Backend{"a": nil, "b": nil, "c": nil},
	}
	for name, want := range map[string]struct {
		tier   int
		public bool
	}{"a": {0, true}, "b": {2, false}, "c": {1, false}} {
		m, err := b.member(name, config.Group{PublicFirst: true, Fallbacks: []string{"b"}})
		if err != nil || m.Tier != want.tier || m.Public != want.public {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}
