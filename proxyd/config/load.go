package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// Options says how strictly a file is read.
type Options struct {
	// Env looks environment variables up. Default os.LookupEnv.
	Env Lookup
	// Strict makes unknown keys faults.
	Strict bool
	// AllowInactive makes warnings of the protections and consensus settings
	// that this version does not have yet, instead of refusing to start
	// without them.
	AllowInactive bool
}

// File reads a file. The warnings are for the operator; the error is a Faults
// when the content is to blame.
func File(name string, o Options) (*Config, []Problem, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(string(text), o)
}

// Parse reads the text of a file.
func Parse(text string, o Options) (*Config, []Problem, error) {
	if o.Env == nil {
		o.Env = os.LookupEnv
	}
	var document map[string]any
	if _, err := toml.Decode(text, &document); err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			return nil, nil, Faults{{Line: syntax.Position.Line, Text: "not valid TOML: " + withoutContent(syntax.Message)}}
		}
		return nil, nil, Faults{{Text: "not valid TOML: " + withoutContent(err.Error())}}
	}
	f := &findings{lines: locate(text)}
	f.articleForm(document)
	c := new(Config)
	c.setNewDefaults()
	b := &binder{findings: f, env: o.Env, defined: map[string]bool{}}
	b.table(nil, document, reflect.ValueOf(c).Elem())
	c.setDefaults(b.defined)
	v := &validator{findings: f, c: c, defined: b.defined, leaves: b.leaves}
	v.validate()
	v.inactive(o.AllowInactive)
	if o.Strict {
		f.unknownToFaults()
	}
	sortProblems(f.warnings)
	sortProblems(f.faults)
	if len(f.faults) > 0 {
		return nil, f.warnings, Faults(f.faults)
	}
	return c, f.warnings, nil
}

// withoutContent takes out what the TOML library quotes of the text, which may
// be a part of a secret. Single characters stay.
func withoutContent(message string) string {
	if strings.HasPrefix(message, "unexpected EOF") {
		return message // quotes only what is missing
	}
	if value, what, ok := strings.Cut(message, " is out of range"); ok && !strings.Contains(value, " ") {
		return "a number is out of range" + what
	}
	var b strings.Builder
	for {
		i := strings.IndexAny(message, `'"`)
		if i < 0 {
			return b.String() + message
		}
		b.WriteString(message[:i])
		quote, rest := message[i], message[i+1:]
		_, size := utf8.DecodeRuneInString(rest)
		if strings.HasPrefix(rest, `\`) && len(rest) > 2 && rest[2] == quote {
			size = 2 // an escaped one
		}
		if len(rest) > size && rest[size] == quote {
			b.WriteString(message[i : i+size+2])
			message = rest[size+1:]
			continue
		}
		b.WriteString("…")
		message = rest[strings.LastIndexByte(rest, quote)+1:]
		if !strings.Contains(rest, string(quote)) {
			return b.String()
		}
	}
}

func (f *findings) unknownToFaults() {
	var rest []Problem
	for _, w := range f.warnings {
		if w.Unknown {
			f.faults = append(f.faults, w)
		} else {
			rest = append(rest, w)
		}
	}
	f.warnings = rest
}

// articleForm moves options that stand directly under [backends], as in the form
// that the incumbent had when it was first described, to [backend].
func (f *findings) articleForm(document map[string]any) {
	backends, ok := document["backends"].(map[string]any)
	if !ok {
		return
	}
	defaults, isTable := document["backend"].(map[string]any)
	if other, set := document["backend"]; set && !isTable {
		f.fault(path{"backend"}, "must be a table, not %s", describe(other))
	}
	f.moved = map[string]bool{}
	for name, value := range backends {
		if _, ok := value.(map[string]any); ok {
			continue
		}
		if defaults == nil {
			defaults = map[string]any{}
		}
		at := path{"backends", name}
		if _, twice := defaults[name]; twice {
			f.fault(at, "stands in [backend] too: keep one of them")
		} else {
			defaults[name] = value
			f.moved[name] = true
		}
		delete(backends, name)
	}
	if defaults != nil {
		document["backend"] = defaults
	}
}

// setNewDefaults fills in the defaults of keys that the incumbent does not have,
// before the file is read: there zero is zero.
func (c *Config) setNewDefaults() {
	s := &c.Server
	s.QueueTimeout = Duration(100 * time.Millisecond)
	s.ShutdownTimeout = Duration(10 * time.Second)
	s.ReadHeaderTimeout = Duration(10 * time.Second)
	s.ReadTimeout = Duration(30 * time.Second)
	s.IdleTimeout = Duration(620 * time.Second)
	s.MaxWSSubscriptions = 100
	s.WSPingInterval = Duration(30 * time.Second)
	s.WSReplayBlocks = 128
	s.WSPollInterval = Duration(2 * time.Second)
	s.WSGap = "close"
	c.Filters = Filters{Mode: "backend", Expiry: Duration(5 * time.Minute), MaxPerClient: 100}
	s.PprofAddr = "127.0.0.1:6060"
	s.CORSAllowedOrigins = []string{"*"}
	s.CORSAllowedMethods = []string{"GET", "POST", "HEAD"}
	s.CORSAllowedHeaders = []string{"Accept", "Content-Type", "X-Requested-With", "Authorization", "X-Api-Key"}
	c.Cache.MaxSizeBytes = 64 << 20
	c.RateLimit.Key = "address"
	c.RateLimit.MaxKeys = 100_000
	c.Backend.DialTimeout = Duration(5 * time.Second)
	c.Backend.OutOfServiceAfter = 3
}

func (h *Health) setNewDefaults() {
	*h = Health{
		Interval: Duration(30 * time.Second), Checks: []string{"eth_blockNumber", "eth_syncing", "eth_chainId"},
		FailureThreshold: 2, SuccessThreshold: 2, Concurrency: 20,
		EphemeralInterval: Duration(30 * time.Second), EphemeralHealthyThreshold: 3,
	}
}

func (r *RetryBudget) setNewDefaults() { *r = RetryBudget{Ratio: 0.2, MinPerSecond: 10} }

func (b *Backend) setNewDefaults() {
	b.Role = "primary"
	b.Cost = 1
}

func (r *Recovery) setNewDefaults() {
	*r = Recovery{
		BackoffMultiplier: 2, InitialBackoff: Duration(5 * time.Minute), MaxBackoff: Duration(time.Hour),
		MaxRetries: 10, RequiredSuccesses: 3, ResetAfter: Duration(24 * time.Hour),
	}
}

func (g *Group) setNewDefaults() {
	g.Rank = Rank{
		Interval: Duration(10 * time.Second), SampleCount: 10, Timeout: Duration(time.Second), PingMethod: "eth_blockNumber",
		Weights: RankWeights{Latency: 0.3, Stability: 0.7},
	}
	g.PublicFirstAttempts = new(2)
}

func (h *Hedge) setNewDefaults() {
	*h = Hedge{Delay: "p95", Min: Duration(50 * time.Millisecond), Max: Duration(2 * time.Second), MaxExtra: 1}
}

// setDefaults fills in the incumbent's defaults, for which 0 stands too.
func (c *Config) setDefaults(defined map[string]bool) {
	s := &c.Server
	if s.RPCPort == nil {
		s.RPCPort = new(int)
		*s.RPCPort = 8545
		if s.RPCHost == "" {
			s.RPCHost = "127.0.0.1"
		}
	}
	zero(&s.MaxBodySizeBytes, 256<<10)
	zero(&s.MaxConcurrentWSRPCs, 100)
	zero(&s.Timeout, Duration(10*time.Second))
	zero(&s.MaxUpstreamBatchSize, 10)
	zero(&s.MaxRequestBodyLogLen, 2000)
	if !defined["server.max_streams_per_client"] {
		s.MaxStreamsPerClient = 100
	}
	if !defined["server.write_timeout"] {
		s.WriteTimeout = s.Timeout + Duration(50*time.Second)
	}
	zero(&c.Cache.TTL, Duration(time.Hour))
	zero(&c.RateLimit.BaseInterval, Duration(time.Second))
	b := &c.Backend
	if b.ResponseTimeoutMS != 0 {
		b.ResponseTimeout = b.ResponseTimeoutMS
	}
	zero(&b.ResponseTimeout, Duration(5*time.Second))
	zero(&b.OutOfService, Duration(30*time.Second))
	zero(&b.MaxDegradedLatency, Duration(5*time.Second))
	zero(&b.MaxLatency, Duration(10*time.Second))
	zero(&b.MaxErrorRate, 0.5)
	zero(&c.Batch.MaxSize, 100)
	zero(&c.InteropValidation.Strategy, "agreement")
	zero(&c.InteropValidation.UnhealthinessTimeout, Duration(10*time.Second))
	zero(&c.InteropValidation.ReqSizeLimit, 128<<10)
	zero(&c.InteropValidation.AccessListSizeLimit, 1000)
	zero(&c.InteropValidation.MinResponses, len(c.InteropValidation.URLs))
	zero(&c.TxValidation.Timeout, Duration(5*time.Second))
	if len(c.TxValidation.Methods) == 0 {
		c.TxValidation.Methods = []string{"eth_sendRawTransaction", "eth_sendRawTransactionConditional", "eth_sendBundle"}
	}
	zero(&c.TxValidation.FailOpen, new(true))
	for name, b := range c.Backends {
		b.setDefaults()
		c.Backends[name] = b
	}
	for _, s := range c.scopes() {
		for name, g := range s.BackendGroups {
			g.setDefaults()
			s.BackendGroups[name] = g
		}
	}
}

func (b *Backend) setDefaults() {
	if len(b.AllowedStatusCodes) == 0 {
		b.AllowedStatusCodes = []int{400, 413}
	}
	zero(&b.ProbeFailureThreshold, 1)
	zero(&b.ProbeSuccessThreshold, 2)
	zero(&b.ProbePeriod, Duration(4*time.Second))
	zero(&b.ProbeTimeout, Duration(time.Second))
	zero(&b.ConsensusReceiptsTarget, "debug_getRawReceipts")
}

func (g *Group) setDefaults() {
	if g.RoutingStrategy == "" && !g.ConsensusAware {
		g.RoutingStrategy = "fallback"
	}
	if g.RoutingStrategy == "ranked" {
		zero(&g.RetryCount, new(3))
		zero(&g.RetryDelay, new(Duration(150*time.Millisecond)))
	}
	zero(&g.ConsensusPollerInterval, Duration(time.Second))
	zero(&g.ConsensusBanPeriod, Duration(5*time.Minute))
	zero(&g.ConsensusMaxUpdateThreshold, Duration(30*time.Second))
	zero(&g.ConsensusMaxBlockLag, new(uint64(8)))
	zero(&g.ConsensusMinPeerCount, new(3))
	zero(&g.ConsensusHAHeartbeatInterval, Duration(2*time.Second))
	zero(&g.ConsensusHALockPeriod, Duration(30*time.Second))
	zero(&g.ConsensusCLSyncThreshold, 10)
	zero(&g.ConsensusCLHeadL1MaxAge, Duration(5*time.Minute))
	zero(&g.ConsensusCLOutputRootBanThreshold, 3)
}

// MaxBatchSize is the most elements that a client's batch may have, whatever
// batch.max_size says.
const MaxBatchSize = 1000

func zero[T comparable](v *T, otherwise T) {
	var none T
	if *v == none {
		*v = otherwise
	}
}
