# Two commands on a fresh machine: `make demo` and `make test`. Both set themselves up in .venv.

PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false

.PHONY: setup demo study test test-slow check bench ui model clean

setup: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: setup
	$(BIN)/python -m experiments.game24

study: setup
	$(BIN)/python -m experiments.study

test: setup
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layout.py

# Every figure of the searches and their engine; about half an hour.
bench: setup
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-benchmarks.lock
	$(BIN)/python -m experiments.benchmarks.search --json runs/benchmarks-search.json --markdown runs/benchmarks-search.md

# Compare runs in a browser: http://127.0.0.1:5000
ui: setup
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port $(or $(PORT),5000) --workers 1

# Train the embedded base model anew; about half an hour on one core.
model: setup
	$(BIN)/python -m experiments.pretrain_game24 --out runs/embedded-game24 $(if $(CSV),--csv $(CSV))

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
