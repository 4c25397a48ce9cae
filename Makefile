# Two commands do everything: `make run` and `make test`. Each sets up what it needs; nothing but Python 3.11+,
# make and git has to be there before.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready-$(shell cksum pyproject.toml constraints.txt 2>/dev/null | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help run down test test-all bench lint types fix docs generate clean

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A virtual environment that belongs to exactly these requirements.
$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || { echo "Trueup needs Python 3.11.4 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[embedded]' --group dev
	@rm -f $(VENV)/ready-*
	@touch $@

run: $(READY) tools  ## The example specs on this machine, from nothing to a model that replaces itself
	@BIN=$(BIN) sh examples/run.sh

down: $(READY)  ## Stop what `make run` left running
	@sh examples/prometheus.sh stop
	@$(BIN)/reconcile down

# What no Python package brings: a Prometheus answers the checks of a canary, a PostgreSQL is a warehouse. Debian has
# them; elsewhere, what needs them says what it misses.
.PHONY: tools
tools:
	@{ command -v prometheus && ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || \
	  ! command -v apt-get >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -qq -y --no-install-recommends prometheus postgresql; } >/dev/null

test: $(READY) tools  ## All tests
	$(BIN)/pytest -n 4 --dist worksteal -q

test-all: $(READY) tools  ## All tests, the slow suites in full
	TRUEUP_TEST_FULL=1 $(BIN)/pytest -n 4 --dist worksteal -q

bench: $(READY)  ## Benchmarks, each beside a peer or a ceiling measured in the same run
	$(BIN)/python -m tests.benchmarks

lint: $(READY)  ## Style, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/hadolint --config .hadolint.yaml images/*.Dockerfile

types: $(READY)  ## mypy --strict
	$(BIN)/mypy
	$(BIN)/mypy ci/plan.py ci/comment.py

fix: $(READY)  ## Format, and mend what can be mended by itself
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .

docs: $(READY)  ## The documentation, as a site in build/docs
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs

generate: $(READY)  ## Write what is generated: the JSON Schemas, the reference in docs/
	$(BIN)/python -m schemas.generate
	$(BIN)/python -m docs.generate

clean:  ## Everything that make made
	rm -rf $(VENV) .trueup build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
