# Every chore has a name. `make demo` and `make test` need nothing but Python ≥ 3.10 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null || echo $(BIN)/uv)
# What a user gets by installing the client, and what a developer adds.
DEFAULTS := $(addprefix plugins/flame-,archive-tar archive-zip cache-local fetch-file install-uv serialize-cloudpickle)
MEMBERS := $(wildcard plugins/*) sdk
# Ray is large: its plugin is installed without it, and its tests are skipped, until `make ray`.
LARGE := plugins/flame-engine-ray
USED := $(VENV)/.used
STAMP := $(VENV)/.installed
# Tests run commands of the environment by name: uv, flame, flame-host.
TOOLS := PATH="$(CURDIR)/$(BIN):$$PATH"
CHAOS ?= --minutes 10 --seed 1 2 3 --threads 1 3 8 --foreign-load
INSTALL = $(UV) pip install -q --python $(BIN)/python -c constraints.txt

.PHONY: help demo test check pyright bench faults soak fuzz prove sbom docs serve-docs protos format release version clean ray
.DEFAULT_GOAL := help

help:
	@grep -E '^## ' Makefile | sed 's/## /  make /'

$(BIN)/python:
	@command -v uv >/dev/null 2>&1 || { test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q uv; }; }
	@test -x $(BIN)/python || $(UV) venv -q $(VENV) --python "$$(command -v $(PYTHON))"

$(USED): pyproject.toml constraints.txt $(addsuffix /pyproject.toml,$(DEFAULTS) sdk) | $(BIN)/python
	$(INSTALL) -e . $(addprefix -e ./,$(DEFAULTS) sdk)
	@touch $@

$(STAMP): $(USED) $(addsuffix /pyproject.toml,$(MEMBERS))
	$(INSTALL) --group dev -e . $(addprefix -e ./,$(filter-out $(LARGE),$(MEMBERS))) "flame-host[serve]"
	$(INSTALL) --no-deps $(addprefix -e ./,$(LARGE))
	@touch $@

## demo     run the quickstart example, with what a user installs and nothing else
demo: $(USED)
	@cd examples/quickstart && PYTHONPATH=src ../../$(BIN)/python main.py

## test     the whole test suite
test: $(STAMP)
	$(TOOLS) $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

## ray      install Ray, so that the tests of its engine run too
ray: $(STAMP)
	$(INSTALL) --group ray

## check    lint, format, types, import rules, unit and contract tests; under a minute
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(TOOLS) $(BIN)/python -m pytest -q -n 2 tests/unit tests/architecture plugins

## pyright  the public surface as pyright sees it; some ten seconds
pyright: $(STAMP)
	$(BIN)/python -m pyright -p pyrightconfig.public.json --pythonpath $(BIN)/python

## bench    ours beside the peers and the limits, interleaved
bench: $(STAMP)
	$(TOOLS) env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m benchmarks $(ARGS)

## faults   every way things can go wrong, as a table
faults: $(STAMP)
	$(TOOLS) $(BIN)/python -m pytest -q tests/faults $(ARGS)

## soak     ten minutes of faults, then ten of a mixed load in which no call may get stuck
soak: $(STAMP)
	$(TOOLS) $(BIN)/python tests/faults/soak.py $(ARGS)
	$(TOOLS) $(BIN)/python tests/faults/chaos.py $(CHAOS)

## fuzz     coverage-guided fuzzing of every reader, ten minutes each, one after another; needs atheris (the extra "fuzz")
fuzz: $(STAMP)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(UV) pip install -q --python $(BIN)/python "atheris>=2.3"
	for target in frames tars zips envelopes manifests requirements; do $(BIN)/python tests/property/fuzz.py $$target $(or $(SECONDS),600) || exit 1; done

## sbom     a software bill of materials of what a user installs: dist/sbom.cdx.json (CycloneDX)
sbom: $(STAMP)
	$(UV) venv -q --clear build/sbom --python $(BIN)/python
	$(UV) pip install -q --python build/sbom/bin/python -c constraints.txt . $(addprefix ./,$(MEMBERS)) "flame-host[serve] @ ."
	@rm -f build/sbom/lib/python*/site-packages/*/direct_url.json  # paths of the machine that makes it say nothing
	mkdir -p dist
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible --of JSON -o dist/sbom.cdx.json build/sbom/bin/python
	@rm -rf build/sbom

## docs     build the site into site/, every link checked
docs: $(STAMP)
	$(INSTALL) --group docs
	$(BIN)/python docs/build.py

## serve-docs  the site at http://127.0.0.1:8000, built anew as pages change
serve-docs: docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

## release  build every distribution into dist/, check its contents and metadata, and use it from an empty environment
release: $(STAMP)
	$(TOOLS) $(BIN)/python .ci/release.py dist

## version  write the version V into every distribution:  make version V=0.2.0
version:
	$(PYTHON) .ci/release.py version $(V)

## prove    explore every interleaving of the task path's models; some minutes (ARGS=--traces shows what each old fault leads to)
prove: $(STAMP)
	cd tests/proofs && ../../$(BIN)/python -m model $(ARGS)

## protos   generate the flame.v1 code from its .proto files
protos: $(STAMP)
	$(BIN)/python -m flame_host.wire.generate

## format   rewrite the sources in the house style
format: $(STAMP)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:
	rm -rf $(VENV) dist site .mypy_cache .ruff_cache .pytest_cache
