# Every target does its own set-up: a virtual environment with pinned packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# An environment variable, so that it also pins what builds the package.
export PIP_CONSTRAINT := constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench bench-check bench-monitor bench-faults conformance clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## train two networks on digits and see where the gradient goes
	$(BIN)/python -m experiments.vanishing

test: lint ## lint, types, import contracts, then every test
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY) ## ruff, pyright and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

conformance: $(READY) ## print what holds of every op, and of every way to train watched
	$(BIN)/python -m tests.conformance
	$(BIN)/python -m tests.monitor.settings

bench: $(READY) ## layers and optimizers against torch's, and what a start costs
	$(BIN)/python -m experiments.bench.layers
	$(BIN)/python -m experiments.bench.optim
	$(BIN)/python -m experiments.bench.overhead

bench-check: $(READY) ## the gradient checker against torch's: what each finds, how fast
	$(BIN)/python -m experiments.bench.check

bench-monitor: $(READY) ## what watching costs, beside Lightning's grad_norm and histograms
	$(BIN)/python -m experiments.bench.monitor

bench-faults: $(READY) ## planted faults: what each rule finds, and how often it cries wolf
	$(BIN)/python -m experiments.bench.faults

clean: ## remove the environment, the caches and the runs
	rm -rf $(VENV) runs build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gradlab needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another one: make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch and what gradlab needs into $(VENV); this takes some minutes."
	$(BIN)/python -m pip install --quiet --progress-bar on --editable '.[experiments,dev]'
	@touch $@
