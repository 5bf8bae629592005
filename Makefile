# `make demo` and `make test` do everything on a fresh machine with Python 3.11-3.13 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.9
DEMO_OUT ?= demo
PYTEST_FLAGS ?=
# One process a core, one thread a process: small tensors only lose by splitting them over threads.
TEST_PROCESSES ?= auto

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format lock wheel clean

help:  ## Lists the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Makes the virtual environment .venv with the locked versions

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "wsi-ncmi needs Python 3.11, 3.12 or 3.13; call make with PYTHON=python3.11, for example." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "Python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --compile-bytecode --require-hashes --python $(BIN)/python -r requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: $(STAMP)  ## Runs the main job on a synthetic cohort, offline, and ends with a report to open
	$(BIN)/wsi-ncmi demo --out $(DEMO_OUT)

test: $(STAMP)  ## Runs the test suite
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -q $(PYTEST_FLAGS)

check: $(STAMP)  ## Checks format, lint, types and architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(STAMP)  ## Formats the code and mends what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(STAMP)  ## Renews the locked versions (hashes, no URLs)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --extra dev --extra onnx --extra openvino --extra tensorboard --constraint requirements.lock pyproject.toml --output-file requirements-dev.lock

wheel: $(STAMP)  ## Builds the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## Removes everything that the other targets made
	rm -rf $(VENV) $(DEMO_OUT) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
