# Everything runs in .venv, which the first target that needs it makes; pass PYTHON=... to build it from another Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH := $(VENV)/.bench
DOCS := $(VENV)/.docs
WHEEL := $(VENV)/.wheel
# mypy sees the packages under their real names through links: the folder nuclix/ exists only there.
TYPES := build/mypy
PARALLEL := --numprocesses auto --dist worksteal
RUN_PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all lint types bench docs pictures wheel clean

demo: $(INSTALLED)
	$(BIN)/nuclix demo --out demo

# What must pass before a change lands, one process a core; what is marked `slow` proves more of the same.
test: lint types
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

# Everything: packages built and installed, pages and notebooks, hundreds of kills and damaged files.
test-all: lint types
	$(BIN)/python -m pytest $(PARALLEL) tests tests/crash

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	mkdir -p $(TYPES)/nuclix
	for package in engine ext plugins testing; do ln -sfn ../../../$$package $(TYPES)/nuclix/$$package; done
	MYPYPATH=$(TYPES) $(BIN)/mypy -p nuclix

# A site in build/site that needs neither server nor network; `make pictures` makes its pictures again.
docs: $(DOCS)
	mkdir -p $(TYPES)/nuclix
	for package in engine ext plugins testing; do ln -sfn ../../../$$package $(TYPES)/nuclix/$$package; done
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open build/site/index.html; with the search: $(BIN)/python -m http.server -d build/site"

pictures: $(DOCS)
	$(BIN)/python docs/scripts/make_pictures.py docs/images

# A wheel for any Linux of the same libc or newer: dist/nuclix-*-manylinux*.whl
wheel: $(WHEEL)
	rm -rf build/wheel build/lib.* build/bdist.* && mkdir -p build/wheel dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m auditwheel repair --strip --wheel-dir dist build/wheel/nuclix-*.whl

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

$(DOCS): $(INSTALLED)
	$(RUN_PIP) --editable '.[docs,plots]'
	touch $@

$(WHEEL): $(INSTALLED)
	$(RUN_PIP) --editable '.[wheel]'
	touch $@
