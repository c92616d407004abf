package probe

// streak turns observations into a state that does not flap: only so many equal
// ones in a row turn it. It starts fit.
type streak struct {
	failAfter, passAfter int
	failing, passing     int // in a row
	unfit                bool
}

// add notes an observation and reports whether it turned the state.
func (s *streak) add(ok bool) (turned bool) {
	if ok {
		s.failing, s.passing = 0, s.passing+1
		turned = s.unfit && s.passing >= s.passAfter
	} else {
		s.failing, s.passing = s.failing+1, 0
		turned = !s.unfit && s.failing >= s.failAfter
	}
	s.unfit = s.unfit != turned
	return turned
}
