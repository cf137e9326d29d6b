# `make` lists the targets. Needed: Python 3.11 or newer, git and make; the rest goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
# Processes that test at once, each with one thread for numbers.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo up test lint typecheck imports bench format clean

help:  ## this list
	@echo "make TARGET [ARGS=...] [PYTHON=python3.12]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1  \2/p' $(firstword $(MAKEFILE_LIST)) | awk '{n=$$1; $$1=""; printf "  %-10s%s\n", n, $$0}'

demo: $(READY)  ## the whole job in five minutes: submit, train, predict, verify; answer in demo/
	@$(BIN)/scalewise demo $(ARGS)

up: $(READY)  ## keep the service up on loopback: API, orchestrator with local Ray, MLflow
	@$(BIN)/scalewise up $(ARGS)

test: $(READY)  ## every test; ARGS="tests/unit -k spec" for some
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY)  ## style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

typecheck: $(READY)  ## strict types
	@$(BIN)/mypy

imports: $(READY)  ## which package may import which
	@$(BIN)/lint-imports

bench: $(READY)  ## every benchmark, each prints a table
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

format: $(READY)  ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove the environment, caches and what the demo left; .scalewise stays
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("Python %d.%d given; 3.11 or newer is needed: make PYTHON=python3.12" % v)'
	@echo "[1/2] creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/2] installing $$(grep -c == constraints.txt) packages into $(VENV); minutes the first time (log: $(VENV)/setup.log)"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]' > $(VENV)/setup.log 2>&1 \
		|| { tail -n 20 $(VENV)/setup.log; echo "the set-up failed; above is the end of $(VENV)/setup.log"; exit 1; }
	@touch $@
