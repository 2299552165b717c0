# Everything sets itself up: only Python 3.11+, make and git are needed. VENV=path reuses an environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.nightloom-ready
PRESET ?= movies-small
NAME ?= $(PRESET)
ARGS ?=
export PREFECT_HOME ?= $(CURDIR)/mlruns/prefect
export MLFLOW_DISABLE_TELEMETRY = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1
export GX_ANALYTICS_ENABLED = false

.DEFAULT_GOAL := help
.PHONY: help setup nightly serve test test-postgres test-ray test-recovery check audit fuzz ui bench-training bench-serving bench-scale

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  First steps with tables of your own, after make setup:"
	@echo "    $(BIN)/nightloom init ratings.csv movies.csv -o mine.yaml"
	@echo "    $(BIN)/nightloom check mine.yaml"
	@echo "    $(BIN)/nightloom night mine.yaml"

setup: $(READY)  ## .venv (or VENV=path) with all that a night needs, some minutes, once

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with make PYTHON=..."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python deployment/get_pip.py
	@echo "Setting up $(VENV) (some minutes, once) ..."
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[night,serve,dev]'
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # some packages hold templates that are no Python
	@touch $@

nightly: setup  ## one night of a preset: PRESET=movies-small, ARGS=--force
	@$(BIN)/python -m flows.nightly --preset $(PRESET) $(ARGS)

serve: setup  ## the service, after a night: NAME=movies-small, ARGS="--port 8000"
	@$(BIN)/nightloom serve $(NAME) $(ARGS)

ui: setup  ## Prefect's and MLflow's pages and a worker, until Ctrl-C
	@bash deployment/ui.sh $(abspath $(BIN))

bench-training: setup  ## training speed beside other libraries: PRESET=, ARGS=
	@$(BIN)/python -m benchmarks.training --preset $(PRESET) $(ARGS)

bench-serving: setup  ## the service beside others, and under load: NAME=
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks.serving_http $(NAME) --steady 120
	@$(BIN)/python -m benchmarks.serving_load --name $(NAME)

bench-scale: setup  ## collect, validate and prepare as events grow: ARGS="--events 1000000 10000000"
	@$(BIN)/python -m benchmarks.scale $(ARGS)

test: setup  ## the tests: ARGS=tests/unit/cli
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-ray: setup  ## training on several nodes, by Ray and without: a worker killed, a node lost
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "cluster or not cluster" tests/unit/training/test_ray.py tests/unit/training/test_ray_errands.py tests/unit/training/test_ray_at_once.py tests/unit/training/test_nodes.py tests/unit/training/test_text_tuning.py tests/flows/test_ray_night.py $(ARGS)

test-postgres: setup  ## MLflow, Prefect and the service's store on a real PostgreSQL, and all other tests that need one
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 NIGHTLOOM_TESTS_MAY_SKIP= $(BIN)/python -m pytest $$(grep -rl --include='test_*.py' tests.postgres_server tests) $(ARGS)

test-recovery: setup  ## nights killed at every stage and call, servers that go away, on PostgreSQL and S3
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 NIGHTLOOM_TESTS_MAY_SKIP= $(BIN)/python -m pytest -m 'recovery or not recovery' --timeout 3000 tests/recovery $(ARGS)

check: setup  ## format, lint, types and layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fuzz: setup  ## config, table readers and bundle loader fuzzed, guided by coverage: TARGET=table ARGS=-max_total_time=600
	@test -d $(VENV)-fuzz/atheris || $(BIN)/python -m pip install --quiet --no-deps --target $(VENV)-fuzz atheris
	@PYTHONPATH=$(VENV)-fuzz $(BIN)/python -m tests.fuzz $(or $(TARGET),config) $(or $(ARGS),-max_total_time=60) -artifact_prefix=mlruns/

audit:  ## known faults of the pinned libraries (asks PyPI)
	@test -x $(VENV)-audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)-audit && $(VENV)-audit/bin/pip install --quiet pip-audit; }
	@$(VENV)-audit/bin/pip-audit --strict --progress-spinner off --requirement constraints.txt --no-deps --disable-pip || { \
		echo "make audit: not clean. Above are known faults, or PyPI could not be asked (ERROR): then nothing is said of the libraries." >&2; exit 1; }
