package subscribe

import (
	"testing"

	"gateway.internal/proxyd/devchain"
)

func BenchmarkFeeds(b *testing.B) {
	w := newWorld(b, 1, setting{hub: func(o *Options) { o.MaxPerSession = b.N + 1 }})
	s := w.session()
	for i := range b.N {
		s.subscribe(`["logs",{"address":["` + devchain.TokenAddress + `","0x` + address(i) + `"]}]`)
	}
}
