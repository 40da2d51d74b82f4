# Two commands are enough: `make demo` and `make test`. Each sets itself up and may be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test check format lint types imports docs lock build clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

demo: setup
	$(BIN)/recsys demo $(DEMO_ARGS)

# Two processes, one thread of torch each: more of them would wait for each other.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TEST_ARGS)

check: setup format lint types imports test docs

format:
	$(BIN)/ruff format --check .

lint:
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports

# What the documents say is held against the code; doctests run with the tests.
docs:
	$(BIN)/python -m pytest tests/docs

# Rewrites requirements.lock. torch is left out: it is pinned in pyproject.toml alone, without a
# hash, so that the build for the machine at hand is taken.
lock:
	$(BIN)/python tools/lock.py

build: setup
	$(BIN)/python -m build --no-isolation --outdir dist

clean:
	rm -rf $(VENV) dist build var .mypy_cache .ruff_cache .pytest_cache
