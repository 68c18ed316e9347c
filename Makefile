# Everything a person or CI does with this repository. `make` alone tells.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
STAGE := .ci/stage

.PHONY: help
help: ## tells what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## two linked clusters on this machine, from one manifest: needs Rust and a C compiler, no root
	@config/demo.sh

.PHONY: build
build: ## the release binary, target/release/mqlink
	$(CARGO) build --release --locked

.PHONY: fmt
fmt: ## formats the source
	$(CARGO) fmt

.PHONY: setup
setup: ## what the tests need beyond Rust: the mosquitto clients and paho (installs as root, else names it)
	@$(STAGE) setup tests/setup.sh

.PHONY: check
check: ## format, lints, dependencies' licences and sources
	@$(STAGE) fmt $(CARGO) fmt --check
	@$(STAGE) clippy $(CARGO) clippy --locked --all-targets --quiet -- -D warnings
	@$(STAGE) deny tests/deny.sh

.PHONY: test
test: setup check ## all that CI runs
	@$(STAGE) build $(CARGO) test --locked --no-run --quiet
	@$(STAGE) unit $(CARGO) test --locked --lib --bins
	@$(STAGE) outside $(CARGO) test --locked --test '*'
	@$(STAGE) doctest $(CARGO) test --locked --doc
	@$(STAGE) doc env RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --quiet

.PHONY: crds
crds: ## writes crds/ from the Rust types
	UPDATE_CRDS=1 $(CARGO) test --locked --quiet --lib api::crd

.PHONY: bench
bench: ## measures mqlink beside mosquitto and writes docs/performance.md (about 10 minutes)
	@benches/run.sh

# Where Cargo puts what it builds.
TARGET = $(or $(CARGO_TARGET_DIR),target)

.PHONY: image
image: build ## the image of broker and operator without Docker, target/mqlink-image.tar
	@image/build.sh $(TARGET)/release/mqlink $(TARGET)/mqlink-image.tar

.PHONY: cluster
cluster: ## a Kubernetes cluster on this machine, for tests (Debian, root; docs/e2e.md)
	@e2e/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## ends it, and leaves nothing
	@e2e/cluster/down.sh

.PHONY: cluster-test
cluster-test: image ## proves the clusters and the image (2 minutes)
	@e2e/cluster/selftest.sh $(TARGET)/mqlink-image.tar
