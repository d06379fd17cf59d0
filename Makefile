# Everything a newcomer needs: `make demo` shows blin at work, `make test` checks it.
# Another Python: `make demo PYTHON=python3.12`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUST := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock

# One interpreter for pip and for cargo, so that neither rebuilds what the other built.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint bench

help:
	@echo 'make demo   install blin into .venv and run it on its built-in sample log'
	@echo 'make test   lint, then run every Rust and Python test'
	@echo 'make slow   the tests that take minutes: kills at random moments, files that fill the memory'
	@echo 'make lint   formatting, types, stubs and lints only'
	@echo 'make bench  measure the data engine against other tools, sessions and evaluation'

demo: $(VENV)/installed
	$(BIN)/blin demo

test: lint
	cargo test --locked
	$(BIN)/python -m pytest

slow: $(VENV)/developed
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/developed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest blin._core
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

bench: $(VENV)/developed
	$(BIN)/python benches/ingest.py
	$(BIN)/python benches/batches.py
	$(BIN)/python benches/session.py
	$(BIN)/python benches/evaluate.py

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { echo 'blin needs Python 3.10 or newer: install it from https://www.python.org, or name one: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'this Python has no venv module: install it, e.g. `apt install python3-venv`' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The core is compiled here, so cargo is asked for before pip says so in its own way.
$(VENV)/installed: $(VENV)/created pyproject.toml $(RUST)
	@cargo --version >/dev/null 2>&1 || { echo 'blin needs a Rust toolchain (1.85 or newer): install it from https://rustup.rs, then open a new shell' >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/developed: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
