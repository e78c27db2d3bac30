# Every target installs what it needs first and is quick when nothing is missing (tools/setup.sh).
BIN := .venv/bin
SCENARIOS := $(wildcard examples tests/scenarios)

.DEFAULT_GOAL := help
.PHONY: help setup demo lint test test-slow kernels apiservers fuzz soak bench oracle oracle-cilium testbed lock release docs clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 8

setup: ## install what is missing: Debian packages, kernel headers' link, .venv
	@tools/setup.sh

demo: setup ## two clients of one cluster, kept apart by this machine's kernel
	@$(BIN)/ringfence lab demo

lint: ## style, types, who imports whom
	@tools/setup.sh python
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/clang-format --dry-run --Werror $(wildcard bpf/*.[ch] bpf/lib/*.[ch] enforcer/cni/*.[ch] enforcer/datapath/*.[ch])
	$(BIN)/yamllint --strict $(SCENARIOS)
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports

# WORKERS at a time, a file each: more than two cores have work for, as tests wait for leases, silence
# and servers; each may come to five API servers, 4 GB. tests/conftest.py hands the longest files out first.
WORKERS = $(shell awk '/^MemTotal/ { n = int($$2 / 4e6); print (n > 4 ? 4 : n < 2 ? 2 : n) }' /proc/meminfo)
SPREAD = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 40

test: lint ## lint, then every test (PYTEST="-k wall" for some of them)
	@tools/setup.sh test
	$(BIN)/pytest $(or $(PYTEST),-m "not slow" --cov $(SPREAD))

test-slow: ## the tests that take minutes by nature (marker slow)
	@tools/setup.sh test
	$(BIN)/pytest $(or $(PYTEST),-m slow $(SPREAD))

kernels: ## Debian's own kernels 6.1 and 6.12 under qemu, and this one: load, attach, matrix (minutes)
	@tools/setup.sh kernels
	@$(BIN)/python -m tests.kernels $(ONLY)

# Left out is what asks no API server, what asks for hours or for 100,000 objects whatever its release, and
# real nodes: no kubelet may be newer than its API server.
OF_ANY_RELEASE = $(addprefix --ignore tests/,house soak lab/api/test_floods.py lab/api/real charts/cluster/test_on_a_real_node.py charts/cluster/test_values.py charts/test_packages.py)

apiservers: ## tests of controller, charts and admission on the oldest and the newest API server (an hour; ONLY=1.30)
	@tools/setup.sh test
	@$(BIN)/python -m tests.testbed releases $(ONLY) --pytest $(or $(PYTEST),-m cluster $(OF_ANY_RELEASE) $(SPREAD))

fuzz: setup ## property tests and random frames on new examples for SECONDS (60)
	@tools/setup.sh test
	@end=$$(($$(date +%s) + $(or $(SECONDS),60))); while [ $$(date +%s) -lt $$end ]; do \
		$(BIN)/pytest --quiet --exitfirst --hypothesis-profile many $$(grep --recursive --files-with-matches 'hypothesis import' tests --include='test_*.py') || exit 1; \
	done

oracle-cilium: ## random policies of Cilium's kinds beside a program around its engine (ORACLE=PROGRAM, COUNT=300)
	@tools/setup.sh test
	@$(BIN)/python -m tests.oracle $(ORACLE) $(COUNT)

soak: ## churn and faults on a real API server and real agents for MINUTES (10); a table at its end
	@tools/setup.sh test
	@$(BIN)/python -m tests.soak $(MINUTES)

bench: ## speed and memory beside a baseline (ONLY=name for one)
	@tools/setup.sh bench
	@$(BIN)/python -m bench $(ONLY)

oracle: ## Kyverno's own engine, built (minutes, 5 GB), answers the golden tables anew (ONLY=merges for one)
	@tools/setup.sh test
	@$(BIN)/python -m tests.generators.kyverno.reference $(ONLY)

testbed: ## a real API server for trying things out; prints its kubeconfig, Ctrl-C ends it
	@tools/setup.sh test
	@$(BIN)/python -m tests.testbed up

LOCK := uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 --python-platform linux
lock: ## write the lock files anew from pyproject.toml (UPGRADE=--upgrade for newer versions)
	@tools/setup.sh python
	$(BIN)/$(LOCK) $(UPGRADE) pyproject.toml -o requirements.lock
	$(BIN)/$(LOCK) $(UPGRADE) -c requirements.lock --group build -o requirements-build.lock
	$(BIN)/$(LOCK) $(UPGRADE) -c requirements.lock -c requirements-build.lock --group test --group lint -o requirements-test.lock
	$(BIN)/$(LOCK) $(UPGRADE) --group testbed -o requirements-testbed.lock
	$(BIN)/$(LOCK:linux=x86_64-manylinux_2_31) $(UPGRADE) --group proxy -o requirements-proxy.lock
	for group in release docs; do \
		$(BIN)/$(LOCK) $(UPGRADE) -c requirements.lock -c requirements-test.lock --group $$group -o requirements-$$group.lock || exit 1; \
	done

# URL: where the files will lie; REGISTRY: where the images will.
release: ## everything that a release consists of, in dist/release; the same commit, the same bytes
	@tools/setup.sh release
	@$(BIN)/python -m tools.release dist/release --helm "$$($(BIN)/python -m tests.testbed helm)/helm" \
		$(if $(URL),--url $(URL)) $(if $(REGISTRY),--registry $(REGISTRY))

docs: ## the site in dist/site; a link that leads nowhere fails
	@tools/setup.sh docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean: ## remove what the other targets made in this folder
	rm -rf .venv .cache dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
