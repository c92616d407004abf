package proxyd

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/cache"
)

func TestEveryMetricFamilyIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	newMetrics(reg)
	cache.WatchSize(reg, cache.NewMemory(0))
	descs := make(chan *prometheus.Desc, 256)
	go func() { reg.Describe(descs); close(descs) }()
	known := map[string]bool{"proxyd_up": true}
	for d := range descs {
		name := regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]
		known[name] = true
		if !strings.Contains(string(doc), "`"+name+"`") {
			t.Errorf("docs/metrics.md does not name %s", name)
		}
	}
	if len(known) < 30 {
		t.Fatalf("only %d families: the test does not see them all", len(known))
	}
	for _, name := range regexp.MustCompile(`(?m)^\|.*?\|`).FindAllString(string(doc), -1) {
		for _, n := range regexp.MustCompile("`(proxyd_[a-z_]+)`").FindAllStringSubmatch(name, -1) {
			if !known[n[1]] {
				t.Errorf("docs/metrics.md names %s, which nothing registers", n[1])
			}
		}
	}
}
