# Asterope. `make` alone lists the targets. Each target does the set-up it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Plain pip with exact pins: an unpinned torch pulls gigabytes of CUDA.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
JOBS ?= 2

.PHONY: help demo test slow check format bench docs clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[torch]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[dev]'
	@touch $@

demo: $(VENV)/.demo ## quantize, run, time and price the shipped model, then price Llama 3.1 70B
	$(BIN)/asterope run --chip maia200 --format mxfp4
	$(BIN)/asterope cost llama-3.1-70b --chip maia200 --format mxfp4 --batch 64 --context 4096

test: $(VENV)/.dev ## run the default tests (6 to 9 minutes on 2 cores)
	$(BIN)/python -m pytest -n $(JOBS) -q

slow: $(VENV)/.dev ## run the tests marked slow
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -q -m slow

check: $(VENV)/.dev ## lint, formatting, types, import floors
	$(BIN)/ruff check src tests benchmarks tools examples
	$(BIN)/ruff format --check src tests benchmarks tools examples
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## format the sources
	$(BIN)/ruff format src tests benchmarks tools examples
	$(BIN)/ruff check --fix src tests benchmarks tools examples

bench: $(VENV)/.dev ## run the speed benchmarks, as ratios within one run
	$(BIN)/python -m benchmarks.speed.bench_interpreter
	$(BIN)/python -m benchmarks.speed.bench_kernels
	$(BIN)/python -m benchmarks.speed.bench_formats
	$(BIN)/python -m benchmarks.speed.bench_engine
	$(BIN)/python -m benchmarks.speed.bench_compile
	$(BIN)/python -m benchmarks.speed.bench_step
	$(BIN)/python -m benchmarks.speed.bench_decode

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
