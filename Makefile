# Two commands do everything on a fresh machine: `make demo` and `make test`. Both make .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow lint clean

demo: .venv/installed
	$(BIN)/mgc baseline
	$(BIN)/mgc embed --model musicnn
	$(BIN)/mgc probe --model musicnn
	$(BIN)/mgc compare

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto

slow: .venv/installed
	$(BIN)/python -m pytest -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[demo,dev]"
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build src/*.egg-info
