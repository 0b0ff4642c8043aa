# Two commands do everything, set-up included: `make demo` and `make test`.
# Needs: Python 3.11 or 3.12 with venv, and the Python package index for the first run.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
UV_VERSION := 0.13.8
STAMP := $(VENV)/.synced

# Without .pyc files every Ray worker compiles torch and ray at its start (12 s instead of 5).
unexport PYTHONDONTWRITEBYTECODE
# The venv's python runs everything; `uv run` would make each Ray worker start through uv.
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0

.PHONY: setup demo test test-fast test-long lint format lock audit docs docs-serve clean

setup: $(STAMP)

$(STAMP): requirements.lock
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	test -x $(PY) || .uv/bin/uv venv --quiet --python "$$(command -v $(PYTHON))" $(VENV)
	.uv/bin/uv pip sync --quiet --python $(PY) --require-hashes --compile-bytecode requirements.lock
	touch $(STAMP)

lock:
	.uv/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11 \
	    --extra dev pyproject.toml -o requirements.lock

# Asks a service for known advisories of what is locked; says NOT AUDITED where none answers.
audit: setup
	$(PY) .ci/audit.py

# The documentation as a site in site/; docs/recipes.md is made of the classes that check recipes.
docs: setup
	$(PY) -m jobs.fields --markdown > docs/recipes.md
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

docs-serve: setup
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve

demo: setup
	$(PY) -m jobs.demo $(if $(VIDEOS),--videos "$(VIDEOS)")

# Two processes: one for the tests that start Ray, which wait much (tests/conftest.py), one for all others.
test: setup
	$(PY) -m pytest -n 2 --dist loadgroup -m "not gpu and not long"

test-fast: setup
	$(PY) -m pytest -m "not ray and not gpu and not slow and not long"

test-long: setup
	$(PY) -m pytest -m long -s

lint: setup
	$(VENV)/bin/ruff format --check system jobs tests .ci
	$(VENV)/bin/ruff check system jobs tests .ci
	$(VENV)/bin/mypy
	$(VENV)/bin/codespell system jobs tests docs cluster *.md

format: setup
	$(VENV)/bin/ruff format system jobs tests .ci
	$(VENV)/bin/ruff check --fix system jobs tests .ci

clean:
	rm -rf $(VENV) .uv runs site
