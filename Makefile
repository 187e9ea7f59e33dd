# Every target sets up .venv itself and is quick when it is already set up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test test-slow lint types bench clean help

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

quickstart: $(READY) ## train the embedded model from nothing and show before and after
	$(BIN)/llmalign train quickstart --overwrite

test: $(READY) ## the default tests: CPU, offline
	$(BIN)/python -m pytest -q

test-slow: $(READY) ## what the default leaves out: slow tests, and those in a headless browser
	$(BIN)/python -m pytest -q -m "(slow or browser) and not vllm and not dist and not gpu"

lint: $(READY) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy
	$(BIN)/mypy

bench: $(READY) ## seconds per step beside TRL, in one run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[trl]'
	$(BIN)/python benchmarks/vs_trl.py

clean: ## remove the environment and everything built (runs/ stays)
	rm -rf $(VENV) .ci-venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first and pinned: another package's range would pull another build of it.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old, expected Python 3.11 or newer; say make PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
