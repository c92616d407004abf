package jsonrpc

import (
	"errors"
	"math"
	"strconv"
)

// ErrInvalidAnswer is wrapped by every fault of the shape of a backend's
// answer.
var ErrInvalidAnswer = errors.New("invalid answer")

// Reply is one answer object as a backend sent it. The slices point into the
// body. Exactly one of Result and Error is set.
type Reply struct {
	ID, Result, Error []byte
}

func appendUint(dst []byte, n uint64) []byte { return strconv.AppendUint(dst, n, 10) }

// ParseReply reads the answer to a single request.
func ParseReply(body []byte) (Reply, error) {
	r, end, err := parseReply(body, skipSpace(body, 0), 0)
	if err != nil {
		return Reply{}, err
	}
	if skipSpace(body, end) != len(body) {
		return Reply{}, invalid("bytes behind the answer")
	}
	return r, nil
}

// ParseReplies reads the answer to a batch. single is true when it is one
// object instead of an array. More than most elements are an error. A null or
// otherwise broken element fails the whole, since nothing says whose it is.
func ParseReplies(body []byte, most int) (replies []Reply, single bool, err error) {
	i := skipSpace(body, 0)
	if i >= len(body) || body[i] != '[' {
		r, err := ParseReply(body)
		return []Reply{r}, true, err
	}
	i = skipSpace(body, i+1)
	if i < len(body) && body[i] == ']' && skipSpace(body, i+1) == len(body) {
		return nil, false, nil
	}
	replies = make([]Reply, 0, min(most, 128))
	for {
		if len(replies) == most {
			return nil, false, invalid("more answers than calls")
		}
		r, end, err := parseReply(body, i, 1)
		if err != nil {
			return nil, false, err
		}
		replies = append(replies, r)
		i = skipSpace(body, end)
		if i >= len(body) {
			return nil, false, invalid("cut off")
		}
		switch body[i] {
		case ',':
			i = skipSpace(body, i+1)
		case ']':
			if skipSpace(body, i+1) != len(body) {
				return nil, false, invalid("bytes behind the answer")
			}
			return replies, false, nil
		default:
			return nil, false, invalid("not JSON")
		}
	}
}

func invalid(what string) error { return &invalidError{what} }

type invalidError struct{ what string }

func (e *invalidError) Error() string { return "invalid answer: " + e.what }
func (e *invalidError) Unwrap() error { return ErrInvalidAnswer }

func parseReply(b []byte, i, around int) (r Reply, end int, err error) {
	if i >= len(b) {
		return r, 0, invalid("empty")
	}
	if b[i] != '{' {
		return r, 0, invalid("not a JSON object")
	}
	end, err = scanMembers(b, i, around, func(name, value []byte) error {
		var part *[]byte
		switch string(name) {
		case "id":
			part = &r.ID
		case "result":
			part = &r.Result
		case "error":
			part = &r.Error
		default:
			return nil
		}
		if *part != nil {
			return invalid("a member stands twice")
		}
		*part = value
		return nil
	})
	switch {
	case errors.Is(err, ErrInvalidAnswer):
		return r, 0, err
	case err != nil:
		return r, 0, invalid("not JSON")
	}
	if string(r.Error) == "null" {
		r.Error = nil
	}
	switch {
	case r.Error == nil && r.Result == nil:
		return r, 0, invalid("neither result nor error")
	case r.Error != nil && r.Result != nil && string(r.Result) != "null":
		return r, 0, invalid("both result and error")
	case r.Error != nil:
		r.Result = nil
	}
	return r, end, nil
}

// ReplyID returns the number that a reply's id stands for, also when it is
// spelled as a string or with a fraction of zero. ok is false for no id, null,
// and everything that is not one of the gateway's ids.
func ReplyID(raw []byte) (id uint64, ok bool) {
	if len(raw) > 2 && raw[0] == '"' {
		raw = raw[1 : len(raw)-1]
	}
	if len(raw) == 0 || len(raw) > 32 {
		return 0, false
	}
	if id, err := strconv.ParseUint(string(raw), 10, 64); err == nil {
		return id, true
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f != math.Trunc(f) || f < 0 || f > 1<<53 {
		return 0, false
	}
	return uint64(f), true
}

// ErrorObject is a provider's error object, taken apart for classification.
type ErrorObject struct {
	Code    int64
	Message string
	// Data is the raw JSON of the data member, nil without one.
	Data []byte
}

// ParseError takes an error member apart. It must be an object with an integer
// code, else the answer is invalid.
func ParseError(raw []byte) (e ErrorObject, err error) {
	if len(raw) == 0 || raw[0] != '{' {
		return e, invalid("error is not an object")
	}
	coded := false
	_, err = scanMembers(raw, 0, 0, func(name, value []byte) error {
		switch string(name) {
		case "code":
			f, err := strconv.ParseFloat(string(value), 64)
			if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
				return invalid("error code is not an integer")
			}
			e.Code, coded = int64(f), true
		case "message":
			if value[0] == '"' {
				e.Message = string(unquote(value[1 : len(value)-1]))
			}
		case "data":
			e.Data = value
		}
		return nil
	})
	if err == nil && !coded {
		err = invalid("error without a code")
	}
	return e, err
}

// AnswerHead is what stands before the result in an answer object.
const AnswerHead = `{"jsonrpc":"2.0","result":`

// AppendAnswer appends the answer object for a client: jsonrpc, then result or
// error with the provider's bytes, then the client's id as it spelled it.
func AppendAnswer(dst []byte, id []byte, a *Answer) []byte {
	if a.Error != nil {
		dst = append(dst, `{"jsonrpc":"2.0","error":`...)
		dst = append(dst, a.Error...)
	} else {
		dst = append(dst, AnswerHead...)
		dst = append(dst, a.Result...)
	}
	return AppendClosing(dst, id)
}

// AppendClosing appends what stands behind the result or the error: the client's
// id as it spelled it, null without one.
func AppendClosing(dst, id []byte) []byte {
	dst = append(dst, `,"id":`...)
	if id == nil {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, id...)
	}
	return append(dst, '}')
}

// AppendError appends an answer object with an error of the gateway's own. data
// is raw JSON or nil.
func AppendError(dst []byte, id []byte, code int64, message string, data []byte) []byte {
	dst = append(dst, `{"jsonrpc":"2.0","error":`...)
	dst = AppendErrorObject(dst, code, message, data)
	return AppendClosing(dst, id)
}

// AppendErrorObject appends an error object; data is raw JSON or nil.
func AppendErrorObject(dst []byte, code int64, message string, data []byte) []byte {
	dst = append(dst, `{"code":`...)
	dst = strconv.AppendInt(dst, code, 10)
	dst = append(dst, `,"message":`...)
	dst = AppendString(dst, message)
	if data != nil {
		dst = append(dst, `,"data":`...)
		dst = append(dst, data...)
	}
	return append(dst, '}')
}
