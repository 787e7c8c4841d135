# make draw: a page to draw digits on.   make fit: train resnet18 on all of MNIST for one epoch.   make test: the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: draw fit test test-all lint docs site notebooks notebook-outputs clean

draw: .venv/.installed
	$(BIN)/digitfast draw

fit: .venv/.installed
	$(BIN)/digitfast fit --arch resnet18 --epochs 1

test: .venv/.installed-dev
	$(BIN)/python -m pytest

test-all: .venv/.installed-dev
	$(BIN)/python -m pytest -m ""

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo

docs: .venv/.installed-dev
	$(BIN)/python -W ignore tools/doc_pages.py

# docs/ and nbs/ as one site in build/site; a broken link is an error.
site: .venv/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Several notebooks run at a time: the digits are unpacked before, and a thread each is enough.
notebooks: .venv/.installed-dev
	$(BIN)/digitfast data
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --timing

# The tutorials' kept outputs, made anew; nbdev-clean takes out what differs from run to run.
notebook-outputs: .venv/.installed-dev
	PYTHONWARNINGS=ignore $(BIN)/jupyter execute --inplace nbs/*.ipynb
	$(BIN)/python tools/tidy_notebooks.py nbs
	$(BIN)/nbdev-clean --fname nbs

.venv/bin/python:
	$(PYTHON) -m venv .venv

# An editable install picks up edited code by itself: only a change of the requirements needs another one.
.venv/.installed: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.installed-dev: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ .venv/.installed

clean:
	rm -rf .venv build dist *.egg-info
