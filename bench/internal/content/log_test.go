package content

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestLogsAreReadAsTheyAreMade(t *testing.T) {
	text := AppendLog(nil, FirstHead+7)
	if number, err := ReadLog(text); err != nil || number != FirstHead+7 || !json.Valid(text) {
		t.Errorf("%d, %v: %s", number, err, text)
	}
	hash := BlockHash(FirstHead + 7)
	if !bytes.Contains(text, hash[:]) || bytes.Equal(text, AppendLog(nil, FirstHead+8)) {
		t.Errorf("not of its block: %s", text)
	}
	for _, bad := range []string{"", "[]", "{}", `{"blockNumber":"x"}`, `{"blockNumber":1}`} {
		if number, err := ReadLog([]byte(bad)); err == nil {
			t.Errorf("%q: %d", bad, number)
		}
	}
}
