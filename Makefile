# What can be done here; each target installs what it needs first. See README.md.
.PHONY: install install-dev localstripe chromium run test check demo bench chaos
.DELETE_ON_ERROR:

PIP = .venv/bin/python -m pip --quiet --disable-pip-version-check --no-input
export PIP_ROOT_USER_ACTION = ignore
# pytest's arguments, e.g. make test TESTS="tests/service/rules -x"
TESTS = -n logical

install: .venv/installed
	@:

install-dev: .venv/installed-dev
	@:

# Python 3.11 or newer, the oldest of those that the locks were made for first.
.venv/bin/python:
	@for python in python3.11 python3.12 python3.13 python3 python; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  $$python -c 'import ensurepip, venv' 2>/dev/null && { found=$$python; break; }; \
	  bare=$$python; \
	done; \
	if [ -n "$$found" ]; then rm -rf .venv && $$found -m venv .venv; \
	elif [ -n "$$bare" ]; then \
	  echo "amana: $$bare has no venv module; install it (on Debian: apt install python3-venv)" >&2; \
	  exit 1; \
	else echo "amana: Python 3.11 or newer is needed and was not found" >&2; exit 1; fi

.venv/installed: requirements.txt pyproject.toml | .venv/bin/python
	@echo "Installing what amana needs ..."
	@$(PIP) install --require-hashes -r requirements.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/installed-dev: requirements-dev.txt requirements.txt pyproject.toml | .venv/bin/python
	@echo "Installing what amana and its tests need ..."
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch .venv/installed $@

# The fake Stripe of the payment tests, in an environment of its own; without it they are skipped.
localstripe: .venv/localstripe/installed
	@:

LOCALSTRIPE = .venv/localstripe/bin/python -m pip --quiet --disable-pip-version-check --no-input
LOCALSTRIPE_LOCK = requirements-localstripe.txt

.venv/localstripe/installed: $(LOCALSTRIPE_LOCK) | .venv/bin/python
	@echo "Installing the fake Stripe of the tests ..."
	@rm -rf .venv/localstripe && .venv/bin/python -m venv .venv/localstripe
	@sed -n '/^setuptools==/,/[^\]$$/p' $(LOCALSTRIPE_LOCK) > .venv/localstripe/setuptools.txt
	@$(LOCALSTRIPE) install --require-hashes -r .venv/localstripe/setuptools.txt
	@$(LOCALSTRIPE) install --require-hashes --no-build-isolation -r $(LOCALSTRIPE_LOCK)
	@touch $@

# The browser of the page tests, from the system's packages; without one they are skipped.
chromium:
	@for browser in chromium chromium-browser chromium-headless-shell google-chrome; do \
	  command -v $$browser >/dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium for the tests of the pages ..."; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  timeout 120 apt-get update -qq && \
	  timeout 600 apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; \
	else echo "amana: no Chromium here; install it as root (on Debian: apt install chromium)" >&2; \
	  exit 1; fi

run: .venv/installed
	@.venv/bin/amana up

test: .venv/installed-dev
	@.venv/bin/python -m pytest $(TESTS)

check: .venv/installed-dev
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(MAKE) --no-print-directory test

demo: .venv/installed
	@.venv/bin/amana demo

bench: .venv/installed-dev
	@.venv/bin/python -m bench

chaos: .venv/installed-dev
	@.venv/bin/python -m pytest -m chaos tests/chaos
