# `make demo` and `make test` work on a fresh machine: both create the virtual environment if it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test study readme slow lint clean

demo: $(VENV)/installed
	$(BIN)/mgc demo

# For maintainers: every system on Emotify, two hours on two cores. Resumes where it was stopped. See
# configs/study/emotify.toml. Writes the committed results under results/emotify.
EMOTIFY ?= ../shared/data/emotify/tracks.csv
study: $(VENV)/installed
	$(BIN)/mgc study configs/study/emotify.toml --data $(EMOTIFY)
	$(BIN)/mgc report --data emotify --no-audio
	$(BIN)/mgc report --data emotify --format markdown
	$(BIN)/mgc report --data emotify --format latex
	$(BIN)/mgc report --data emotify --format pdf

# For maintainers: the tables that the README shows, from the runs at hand. Writes docs/tables and README.md.
readme: $(VENV)/installed
	$(BIN)/python scripts/update_readme.py

test: $(VENV)/installed
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto

slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow --numprocesses auto

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[demo,dev]"
	touch $@

clean:
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache build src/*.egg-info
