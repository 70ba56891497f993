# Everything a developer, a user of a fresh clone and CI call; `make help` tells.

CARGO ?= cargo

.PHONY: help demo build test test-fast test-boot lint bench fuzz release clean

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Build nodeforge and, with throw-away secrets, the reference cluster
	scripts/demo

build: ## The optimised binary, for this machine: target/release/nodeforge
	$(CARGO) build --release --locked

test: ## Install what the tests need, then lint, unit tests, judges and boot tests
	scripts/run-stages setup lint unit judges boot nodes

test-fast: ## Without boot tests, and without installing anything
	scripts/run-stages unit judges

test-boot: ## The boot tests alone: kernels, network boots, media, a lab, whole nodes
	scripts/run-stages setup boot nodes

lint: ## rustfmt, clippy, shellcheck
	scripts/run-stages lint

bench: build ## Measure builds and, beside them, what others do: docs/benchmarks.md
	scripts/bench.py $${CARGO_TARGET_DIR:-target}/release/nodeforge

fuzz: ## Each fuzz target for a minute, on nightly; FUZZ_SECONDS=10 for less
	scripts/fuzz

release: ## A binary that runs on EL8 (glibc 2.28) too: dist/nodeforge
	scripts/release

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf dist
