# Two commands, each enough on a fresh clone: `make book` and `make test`. CONTRIBUTING.md says the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install test book results notebooks-clean clean

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# One thread per process: two runs side by side are faster than two threads that wait for each other.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export PYTHONHASHSEED ?= 0
# A notebook must find the kernel of .venv, not one installed elsewhere for the user.
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_PLATFORM_DIRS := 1
RGFLOW_PROFILE ?= book
JOBS ?= 2

help:
	@echo "make book             run the notebooks (RGFLOW_PROFILE=quick|book|full, now $(RGFLOW_PROFILE)) and build book/_build/html"
	@echo "make test             ruff, the tests, and the notebooks in the quick profile"
	@echo "make results          run the notebooks, write the numbers they measure to results/, and what shows them"
	@echo "make notebooks-clean  strip outputs from notebooks/"
	@echo "make clean            remove what the others built (not .venv)"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[test,book]' -c constraints.txt
	@touch $@

book: $(INSTALLED)
	RGFLOW_PROFILE=$(RGFLOW_PROFILE) RGFLOW_RESULTS=$(CURDIR)/build/results $(BIN)/python scripts/execute.py --jobs $(JOBS)
	@$(BIN)/python scripts/compare_results.py build/results
	@$(BIN)/python scripts/api.py
	$(BIN)/jupyter-book build . --path-output book --all -W -n --keep-going -q
	@echo "The book: $(CURDIR)/book/_build/html/index.html"

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/python scripts/clean_notebooks.py --check
	RGFLOW_PROFILE=quick RGFLOW_RESULTS=$(CURDIR)/build/results-test $(BIN)/python -m pytest -n $(JOBS) --dist loadfile \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout=600 tests notebooks

results: $(INSTALLED)
	RGFLOW_PROFILE=$(RGFLOW_PROFILE) RGFLOW_RESULTS=$(CURDIR)/results $(BIN)/python scripts/execute.py --jobs $(JOBS)
	$(BIN)/python scripts/badge.py
	$(BIN)/python scripts/models.py
	$(BIN)/python scripts/front.py

notebooks-clean: $(INSTALLED)
	$(BIN)/python scripts/clean_notebooks.py

clean:
	rm -rf book/executed book/_build book/api build .pytest_cache .ruff_cache .hypothesis
