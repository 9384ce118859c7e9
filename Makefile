# The way to work with tickcast. `make` alone lists what there is.
#
#   FEED     sim (a simulated market, the default), replay (recordings), live (Binance)
#   REPLAY   FEED=replay: the recordings, REPLAY="a.gz b.gz"
#   TRAIN    recordings to train the first model on; without, it learns from the simulator
#   SESSION  evaluate: the recordings to judge a model on; it learns from TRAIN or, without, from SESSION's past
#   LATENCY  evaluate: ms until a prediction is delivered, 200 if not told
#   SYMBOLS  BTCUSDT,ETHUSDT; default: all the feed has
#   SPEED    FEED=replay: so many times as fast
#   SECONDS  smoke: how long to measure
#   ONLY     drills: those alone, ONLY="drop corrupt"
#   ID       explain: of a prediction, as its answer had it; promote: of a model
#   URL      gaps, explain: of an API elsewhere, such as one in AWS; KEY is its key
#   SYMBOL   backfill, retrain: BTCUSDT,ETHUSDT; default: all of the system
#   FROM, TO backfill: times in UTC, like 2024-08-01 or 2024-08-01T12:00; or
#   DAYS     backfill: today and so many days before; or (retrain: likewise, 1 if not told)
#   REPAIR   backfill: REPAIR=1 for the trades that the gap ledger misses
#   DRY      backfill: DRY=1 prints the plan and does nothing
#   AWS      backfill, retrain, models, promote, rollback: dev or prod, in the AWS account of your credentials
#   FUZZ_FRAMES, FUZZ_REQUESTS, FUZZ_FACTOR  fuzz: how many frames, requests, and times the usual examples
#   FUZZ_SEED  fuzz: of an earlier run, whose frames are tried again
#   ENV      synth, deploy, layers: local, dev or prod
#   AWS_ENDPOINT_URL  test-localstack: of LocalStack or another emulator that runs already

PYTHON ?= python3
ENVS := local dev prod
ifeq ($(origin ENV),environment)  # a shell may have an ENV of its own
ENV := $(or $(filter $(ENVS),$(ENV)),dev)
endif
ENV ?= dev
$(if $(filter $(ENVS),$(ENV)),,$(error ENV is "$(ENV)"; it should be one of: $(ENVS)))
FEED ?= sim
SPEED ?= 1
SECONDS ?= 60
FUZZ_FRAMES ?= 1000000
FUZZ_REQUESTS ?= 10000
FUZZ_FACTOR ?= 10

VENV := .venv/bin
MINISTACK := .build/ministack-venv
CDK := node_modules/.bin/cdk
TARGET = $(if $(filter local,$(ENV)),local,aws)
TYPED := app.py cdk layers local ingest_ecs lambdas benchmarks
HISTORY = $(if $(SYMBOL),--symbols $(SYMBOL)) $(if $(FROM),--from $(FROM)) $(if $(TO),--to $(TO)) \
	$(if $(DAYS),--days $(DAYS)) $(if $(REPAIR),--repair) $(if $(DRY),--dry) $(if $(AWS),--aws $(AWS))
OPTIONS = --feed $(FEED) --speed $(SPEED) $(if $(SYMBOLS),--symbols $(SYMBOLS)) \
	$(if $(REPLAY),--replay $(REPLAY)) $(if $(TRAIN),--train $(TRAIN))

# SECONDS is a variable that bash counts up by itself; make hands its own on instead.
unexport SECONDS
export JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION := 1
export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20

.PHONY: help run smoke drills gaps explain backfill retrain models promote rollback evaluate bench test test-fast \
	test-localstack fuzz check setup layers synth deploy clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile
	@sed -n '/^#   [A-Z]/s/^# //p' Makefile

run: setup  ## the whole system on this machine, until Ctrl-C
	@exec $(VENV)/python -m local run $(OPTIONS)

smoke: setup  ## the same, headless and aside: measured for SECONDS; the last line is JSON
	@exec $(VENV)/python -m local smoke --seconds $(SECONDS) $(OPTIONS)

drills: setup  ## hurt the system in every way and account for every trade; the last line is JSON
	@exec $(VENV)/python -m local drills $(if $(ONLY),--only $(ONLY))

gaps: setup  ## the trades that are missing in the running system, or in the one at URL, and why
	@exec $(VENV)/python -m local gaps $(if $(URL),--url $(URL))

explain: setup  ## a prediction (ID) in words, and made again from bronze; the last line is JSON
	@exec $(VENV)/python -m local explain "$(ID)" $(if $(URL),--url $(URL))

evaluate: setup  ## what a model is worth on recordings it never saw (SESSION); the last line is JSON
	@$(if $(SESSION),,echo 'evaluate: SESSION="a.gz b.gz" names the recordings to judge on' >&2; exit 2)
	@exec $(VENV)/python -m local evaluate --session $(SESSION) $(if $(TRAIN),--train $(TRAIN)) \
	  $(if $(LATENCY),--latency-ms $(LATENCY))

backfill: setup  ## history into the running system, or one started for it; the last line is JSON
	@exec $(VENV)/python -m local backfill --feed $(FEED) $(HISTORY)

retrain: setup  ## history, a challenger, the gate: the whole loop; the last line is JSON
	@exec $(VENV)/python -m local retrain --feed $(FEED) $(if $(SYMBOL),--symbols $(SYMBOL)) \
	  $(if $(DAYS),--days $(DAYS)) $(if $(AWS),--aws $(AWS))

models: setup  ## the models there are, which is in force, and what the gate said of each
	@exec $(VENV)/python -m local models $(if $(AWS),--aws $(AWS))

promote: setup  ## the model ID put in force by hand
	@exec $(VENV)/python -m local promote "$(ID)" $(if $(AWS),--aws $(AWS))

rollback: setup  ## the model that was in force before, in force again
	@exec $(VENV)/python -m local rollback $(if $(AWS),--aws $(AWS))

bench: setup  ## speed against the usual choices, as ratios of one run; the last line is JSON
	@exec $(VENV)/python -m benchmarks

test: setup  ## all tests: unit, parity, infra, integration, end to end
	@echo "test: all suites; the embedded system starts once, within them"
	@$(VENV)/python -m pytest

test-fast: setup  ## tests that need no server and no synthesis, within two minutes
	@echo "test-fast: unit and property tests; no servers, no synthesis"
	@$(VENV)/python -m pytest -q -m "not (fuzz or server or synthesis or slow)"

test-localstack: setup  ## tests of what asks S3, on the emulator at AWS_ENDPOINT_URL or an embedded one
	@echo "test-localstack: S3 of $(or $(AWS_ENDPOINT_URL),an embedded emulator)"
	@$(VENV)/python -m pytest -q -m "aws and not fuzz" --emulator

fuzz: setup  ## random inputs: frames, requests, and all property tests with other examples each time
	@echo "fuzz: $(FUZZ_FRAMES) frames, $(FUZZ_REQUESTS) requests, $(FUZZ_FACTOR) times the examples of property tests"
	@HYPOTHESIS_PROFILE=fuzz FUZZ_FRAMES=$(FUZZ_FRAMES) FUZZ_REQUESTS=$(FUZZ_REQUESTS) \
	  FUZZ_FACTOR=$(FUZZ_FACTOR) FUZZ_SEED=$(FUZZ_SEED) \
	  $(VENV)/python -m pytest -m "fuzz or hypothesis" --timeout 7200 -v

check: setup layers  ## style, types, and the rules over the templates
	@echo "check: ruff"
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@echo "check: types"
	@$(VENV)/mypy layers/core/python/tickcast
	@$(VENV)/mypy $(TYPED)
	@$(VENV)/mypy tests
	@echo "check: templates"
	@$(VENV)/python -m pytest -q tests/infra

setup: .venv/.stamp $(MINISTACK)/.stamp node_modules/.stamp  ## virtual environments and the CDK's command line

layers: setup  ## the functions' layers: ENV=local for the emulator, else for Lambda
	@$(VENV)/python -m layers.build --target $(TARGET)

synth: layers  ## the CloudFormation templates of ENV, into cdk.out
	@echo "synth: $(ENV)"
	@$(CDK) synth --quiet --context env=$(ENV)

deploy: layers  ## all stacks of ENV (dev, prod) into the AWS account of your credentials
	@$(if $(filter local,$(ENV)),echo "deploy: make run deploys the local environment" >&2 && exit 1,true)
	@echo "deploy: $(ENV)"
	@$(CDK) deploy --all --context env=$(ENV)

clean:  ## forget what was built and what runs left, models included; installed packages stay
	rm -rf .local .build/layers cdk.out .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/.stamp: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "setup: needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); PYTHON= names another" >&2; \
	  exit 1; }
	@echo "setup: Python packages into .venv (a minute or two)"
	@$(PYTHON) -m venv .venv
	@$(VENV)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	@touch $@

$(MINISTACK)/.stamp: local/requirements-ministack.txt .venv/.stamp
	@echo "setup: the emulated AWS into $(MINISTACK)"
	@mkdir -p .build
	@$(VENV)/python -m venv $(MINISTACK)
	@$(MINISTACK)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

node_modules/.stamp: package.json package-lock.json
	@node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' 2>/dev/null || { \
	  echo "setup: needs Node.js 20 or newer, found: $$(node --version 2>&1)" >&2; exit 1; }
	@echo "setup: the CDK's command line into node_modules"
	@npm ci --silent --no-audit --no-fund
	@touch $@
