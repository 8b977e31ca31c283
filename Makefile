# The door to this checkout. Each target is a line of help and a line of work; the work is in deploy/*.sh and cargo.
# Settings come from env.local and, above it, from the environment: FLASK_RUN_PORT=7000 make restart

.DEFAULT_GOAL := help
.PHONY: help build restart restart_fg restart_resp stop status test check clients suites icount bench micro tls abuse soak asan sim fuzz tables dist clean

# SECONDS means something else to bash, so neither is exported; recipes pass them as arguments.
TARGET ?=
SECONDS ?= 60
SOAK = $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS),3600)
SEED ?=
ONLY ?=
unexport TARGET SECONDS SEED

help: ## print this
	@awk -F ':.*## ' '/^[a-z_]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  settings: env.local, or before the command (RESP_PORT=21000 make restart_resp)"

build: ## build the release binary, target/release/nearcache
	cargo build --release --locked

restart: ## build, start in the background (replacing this checkout's instance), print lines to try
	@bash deploy/run.sh restart

restart_fg: ## the same in the foreground, with the log on the terminal
	@bash deploy/run.sh restart_fg

restart_resp: ## restart for the RESP port: if only the HTTP port is taken, run without HTTP
	@bash deploy/run.sh restart_resp

stop: ## stop this checkout's instance, and the Redis that make started if it did
	@bash deploy/run.sh stop

status: ## ports, state, hit ratios, entries and bytes of the running instance
	@bash deploy/run.sh status

test: ## everything: format, lints, docs, all tests, fuzzing for seconds, instructions per hit
	@bash deploy/test.sh

check: ## the fast part of it: format, lints, docs, house rules
	@bash deploy/test.sh check

clients: ## real client libraries: the same with Redis itself and through the proxy
	@bash deploy/test.sh clients

suites: ## Redis's and redis-py's own suites, directly and through the proxy (ONLY=unit/multi); fetches them
	@bash deploy/suites.sh $(ONLY)

icount: ## instructions and system calls per hit beside those committed (UPDATE=1 commits anew)
	@bash deploy/test.sh icount

bench: ## throughput and CPU beside redis-server and what else is installed (PROTO, P, ROUNDS, RATE, SPREAD ...)
	@bash deploy/test.sh bench

micro: ## nanoseconds and longest pauses of parsers, cache and wheel by themselves (ONLY=cache)
	@bash deploy/test.sh micro

tls: ## what TLS costs: hits over it beside hits without, handshakes (ROUNDS, SECONDS_EACH, CONNECTIONS, VALUE)
	@bash deploy/test.sh tls

abuse: ## what abusive clients cost others: memory before, at and after, a well-behaved client's p99
	@bash deploy/test.sh abuse

soak: ## everything at once under faults with a checker, for an hour (SECONDS=600)
	@bash deploy/test.sh soak '$(SOAK)'

asan: ## unit, simulation and end-to-end tests under AddressSanitizer and LeakSanitizer (nightly)
	@bash deploy/test.sh asan

sim: ## many more seeds of the simulation than make test (SIM_SEEDS=20000); SEED=7 replays one, step by step
	@bash deploy/test.sh sim '$(SEED)'

fuzz: ## fuzz one target: make fuzz TARGET=resp_parser SECONDS=60
	@bash deploy/test.sh fuzz '$(TARGET)' '$(SECONDS)'

tables: ## write env.local and the README's table anew from src/config/rows.rs
	UPDATE=1 cargo test --locked --quiet --test house -- env_local_is readme_is

dist: build ## a stripped release binary with its checksum, in target/dist
	@mkdir -p target/dist
	@strip -o target/dist/nearcache $${CARGO_TARGET_DIR:-target}/release/nearcache
	@cd target/dist && { sha256sum nearcache 2>/dev/null || shasum -a 256 nearcache; } | tee nearcache.sha256

clean: stop ## stop, then remove everything that was built
	cargo clean
