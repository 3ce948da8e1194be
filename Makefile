# Needs Python 3.11+ and make, nothing else: what is installed goes into .venv, what runs keeps its state in .pipeline.
# PYTHON=python3.12 chooses the interpreter, ARGS="..." passes options on (make up ARGS="--workers 4").

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed

UV_VERSION := $(shell sed -n '/^name = "uv"$$/{n;s/^version = "\(.*\)"$$/\1/p;}' uv.lock)
# Without a cache of the caller's choosing nothing outside .venv is written.
UV_CACHE := $(if $(UV_CACHE_DIR),,--no-cache)
PIP_CACHE := $(if $(UV_CACHE_DIR),,--no-cache-dir)

# A .venv of another place (a moved or copied checkout) does not work here.
INSTALLED_AT := $(shell cat $(STAMP) 2>/dev/null)
ifneq ($(INSTALLED_AT),$(CURDIR))
.PHONY: $(STAMP)
endif

.DEFAULT_GOAL := help
.PHONY: help install up down demo dev test faults celery check clean
.NOTPARALLEL:

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

install: $(STAMP) ## what the platform needs, into .venv (the other targets do it)
	@:

$(STAMP): uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { \
	  echo "Python 3.11 to 3.14 is needed; '$(PYTHON)' is not: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@if [ -n "$(INSTALLED_AT)" ] && [ "$(INSTALLED_AT)" != "$(CURDIR)" ]; then rm -rf .venv; fi
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv || { \
	  rm -rf .venv; \
	  echo "'$(PYTHON)' cannot make virtual environments: install its venv module (Debian, Ubuntu: python3-venv)" >&2; \
	  exit 1; }
	@echo "installing into .venv" >&2
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_CACHE) "uv==$(UV_VERSION)"
	@# An empty UV_CACHE_DIR would be taken as a directory without a name.
	@$(if $(UV_CACHE_DIR),,env -u UV_CACHE_DIR) UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON_DOWNLOADS=never \
	  $(BIN)/python -m uv sync --frozen --quiet --system-certs --python $(BIN)/python $(UV_CACHE)
	@echo "$(CURDIR)" > $(STAMP)

up: $(STAMP) ## start everything, print the addresses, stop it all on Ctrl-C
	@$(BIN)/pipeline-platform up $(ARGS)

demo: $(STAMP) ## a migration from a failing pipeline, played and measured in minutes
	@$(BIN)/pipeline-platform demo $(ARGS)

down: ## stop what runs here and wait until it is gone
	@if [ -x $(BIN)/pipeline-platform ]; then $(BIN)/pipeline-platform down; else echo "nothing is installed here"; fi

dev: $(STAMP) ## the same for work on the definitions: Dagster loads them anew when its UI is asked to
	@$(BIN)/python -m pipeline_platform.local.supervisor --dagster-dev $(ARGS)

# Two processes, a file each at a time, the longest first; nothing chosen (5) is no failure.
test: $(STAMP) ## all tests, on servers of their own (ARGS="-k name" chooses)
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS) || [ $$? -eq 5 ]

faults: $(STAMP) ## kill and stop each process of a backfill, five times: two hours
	@$(BIN)/pytest -m long -s pipeline_platform_tests/scenarios/test_a_backfill_survives_whatever_dies.py $(ARGS)

celery: $(STAMP) ## a backfill on two Celery workers, one of them killed: three minutes
	@$(BIN)/pytest -m long pipeline_platform_tests/scenarios/test_runs_on_several_machines.py $(ARGS)

check: $(STAMP) ## lint, format, types, layers, dead code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/vulture

clean: ## remove .venv and caches; the data in .pipeline stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find pipeline_platform pipeline_platform_tests -name __pycache__ -type d -prune -exec rm -rf {} +
