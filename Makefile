# `make demo` and `make test` work on a fresh machine: both create the virtual environment if it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test study slow lint clean

demo: $(VENV)/installed
	$(BIN)/mgc baseline
	$(BIN)/mgc embed --model musicnn
	$(BIN)/mgc probe --model musicnn
	$(BIN)/mgc compare

# Every system on Emotify, two hours on two cores; goes on where it was stopped. See configs/study/emotify.toml.
EMOTIFY ?= ../shared/data/emotify/tracks.csv
study: $(VENV)/installed
	$(BIN)/mgc study configs/study/emotify.toml --data $(EMOTIFY)
	$(BIN)/mgc compare --data emotify --best 4 --format markdown > results/emotify/best.md
	$(BIN)/mgc report --data emotify --no-audio
	$(BIN)/mgc report --data emotify --format markdown
	$(BIN)/mgc report --data emotify --format latex
	$(BIN)/mgc report --data emotify --format pdf

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
