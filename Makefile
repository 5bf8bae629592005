# `make demo` and `make test` do everything on a fresh machine with Python 3.11-3.13 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.9
DEMO_OUT ?= demo
PYTEST_FLAGS ?=
# Rounds of "make search", each with other examples.
ROUNDS ?= 20
PYTHONS ?= 3.11 3.12 3.13
# One process a core, one thread a process: small tensors only lose by splitting them over threads.
TEST_PROCESSES ?= auto

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all search bench-peers check docs format lock wheel images sbom audit release wheelhouse clean

# Tools that look at the project from outside; they need no place in its environment.
CYCLONEDX := cyclonedx-bom==7.5.0
PIP_AUDIT := pip-audit==2.10.1
TWINE := twine==6.2.0
PIP_LICENSES := pip-licenses==5.5.5
DOCKER ?= docker
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' wsi_ncmi/__init__.py)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

help:  ## Lists the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -q $(PYTEST_FLAGS)

test-all:  ## Runs the test suite on Python 3.11, 3.12 and 3.13 (python3.11 … on the PATH, or pyenv), each in a .venv-VERSION
	for version in $(PYTHONS); do \
	  PYENV_VERSION=$$version $(MAKE) test VENV=.venv-$$version PYTHON=python$$version || exit 1; \
	done

search: $(STAMP)  ## Searches for examples that fail: the property tests with new seeds, ROUNDS times; 2,000 damaged inputs
	for round in $$(seq $(ROUNDS)); do \
	  OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) -q -m hypothesis \
	    --hypothesis-profile search $(PYTEST_FLAGS) || exit 1; \
	done
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fuzz.py --seed $$(date +%s) --keep build/fuzz

bench-peers: $(STAMP)  ## Compares with other programs, each installed for it (PEERS="cucim clam", PEERS_FLAGS): benchmarks/peers/README.md
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks.peers $(PEERS_FLAGS)

check: $(STAMP)  ## Checks format, lint, types, architecture and the documentation site
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile docker/Dockerfile.cpu
	$(BIN)/python -m pytest -q tests/test_architecture.py
	$(MAKE) docs

docs: $(STAMP)  ## Builds the documentation site into build/site, without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

format: $(STAMP)  ## Formats the code and mends what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(STAMP)  ## Renews the locked versions (hashes, no URLs)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --extra all pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --extra all --extra dev --extra docs --extra onnx --extra openvino --extra ray --extra search --extra tensorboard --extra isyntax --extra czi --extra fastslide --extra zoo --constraint requirements.lock pyproject.toml --output-file requirements-dev.lock

wheel: $(STAMP)  ## Builds the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

images: docker/Dockerfile docker/Dockerfile.cpu  ## Builds the container images (DOCKER=podman works too)
	for kind in gpu cpu; do \
	  $(DOCKER) build -f docker/Dockerfile$$(test $$kind = gpu || echo .cpu) -t wsi-ncmi:$$kind \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) . || exit 1; \
	done

# Exactly what an image or a user gets: the locked run-time packages and nothing of the tools beside them.
build/locked/.installed: $(STAMP) requirements.lock
	rm -rf build/locked
	$(BIN)/uv venv --quiet --python $(BIN)/python build/locked
	$(BIN)/uv pip install --quiet --require-hashes --python build/locked/bin/python -r requirements.lock
	@touch $@

sbom: build/locked/.installed  ## Writes dist/sbom.cdx.json (CycloneDX) and dist/licences.md
	mkdir -p dist
	$(BIN)/uv tool run --quiet --from $(CYCLONEDX) cyclonedx-py environment --pyproject pyproject.toml \
	  --output-reproducible --output-file dist/sbom.cdx.json build/locked/bin/python
	$(BIN)/uv tool run --quiet --from $(PIP_LICENSES) pip-licenses --python build/locked/bin/python \
	  --format markdown --order license --output-file dist/licences.md
	@echo "dist/sbom.cdx.json dist/licences.md"

audit: $(STAMP)  ## Looks for known vulnerabilities in the locked packages (needs the network)
	$(BIN)/python docker/audit.py $(BIN)/uv tool run --quiet --from $(PIP_AUDIT) \
	  pip-audit --disable-pip --require-hashes --requirement requirements.lock

release: $(STAMP)  ## Builds, checks and signs a release in dist/ (KEY=FILE, a private SSH key); see RELEASING.md
	@test -f "$(KEY)" || { echo "Name the private SSH key that signs: make release KEY=FILE" >&2; exit 2; }
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/uv tool run --quiet --from $(TWINE) twine check --strict dist/*.whl dist/*.tar.gz
	$(MAKE) sbom
	cd dist && sha256sum * > SHA256SUMS
	ssh-keygen -Y sign -f "$(KEY)" -n wsi-ncmi-release dist/SHA256SUMS

wheelhouse: $(STAMP) wheel  ## Gathers all wheels for an offline install into dist/wheelhouse
	rm -rf dist/wheelhouse
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --dest dist/wheelhouse -r requirements.lock
	cp dist/wsi_ncmi-$(VERSION)-py3-none-any.whl requirements.lock dist/wheelhouse/
	cd dist/wheelhouse && sha256sum * > SHA256SUMS

clean:  ## Removes everything that the other targets made
	rm -rf $(VENV) $(PYTHONS:%=.venv-%) $(DEMO_OUT) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
