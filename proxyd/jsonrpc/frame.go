package jsonrpc

import "bytes"

// Frame is what a provider sends over a socket: an answer, or a notification of
// a subscription. The slices point into what was parsed.
type Frame struct {
	// Subscription is the provider's id of the subscription that Result belongs
	// to, as it spelled it; nil for an answer. Result is nil when the provider says that
	// the subscription has ended.
	Subscription, Result []byte
	// Foreign is true for a notification of another kind.
	Foreign bool
	// ID is an answer's id; that of the first element with one for a batch's, whose
	// elements are in Batch.
	ID    []byte
	Batch []Reply
	// Broken is true for an answer with an error and no id.
	Broken bool
}

// ParseFrame tells what a frame is. Answers are checked no further: who asked
// parses them as a body. An error wraps ErrInvalidAnswer.
func ParseFrame(body []byte) (f Frame, err error) {
	i := skipSpace(body, 0)
	if i < len(body) && body[i] == '[' {
		f.Batch, _, err = ParseReplies(body, maxFrameReplies)
		for _, r := range f.Batch {
			if _, ok := ReplyID(r.ID); ok {
				f.ID = r.ID
				return f, err
			}
		}
		if err == nil {
			err = invalid("no element has an id")
		}
		return Frame{}, err
	}
	if i >= len(body) || body[i] != '{' {
		return f, invalid("not a JSON object")
	}
	var method, params []byte
	end, err := scanMembers(body, i, 0, func(name, value []byte) error {
		switch string(name) {
		case "id":
			f.ID = value
		case "method":
			method = value
		case "params":
			params = value
		case "error":
			f.Broken = string(value) != "null"
		}
		return nil
	})
	if err != nil || skipSpace(body, end) != len(body) {
		return Frame{}, invalid("not JSON")
	}
	if method == nil {
		f.Broken = f.Broken && (f.ID == nil || string(f.ID) == "null")
		return f, nil
	}
	f = Frame{}
	ended := false
	if len(params) > 0 && params[0] == '{' {
		_, _ = scanMembers(params, 0, 1, func(name, value []byte) error {
			switch string(name) {
			case "subscription":
				f.Subscription = value
			case "result":
				f.Result = value
			case "error":
				ended = true
			}
			return nil
		})
	}
	if f.Subscription == nil || f.Result == nil && !ended {
		return Frame{Foreign: true}, nil
	}
	return f, nil
}

// maxFrameReplies bounds the elements of a batch's answer in one frame: the most
// that a client's batch may have.
const maxFrameReplies = 1000

// Elements calls element with each value of the JSON array raw, until it returns
// false. ok is false when raw is no array.
func Elements(raw []byte, element func(value []byte) bool) (ok bool) {
	i := skipSpace(raw, 0)
	if i >= len(raw) || raw[i] != '[' {
		return false
	}
	i = skipSpace(raw, i+1)
	for i < len(raw) && raw[i] != ']' {
		start, end, err := scanValue(raw, i, 1)
		if err != nil {
			return false
		}
		if !element(raw[start:end]) {
			return true
		}
		i = skipSpace(raw, end)
		if i < len(raw) && raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
	}
	return i < len(raw)
}

// Members calls member with the name, between its quotes as spelled, and the
// value of each member of the JSON object raw. ok is false when raw is no
// object.
func Members(raw []byte, member func(name, value []byte)) (ok bool) {
	i := skipSpace(raw, 0)
	if i >= len(raw) || raw[i] != '{' {
		return false
	}
	_, err := scanMembers(raw, i, 0, func(name, value []byte) error {
		member(name, value)
		return nil
	})
	return err == nil
}

// Text returns the text of the JSON string raw. ok is false when it is none.
func Text(raw []byte) (text string, ok bool) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return "", false
	}
	return string(unquote(raw[1 : len(raw)-1])), true
}

// LeadingID returns the id of an answer of which b is the beginning, or of the first one
// of a batch, where it stands before the result; nil otherwise.
func LeadingID(b []byte) []byte {
	i := skipSpace(b, 0)
	if i < len(b) && b[i] == '[' {
		i = skipSpace(b, i+1)
	}
	if i >= len(b) || b[i] != '{' {
		return nil
	}
	for i++; ; i++ {
		nameAt := skipSpace(b, i)
		if nameAt >= len(b) || b[nameAt] != '"' {
			return nil
		}
		nameEnd, err := scanString(b, nameAt)
		if err != nil {
			return nil
		}
		name := string(b[nameAt+1 : nameEnd-1])
		if i = skipSpace(b, nameEnd); i >= len(b) || b[i] != ':' || name == "result" || name == "error" || name == "params" {
			return nil
		}
		start, end, err := scanValue(b, i+1, 1)
		if i = skipSpace(b, end); err != nil || i >= len(b) || b[i] != ',' {
			return nil
		}
		if name == "id" {
			return b[start:end]
		}
	}
}

// ClosingID returns the id of an answer of which b is the end, or of the last one of a
// batch, where it stands last, or before the version; nil otherwise.
func ClosingID(b []byte) []byte {
	space := func(i int) int { // the index behind the last byte before i that is none
		for i > 0 && skipSpace(b[i-1:i], 0) == 1 {
			i--
		}
		return i
	}
	end := space(len(b))
	if end > 0 && b[end-1] == ']' {
		end = space(end - 1)
	}
	if end == 0 || b[end-1] != '}' {
		return nil
	}
	end = space(end - 1)
	if rest, found := bytes.CutSuffix(b[:end], []byte(`,"jsonrpc":"2.0"`)); found {
		end = space(len(rest))
	}
	start := end
	for start > 0 && (b[start-1] >= '0' && b[start-1] <= '9' || b[start-1] == '"') {
		start--
	}
	colon := space(start)
	if start == end || colon == 0 || b[colon-1] != ':' {
		return nil
	}
	name := space(colon - 1)
	const member = `"id"`
	if name < len(member) || string(b[name-len(member):name]) != member {
		return nil
	}
	if before := space(name - len(member)); before == 0 || b[before-1] != ',' {
		return nil
	}
	return b[start:end]
}
