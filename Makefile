# `make demo` sets everything up and runs the quickstart; `make test` sets up and runs the tests.
PYTHON ?= python3
VENV ?= .venv
HARNESS ?= .venv-harness
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 2

.PHONY: demo test test-slow test-harness lint types format clean

demo: $(STAMP)
	$(BIN)/lightning-mono fit quickstart --resume

# Two processes, one thread each: a test file runs in one of them.
test: export OMP_NUM_THREADS = 1
test: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/pytest -m slow

# In an environment of their own: the harnesses bring a hundred packages.
test-harness:
	test -d $(HARNESS) || $(PYTHON) -m venv $(HARNESS)
	$(HARNESS)/bin/python -m pip install --quiet --editable '.[dev,lm-eval,lmms-eval]'
	$(HARNESS)/bin/python -P -m pytest -m harness tests/harness

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) types

# callbacks/, kernels/ and recipes/ are parts of lightning_mono but stand beside it; a type checker
# sees them in their places through links.
types: $(STAMP)
	rm -rf build/types && mkdir -p build/types/lightning_mono
	cd build/types/lightning_mono && ln -s ../../../lightning_mono/* ../../../callbacks \
		../../../kernels ../../../recipes .
	cd build/types && MYPYPATH=. $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p lightning_mono

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
