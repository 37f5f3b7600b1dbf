# The newcomer's commands: `make demo`, `make test`. `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tests wait more than they compute: two for each core.
JOBS ?= 4
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-fast test-no-llama check bench soak clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv with .venv/bin/skep

$(STAMP): requirements.lock pyproject.toml
	@scripts/setup-venv "$(PYTHON)" "$(VENV)"
	@touch $@

demo: setup ## Run the main job: a fleet, a chat, a cancel, a clean stop
	@$(BIN)/python scripts/demo.py

test: setup ## Pass every test that this machine can run
	@scripts/debian-packages
	@$(BIN)/python -m pytest -n $(JOBS) -m "not slow"

# Compiled modules are kept from run to run, also where the environment says otherwise: each process would compile 1,000.
test-fast: export PYTHONDONTWRITEBYTECODE :=
test-fast: setup ## The unit tests alone, in under a minute
	@$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not nested and not llama and not cuda" tests/tidy tests/unit

test-no-llama: ## The default tests where no llama library is installed
	@scripts/setup-venv "$(PYTHON)" .venv-no-llama xllamacpp
	@.venv-no-llama/bin/python -m pytest -n $(JOBS) -m "not llama and not cuda and not slow"

check: setup ## Every static check
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry src
	@$(BIN)/vulture

bench: setup ## Benchmarks, interleaved, as ratios
	@for b in benchmarks/*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

soak: setup ## The long runs; copy their figures to docs/reliability.md
	@$(BIN)/python -m pytest -m slow -n $(JOBS)

clean: ## Remove what make made
	rm -rf .venv .venv-no-llama .mypy_cache .ruff_cache .pytest_cache .demo .proof_bundle
