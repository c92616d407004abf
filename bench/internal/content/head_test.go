package content

import (
	"encoding/json"
	"testing"
	"time"
)

func TestHeadsLinkOneToTheNext(t *testing.T) {
	type header struct{ ParentHash, Hash, Number, StateRoot string }
	var last header
	for n := range uint64(3) {
		now := time.Now()
		text := AppendHead(nil, FirstHead+n, now)
		if len(text) < 600 || len(text) > 700 {
			t.Errorf("%d bytes", len(text))
		}
		var h header
		if err := json.Unmarshal(AppendNotification(nil, []byte(`"0x1"`), text), new(any)); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &h); err != nil {
			t.Fatal(err)
		}
		if n > 0 && h.ParentHash != last.Hash || h.Hash == last.Hash || h.Hash == h.StateRoot {
			t.Errorf("%+v after %+v", h, last)
		}
		last = h
		number, published, err := ReadHead(text)
		if err != nil || number != FirstHead+n || !published.Equal(now) {
			t.Errorf("read %d, %v, %v; want %d, %v", number, published, err, FirstHead+n, now)
		}
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"number":"0x1","extraData":"0x12"}`, `{"number":"1x","extraData":"0x0000000000000001"}`, `{"number":"0x1","extraData":"0x000000000000000g"}`} {
		if _, _, err := ReadHead([]byte(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}
