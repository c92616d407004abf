package proxyd

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/config"
)

func (b *builder) backends(g *graph, chains map[string]config.Chain) error {
	rules := make([]classify.OperatorRule, len(b.c.ErrorRules))
	for i, r := range b.c.ErrorRules {
		rules[i] = classify.OperatorRule{Match: r.Match, Code: r.Code, Status: r.Status, Backend: r.Backend, Class: r.Class}
	}
	errorTable, err := classify.New(rules)
	if err != nil {
		return err
	}
	var slots *backend.Slots
	// More slots than sockets are no limit; the incumbent's largest number is.
	if n := b.c.Server.MaxConcurrentRPCs; n > 0 && n < 1<<20 && !b.c.Server.DisableSemaphore {
		slots = backend.NewSlots(int(n), b.c.Server.QueueTimeout.D())
	}
	accounts := map[string]*backend.Account{}
	b.byName = make(map[string]*backend.Backend, len(b.c.Backends))
	d := b.c.Backend
	for _, name := range slices.Sorted(maps.Keys(b.c.Backends)) {
		c, chain := b.c.Backends[name], b.chainOf[name]
		tlsConfig, err := tlsConfig(c)
		if err != nil {
			return fmt.Errorf("backend %s: %w", name, err)
		}
		if c.Provider != "" && accounts[c.Provider] == nil {
			accounts[c.Provider] = new(backend.Account)
		}
		headers := make(map[string]string, len(c.Headers))
		for k, v := range c.Headers {
			headers[k] = v.Reveal()
		}
		timeout, retries := d.ResponseTimeout, d.MaxRetries
		if c.ResponseTimeoutMS > 0 {
			timeout = c.ResponseTimeoutMS
		}
		if c.MaxRetries != nil {
			retries = *c.MaxRetries
		}
		be, err := backend.New(backend.Options{
			Name: name, URL: c.RPCURL.Reveal(), WSURL: c.SocketURL().Reveal(), Username: c.Username.Reveal(), Password: c.Password.Reveal(), Headers: headers, TLS: tlsConfig,
			StripTrailingXFF: c.StripTrailingXFF, ProxyIP: b.o.ProxyIP, Gzip: c.Gzip, HTTP2: c.HTTP2,
			ResponseTimeout: timeout.D(), DialTimeout: d.DialTimeout.D(), MaxResponseSize: d.MaxResponseSize,
			AllowedStatuses: c.AllowedStatusCodes, MaxRetries: retries, MaxRPS: c.MaxRPS, MaxRPSStrict: c.MaxRPSStrict,
			OutAfter: d.OutOfServiceAfter, OutFor: d.OutOfService.D(), MaxErrorRate: d.MaxErrorRate, MaxLatency: d.MaxLatency.D(),
			DegradedLatency: d.MaxDegradedLatency.D(), Account: accounts[c.Provider], Slots: slots, Classify: errorTable,
			ChainID: cmp.Or(c.ChainID, chains[chain].ChainID), Recovery: recovery(c.RateLimitRecovery), ProbedRecovery: b.c.Health != nil, Verify: b.verifies(),
			Metrics: b.metrics[chain].backend, Log: b.chainLog(chain),
		})
		if err != nil {
			return err
		}
		b.byName[name] = be
		g.backends = append(g.backends, be)
	}
	return nil
}

// chainLog returns the logger for one chain's lines.
func (b *builder) chainLog(chain string) *slog.Logger {
	if chain == "" {
		return b.log
	}
	return b.log.With("chain", chain)
}

func recovery(c *config.Recovery) *backend.Recovery {
	if c == nil {
		return nil
	}
	return &backend.Recovery{
		Multiplier: c.BackoffMultiplier, Initial: c.InitialBackoff.D(), Max: c.MaxBackoff.D(),
		MaxRetries: c.MaxRetries, RequiredSuccesses: c.RequiredSuccesses, ResetAfter: c.ResetAfter.D(),
	}
}

// tlsConfig returns the TLS settings of a backend, nil for the system's.
func tlsConfig(c config.Backend) (*tls.Config, error) {
	if c.CAFile == "" && c.ClientCertFile == "" {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no certificate", c.CAFile)
		}
	}
	if c.ClientCertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.ClientCertFile, c.ClientKeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// verifies reports whether health checks ask for chain ids regularly.
func (b *builder) verifies() bool {
	h := b.c.Health
	return h != nil && h.Interval > 0 && slices.Contains(h.Checks, "eth_chainId")
}
