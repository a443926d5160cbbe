# Each target makes what it needs, in .venv and .venvs: a fresh machine with make and Python
# 3.10 or newer (with venv) is enough. PYTHON=python3.12 make test picks an interpreter.
PYTHON ?= python3
# How many tests run side by side, which mostly wait; those that assert durations run alone, and
# those of chaos, which load the machine, by two.
JOBS ?= 3
# How often a test of chaos kills a node or an autoscaler, or restarts a broker.
ROUNDS ?= 20

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# One stamp per extra; a change of the metadata installs again.
EXTRA := .venv/extra-
# pytest's exit code for "no test has this marker", which is no failure.
NONE := || [ $$? -eq 5 ]

UNBATCHED := $(addsuffix .py,$(addprefix tests/integration/test_,bad_input cancel_and_limits \
	never_more_than_slots shutdown slots_of_a_node soft_limit stuck_input))

.PHONY: demo test bench unbatched chaos wheel lint docs help
.DEFAULT_GOAL := help

help:
	@echo "make demo    a fleet that follows a real trace, and a fixed one, in two minutes"
	@echo "make test    unit, contract, integration and acceptance tests; unit tests on every Python"
	@echo "make unbatched  the node's tests without batching"
	@echo "make chaos   nodes, brokers and autoscalers killed over and over"
	@echo "make wheel   the wheel installed into an empty environment"
	@echo "make bench   this node beside Celery's pools and its peers"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make docs    the documentation, warnings as errors"

demo: $(EXTRA)demo
	$(BIN)/python -m celery_concurrent.demo

test: $(EXTRA)test
	$(PYTEST) -n $(JOBS) --dist loadfile -m "not timing and not chaos and not wheel"
	$(PYTEST) -m "timing and not chaos and not wheel" $(NONE)
	$(BIN)/python -m tests.matrix

# What concurrent_batching=False promises, which is Celery's and kombu's own way.
unbatched: $(EXTRA)test
	CELERY_CONCURRENT_UNBATCHED=1 $(PYTEST) -n $(JOBS) --dist loadfile \
		-m "not timing and not chaos" -k "not threads and not eventlet" tests/contract $(UNBATCHED)

chaos: $(EXTRA)test
	CELERY_CONCURRENT_CHAOS_ROUNDS=$(ROUNDS) $(PYTEST) -n 2 -m chaos $(NONE)

wheel: $(EXTRA)test
	$(PYTEST) -m wheel

bench: $(EXTRA)benchmarks
	$(BIN)/python -m benchmarks node

# mypy reads the tests and the benchmarks, so it needs what they import.
lint: $(EXTRA)lint $(EXTRA)test $(EXTRA)benchmarks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(EXTRA)docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

$(EXTRA)%: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv
