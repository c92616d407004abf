package server

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/ratelimit"
)

func TestEveryErrorOfTheGatewayIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{}
	errs := []error{
		&ratelimit.Refused{}, &group.Unserviceable{}, &group.OutcomeUnknown{}, group.ErrOverCapacity,
		backend.ErrOverloaded, context.Canceled, errInternal,
	}
	for _, p := range plain {
		errs = append(errs, p.err)
	}
	for _, err := range errs {
		v := s.judge(err)
		row := fmt.Sprintf("| %d | %d | ", v.code, v.status)
		found := false
		for line := range strings.Lines(string(doc)) {
			found = found || strings.HasPrefix(line, row) && strings.Contains(line, "`"+v.message+"`")
		}
		if !found {
			t.Errorf("docs/errors.md has no row %q with %q", row, v.message)
		}
	}
}
