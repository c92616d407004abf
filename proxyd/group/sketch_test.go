package group

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

var sketchStart = time.Unix(1_700_000_000, 0)

func TestSketchKnowsQuantilesWithinAFewPercent(t *testing.T) {
	for name, draw := range map[string]func(*rand.Rand) time.Duration{
		"constant": func(*rand.Rand) time.Duration { return 37 * time.Millisecond },
		"uniform": func(r *rand.Rand) time.Duration {
			return time.Millisecond + time.Duration(r.Int64N(int64(time.Second)))
		},
		"exponential": func(r *rand.Rand) time.Duration {
			return time.Duration((0.1 + r.ExpFloat64()) * 20 * float64(time.Millisecond))
		},
		"log-normal": func(r *rand.Rand) time.Duration {
			return time.Duration(math.Exp(r.NormFloat64()) * 30 * float64(time.Millisecond))
		},
		"heavy tail": func(r *rand.Rand) time.Duration {
			return time.Duration(float64(time.Millisecond) * math.Pow(1-r.Float64(), -0.7))
		},
		"two peaks": func(r *rand.Rand) time.Duration {
			return []time.Duration{2 * time.Millisecond, 900 * time.Millisecond}[r.IntN(2)] + time.Duration(r.IntN(1000))*time.Microsecond
		},
		"long and short": func(r *rand.Rand) time.Duration {
			return time.Duration(math.Exp(r.Float64()*math.Log(1e6)) * float64(100*time.Microsecond))
		},
	} {
		for _, n := range []int{1, 7, 1000, 20_000} {
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) {
				random := rand.New(rand.NewPCG(uint64(n), 1))
				s := newSketch(time.Minute)
				exact := make([]time.Duration, n)
				for i := range exact {
					exact[i] = draw(random)
					s.add(exact[i], sketchStart)
				}
				slices.Sort(exact)
				for _, q := range []float64{0, 0.01, 0.25, 0.5, 0.7, 0.9, 0.95, 0.99, 1} {
					got, samples := s.quantile(q, sketchStart)
					want := exact[max(0, int(math.Ceil(q*float64(n)))-1)]
					if off := float64(got)/float64(want) - 1; samples != n || math.Abs(off) > 0.04 {
						t.Errorf("quantile %v of %d: %v, want %v: %.1f %% off", q, samples, got, want, 100*off)
					}
				}
			})
		}
	}
}

func TestSketchOfWhatIsOutOfItsRange(t *testing.T) {
	s := newSketch(time.Minute)
	if d, n := s.quantile(0.5, sketchStart); d != 0 || n != 0 {
		t.Errorf("empty: %v of %d", d, n)
	}
	for _, d := range []time.Duration{-time.Hour, 0, 1, time.Microsecond, time.Hour, math.MaxInt64} {
		s.add(d, sketchStart)
	}
	if low, n := s.quantile(0.5, sketchStart); low > sketchLeast || n != 6 {
		t.Errorf("the lower half: %v of %d", low, n)
	}
	if high, _ := s.quantile(1, sketchStart); high < 3*time.Minute {
		t.Errorf("the longest: %v", high)
	}
}

func TestSketchForgetsAfterItsWindow(t *testing.T) {
	at := func(d time.Duration) time.Time { return sketchStart.Add(d) }
	s := newSketch(10 * time.Minute)
	s.add(time.Second, at(0))
	for _, d := range []time.Duration{0, 4 * time.Minute, 9 * time.Minute} {
		if _, n := s.quantile(0.5, at(d)); n != 1 {
			t.Errorf("after %v: %d samples", d, n)
		}
	}
	if _, n := s.quantile(0.5, at(10*time.Minute)); n != 0 {
		t.Errorf("after the window: %d samples", n)
	}
	s = newSketch(10 * time.Minute)
	for minute := range 60 { // one a minute: never fewer than those of half a window, never more than of a whole one
		s.add(time.Second, at(time.Duration(minute)*time.Minute))
		if _, n := s.quantile(0.5, at(time.Duration(minute)*time.Minute)); n > 10 || n < min(minute+1, 5) {
			t.Errorf("minute %d: %d samples", minute, n)
		}
	}
	if _, n := s.quantile(0.5, at(24*time.Hour)); n != 0 {
		t.Errorf("after a day: %d samples", n)
	}
	s.add(time.Millisecond, at(time.Hour)) // a clock that went back
	if _, n := s.quantile(0.5, at(24*time.Hour)); n != 1 {
		t.Errorf("%d samples", n)
	}
}

func TestSketchUnderConcurrency(t *testing.T) {
	s := sketches{window: time.Minute}
	var all sync.WaitGroup
	for client := range 8 {
		all.Go(func() {
			for i := range 2000 {
				at := sketchStart.Add(time.Duration(i) * time.Microsecond)
				x := s.get(fmt.Sprint("m", (client+i)%3))
				x.add(time.Duration(i)*time.Microsecond, at)
				x.quantile(0.9, at)
			}
		})
	}
	all.Wait()
	sum := 0
	for i := range 3 {
		_, n := s.get(fmt.Sprint("m", i)).quantile(0.5, sketchStart)
		sum += n
	}
	if sum != 16_000 {
		t.Errorf("%d samples", sum)
	}
}

func FuzzSketchIsMonotoneAndNeverPanics(f *testing.F) {
	f.Add(uint64(1), int64(time.Millisecond), int64(time.Second), 0.5, 0.9)
	f.Add(uint64(2), int64(-1), int64(math.MaxInt64), 0.0, 1.0)
	f.Add(uint64(3), int64(0), int64(1), -1.0, 2.0)
	f.Add(uint64(3), int64(1), int64(0), math.NaN(), math.Inf(1))
	f.Fuzz(func(t *testing.T, seed uint64, a, b int64, p, q float64) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := newSketch(time.Minute)
		at := sketchStart
		added := 0
		least, most := time.Duration(math.MaxInt64), time.Duration(0)
		for range random.IntN(200) {
			d := time.Duration(a)
			if random.IntN(2) == 0 {
				d = time.Duration(b)
			}
			if random.IntN(3) == 0 {
				d = time.Duration(random.Int64())
			}
			s.add(d, at)
			added++
			least, most = min(least, d), max(most, d)
			if random.IntN(5) == 0 {
				at = at.Add(time.Duration(random.Int64N(int64(50 * time.Second))))
			}
		}
		if p > q {
			p, q = q, p
		}
		low, n := s.quantile(p, at)
		high, m := s.quantile(q, at)
		if n != m || n > added {
			t.Fatalf("%d and %d samples of %d", n, m, added)
		}
		if !(p >= 0 && q <= 1) || n == 0 {
			return
		}
		if low > high {
			t.Fatalf("quantile %v is %v, quantile %v is %v", p, low, q, high)
		}
		if float64(high) > 1.04*float64(max(most, sketchLeast)) || float64(low) < 0.96*float64(min(least, time.Minute)) {
			t.Fatalf("quantiles %v and %v of values from %v to %v", low, high, least, most)
		}
	})
}
