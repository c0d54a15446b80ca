# One file for people; .ci/run calls the same targets.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TESTS ?= tests

.PHONY: setup setup-dev demo test check check-long bench docs serve sbom clean

setup: $(VENV)/.server-ready
setup-dev: $(VENV)/.dev-ready

# The stamp is rewritten when the pinned requirements change, so a second run is quick.
$(VENV)/.server-ready: requirements/server.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (first time: about a minute)"
	@$(PIP) install -q --require-hashes -r requirements/server.txt
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev-ready: $(VENV)/.server-ready requirements/dev.txt
	@echo "adding the test tools"
	@$(PIP) install -q --require-hashes -r requirements/dev.txt
	@touch $@

demo: setup
	@$(BIN)/clearinghouse demo --out demo-report

# Three workers keep two cores busy: tests also wait for processes, databases and time.
test: setup-dev
	@$(BIN)/python -m pytest $(TESTS) -n 3 --dist loadfile --no-loadscope-reorder

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_docs.py

check-long: setup-dev
	$(BIN)/python -m pytest tests -m long -o addopts=""

bench: setup-dev
	$(BIN)/python -m benchmarks all --quick

docs: setup
	@$(BIN)/python scripts/check_docs.py

serve: setup
	$(BIN)/clearinghouse serve

# What an image is made of, by name, version and hash: CycloneDX 1.5, from the pinned list alone.
sbom:
	@$(PYTHON) scripts/sbom.py requirements/server.txt > sbom.json
	@echo "wrote sbom.json"

clean:
	rm -rf $(VENV) demo-report .mypy_cache .ruff_cache .pytest_cache
