# Two commands do everything on a fresh machine: `make demo` and `make test`. Both make .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test study slow lint clean

demo: .venv/installed
	$(BIN)/mgc baseline
	$(BIN)/mgc embed --model musicnn
	$(BIN)/mgc probe --model musicnn
	$(BIN)/mgc compare

# Every system on Emotify, two hours on two cores; goes on where it was stopped. See configs/study/emotify.toml.
EMOTIFY ?= ../shared/data/emotify/tracks.csv
study: .venv/installed
	$(BIN)/mgc study configs/study/emotify.toml --data $(EMOTIFY)
	$(BIN)/mgc compare --data emotify --best 4 --format markdown > results/emotify/best.md
	$(BIN)/mgc report --data emotify --no-audio
	$(BIN)/mgc report --data emotify --format markdown
	$(BIN)/mgc report --data emotify --format latex
	$(BIN)/mgc report --data emotify --format pdf

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto

slow: .venv/installed
	$(BIN)/python -m pytest -m slow --numprocesses auto

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
