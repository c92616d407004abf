package config

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
)

func (v *validator) backends() {
	if len(v.c.Backends) == 0 {
		v.fault(path{"backends"}, "must have at least one backend, like [backends.alchemy] with its rpc_url")
	}
	for _, name := range slices.Sorted(maps.Keys(v.c.Backends)) {
		v.backend(path{"backends", name}, v.c.Backends[name])
	}
}

// SocketURL is ws_url, "" when it is one over which no WebSocket connection can be
// made.
func (b *Backend) SocketURL() Secret {
	if u, err := url.Parse(b.WSURL.Reveal()); err != nil || u.Scheme != "ws" && u.Scheme != "wss" {
		return ""
	}
	return b.WSURL
}

func (v *validator) backend(at path, b Backend) {
	switch {
	case b.RPCURL != "":
		v.url(at.with("rpc_url"), b.RPCURL, "http", "https")
	case b.SocketURL() == "":
		v.fault(at.with("rpc_url"), "is required: the provider's http:// or https:// URL, or ws_url for calls over WebSocket")
	}
	switch u, err := url.Parse(b.WSURL.Reveal()); {
	case b.WSURL == "":
	case err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https"):
		v.warn(at.with("ws_url"), "is an %s URL and will not be dialled: write ws:// or wss://; until then the backend is polled for subscriptions", u.Scheme)
	default:
		v.url(at.with("ws_url"), b.WSURL, "ws", "wss")
	}
	if b.ProbeURL != "" {
		v.url(at.with("probe_url"), b.ProbeURL, "http", "https")
	}
	for name, value := range b.Headers {
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_!#$%&'*+.^`|~") != "" || name == "" {
			v.fault(at.with("headers", name), "is not a header name")
		}
		if strings.ContainsAny(value.Reveal(), "\r\n\x00") {
			v.fault(at.with("headers", name), "must not hold a line end")
		}
	}
	v.certificates(at, b)
	for i, status := range b.AllowedStatusCodes {
		if status < 100 || status > 599 {
			v.fault(at.with("allowed_status_codes", index(i)), "%d is not an HTTP status", status)
		}
	}
	if roles := []string{"primary", "fallback", "public"}; !slices.Contains(roles, b.Role) {
		v.fault(at.with("role"), "%q is not a role: must be one of %s", b.Role, strings.Join(roles, ", "))
	}
	if b.Type != "" && b.Type != "archive" && b.Type != "full" {
		v.fault(at.with("type"), "%q is not a type: must be archive or full, or left out", b.Type)
	}
	notNegative(v, at.with("cost"), b.Cost)
	v.recovery(at.with("rate_limit_recovery"), b.RateLimitRecovery)
	notNegative(v, at.with("max_rps"), b.MaxRPS)
	notNegative(v, at.with("weight"), b.Weight)
	notNegative(v, at.with("max_ws_conns"), b.MaxWSConns)
	notNegative(v, at.with("response_timeout_milliseconds"), b.ResponseTimeoutMS)
	notNegative(v, at.with("probe_failure_threshold"), b.ProbeFailureThreshold)
	notNegative(v, at.with("probe_success_threshold"), b.ProbeSuccessThreshold)
	notNegative(v, at.with("probe_period_seconds"), b.ProbePeriod)
	notNegative(v, at.with("probe_timeout_seconds"), b.ProbeTimeout)
	if b.MaxRetries != nil {
		notNegative(v, at.with("max_retries"), *b.MaxRetries)
	}
	if b.Username != "" && b.Password == "" {
		v.warn(at.with("username"), "is sent only together with a password")
	}
	targets := []string{"debug_getRawReceipts", "alchemy_getTransactionReceipts", "parity_getBlockReceipts", "eth_getBlockReceipts"}
	if !slices.Contains(targets, b.ConsensusReceiptsTarget) {
		v.fault(at.with("consensus_receipts_target"), "must be one of %s", strings.Join(targets, ", "))
	}
}

// url checks a URL without showing it.
func (v *validator) url(at path, raw Secret, schemes ...string) {
	u, err := url.Parse(raw.Reveal())
	if err != nil || u.Hostname() == "" || u.Port() != "" && !isPort(u.Port()) || !slices.Contains(schemes, u.Scheme) {
		v.fault(at, "is not a URL with a host that begins with %s://", strings.Join(schemes, ":// or "))
	}
}

// certificates reads the files as the backend will.
func (v *validator) certificates(at path, b Backend) {
	if pem := v.file(at.with("ca_file"), b.CAFile); pem != nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
		v.fault(at.with("ca_file"), "holds no certificate")
	}
	cert, key := v.file(at.with("client_cert_file"), b.ClientCertFile), v.file(at.with("client_key_file"), b.ClientKeyFile)
	if (b.ClientCertFile == "") != (b.ClientKeyFile == "") {
		v.fault(at.with("client_cert_file"), "client_cert_file and client_key_file go together")
	}
	if cert != nil && key != nil {
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			v.fault(at.with("client_cert_file"), "is not a certificate with its key: %v", err)
		}
	}
}

// file returns what a file holds, nil when it is not set or cannot be read.
func (v *validator) file(at path, name string) []byte {
	if name == "" || name == unresolved {
		return nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		v.fault(at, "cannot be read: %v", err)
		return nil
	}
	if text == nil {
		text = []byte{}
	}
	return text
}
