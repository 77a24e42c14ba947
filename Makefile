# One door to everything one does with this repository; `make help` lists it.
# Plain pip into .venv; what is installed is remembered by stamp files, so that a second run is fast.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Two at a time: tests that start processes of their own must not starve one another.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest
# A section's heading, then what it runs, then how long that took.
timed = @printf '\n\033[1m== %s\033[0m\n' '$(1)'; start=$$SECONDS; \
	if $(2); then printf '   %s: %d s\n' '$(1)' $$((SECONDS - start)); else printf '   %s: FAILED\n' '$(1)'; exit 1; fi

.PHONY: help
help: ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[36m%-12s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# -- environment -------------------------------------------------------------------------------------------------------

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { echo "flowkit needs Python 3.11 or newer; there is no '$(PYTHON)' here." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "flowkit needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
		echo "This Python lacks the venv module (on Debian or Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv $(VENV)

# A stamp is named by what was asked for; a changed pyproject makes it old.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing flowkit into $(VENV) (a minute, the first time)"
	@$(PIP) install --editable '.[fast]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	@echo "installing flowkit and what its tests need into $(VENV) (a minute or two, the first time)"
	@$(PIP) install --editable '.[fast,test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-browser: pyproject.toml | $(BIN)/python
	@echo "installing JupyterLab and playwright into $(VENV)"
	@$(PIP) install --editable '.[fast,test,browser]'
	@touch $@ $(VENV)/.installed-test $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing flowkit and all that working on it needs into $(VENV)"
	@$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

.PHONY: setup
setup: $(VENV)/.installed-dev ## install everything needed to work on flowkit, hooks included
	@if git rev-parse --git-dir > /dev/null 2>&1; then $(BIN)/pre-commit install > /dev/null; fi
	@echo "ready: source $(BIN)/activate"

# -- look at it --------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.installed ## rank the modules of your own Python, on a cluster in this machine
	@$(BIN)/python examples/import_graph.py

# -- tests -------------------------------------------------------------------------------------------------------------

.PHONY: test
test: test-fast test-faults test-browser ## everything a change must pass: fast tiers, processes and faults, a browser

.PHONY: test-fast
test-fast: check unit machines contracts doctest typing ## the tiers that need no processes (under 2 minutes)

.PHONY: check
check: $(VENV)/.installed-test ## style, types, import contracts, generated pages
	$(call timed,ruff,$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet .)
	$(call timed,mypy,$(BIN)/mypy)
	$(call timed,import contracts,$(BIN)/lint-imports --no-logo)
	$(call timed,generated pages,$(BIN)/python docs/generate.py --check)

.PHONY: unit
unit: $(VENV)/.installed-test
	$(call timed,unit tests,$(PYTEST) tests/unit tests/golden tests/extensions -n $(WORKERS) -q)
	$(call timed,operations in one thread,$(PYTEST) tests/conformance -m 'not cluster' -n $(WORKERS) -q)

.PHONY: machines
machines: $(VENV)/.installed-test
	$(call timed,state machines,$(PYTEST) tests/machines -n $(WORKERS) -q)

.PHONY: contracts
contracts: $(VENV)/.installed-test
	$(call timed,contracts,$(PYTEST) tests/contracts -q)

.PHONY: doctest
doctest: $(VENV)/.installed-test ## run the examples in docstrings
	$(call timed,doctests,$(PYTEST) --doctest-modules flowkit -q)

.PHONY: typing
typing: $(VENV)/.installed-test
	$(call timed,pyright,$(BIN)/pyright --warnings --pythonpath $(BIN)/python)
	$(call timed,inferred types,$(PYTEST) tests/typing -q)

.PHONY: test-faults
test-faults: $(VENV)/.installed-test ## real processes: clusters, then faults, cut networks among them (under 10 minutes)
	@command -v ip > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && echo "installing iproute2" \
		&& apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y iproute2 > /dev/null; } || echo "there is no ip here"
	$(call timed,attack,ATTACK_S=$${ATTACK_S:-3} ATTACK_SEED=$${ATTACK_SEED:-1} $(PYTEST) tests/attack -n $(WORKERS) --dist loadfile -q)
	$(call timed,clusters,$(PYTEST) $(wildcard tests/cluster tests/conformance tests/notebooks tests/stores) -n $(WORKERS) --dist loadfile -q -m 'not soak and not chaos')
	$(call timed,faults,$(PYTEST) tests/chaos tests/network tests/conformance -n $(WORKERS) --dist loadfile -q -m 'chaos and not soak')

.PHONY: attack
attack: $(VENV)/.installed-test ## fuzzers of messages, files, settings and names, ATTACK_S seconds each (half an hour); ATTACK_SEED repeats a run
	$(call timed,attack,ATTACK_S=$${ATTACK_S:-60} $(PYTEST) tests/attack -q --timeout 900)

.PHONY: chaos
chaos: $(VENV)/.installed-test ## every operation under other faults each time, CHAOS times (20 minutes)
	$(call timed,chaos,for round in $$(seq $${CHAOS:-10}); do CHAOS_SEED=$$round $(PYTEST) tests/conformance tests/chaos -n $(WORKERS) \
		--dist loadfile -q -m 'chaos and not soak' || exit 1; done && $(PYTEST) tests/network -q -m chaos)

.PHONY: soak
soak: $(VENV)/.installed-test ## everything at once while everything breaks, for SOAK_S seconds (two hours), figures at its end (SOAK=pipelines: one machine, half an hour)
	$(call timed,soak,$(PYTEST) tests/soak/$(if $(filter pipelines,$(SOAK)),test_soak.py,test_all_at_once.py) -q -m soak)

# As root on Debian the browser is installed too; elsewhere tests say that they were skipped for want of one.
.PHONY: test-browser
test-browser: $(VENV)/.installed-browser ## a real JupyterLab in a real browser (under 3 minutes)
	@command -v chromium > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && echo "installing chromium" \
		&& apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium > /dev/null; } || echo "there is no chromium here"
	$(call timed,browser,$(PYTEST) tests/browser -q)

# -- work on it --------------------------------------------------------------------------------------------------------

.PHONY: fmt
fmt: $(VENV)/.installed-test ## format, and mend what ruff can mend
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .
	@$(BIN)/python docs/generate.py

.PHONY: bench
bench: $(VENV)/.installed ## flowkit beside its peers, same data, same run; writes benchmarks/RESULTS.md
	@$(BIN)/python benchmarks/run.py $(BENCH)

.PHONY: simulate
simulate: $(VENV)/.installed ## the scheduler core on 10,000 simulated executors; writes benchmarks/SIMULATION.md (10 minutes)
	@$(BIN)/python benchmarks/simulate.py --write $(SIMULATE)

.PHONY: docs
docs: $(VENV)/.installed-dev ## build the documentation into build/docs
	@$(BIN)/python docs/generate.py
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

.PHONY: clean
clean: ## remove all that was made here, environments included
	rm -rf $(VENV) .envs .benchdata build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
