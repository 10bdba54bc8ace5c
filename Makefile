# Everything a developer types. `make` alone explains the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help setup run test soak lint format types imports check bench lock clean

help: ## Explain the targets
	@echo "Ledgerdesk: make <target>"
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-9s %s\n", $$1, $$2 }'

setup: $(STAMP) ## Create .venv with the locked dependencies and the command desk

# The project itself is built with the locked setuptools (no isolation), so nothing unlocked is ever fetched.
$(STAMP): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Ledgerdesk needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true). Name another with: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: setup ## Start the desk on 127.0.0.1:8000 with a small demo
	@exec $(BIN)/desk run

test: setup ## Run the tests on a PostgreSQL of their own (DESK_POSTGRES_VERSION=16), or on DATABASE_URL's
	@$(BIN)/python -m pytest

soak: setup ## Break the desk for 20 minutes, with a seed to repeat it (SOAK_SECONDS, SOAK_SEED)
	@exec $(BIN)/python -m tests.faults.soak

lint: setup ## Look for defects and for untidy form
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

format: setup ## Tidy the form of the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

types: setup ## Check the types
	@$(BIN)/mypy

imports: setup ## Check which package may import which
	@$(BIN)/lint-imports --no-logo

check: lint types imports test ## Everything that must hold before a change lands

bench: setup ## Measure against the plain way and bare PostgreSQL
	@$(BIN)/desk bench append
	@$(BIN)/desk bench append --flush-delay 2000
	@$(BIN)/desk bench commands
	@$(BIN)/desk bench commands --rate 1000
	@$(BIN)/desk bench hot-ticket
	@$(BIN)/desk bench rebuild
	@$(BIN)/desk bench rebuild --all
	@$(BIN)/desk bench catch-up
	@$(BIN)/desk bench visible
	@$(BIN)/desk bench rebuild-beside
	@$(BIN)/desk bench deadlines

lock: setup ## Write the requirements files anew, with hashes
	@$(PYTHON) -m venv $(VENV)/lock
	@$(VENV)/lock/bin/pip install --quiet pip-tools
	@for extra in "requirements.txt" "requirements-dev.txt --extra dev"; do \
	  CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/lock/bin/pip-compile --quiet --generate-hashes --strip-extras \
	    --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file $$extra pyproject.toml; \
	done

clean: ## Remove the environment and everything the tools left (never the desk's data)
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build ./*.egg-info
	@find . -name __pycache__ -type d -not -path './.desk/*' -prune -exec rm -rf {} +
