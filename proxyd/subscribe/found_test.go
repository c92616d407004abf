package subscribe

import (
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/devchain"
)

func TestFeedsInGraceMakeRoomForOthers(t *testing.T) {
	w := newWorld(t, 1, setting{hub: func(o *Options) { o.MaxFeeds, o.Grace, o.MaxPerSession = 100, 10*time.Second, 1000 }})
	s := w.session()
	for i := range 100 {
		s.subscribe(`["logs",{"address":["0x` + address(i) + `"]}]`)
	}
	s.end()
	time.Sleep(100 * time.Millisecond)
	b := w.session()
	refused := 0
	for i := range 90 {
		if _, err := b.trySubscribe(`["logs",{"address":["0x` + address(1000+i) + `"]}]`); err != nil {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d of 90 were refused", refused)
	}
}

func TestFilterThatIsNotAnsweredCostsNobodyElse(t *testing.T) {
	for _, how := range []string{"silent", "large"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, 2, setting{relays: true, noHTTP: true, backend: func(i int, o *backend.Options) {
				if how == "large" {
					o.MaxResponseSize = 20000
				}
			}})
			s, bad := w.session(), w.session()
			hs := s.subscribe(`["newHeads"]`)
			if how == "silent" {
				bad.subscribe(`["logs",{"address":["0x` + address(7) + `"]}]`)
			} else {
				bad.subscribe(everyLog)
			}
			w.mine(5, hs)
			for _, n := range w.nodes {
				re := regexp.MustCompile(`"result":\[`)
				n.relay.changes(func(m string) ([]string, bool) {
					if re.MatchString(m) && !strings.Contains(m, "eth_subscription") {
						if how == "silent" {
							return nil, false
						}
						return []string{strings.Replace(m, `"result":[`, `"result":[`+strings.Repeat(" ", 30000), 1)}, false
					}
					return []string{m}, false
				})
			}
			w.nodes[0].DropSockets()
			w.chain.Mine(2)
			for end := time.Now().Add(25 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if len(s.lostFor()) > 0 {
					t.Fatalf("the innocent client lost: %q", s.lostFor())
				}
				if hs.agrees(w.chain) == nil {
					return
				}
			}
			t.Fatal("no heads in 25 s")
		})
	}
}

// Close while a source is being opened
func TestCloseDoesNotWaitForASourceThatIsBeingOpened(t *testing.T) {
	w := newWorld(t, 2, setting{relays: true, hub: func(o *Options) { o.CallTimeout, o.MaxPerSession = time.Second, 1000 }})
	s := w.session()
	hs := s.subscribe(`["newHeads"]`)
	for i := range 300 {
		s.subscribe(`["logs",{"address":["0x` + address(i) + `"]}]`)
	}
	w.mine(2, hs)
	var n atomic.Int64
	for _, nd := range w.nodes {
		nd.relay.changes(func(m string) ([]string, bool) {
			if strings.Contains(m, `"result":"0x`) && n.Add(1) > 1 {
				return nil, false
			}
			return []string{m}, false
		})
	}
	w.nodes[0].DropSockets()
	w.nodes[0].goDown()
	time.Sleep(1200 * time.Millisecond)
	at := time.Now()
	w.Hub.Close()
	if took := time.Since(at); took > 500*time.Millisecond {
		t.Errorf("Close took %v, with a CallTimeout of 1 s", took)
	}
}

func TestSourceThatIsLeftWhileAskingLeavesNothingUpstream(t *testing.T) {
	w := newWorld(t, 1, setting{relays: true})
	var delay atomic.Int64
	w.nodes[0].relay.changes(func(m string) ([]string, bool) {
		if strings.Contains(m, `"result":"0x`) {
			time.Sleep(time.Duration(delay.Load()))
		}
		return []string{m}, false
	})
	leaks := 0
	for round := range 40 {
		m := w.members[0]
		o := w.Hub.opts
		s, err := openSource(t.Context(), t.Context(), m, false, &o)
		if err != nil {
			t.Fatal(err)
		}
		delay.Store(int64(200 * time.Microsecond))
		for i := range 60 {
			sp, _ := parseSpec([]byte(`["logs",{"address":["0x` + address(round*100+i) + `"]}]`))
			s.begin(newFeed(sp, o.Metrics))
		}
		time.Sleep(time.Duration(round) * 300 * time.Microsecond)
		s.close()
		if n := len(s.ids); n > 0 {
			leaks += n
		}
		delay.Store(0)
	}
	if leaks > 0 {
		t.Errorf("%d subscriptions stay upstream; gauge %v", leaks, w.metric("backend_subscriptions"))
	}
}

func TestEventOfAFeedThatIsGoneIsNotRemembered(t *testing.T) {
	w := newWorld(t, 1, setting{})
	w.Hub.opts.Grace = time.Nanosecond
	f := newFollower(w.Hub)
	s := &source{opts: f.opts, member: w.members[0], served: map[*feed]bool{}, ids: map[*feed]string{}, asking: map[*feed]bool{}, joined: true}
	sp, _ := parseSpec([]byte(everyLog))
	fd := newFeed(sp, f.opts.Metrics)
	fd.told.all = &f.told
	f.accept(s, fd)
	f.drop(s, fd)
	raw := []byte(`{"blockNumber":"0x5","logIndex":"0x0","blockHash":"0x` + strings.Repeat("ab", 32) + `"}`)
	_ = f.take(s, event{feed: fd, result: raw})
	if f.told != 0 {
		t.Errorf("%d bytes are counted for a feed that is gone", f.told)
	}
}

func TestReorganisationOfWhichOnlyTheLastHeadCame(t *testing.T) {
	w := newWorld(t, 1, setting{relays: true, hub: func(o *Options) { o.HeadStall = 5 * time.Second }})
	s := w.session()
	all := []*sub{s.subscribe(`["newHeads"]`), s.subscribe(everyLog)}
	w.mine(6, all...)
	head := w.chain.Head()
	w.nodes[0].relay.changes(func(m string) ([]string, bool) {
		if strings.Contains(m, "eth_subscription") && !strings.Contains(m, fmt.Sprintf(`"number":"0x%x"`, head)) {
			return nil, false
		}
		return []string{m}, false
	})
	w.chain.Reorg(3, 3)
	time.Sleep(100 * time.Millisecond)
	w.nodes[0].relay.changes(nil)
	w.mine(6, all...)
}

func TestSubscriptionThatOneBackendDoesNotTakeIsMadeAtAnother(t *testing.T) {
	for _, how := range []string{"refused", "unanswered"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, 3, setting{relays: true})
			s := w.session()
			all := []*sub{s.subscribe(`["newHeads"]`), s.subscribe(everyLog)}
			w.mine(3, all...)
			var n atomic.Int64
			id := regexp.MustCompile(`"id":(\d+)`)
			w.nodes[1].relay.changes(func(m string) ([]string, bool) {
				if !strings.Contains(m, "eth_subscription") && strings.Contains(m, `"result":"0x`) && n.Add(1) > 1 {
					if how == "unanswered" {
						return nil, false
					}
					return []string{`{"jsonrpc":"2.0",` + id.FindString(m) + `,"error":{"code":-32005,"message":"too many"}}`}, false
				}
				return []string{m}, false
			})
			w.nodes[0].goDown()
			w.mine(3, all...)
		})
	}
}

func TestUnansweredLogsOfTheFollowedBackendAreFetchedElsewhere(t *testing.T) {
	w := newWorld(t, 2, setting{relays: true, hub: func(o *Options) { o.HeadStall = 5 * time.Second }})
	s := w.session()
	all := []*sub{s.subscribe(`["newHeads"]`), s.subscribe(everyLog)}
	w.mine(3, all...)
	var heads, answers atomic.Int64
	getLogs := regexp.MustCompile(`"result":\[`)
	w.nodes[0].relay.changes(func(m string) ([]string, bool) {
		switch {
		case strings.Contains(m, "eth_subscription") && heads.Add(1) <= 2: // the head and the log of one block
			return nil, false
		case !strings.Contains(m, "eth_subscription") && getLogs.MatchString(m) && answers.Add(1) == 1:
			return nil, false
		}
		return []string{m}, false
	})
	w.chain.Mine(1)
	time.Sleep(50 * time.Millisecond)
	w.mine(3, all...)
}

func TestLogsThatHangAtOneBackendAreFetchedElsewhere(t *testing.T) {
	w := newWorld(t, 3, setting{relays: true, noHTTP: true, hub: func(o *Options) { o.CallTimeout = 300 * time.Millisecond }})
	s := w.session()
	all := []*sub{s.subscribe(`["newHeads"]`), s.subscribe(everyLog)}
	w.mine(3, all...)
	w.nodes[1].relay.changes(func(m string) ([]string, bool) {
		if !strings.Contains(m, "eth_subscription") && strings.Contains(m, `"result":[`) {
			return nil, false
		}
		return []string{m}, false
	})
	w.nodes[2].goDown()
	w.nodes[0].goDown()
	time.AfterFunc(1500*time.Millisecond, w.nodes[2].comeBack)
	w.mine(3, all...)
}

func TestOthersThatHangHoldNothingUp(t *testing.T) {
	w := newWorld(t, 4, setting{hub: func(o *Options) { o.CallTimeout = time.Second; o.HeadStall = 5 * time.Second }, backend: func(i int, o *backend.Options) { o.ResponseTimeout = 10 * time.Second }})
	s := w.session()
	hs := s.subscribe(`["newHeads"]`)
	w.mine(3, hs)
	w.nodes[1].SetLag(1)
	w.nodes[2].is(devchain.FaultHang)
	w.nodes[3].is(devchain.FaultHang)
	at := time.Now()
	w.nodes[0].goDown()
	time.Sleep(100 * time.Millisecond)
	w.nodes[1].SetLag(0)
	w.mine(2, hs)
	if took := time.Since(at); took > 4*time.Second {
		t.Errorf("%v until heads went on, with a CallTimeout of 1 s", took)
	}
}

func TestChainThatWentBackIsFollowedOn(t *testing.T) {
	w := newWorld(t, 2, setting{hub: func(o *Options) { o.HeadStall = 300 * time.Millisecond }})
	s := w.session()
	hs := s.subscribe(`["newHeads"]`)
	w.mine(40, hs)
	w.chain.Reorg(30, 1)
	time.Sleep(500 * time.Millisecond)
	for range 20 {
		w.chain.Mine(1)
		time.Sleep(50 * time.Millisecond)
	}
	if strings.Contains(w.log.String(), "leave backend") {
		t.Error("a backend was left")
	}
}

func TestHeadsThatCameBeforeTheLatestAreOldNews(t *testing.T) {
	for depth := 1; depth <= 3; depth++ {
		t.Run(fmt.Sprint("depth=", depth), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, setting{noHTTP: true})
			all := w.begin()
			next := w.nodes[1]
			next.SetFault(devchain.Fault{Kind: devchain.FaultSlow, Delay: 10 * time.Second, Method: "eth_getBlockByNumber"})
			calls := next.CallsOf("eth_getBlockByNumber")
			heads := all[0]
			told := len(heads.session.told(heads.id))
			w.nodes[0].goDown()
			eventually(t, "it asks for the head", func() error {
				if next.CallsOf("eth_getBlockByNumber") == calls {
					return fmt.Errorf("it does not")
				}
				return nil
			})
			// The subscription brings these; the answer comes behind them, and is of the
			// other branch.
			w.chain.Mine(depth)
			w.chain.Reorg(depth, depth+1)
			next.is(devchain.FaultNone)
			w.heal(w.chain, all...)
			w.mine(3, all...)
			if got := len(heads.session.told(heads.id)) - told; got != depth+1+3 {
				t.Errorf("%d heads were told, want the %d of the branch that stands", got, depth+1+3)
			}
		})
	}
}

func TestLogsThatTheBackendNeverTakesBackAreTakenBack(t *testing.T) {
	w := newWorld(t, 1, setting{relays: true})
	all := w.begin()
	w.mine(5, all...)
	w.nodes[0].relay.changes(func(m string) ([]string, bool) {
		if strings.Contains(m, `"removed":true`) {
			return nil, false
		}
		return []string{m}, false
	})
	w.chain.Reorg(2, 2)
	w.chain.Mine(overlap + 1)
	w.heal(w.chain, all...)
}
