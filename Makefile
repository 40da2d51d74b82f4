# Two commands are enough: `make demo` and `make test`. Each sets itself up and may be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NODE_READY := tests/node/node_modules/.ready
DIST := dist
SITE := recsys/web/help/index.html

.PHONY: setup demo test check drills release-check format lint types imports docs site client timings screenshots pictures lock audit build clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

# What tests of JavaScript clients need; without npm those tests are skipped (they fail where CI=true).
$(NODE_READY): tests/node/package-lock.json
	! command -v npm > /dev/null || npm ci --prefix tests/node --no-audit --no-fund --loglevel=error
	mkdir -p $(dir $(NODE_READY)) && touch $(NODE_READY)

demo: setup $(SITE)
	$(BIN)/recsys demo $(DEMO_ARGS)

# Three processes, for two cores: some tests wait for servers and clocks. One thread of torch each.
# The many processes that tests start load compiled modules, whatever the shell says.
test: setup $(NODE_READY)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(TEST_ARGS)

check: setup $(NODE_READY) format lint types imports test docs

# What is too heavy for every change: databases stopped and hung, schedulers killed, engines beside
# each other, real servers measured, the wheel installed with all that it needs (from a package
# index). Their short or direct forms are in `make test`; nothing is asserted in neither.
drills: setup $(NODE_READY)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m slow $(TEST_ARGS)

# Before a release: the gate, the drills, then the wheel and the sdist.
release-check: check drills build

format:
	$(BIN)/ruff format --check .

lint:
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports

# What the documents say is held against the code; doctests run with the tests.
docs: site
	$(BIN)/python -m pytest tests/docs

# The documents as a site, for /help; a warning, such as a link that leads nowhere, ends it. The reference
# is made of the code, so it is built from scratch each time; the demo builds it where it is missing or older than the documents.
site: setup
	rm -rf var/help && mkdir -p var
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -q -E -n -W --keep-going -j auto -d var/help/doctrees docs var/help/site
	rm -rf recsys/web/help && mv var/help/site recsys/web/help

$(SITE): $(wildcard docs/*.md) docs/conf.py tools/reference_pages.py | setup
	$(MAKE) site

# Builds the pages' client to where the service serves it, after the types that the API's document gives.
client: setup $(NODE_READY)
	$(BIN)/python tools/client_types.py
	NODE_PATH=tests/node/node_modules node clients/js/build.cjs
	cp clients/js/dist/client.js recsys/web/static/client.js

# Pictures of every page, on a demo's data; fails on a console error, a request to another host, or a
# fault of layout, words or accessibility.
screenshots: setup
	$(BIN)/python tools/screenshots.py $(or $(SCREENSHOTS),var/screenshots)

# The pictures that documents show, of a demo at its own size (PICTURES_ARGS="--demo DIR": of one there is).
pictures: setup
	$(BIN)/python tools/screenshots.py --documents $(PICTURES_ARGS)

# How long the commands of the README take on a fresh clone, which is left in TIMINGS.
timings:
	$(PYTHON) tools/timings.py $(or $(TIMINGS),var/timings) $(TIMINGS_ARGS)

# Rewrites requirements.lock. torch is left out: it is pinned in pyproject.toml alone, without a
# hash, so that the build for the machine at hand is taken.
lock:
	$(BIN)/python tools/lock.py

# Known vulnerabilities of what is locked and of torch, which the lock leaves out; not part of the gate,
# because it asks a server for them. To be run by a clock, where that server can be reached.
audit:
	test -x $(VENV)-audit/bin/pip-audit || ($(PYTHON) -m venv $(VENV)-audit \
		&& $(VENV)-audit/bin/pip install --quiet --disable-pip-version-check pip-audit)
	$(VENV)-audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock
	sed -n 's/^  "\(torch==[^"]*\)",$$/\1/p' pyproject.toml > $(VENV)-audit/torch.txt
	test -s $(VENV)-audit/torch.txt
	$(VENV)-audit/bin/pip-audit --strict --disable-pip --no-deps --requirement $(VENV)-audit/torch.txt

# The wheel and the sdist, with the documents as a site for /help.
build: site
	$(BIN)/python -m build --no-isolation --outdir $(DIST)

clean:
	rm -rf $(VENV) $(VENV)-audit dist build var .mypy_cache .ruff_cache .pytest_cache
