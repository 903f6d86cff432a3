# Everything runs in .venv, which the first target that needs it makes; pass PYTHON=... to build it from another Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH := $(VENV)/.bench
# mypy sees the packages under their real names through links: the folder nuclix/ exists only there.
TYPES := build/mypy
RUN_PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint types bench clean

demo: $(INSTALLED)
	$(BIN)/nuclix demo --out demo

test: lint types
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	mkdir -p $(TYPES)/nuclix
	for package in engine ext plugins testing; do ln -sfn ../../../$$package $(TYPES)/nuclix/$$package; done
	MYPYPATH=$(TYPES) $(BIN)/mypy -p nuclix

bench: $(BENCH)
	mkdir -p build
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-columns=median,min --benchmark-json=build/bench.json
	$(BIN)/python tests/benchmarks/table.py build/bench.json

clean:
	rm -rf $(VENV) build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	rm -f ext/*.so ext/_*.c
	find engine ext plugins testing tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml setup.py constraints.txt $(wildcard ext/*.pyx ext/*.pxi ext/*.h)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing nuclix and what it needs into $(VENV): a few minutes the first time"
	$(RUN_PIP) --editable '.[test]'
	touch $@

$(BENCH): $(INSTALLED)
	$(RUN_PIP) --editable '.[bench]'
	touch $@
