# Every target works on a fresh clone: it makes its own virtual environment and installs what is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
COMPILE ?= --compile

# `make faults FAULTS=long` runs the full figures of tests/faults, and as many requests as the API's document gives; the
# short ones are part of every `make test`.
FAULTS ?= short
FAULTY = tests/faults $(if $(filter long,$(FAULTS)),tests/integration/test_openapi_fuzz.py)

.PHONY: install demo serve cluster worker test check lint audit sbom types unit programs faults soak alerts outside train-demo train-cutout clean

install: $(VENV)/.runtime

demo: $(VENV)/.runtime
	@$(BIN)/orfeas demo

serve: $(VENV)/.runtime
	@$(BIN)/orfeas serve

# What web processes and workers on many machines need beside the rest: Celery, Redis' and PostgreSQL's clients.
cluster: $(VENV)/.cluster

# One GPU worker of many; the settings say where PostgreSQL, Redis and the files are (docs/operations.md).
worker: $(VENV)/.cluster
	@$(BIN)/orfeas worker

test: check

# Programs are installed beside Python's packages, which are compiled as they are imported: most never are. Types are
# checked on one core while the tests begin on the others.
check: $(VENV)/bin/python
	@$(MAKE) --no-print-directory -j2 COMPILE=--no-compile programs $(VENV)/.dev
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory -j2 types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive backend orfeas_client

# Versions with known holes; wants PyPI's own index, which has the database.
audit: $(VENV)/.dev
	$(BIN)/python -m pip --disable-pip-version-check install --quiet pip-audit==2.10.1
	$(BIN)/pip-audit -r requirements.txt -r requirements-cluster.txt

# What is installed, by version and licence, as CycloneDX.
sbom: $(VENV)/.dev
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-file orfeas.cdx.json $(BIN)/python

types: $(VENV)/.dev
	$(BIN)/mypy backend orfeas_client training benchmarks tests

# A process more than there are cores, since services that start are waited for, and one thread in each: two processes
# with two threads each would wait for one another. What is compiled is kept, even where PYTHONDONTWRITEBYTECODE is set:
# hundreds of processes are started, and each would compile all of it.
PROCESSES ?= $(shell expr $$(nproc) + 1)
unit: $(VENV)/.dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal

# First of all, so that who must install something hears of it at once.
programs:
	@tests/support/install-programs.sh

faults: $(VENV)/.dev
	OMP_NUM_THREADS=1 FAULTS=$(FAULTS) $(BIN)/python -m pytest $(FAULTY)

soak: $(VENV)/.dev
	OMP_NUM_THREADS=1 FAULTS=long $(BIN)/python -m pytest tests/faults -k soak

# A service, its Prometheus and every alert, with seconds in place of minutes: nothing else may run meanwhile.
alerts: $(VENV)/.dev
	OMP_NUM_THREADS=1 ALERTS=live $(BIN)/python -m pytest tests/test_dashboards.py

outside: $(VENV)/.dev
	$(BIN)/python -m benchmarks.outside
	$(BIN)/python -m benchmarks.mcp_conformance

# What is drawn and learnt is kept outside the checkout: run again, it goes on where it stopped.
CUTOUT_WORK ?= $(HOME)/.cache/orfeas/train-cutout
DEMO_WORK ?= $(HOME)/.cache/orfeas/train-demo
MINUTES ?= 120

train-demo: $(VENV)/.dev
	$(BIN)/python -m training.train_demo --work $(DEMO_WORK) --minutes $(MINUTES) --checkpoint backend/checkpoints/demo
	$(BIN)/python -m training.make_data --out $(DEMO_WORK)/judged --count 400 --first-seed 1000000000 --occupancy
	$(BIN)/python -m training.evaluate --checkpoint demo --held-out $(DEMO_WORK)/judged --out training

train-cutout: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m training.cutout.train_cutout --work $(CUTOUT_WORK) --minutes $(MINUTES)

# The pip that comes with Python 3.11 takes half as long again.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo "Making the virtual environment $(VENV) with $$($(PYTHON) --version)."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet pip==26.3

# The commands `orfeas` and `orfeas-client` run what lies here.
$(VENV)/.runtime: requirements.txt pyproject.toml orfeas_client/pyproject.toml | $(VENV)/bin/python
	@echo "Installing what requirements.txt names (torch among it): some gigabytes and minutes, once."
	@$(PIP) install --quiet $(COMPILE) -r requirements.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation -e ./orfeas_client -e .
	@touch $@

$(VENV)/.cluster: requirements-cluster.txt $(VENV)/.runtime
	@echo "Installing what requirements-cluster.txt names."
	@$(PIP) install --quiet -r requirements-cluster.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@echo "Installing what requirements-dev.txt names, for the tests."
	@$(PIP) install --quiet $(COMPILE) -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) outputs build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
