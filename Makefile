# Everything here sets itself up in .venv inside the checkout.
# On a fresh Debian or Ubuntu this needs python3 (3.11 or newer), python3-venv, make and git, and nothing else.

# Debian's own Python is faster than most builds from source, so it comes before what PATH has, where it is new enough.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell /usr/bin/python3 -c '$(NEW_ENOUGH)' 2>/dev/null && echo /usr/bin/python3 || echo python3)
PYTHONS ?= 3.11 3.12 3.13
DIR ?= build/man
VENV := .venv
BIN := $(VENV)/bin
# What Realize needs to run, and that with linters and test tools.
INSTALLED := $(VENV)/.realize-stamp
STAMP := $(VENV)/.realize-dev-stamp
DOCS_STAMP := $(VENV)/.realize-docs-stamp

# Thousands of processes start from here, a few of them in the demo: where this is set, each compiles anew all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv demo test suite test-all lint typecheck format soak campaigns mutants bench reference diagrams docs man deb pins try-systemd release clean

help:  ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

venv: $(STAMP)  ## make the virtual environment in .venv, with linters and test tools

# The pip of $(PYTHON) where it has one: to put another one into the environment takes as long as all that Realize needs.
# Compat mode, or twistd does not find the plugin of an editable install with this layout.
PIP_SERVES_OTHERS := import sys, pip; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (22, 3))
PIP = if $(PYTHON) -c '$(PIP_SERVES_OTHERS)' 2>/dev/null; then set -- $(PYTHON) -m pip --python $(BIN)/python; \
    else $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --default-pip >/dev/null; set -- $(BIN)/python -m pip; fi; \
    "$$@" --quiet --disable-pip-version-check install --config-settings editable_mode=compat

$(INSTALLED): setup.cfg setup.py pyproject.toml
	@$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { echo "realize needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1); name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "the venv module of $(PYTHON) is missing: install it, on Debian and Ubuntu with: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	@echo "setting up $(VENV) ..."
	@$(PIP) --no-compile -e .
	@touch $@

$(STAMP): $(INSTALLED)
	@echo "adding linters and test tools to $(VENV) ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --default-pip >/dev/null
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat -e '.[dev]'
	@touch $@

$(DOCS_STAMP): $(INSTALLED)
	@echo "adding Sphinx to $(VENV) ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --default-pip >/dev/null
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat -e '.[docs]'
	@touch $@

demo: $(INSTALLED)  ## see the main job work, for real, on this machine
	@$(BIN)/python demo/demo.py

test: lint typecheck suite  ## linters, type checks and the whole test suite

suite: $(STAMP)  ## the test suite alone; ARGS are options of pytest, or files
	$(BIN)/pytest -n 4 --dist worksteal $(ARGS)

test-all:  ## the test suite on each Python that is here, in an environment of its own
	@failed=; for version in $(PYTHONS); do \
	    if ! python$$version -c '' 2>/dev/null; then echo "python$$version is not here: not tried"; continue; fi; \
	    $(MAKE) --no-print-directory suite PYTHON=python$$version VENV=.venv-$$version || failed="$$failed $$version"; \
	done; test -z "$$failed" || { echo "the test suite fails on Python$$failed" >&2; exit 1; }

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

typecheck: $(STAMP)  ## mypy
	$(BIN)/mypy

format: $(STAMP)  ## put the format right, and what can be mended by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

soak: $(STAMP)  ## all that `make test` leaves out for its length, `make campaigns` too
	$(BIN)/pytest -n 2 -m soak
	$(BIN)/pytest -n 2 -m "not soak" --hypothesis-profile=soak $$(grep -l "@given" tests/test_*.py)
	$(MAKE) campaigns
	$(BIN)/python -m campaigns.standing

campaigns: $(STAMP)  ## kill, cut off, fill and unplug 2,000 times; needs root, see docs/campaigns.md; ARGS are its options
	$(BIN)/python -m campaigns $(ARGS)

mutants: $(STAMP)  ## put small faults into the code and see whether the tests notice; see docs/testing.md; ARGS are its options
	$(BIN)/python -m mutants $(ARGS)

bench: $(STAMP)  ## measure beside other tools, an hour or so; make bench ARGS=--quick is shorter
	$(BIN)/python -m benchmarks.compare $(ARGS)

reference: $(STAMP)  ## write docs/commands.md anew, from the options of the programs, and where each page leads
	$(BIN)/python -m release.reference

diagrams: $(STAMP)  ## draw docs/diagrams anew
	$(BIN)/python -m release.diagrams

docs: $(DOCS_STAMP)  ## the pages as a site in build/docs, with search; a link that leads nowhere is an error
	$(BIN)/python -m release.site build/docs

man: $(STAMP)  ## man pages in DIR (build/man); read one: man -M build/man realize move
	$(BIN)/python -m release.man $(DIR)

deb: $(STAMP)  ## build the Debian package of what is checked out, into dist/; see docs/releasing.md
	@$(BIN)/python -m release.deb

pins:  ## take the newest versions of what the Debian package and the container bring: release/pins.txt
	$(PYTHON) -m venv .venv-pins
	.venv-pins/bin/pip install --quiet --disable-pip-version-check --upgrade pip pip-tools
	.venv-pins/bin/pip-compile --quiet --upgrade --generate-hashes --strip-extras --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links --output-file release/pins.txt setup.py

try-systemd: deb  ## install the package in two booted systems and try all of it; needs root, see docs/testing.md; ARGS are its options
	$(BIN)/python -m trials $(ARGS) "$$(ls -t dist/realize_*.deb | head -n 1)"

release: $(STAMP)  ## commit, tag, build and try a release; see docs/releasing.md; make release VERSION=1.0.0
	@$(BIN)/python -m release --check "$(VERSION)"
	$(MAKE) test
	@$(BIN)/python -m release "$(VERSION)"

clean:  ## remove everything that was made here, .venv included
	rm -rf $(VENV) .venv-* .mutants build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find realize tests twisted demo benchmarks campaigns mutants release trials docs -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache
