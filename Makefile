# Two commands are enough: `make run` and `make test`. Each sets up all it needs, on a fresh machine with a Rust toolchain.
# `make run PROFILE=release` builds with optimisation; ARGS goes to the program, as in `make run ARGS=--simulate-providers`.

PROFILE ?= dev
ARGS ?=
CARGO ?= cargo

.PHONY: help run test drill fmt lint bench setup setup-tests

help:
	@printf '%s\n' \
		'make run     set up, build and start the server (simulated providers when none is configured)' \
		'make test    set up, then format check, lints and every test' \
		'make drill NAME=database_lost  one of the runbook'"'"'s emergencies, at length; without a name they are listed' \
		'make fmt     format the code' \
		'make lint    format check, clippy with warnings denied, licences when cargo-deny is there' \
		'make bench   set up, then measure the log, replay, a rebuild beside callers, the book and the gateway beside their baselines (optimised build)'

run: setup
	$(CARGO) run --locked --profile $(PROFILE) --package calos-api --bin calos -- serve $(ARGS)

# What promises something within a time is measured alone: beside other tests the machine would be measured. These are
# parts of names, as in .config/nextest.toml.
ALONE := within_a_second two_servers_share_one_wallet_and_one_key a_database_that_ a_lost_database

# The crash tests drive the built programs, which cargo does not build for tests. Without cargo-nextest everything else runs
# first, then what is measured alone; either may fail, and both are run.
test: setup setup-tests lint
	$(CARGO) build --locked --workspace --bins
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		set -x; $(CARGO) nextest run --locked --workspace --no-fail-fast; \
	else \
		set -x; failed=0; \
		$(CARGO) test --locked --workspace --no-fail-fast -- $(addprefix --skip=,$(ALONE)) || failed=1; \
		$(CARGO) test --locked --workspace --no-fail-fast --tests -- --test-threads=1 $(ALONE) || failed=1; \
		exit $$failed; \
	fi

# The drills of `make test`, twenty times as long; CALOS_DRILL_FACTOR says how many times.
drill: setup
	@sh scripts/drill.sh $(NAME)

fmt: setup
	$(CARGO) fmt --all

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		set -x; $(CARGO) deny --locked check bans licenses sources; \
	fi

bench: setup
	$(CARGO) build --locked --release --package calos-bench --package calos-api --package calos-replay
	$(CARGO) run --locked --release --package calos-bench -- append $(ARGS)
	$(CARGO) run --locked --release --package calos-bench -- replay $(ARGS)
	$(CARGO) run --locked --release --package calos-bench -- live $(ARGS)
	$(CARGO) run --locked --release --package calos-bench -- gateway $(ARGS)
	$(CARGO) run --locked --release --package calos-bench -- ledger $(ARGS)

setup:
	@sh scripts/setup.sh
	@$(CARGO) fetch --locked --quiet

setup-tests: setup
	@sh scripts/setup.sh tests
