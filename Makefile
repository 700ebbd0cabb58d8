# Two commands, each enough on a fresh machine with Python 3.11+: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
KILLS ?= 30
N ?= 1000000
# Compiling all modules takes a third of an installation's time; Python compiles those that it imports, once.
unexport PYTHONDONTWRITEBYTECODE  # some images set it: each process would compile PyTorch anew, for seconds
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# Many tests wait: for programs, servers, clocks. Slow files come first: see tests/conftest.py.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test lint types unit docs docs-blocks coverage torture fuzz fuzz-guided clean

quickstart: $(VENV)/.installed
	$(BIN)/nat2deploy quickstart

test: lint  # types take one core for a minute, and tests wait now and then
	$(MAKE) --no-print-directory -j 2 types unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

unit: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-blocks: $(VENV)/.installed-dev  # each command of the documentation as it stands, for an hour or two
	$(BIN)/python -m pytest -s tests/docs/whole_pages.py $(if $(PAGE),-k "$(PAGE)")

coverage: $(VENV)/.installed-dev  # lines and branches, those of started programs too
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(SIDE_BY_SIDE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

torture: $(VENV)/.installed-dev  # faults injected into a whole pipeline
	$(BIN)/python -m torture --kills $(KILLS) --json torture.json

fuzz: $(VENV)/.installed-dev  # damaged input to every parser
	$(BIN)/python -m fuzz --count $(N) --json fuzz.json

fuzz-guided: $(VENV)/.installed-dev  # the same, by the code that inputs reach; what reached more is kept
	$(BIN)/python -m fuzz --guided --count $(N) --corpus fuzz-corpus --json fuzz-guided.json

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml  # at once: a second installation looks through all of the first
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[dev]'
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist site *.egg-info
