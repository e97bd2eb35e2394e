# Only Python >= 3.11, make and a package index are assumed.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
OUT ?= artifacts
ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup test lint notebooks docs dist audit reproduce clean

help:
	@echo "make reproduce            weights, pilot, posterior, rule, figures and report, in $(OUT)/"
	@echo "  OUT=artifacts/recorded ARGS=--recorded   the same from recorded answers, without the model"
	@echo "make test                 all tests; EXTRAS=dev,parity also those against torch"
	@echo "make notebooks            executes the notebooks and keeps their outputs; EXTRAS=dev,notebooks"
	@echo "make docs                 documentation site, in build/site/"
	@echo "make dist                 wheel and source distribution, checked, in build/dist/"
	@echo "make lint                 style and types"
	@echo "make audit                known vulnerabilities of the pinned versions; asks a database on the network"
	@echo "make clean                remove the environment and $(OUT)/"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "msjax needs Python >= 3.11; set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $(READY)

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(READY)
	$(BIN)/python notebooks/execute.py

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: $(READY)
	rm -rf build/dist build/lib
	$(BIN)/python -m build --no-isolation --outdir build/dist .
	$(BIN)/twine check --strict build/dist/*
	$(BIN)/check-wheel-contents build/dist/*.whl

audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --no-compile pip-audit
	build/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

reproduce: $(READY)
	$(BIN)/msjax reproduce --out $(OUT) $(ARGS)

clean:
	rm -rf $(VENV) $(OUT) build
