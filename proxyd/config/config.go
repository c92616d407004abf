// Package config turns a TOML file into plain data: decoded, defaults filled in,
// environment variables put in their places, and checked. It knows nothing of
// what the data is used for.
//
// The doc comment of a key is in example.config.toml; a test keeps the two
// together.
package config

import "gateway.internal/proxyd/jsonrpc"

// Config is a whole configuration. The keys of the incumbent keep their names,
// types and meaning; 0 means the default for them. For keys that are new here
// zero is zero.
type Config struct {
	ChainID               uint64             `toml:"chain_id"`
	Chains                map[string]Chain   `toml:"chains"`
	Health                *Health            `toml:"health"`
	RetryBudget           *RetryBudget       `toml:"retry_budget"`
	WSBackendGroup        string             `toml:"ws_backend_group"`
	WSMethodWhitelist     []string           `toml:"ws_method_whitelist"`
	WhitelistErrorMessage string             `toml:"whitelist_error_message"`
	RPCMethodMappings     map[string]string  `toml:"rpc_method_mappings"`
	Authentication        ClientKeys         `toml:"authentication" env:"keys"`
	Server                Server             `toml:"server"`
	Cache                 Cache              `toml:"cache"`
	Redis                 Redis              `toml:"redis"`
	Metrics               Metrics            `toml:"metrics"`
	RateLimit             RateLimit          `toml:"rate_limit"`
	Backend               BackendDefaults    `toml:"backend"`
	Backends              map[string]Backend `toml:"backends"`
	BackendGroups         map[string]Group   `toml:"backend_groups"`
	Batch                 Batch              `toml:"batch"`
	Filters               Filters            `toml:"filters"`
	SenderRateLimit       SenderRateLimit    `toml:"sender_rate_limit"`
	InteropValidation     InteropValidation  `toml:"interop_validation"`
	TxValidation          TxValidation       `toml:"tx_validation_middleware"`
	Methods               map[string]Method  `toml:"methods"`
	ErrorRules            []ErrorRule        `toml:"error_rules"`
}

// Chain is one of [chains.NAME], served at /NAME beside the top level's chain at
// the root. Its groups name backends of the common [backends].
type Chain struct {
	ChainID           uint64            `toml:"chain_id"`
	WSBackendGroup    string            `toml:"ws_backend_group"`
	WSMethodWhitelist []string          `toml:"ws_method_whitelist"`
	RPCMethodMappings map[string]string `toml:"rpc_method_mappings"`
	BackendGroups     map[string]Group  `toml:"backend_groups"`
}

// Health is [health]. Without the table the gateway makes no call of its own.
type Health struct {
	Interval                  Duration `toml:"interval"`
	Checks                    []string `toml:"checks"`
	FailureThreshold          int      `toml:"failure_threshold"`
	SuccessThreshold          int      `toml:"success_threshold"`
	Concurrency               int      `toml:"concurrency"`
	EphemeralInterval         Duration `toml:"ephemeral_interval"`
	EphemeralHealthyThreshold int      `toml:"ephemeral_healthy_threshold"`
}

// RetryBudget is [retry_budget], which holds for each group by itself, and
// [backend_groups.NAME.retry_budget], which holds for one in its place.
type RetryBudget struct {
	Ratio        float64 `toml:"ratio"`
	MinPerSecond float64 `toml:"min_per_second"`
}

// Server is [server].
type Server struct {
	RPCHost              string   `toml:"rpc_host"`
	RPCPort              *int     `toml:"rpc_port"`
	WSHost               string   `toml:"ws_host"`
	WSPort               int      `toml:"ws_port"`
	MaxBodySizeBytes     int64    `toml:"max_body_size_bytes"`
	MaxConcurrentRPCs    int64    `toml:"max_concurrent_rpcs"`
	MaxStreamsPerClient  int      `toml:"max_streams_per_client"`
	DisableSemaphore     bool     `toml:"disable_concurrent_request_semaphore"`
	QueueTimeout         Duration `toml:"queue_timeout"`
	MaxConcurrentWSRPCs  int64    `toml:"max_concurrent_ws_rpcs"`
	MaxClientWSConns     int      `toml:"max_client_ws_conns"`
	MaxWSConnsPerClient  int      `toml:"max_ws_conns_per_client"`
	MaxWSSubscriptions   int      `toml:"max_ws_subscriptions"`
	WSPingInterval       Duration `toml:"ws_ping_interval"`
	WSHeadStall          Duration `toml:"ws_head_stall"`
	WSReplayBlocks       int      `toml:"ws_replay_blocks"`
	WSPollInterval       Duration `toml:"ws_poll_interval"`
	WSGap                string   `toml:"ws_gap"`
	LogLevel             string   `toml:"log_level"`
	Timeout              Duration `toml:"timeout_seconds" unit:"s"`
	MaxUpstreamBatchSize int      `toml:"max_upstream_batch_size"`
	EnableRequestLog     bool     `toml:"enable_request_log"`
	MaxRequestBodyLogLen int      `toml:"max_request_body_log_len"`
	EnablePprof          bool     `toml:"enable_pprof"`
	PprofAddr            string   `toml:"pprof_addr"`
	EnableServedByHeader bool     `toml:"enable_served_by_header"`
	AllowAllOrigins      bool     `toml:"allow_all_origins"`
	PublicAccess         bool     `toml:"public_access"`
	EnableTxHashLogging  bool     `toml:"enable_tx_hash_logging"`
	GracefulShutdown     Duration `toml:"graceful_shutdown_seconds" unit:"s"`
	ShutdownTimeout      Duration `toml:"shutdown_timeout"`
	ReadHeaderTimeout    Duration `toml:"read_header_timeout"`
	ReadTimeout          Duration `toml:"read_timeout"`
	WriteTimeout         Duration `toml:"write_timeout"`
	IdleTimeout          Duration `toml:"idle_timeout"`
	TrustedProxies       []string `toml:"trusted_proxies"`
	CORSAllowedOrigins   []string `toml:"cors_allowed_origins"`
	CORSAllowedMethods   []string `toml:"cors_allowed_methods"`
	CORSAllowedHeaders   []string `toml:"cors_allowed_headers"`
	CORSMaxAge           Duration `toml:"cors_max_age"`
	Gzip                 bool     `toml:"gzip"`
}

// Cache is [cache].
type Cache struct {
	Enabled      bool        `toml:"enabled"`
	TTL          Duration    `toml:"ttl"`
	MaxSizeBytes int64       `toml:"max_size_bytes"`
	Coalesce     []string    `toml:"coalesce"`
	Rules        []CacheRule `toml:"rules"`
}

// CacheRule is one of [[cache.rules]].
type CacheRule struct {
	Methods []string `toml:"methods"`
	TTL     Duration `toml:"ttl"`
}

// Redis is [redis], and a group's consensus_ha_redis.
type Redis struct {
	URL              Secret `toml:"url"`
	ReadURL          Secret `toml:"read_url"`
	Namespace        string `toml:"namespace"`
	FallbackToMemory bool   `toml:"fallback_to_memory"`
	RedisCluster     bool   `toml:"redis_cluster"`
}

// Metrics is [metrics].
type Metrics struct {
	Enabled bool   `toml:"enabled"`
	Host    string `toml:"host"`
	Port    int    `toml:"port"`
}

// RateLimit is [rate_limit].
type RateLimit struct {
	UseRedis         bool                      `toml:"use_redis"`
	BaseRate         int64                     `toml:"base_rate"`
	BaseInterval     Duration                  `toml:"base_interval"`
	ExemptOrigins    []string                  `toml:"exempt_origins"`
	ExemptUserAgents []string                  `toml:"exempt_user_agents"`
	ErrorMessage     string                    `toml:"error_message"`
	IPHeaderOverride string                    `toml:"ip_header_override"`
	MethodOverrides  map[string]MethodOverride `toml:"method_overrides"`
	Key              string                    `toml:"key"`
	Shared           bool                      `toml:"shared"`
	MaxKeys          int                       `toml:"max_keys"`
}

// MethodOverride is one of [rate_limit.method_overrides.METHOD].
type MethodOverride struct {
	Limit    int64    `toml:"limit"`
	Interval Duration `toml:"interval"`
	Global   bool     `toml:"global"`
	Shared   bool     `toml:"shared"`
}

// BackendDefaults is [backend]; the article's form has the same keys directly
// under [backends].
type BackendDefaults struct {
	ResponseTimeout    Duration `toml:"response_timeout_seconds" unit:"s"`
	ResponseTimeoutMS  Duration `toml:"response_timeout_milliseconds" unit:"ms"`
	MaxResponseSize    int64    `toml:"max_response_size_bytes"`
	MaxRetries         int      `toml:"max_retries"`
	OutOfService       Duration `toml:"out_of_service_seconds" unit:"s"`
	OutOfServiceAfter  int      `toml:"out_of_service_after"`
	MaxDegradedLatency Duration `toml:"max_degraded_latency_threshold"`
	MaxLatency         Duration `toml:"max_latency_threshold"`
	MaxErrorRate       float64  `toml:"max_error_rate_threshold"`
	DialTimeout        Duration `toml:"dial_timeout"`
}

// Backend is one of [backends.NAME].
type Backend struct {
	RPCURL                       Secret            `toml:"rpc_url"`
	WSURL                        Secret            `toml:"ws_url"`
	WSPort                       int               `toml:"ws_port"`
	Username                     Secret            `toml:"username"`
	Password                     Secret            `toml:"password"`
	Headers                      map[string]Secret `toml:"headers"`
	CAFile                       string            `toml:"ca_file"`
	ClientCertFile               string            `toml:"client_cert_file"`
	ClientKeyFile                string            `toml:"client_key_file"`
	StripTrailingXFF             bool              `toml:"strip_trailing_xff"`
	MaxRPS                       float64           `toml:"max_rps"`
	MaxRPSStrict                 bool              `toml:"max_rps_strict"`
	MaxWSConns                   int               `toml:"max_ws_conns"`
	Weight                       int               `toml:"weight"`
	Provider                     string            `toml:"provider"`
	Role                         string            `toml:"role"`
	Type                         string            `toml:"type"`
	Cost                         float64           `toml:"cost"`
	ChainID                      uint64            `toml:"chain_id"`
	HTTP2                        bool              `toml:"http2"`
	Gzip                         bool              `toml:"gzip"`
	ResponseTimeoutMS            Duration          `toml:"response_timeout_milliseconds" unit:"ms"`
	MaxRetries                   *int              `toml:"max_retries"`
	AllowedStatusCodes           []int             `toml:"allowed_status_codes"`
	ProbeURL                     Secret            `toml:"probe_url"`
	ProbeFailureThreshold        int               `toml:"probe_failure_threshold"`
	ProbeSuccessThreshold        int               `toml:"probe_success_threshold"`
	ProbePeriod                  Duration          `toml:"probe_period_seconds" unit:"s"`
	ProbeTimeout                 Duration          `toml:"probe_timeout_seconds" unit:"s"`
	SkipIsSyncingCheck           bool              `toml:"skip_is_syncing_check"`
	RateLimitRecovery            *Recovery         `toml:"rate_limit_recovery"`
	ConsensusSkipPeerCount       bool              `toml:"consensus_skip_peer_count"`
	ConsensusForcedCandidate     bool              `toml:"consensus_forced_candidate"`
	ConsensusReceiptsTarget      string            `toml:"consensus_receipts_target" env:"value"`
	SafeBlockDriftThreshold      uint64            `toml:"safe_block_drift_threshold"`
	FinalizedBlockDriftThreshold uint64            `toml:"finalized_block_drift_threshold"`
}

// Recovery is [backends.NAME.rate_limit_recovery].
type Recovery struct {
	BackoffMultiplier float64  `toml:"backoff_multiplier"`
	InitialBackoff    Duration `toml:"initial_backoff" unit:"s"`
	MaxBackoff        Duration `toml:"max_backoff" unit:"s"`
	MaxRetries        int      `toml:"max_retries"`
	RequiredSuccesses int      `toml:"required_successes"`
	ResetAfter        Duration `toml:"reset_after" unit:"s"`
}

// Group is one of [backend_groups.NAME].
type Group struct {
	Backends                          []string     `toml:"backends"`
	RoutingStrategy                   string       `toml:"routing_strategy"`
	ConsensusAware                    bool         `toml:"consensus_aware"`
	WeightedRouting                   bool         `toml:"weighted_routing"`
	Fallbacks                         []string     `toml:"fallbacks"`
	MaxAttempts                       int          `toml:"max_attempts"`
	RetryCount                        *int         `toml:"retry_count"`
	RetryDelay                        *Duration    `toml:"retry_delay"`
	FinalErrors                       []any        `toml:"final_errors"`
	TryTimeout                        Duration     `toml:"try_timeout"`
	TotalTimeout                      Duration     `toml:"total_timeout"`
	FailBack                          Duration     `toml:"fail_back"`
	Rank                              Rank         `toml:"rank"`
	PublicFirst                       bool         `toml:"public_first"`
	PublicFirstAttempts               *int         `toml:"public_first_attempts"`
	MaxBlockLag                       *uint64      `toml:"max_block_lag"`
	ReferenceURL                      Secret       `toml:"reference_url"`
	Hedge                             *Hedge       `toml:"hedge"`
	RetryBudget                       *RetryBudget `toml:"retry_budget"`
	MulticallRPCErrorCheck            bool         `toml:"multicall_rpc_error_check"`
	MaxBlockRange                     uint64       `toml:"max_block_range"`
	ConsensusMaxBlockRange            uint64       `toml:"consensus_max_block_range"`
	ConsensusHandler                  string       `toml:"consensus_handler"`
	ConsensusPollerInterval           Duration     `toml:"consensus_poller_interval"`
	ConsensusBanPeriod                Duration     `toml:"consensus_ban_period"`
	ConsensusMaxUpdateThreshold       Duration     `toml:"consensus_max_update_threshold"`
	ConsensusMaxBlockLag              *uint64      `toml:"consensus_max_block_lag"`
	ConsensusMinPeerCount             *int         `toml:"consensus_min_peer_count"`
	ConsensusHA                       bool         `toml:"consensus_ha"`
	ConsensusHAHeartbeatInterval      Duration     `toml:"consensus_ha_heartbeat_interval"`
	ConsensusHALockPeriod             Duration     `toml:"consensus_ha_lock_period"`
	ConsensusHARedis                  Redis        `toml:"consensus_ha_redis"`
	ConsensusCLSyncThreshold          uint64       `toml:"consensus_cl_sync_threshold"`
	ConsensusCLHeadL1MaxAge           Duration     `toml:"consensus_cl_head_l1_max_age"`
	ConsensusCLOutputRootBanThreshold uint         `toml:"consensus_cl_output_root_ban_threshold"`
}

// Rank is [backend_groups.NAME.rank].
type Rank struct {
	Interval    Duration    `toml:"interval"`
	SampleCount int         `toml:"sample_count"`
	Timeout     Duration    `toml:"timeout"`
	PingMethod  string      `toml:"ping_method"`
	Weights     RankWeights `toml:"weights"`
}

// RankWeights are how much speed and reliability count in a rank.
type RankWeights struct {
	Latency   float64 `toml:"latency"`
	Stability float64 `toml:"stability"`
}

// Hedge is [backend_groups.NAME.hedge].
type Hedge struct {
	Delay    string   `toml:"delay"`
	Min      Duration `toml:"min"`
	Max      Duration `toml:"max"`
	MaxExtra int      `toml:"max_extra"`
}

// Batch is [batch].
type Batch struct {
	MaxSize      int    `toml:"max_size"`
	ErrorMessage string `toml:"error_message"`
}

// Filters is [filters].
type Filters struct {
	Mode         string   `toml:"mode"`
	Expiry       Duration `toml:"expiry"`
	MaxPerClient int      `toml:"max_per_client"`
}

// SenderRateLimit is [sender_rate_limit].
type SenderRateLimit struct {
	Enabled         bool     `toml:"enabled"`
	Interval        Duration `toml:"interval"`
	Limit           int64    `toml:"limit"`
	AllowedChainIDs []any    `toml:"allowed_chain_ids"`
}

// InteropValidation is [interop_validation].
type InteropValidation struct {
	URLs                 []Secret        `toml:"urls"`
	Strategy             string          `toml:"strategy"`
	ChainID              uint64          `toml:"chain_id"`
	UnhealthinessTimeout Duration        `toml:"load_balancing_unhealthiness_timeout"`
	ReqSizeLimit         int             `toml:"req_size_limit"`
	AccessListSizeLimit  int             `toml:"access_list_size_limit"`
	MinResponses         int             `toml:"min_responses"`
	SenderRateLimit      SenderRateLimit `toml:"sender_rate_limit"`
}

// TxValidation is [tx_validation_middleware].
type TxValidation struct {
	Enabled  bool     `toml:"enabled"`
	Endpoint Secret   `toml:"endpoint"`
	Methods  []string `toml:"methods"`
	Timeout  Duration `toml:"timeout_seconds" unit:"s"`
	FailOpen *bool    `toml:"fail_open"`
}

// Method is one of [methods."NAME"]: a row for the method table.
type Method = jsonrpc.RowSpec

// ErrorRule is one of [[error_rules]].
type ErrorRule struct {
	Match   string `toml:"match"`
	Code    *int64 `toml:"code"`
	Status  int    `toml:"status"`
	Backend string `toml:"backend"`
	Class   string `toml:"class"`
}
