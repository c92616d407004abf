package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"gateway.internal/bench/internal/content"
)

// answerTo is the right answer to an exchange, with the id last when asked.
func answerTo(x *exchange, idLast bool) string {
	var b strings.Builder
	for i := range x.calls {
		c := &x.calls[i]
		result, _ := content.AppendResult(nil, x.method, c.params)
		if i > 0 {
			b.WriteString(",")
		}
		if idLast {
			b.WriteString(`{"jsonrpc":"2.0","result":` + string(result) + `,"id":` + string(c.id) + `}`)
		} else {
			b.WriteString(`{"jsonrpc":"2.0","id":` + string(c.id) + `,"result":` + string(result) + `}`)
		}
	}
	if x.batch {
		return "[" + b.String() + "]"
	}
	return b.String()
}

// received checks an answer as a connection does: large ones in pieces.
func received(x *exchange, body string) error {
	if x.large == nil {
		return x.check([]byte(body))
	}
	s := stream{x: x}
	for piece := []byte(body); len(piece) > 0; {
		n := min(len(piece), 1000)
		if err := s.feed(piece[:n]); err != nil {
			return err
		}
		piece = piece[n:]
	}
	return s.end()
}

var kinds = map[string]*calls{
	"single":       {method: content.Small},
	"batch":        {method: content.Small, batch: 5},
	"cached batch": {method: content.Block, batch: 5},
	"large":        {method: content.Logs, size: 40_000},
}

func TestRightAnswersPassInEverySpelling(t *testing.T) {
	for name, c := range kinds {
		for range 2 { // ids are numbers and strings by turns
			var x exchange
			c.next(&x)
			for _, idLast := range []bool{false, true} {
				body := answerTo(&x, idLast)
				for what, b := range map[string]string{"": body, "line end": body + "\n", "spaces": strings.ReplaceAll(body, `"result":`, `"result": `)} {
					if err := received(&x, b); err != nil {
						t.Errorf("%s, id last %v, %s: %v", name, idLast, what, err)
					}
				}
			}
		}
	}
}

func TestBatchesMayBeAnsweredInAnyOrder(t *testing.T) {
	var x exchange
	(&calls{method: content.Small, batch: 3}).next(&x)
	last := len(x.calls) - 1
	x.calls[0], x.calls[last] = x.calls[last], x.calls[0]
	body := answerTo(&x, false)
	x.calls[0], x.calls[last] = x.calls[last], x.calls[0]
	if err := received(&x, body); err != nil {
		t.Error(err)
	}
}

func TestWrongAnswersAreSeen(t *testing.T) {
	for name, c := range kinds {
		var x, other exchange
		c.next(&x)
		c.next(&other)
		right := answerTo(&x, false)
		id := string(x.calls[0].id)
		flip := func(at int) string {
			b := []byte(right)
			if b[at]++; b[at] == '"' || b[at] == '\\' {
				b[at] += 2
			}
			return string(b)
		}
		last := strings.LastIndexByte(right, '"')
		bad := map[string]string{
			"another call's answer": answerTo(&other, false),
			"wrong id":              strings.Replace(right, `"id":`+id, `"id":12345`, 1),
			"id as a string":        strings.Replace(right, `"id":`+id, `"id":"`+strings.Trim(id, `"`)+`x"`, 1),
			"no id":                 strings.Replace(right, `"id":`+id+",", "", 1),
			"wrong byte in front":   flip(strings.Index(right, `"result":`) + 14),
			"wrong byte at the end": flip(last - 1),
			"short":                 right[:len(right)-3],
			"short, still JSON":     strings.Replace(right, right[last-3:last], "", 1),
			"empty":                 "",
			"too long":              right + "}",
			"no JSON":               "<html>" + strings.Repeat("x", 200),
			"no version":            strings.Replace(right, `"jsonrpc":"2.0",`, "", 1),
			"null":                  "null",
		}
		if x.batch {
			cut := strings.LastIndex(right, `,{"jsonrpc"`)
			bad["one missing"] = right[:cut] + "]"
			bad["one twice"] = right[:cut] + "," + right[1:strings.Index(right, `,{"jsonrpc"`)] + "]"
		}
		if x.large != nil {
			bad["a piece of another answer"] = right[:20000] + answerTo(&other, false)[20000:]
			bad["a piece twice"] = right[:20000] + right[10000:20000] + right[30000:]
		}
		for what, body := range bad {
			if body == right && !(name == "cached batch" && what == "another call's answer") {
				t.Fatalf("%s, %s: the test has changed nothing", name, what)
			}
			if err := received(&x, body); !errors.As(err, new(wrong)) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
}

func TestErrorsAreFailuresAndNotWrongAnswers(t *testing.T) {
	for name, c := range kinds {
		var x exchange
		c.next(&x)
		const text = `{"jsonrpc":"2.0","id":null,"error":{"code":-32011,"message":"no backend"}}`
		if err := received(&x, text); !errors.As(err, new(failure)) || !strings.Contains(err.Error(), "-32011") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRequestsAreNeverTheSame(t *testing.T) {
	c := &calls{method: content.Small, host: "127.0.0.1:1", clients: 3}
	seen := map[string]bool{}
	addresses := map[string]bool{}
	var x exchange
	for range 100 {
		c.next(&x)
		if seen[string(x.body)] {
			t.Fatalf("twice: %s", x.body)
		}
		seen[string(x.body)] = true
		_, after, _ := bytes.Cut(x.request, []byte("X-Forwarded-For: "))
		address, _, _ := bytes.Cut(after, []byte("\r\n"))
		addresses[string(address)] = true
	}
	if len(addresses) != 3 {
		t.Errorf("%d addresses, want 3: %v", len(addresses), addresses)
	}
}

func BenchmarkBatchOf100(b *testing.B) {
	c := &calls{method: content.Small, batch: 100, host: "127.0.0.1:8545"}
	var x exchange
	b.Run("make", func(b *testing.B) {
		for b.Loop() {
			c.next(&x)
		}
	})
	body := []byte(answerTo(&x, false))
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			if err := x.check(body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
