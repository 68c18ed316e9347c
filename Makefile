# Everything a person or CI does with this repository. `make` alone tells.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
STAGE := .ci/stage
# Where Cargo puts what it builds.
TARGET = $(or $(CARGO_TARGET_DIR),target)

.PHONY: help
help: ## tells what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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
	@$(STAGE) fuzz env RUSTFLAGS="--cfg fuzzing -D warnings" $(CARGO) check --locked --quiet --manifest-path fuzz/Cargo.toml --bins --no-default-features

.PHONY: counts
counts: ## instructions of codec, routing, sessions and fan-out, against the committed figures
	@$(STAGE) counts benches/counts/run

.PHONY: test
test: setup check counts ## all tests that need no pods; those of the operator with a real API server
	@$(STAGE) apiserver e2e/cluster/tools.sh api
	@$(STAGE) build $(CARGO) test --locked --no-run --quiet
	@CARGO=$(CARGO) .ci/tests
	@$(STAGE) doctest $(CARGO) test --locked --doc
	@$(STAGE) doc env RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --quiet

.PHONY: e2e
e2e: ## mqlink on Kubernetes, end to end, on a cluster of its own or that of KUBECONFIG (docs/e2e.md)
	@[ -n "$${KUBECONFIG-}" ] || $(STAGE) release $(CARGO) build --release --locked --quiet
	@e2e/run.sh $(TARGET)/release/mqlink $(E2E)

.PHONY: e2e-nodes
e2e-nodes: ## the same where Kubernetes nodes are emptied and die: on a cluster with three (2 minutes)
	@NODES=3 $(MAKE) --no-print-directory e2e

.PHONY: crds
crds: ## writes crds/ from the Rust types
	UPDATE_CRDS=1 $(CARGO) test --locked --quiet --lib api::crd

.PHONY: bench
bench: ## measures mqlink beside mosquitto and writes docs/performance.md (about 13 minutes)
	@benches/run.sh

# Not part of `make test`: it installs from five registries, with Node, Go and Java. For a person, after changes of what clients see.
.PHONY: clients
clients: build ## runs the broker with the clients that people have, writes docs/clients.md (3 minutes)
	@e2e/clients/install.sh
	@e2e/clients/run.py --broker $(TARGET)/release/mqlink

.PHONY: bench-operator
bench-operator: build ## measures the operator against a real API server, 1,000 links (docs/performance-operator.md)
	@KUBEBUILDER_ASSETS=$$(e2e/cluster/tools.sh api) benches/operator.py $(TARGET)/release/mqlink

.PHONY: soak
soak: build ## hostile crowds of 100,000 connections, and what a bystander feels (3 minutes, much memory)
	@benches/soak.sh

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
	@$(STAGE) selftest e2e/cluster/selftest.sh $(TARGET)/mqlink-image.tar
