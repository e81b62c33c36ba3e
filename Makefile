PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for processes most of the time.
SIDE_BY_SIDE := --numprocesses 4 --dist loadfile
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt

.PHONY: demo test fuzz lint bench docs clean

demo: $(VENV)/.installed  ## see it work
	@$(BIN)/execbroker demo

test: $(VENV)/.installed-dev  ## run the tests
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not alone"
	@$(BIN)/python -m pytest -m alone
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not alone" --store postgres
	@$(BIN)/python -m pytest -m alone --store postgres

fuzz: $(VENV)/.installed-dev  ## try 20,000 requests that fit the API, or do not
	@EXECBROKER_FUZZ=10000 $(BIN)/python -m pytest tests/contract/test_fuzz.py tests/web/test_fuzzed.py

lint: $(VENV)/.installed-dev  ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

bench: $(VENV)/.installed-dev  ## measure it
	@$(BIN)/python benchmarks/bench.py

docs: $(VENV)/.installed-dev  ## check the docs against the code
	@$(BIN)/python -m pytest tests/docs

clean:  ## start again from nothing
	@rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed; name it by "make PYTHON=/path/to/python3.11"' >&2; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	else $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --quiet --python $@ install pip; fi || \
		{ rm -rf $(VENV); echo 'A virtual environment cannot be made: pip is needed (on Debian and Ubuntu: python3-pip)' >&2; exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing execbroker into $(VENV) ...'
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo 'Installing what the tests need ...'
	@$(PIP) --editable '.[dev]'
	@touch $@
