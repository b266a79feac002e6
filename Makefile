# Every target works on a fresh clone: it makes its own virtual environment and installs what is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# `make faults FAULTS=long` runs the full figures of tests/faults; the short ones are part of every `make test`.
FAULTS ?= short

.PHONY: demo serve worker test check lint types unit faults soak train-demo clean

demo: $(VENV)/.runtime
	@$(BIN)/python -m backend.demo

serve: $(VENV)/.runtime
	@$(BIN)/python -m backend.serve

# One GPU worker of many; the settings say where PostgreSQL, Redis and the files are (docs/operations.md).
worker: $(VENV)/.cluster
	@$(BIN)/python -m backend.worker

test: check

check: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy backend training benchmarks

# One thread a process: two processes with two threads each would wait for one another.
unit: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

faults: $(VENV)/.dev
	OMP_NUM_THREADS=1 FAULTS=$(FAULTS) $(BIN)/python -m pytest tests/faults

soak: $(VENV)/.dev
	OMP_NUM_THREADS=1 FAULTS=long $(BIN)/python -m pytest tests/faults -k soak

train-demo: $(VENV)/.dev
	$(BIN)/python -m training.train_demo

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.cluster: requirements-cluster.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-cluster.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) outputs .mypy_cache .ruff_cache .pytest_cache
