# Every target sets itself up: a virtual environment in .venv with the versions of constraints.txt.
#   make demo      encode a real photograph with groups and layers, look into the file, decode parts
#   make test      the test suite
#   make test-all  the same and the slow tests: packaging, a fresh installation, large pictures
#   make lint      ruff, mypy, import directions
#   make bench     rate and speed beside JPEG, WebP and AVIF: make bench PICTURES=folder

PYTHON ?= python3.11
VENV ?= .venv
# Options of pip for torch alone, such as the index of its CPU builds: a tenth of the size.
TORCH ?=
PYTEST_ARGS ?=
PICTURES ?= demo/pictures

BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test test-all lint bench clean

demo: $(READY)
	$(BIN)/python -m vcmcodec.demo demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not gpu" $(PYTEST_ARGS)

test-all: $(READY)
	$(BIN)/python -m pytest -m "not gpu" $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff check vcmcodec tests examples
	$(BIN)/ruff format --check vcmcodec tests examples
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg

bench: $(READY)
	test -d $(PICTURES) || $(BIN)/python -m vcmcodec.demo demo
	$(BIN)/vcm bench rd $(PICTURES)
	$(BIN)/vcm bench speed $(PICTURES)

$(READY): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH) -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable ".[dev,bench]"
	touch $@

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
