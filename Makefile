# `make quick` runs the embedded benchmark and writes its PDF; `make test` checks everything.
# Each makes .venv first, from the versions pinned in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := ditbench harness methods report studies tests

.PHONY: quick test release lint format clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch torchvision
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

quick: .venv/installed
	$(BIN)/ditbench run quick

test: .venv/installed lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

release: .venv/installed
	$(BIN)/python -m pytest -m release

lint: .venv/installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf .venv build *.egg-info
