# Everything a person types. `run` and `test` make .venv and install by themselves.

PYTHON ?= python3
BIN := .venv/bin
OUTPUT ?= outputs
KILLS ?= 100
# One arena per thread and no trimming: on a CPU this halves the time that page faults cost.
export MALLOC_MMAP_THRESHOLD_ ?= 4000000000
export MALLOC_TRIM_THRESHOLD_ ?= 8000000000

.DEFAULT_GOAL := help
.PHONY: help run quick test check parity cluster soak bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || echo "uv can't be had here: installing with pip"
	if [ -x $(BIN)/uv ]; then $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable . --group dev; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip \
	     && $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev; fi
	touch $@

run: .venv/installed  ## edit embedded clips with the embedded models (two minutes on 2 cores) and say where to look
	$(BIN)/python -m assd.run +experiment=quick output=$(OUTPUT)

quick: .venv/installed  ## run the tests of the unit tier (a minute and a half on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m unit -n 2 --dist loadfile --no-loadscope-reorder

test: .venv/installed  ## run all tests (no network, no GPU)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

parity: .venv/installed  ## compare the five published editors with their authors' numbers, below ASSD_PARITY
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/parity -n 2

cluster: .venv/installed  ## run a sweep on a real Slurm, preempted and robbed of a node (tests/cluster/slurm.sh install)
	$(BIN)/python -m pytest tests/cluster

soak: .venv/installed  ## kill a run KILLS times at random moments and compare what is left in the end
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak --kills $(KILLS)

check: .venv/installed  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: .venv/installed  ## ratios of things timed side by side
	$(BIN)/python -m experiments.bench

clean:  ## remove the environment and caches; outputs stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
