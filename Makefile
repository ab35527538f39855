# Fresh clone: `make demo` and `make test` set up what they need in .venv and then run.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-full check format models transforms clean lock

demo: $(VENV)/.installed
	$(BIN)/kerasvision demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --cov --cov-report=term

# With the contract over every registered backbone (tests/zoo): an hour or two. Half of its tests are in one file.
test-full: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# README.md's table of models, from the registry and what benchmarks/backbones.py measured.
models: $(VENV)/.installed
	$(BIN)/python tools/models_table.py

# docs/transforms.md and its pictures, from the table of transforms.
transforms: $(VENV)/.installed
	$(BIN)/python tools/transforms_page.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[test]'
	$(PIP) --no-deps mediapipe==1.2.2
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps mediapipe==1.2.2
	touch $@ $(VENV)/.installed-test $(VENV)/.installed

# One file for every supported Python: uv resolves them all at once and adds the markers.
lock: $(VENV)/.installed-dev
	echo '# The exact versions CI runs, on every supported Python. Written by `make lock`.' > constraints.new
	$(BIN)/uv pip compile pyproject.toml --universal --all-extras --python-version 3.10 \
		--no-annotate --no-header --quiet >> constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage*
