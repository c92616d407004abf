# Two commands do everything: `make run` and `make test`. What they need beside
# Go, make installs.

GO ?= go
BIN := bin/proxyd
# A count, not a time: Go before 1.27 may report the end of a time as a failure
# (go.dev/issue/75804).
FUZZTIME ?= 200000x
SOAK_SECONDS ?= 600
STATICCHECK := $(GO) tool -modfile=tools/go.mod staticcheck
part = ./scripts/part

.PHONY: run build test unit race e2e soak lint fmt fuzz bench bench-check bench-clients microbench tools clean

run: build ## the gateway in front of a small chain of its own
	$(BIN) demo

build: ## bin/proxyd
	$(GO) build -o $(BIN) ./cmd/proxyd

test: ## everything a change must pass; each part prints its time
	@$(part) build $(MAKE) --no-print-directory build
	@$(part) lint $(MAKE) --no-print-directory lint
	@$(part) unit $(MAKE) --no-print-directory unit
	@$(part) race $(MAKE) --no-print-directory race
	@$(part) fuzz $(MAKE) --no-print-directory fuzz FUZZTIME=20000x
	@$(part) bench $(MAKE) --no-print-directory bench-check
	@$(part) e2e $(MAKE) --no-print-directory e2e
	@$(part) --summary

unit: ## tests beside the code
	$(GO) test ./bench/... ./cmd/... ./proxyd/...

race: ## the same under the race detector
	$(GO) test -race ./cmd/... ./proxyd/...

e2e: tools ## the built program with real nodes and real clients
	$(GO) test -count=1 -timeout 20m ./integration_tests/...
	PROXYD_RACE=1 CHURN_SECONDS=5 $(GO) test -count=1 -timeout 20m -run 'Failover|Churn' ./integration_tests/...

soak: ## WebSocket clients come and go for SOAK_SECONDS; nothing of them may stay
	CHURN_SECONDS=$(SOAK_SECONDS) $(GO) test -count=1 -timeout 0 -run Churn -v ./integration_tests/...

tools: ## geth, anvil, viem and ethers, as pinned
	@./scripts/install-test-tools

lint: ## gofmt, vet, staticcheck
	@out=$$(gofmt -l bench cmd proxyd integration_tests); test -z "$$out" || { echo "not gofmt-clean, run make fmt: $$out" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) vet -C bench/clients ./...
	$(STATICCHECK) ./...

fmt: ## format all Go files
	gofmt -w bench cmd proxyd integration_tests

fuzz: ## each fuzz target for FUZZTIME: inputs like 200000x, or a time like 30s
	@./scripts/fuzz $(FUZZTIME)

bench: tools ## this gateway beside plain proxies, in one run (BENCH_SECONDS=1 for a short one)
	$(GO) run ./bench

bench-check: tools ## the benchmark for its answers, not its times
	BENCH_SECONDS=1 BENCH_ROUNDS=1 $(GO) run ./bench

bench-clients: ## the HTTP clients that could ask upstreams
	$(GO) run -C bench/clients .

microbench: ## Go benchmarks of the hot functions
	$(GO) test -run '^$$' -bench . -benchmem ./proxyd/...

clean: ## remove what was built
	rm -rf bin tools/bin integration_tests/node/node_modules
