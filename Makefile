# Two commands for a fresh clone: `make demo` runs the main job, `make test` everything that CI checks.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint types docker-lint clean

demo: $(VENV)/installed
	$(BIN)/bigopt experiment=demo

# Files in their order: those with few and long tests would otherwise come last, and one core would wait.
test: $(VENV)/installed-dev lint types
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-dev docker-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# hadolint has no build for some machines; it says so and the rest goes on.
docker-lint: $(VENV)/installed-dev
	if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; else echo "hadolint is not here: Dockerfile not linted"; fi

types: $(VENV)/installed-dev
	$(BIN)/mypy

# torch comes first and alone: resolved together with the rest, pip may choose a build with gigabytes of CUDA.
$(VENV)/torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q "$$(grep '^torch==' constraints.txt)"
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml
	$(PIP) install -q -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/torch pyproject.toml
	$(PIP) install -q -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
