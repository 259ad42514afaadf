# make demo   the embedded default: three methods on the mini suite
# make test   all tests        make test-fast   without the slow ones
PYTHON ?= python3
VENV := .venv
MIN := .venv-min
TORCH := torch==2.13.0
ARGS ?=

.DELETE_ON_ERROR:
.PHONY: demo test test-fast test-min lint format clean

demo: $(VENV)/.installed
	$(VENV)/bin/python run.py $(ARGS)

# One process per core; every test uses one thread.
test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -n auto --dist worksteal $(ARGS)

test-fast: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -m "not slow" $(ARGS)

# The engine on the oldest supported transformers.
test-min: $(MIN)/.installed
	$(MIN)/bin/python -m pytest tests/engine $(ARGS)

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) $(MIN) .pytest_cache .mypy_cache .ruff_cache build *.egg-info

# torch goes first and by itself: with it in place no other package can pull in a newer release.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install $(TORCH)
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[vlmeval,ray,tuning,harness,dev]'
	touch $@

$(MIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(MIN)
	grep -vE '^(transformers|tokenizers|huggingface_hub)==' constraints.txt > $(MIN)/constraints.txt
	$(MIN)/bin/python -m pip install $(TORCH)
	$(MIN)/bin/python -m pip install -c $(MIN)/constraints.txt transformers==5.17.0 pytest pytest-timeout -e .
	touch $@
