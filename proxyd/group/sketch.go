package group

import (
	"math"
	"sync"
	"time"
)

// A sketch keeps durations of the last while in buckets that grow by a constant
// factor, so that a quantile is known within 4 % (the idea of DDSketch, VLDB
// 2019). It has two generations; the older one is forgotten when the younger one
// is half as old as the window.
type sketch struct {
	mu       sync.Mutex
	half     time.Duration
	turned   time.Time
	now, old generation
}

type generation struct {
	buckets [sketchBuckets]uint32
	count   uint32
}

const (
	sketchBuckets = 200
	sketchLeast   = 50 * time.Microsecond // the first bucket's end
)

var sketchGrowth = math.Log(1.08)

func newSketch(window time.Duration) *sketch { return &sketch{half: window / 2} }

func (s *sketch) add(d time.Duration, at time.Time) {
	i := 0
	if d > sketchLeast {
		i = min(sketchBuckets-1, int(math.Ceil(math.Log(float64(d)/float64(sketchLeast))/sketchGrowth)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(at)
	s.now.buckets[i]++
	s.now.count++
}

// turn forgets what is too old. The caller holds the lock.
func (s *sketch) turn(at time.Time) {
	switch age := at.Sub(s.turned); {
	case age < s.half:
		return
	case age < 2*s.half: // the younger one began when it was due, not now
		s.old, s.turned = s.now, s.turned.Add(s.half)
	default:
		s.old, s.turned = generation{}, at
	}
	s.now = generation{}
}

// quantile returns the duration that the share q of all is not over, and how many
// there are.
func (s *sketch) quantile(q float64, at time.Time) (d time.Duration, samples int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(at)
	n := s.now.count + s.old.count
	if n == 0 {
		return 0, 0
	}
	rank := uint32(math.Ceil(q * float64(n)))
	var seen uint32
	for i := range sketchBuckets {
		if seen += s.now.buckets[i] + s.old.buckets[i]; seen >= rank && seen > 0 {
			// The middle of the bucket, as a ratio.
			return time.Duration(float64(sketchLeast) * math.Exp((float64(i)-0.5)*sketchGrowth)), int(n)
		}
	}
	return 0, int(n) // not reached: rank is at most n
}

// sketches are one sketch for each label; the configuration bounds the labels.
type sketches struct {
	window time.Duration
	mu     sync.RWMutex
	of     map[string]*sketch
}

func (s *sketches) get(label string) *sketch {
	s.mu.RLock()
	x := s.of[label]
	s.mu.RUnlock()
	if x != nil {
		return x
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = make(map[string]*sketch)
	}
	if x = s.of[label]; x == nil {
		x = newSketch(s.window)
		s.of[label] = x
	}
	return x
}
