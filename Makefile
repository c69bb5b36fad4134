# Each target works alone on a fresh machine: what it needs is made first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Where torch's CPU wheels are, if the default index would bring a CUDA build: see README.md, "Install".
TORCH_INDEX ?=
# The versions this was tested with; `make test CONSTRAINTS=` takes the newest instead.
CONSTRAINTS ?= constraints.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

.PHONY: help demo test lint format bench tiny clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(READY_DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(READY)

demo: $(READY)  ## Watch the shipped pair solve problems, then what each arm scores
	$(BIN)/delegate-llm demo

test: $(READY_DEV) lint  ## Lint, type-check and run every test
	$(BIN)/python -m pytest

lint: $(READY_DEV)  ## Lint and type-check only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY_DEV)  ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY_DEV)  ## Speed against transformers' own generation, in one run
	$(BIN)/python -m benchmarks.bench --json bench.json --plot bench.png

tiny: $(READY_DEV)  ## Train the shipped pair again from nothing (about an hour on two cores)
	$(BIN)/python -m delegate_llm.tiny.recipe --out build/tiny

clean:  ## Remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis bench.json bench.png
