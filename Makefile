# The interface to work with tickcast. `make` alone lists the commands.
#
#   FEED     sim (a simulated market; the default), replay (recordings) or live (Binance)
#   REPLAY   FEED=replay: the recordings, REPLAY="a.gz b.gz"
#   TRAIN    recordings to train a model on; run, smoke: default is simulated history; evaluate: the past of SESSION
#   REFERENCE  recordings of the USD-M perpetuals, of the minutes of REPLAY, TRAIN and SESSION together
#   SESSION  evaluate: the held-out recordings to evaluate on
#   LATENCY  evaluate: ms until a prediction is delivered, 0, 100 … 1000; default: 200
#   FEE      evaluate: of one side of a trade, in bp; default: 10, a taker's
#   SYMBOLS  BTCUSDT,ETHUSDT; FEED=sim: or how many; default: all of the feed; cost: likewise; default: those of cdk/config
#   SPEED    FEED=replay: factor of the speed; default: 1
#   SECONDS  smoke: how long to measure; default: 60
#   ONLY     drills: only these, ONLY="drop corrupt"
#   FILE, CARD  import-model: the ONNX file of a model (or one for each instant), its description (docs/model.md)
#   ID       explain: of a prediction, as the API returns it; promote: of a model
#   URL      gaps, explain, screenshots: an API elsewhere, such as one in AWS; KEY is its key
#   ADD, REMOVE  symbols: to serve from now on, or no longer, ADD=SOLUSDT,XRPUSDT REMOVE=ETHUSDT; smoke: while it runs
#   SYMBOL   backfill, retrain: BTCUSDT,ETHUSDT; default: all of the deployment
#   FROM, TO backfill, export: times in UTC, like 2024-08-01 or 2024-08-01T12:00
#   BETWEEN  export: BETWEEN=1 for the receipts between the seconds too, ten times as many
#   OUT      export: a new folder; default: out/export-FROM-TO
#   DAYS     backfill: instead of FROM, today and this many days before; retrain: likewise; default: 1; gaps: 14
#   REPAIR   backfill: REPAIR=1 for the missing trades in the gap ledger
#   DRY      backfill, symbols: DRY=1 prints the plan, or what a change costs, and changes nothing
#   UNTIL    hold: a time in UTC, like 2026-12-24; default: until it is lifted
#   SIGNALS  run, smoke: a YAML file of rules and destinations of signals (docs/signals.md); default: none
#   DESTINATIONS  run, smoke, notify-test: a JSON file of their receivers, kept as secrets of the deployment
#   AWS      symbols, backfill, retrain, export, models, import-model, promote, rollback, hold, lift, notify-test: dev or prod, in the AWS account of your credentials
#   FUZZ_FRAMES, FUZZ_REQUESTS, FUZZ_FACTOR  fuzz: frames, requests, and the factor of property tests' examples
#   FUZZ_SEED  fuzz: the seed of an earlier run, to repeat its frames
#   ENV      rehearse, synth, layers: local, dev or prod; deploy, destroy, diff, doctor, cost: dev or prod; default: dev
#   DETACH   deploy: DETACH=1 does not wait for history and the first model
#   BINANCE_API_KEY_FILE  deploy: a file with the exchange's key (or BINANCE_API_KEY, or typed); none: public mirror
#   CONFIRM  destroy: prod, to destroy prod
#   RATE     cost: ticks a second of each symbol; default: 200
#   REQUESTS cost: requests a second of the API; default: one a minute (a probe)
#   BUILDER, PLATFORM  images: docker, podman or buildah, the first that works; linux/amd64 or linux/arm64
#   BASE, BUILD_OPTIONS  images: another base image; further options of the builder
#   EMULATOR run, smoke, drills, test, …: of AWS, ministack (the default) or localstack; test-localstack: localstack
#   WORKERS  test, test-fast: how many processes run tests that need no running system; default: auto, one per core
#   PYTHON313  EMULATOR=localstack: a Python 3.13, on which LocalStack runs; default: python3.13
#   AWS_ENDPOINT_URL  test-localstack: only the tests of S3, on the emulator that runs there

PYTHON ?= python3
ENVS := local dev prod
GOAL_ENVS := $(if $(filter deploy destroy diff doctor cost,$(MAKECMDGOALS)),dev prod,$(ENVS))
ifeq ($(origin ENV),environment)  # a shell may have an ENV of its own
ENV := $(or $(filter $(GOAL_ENVS),$(ENV)),dev)
endif
ENV ?= dev
$(if $(filter $(GOAL_ENVS),$(ENV)),,$(error ENV is "$(ENV)"; for $(or $(MAKECMDGOALS),help) it should be one of: $(GOAL_ENVS)))
$(if $(filter-out ministack localstack,$(EMULATOR)),$(error EMULATOR is "$(EMULATOR)"; it should be ministack or localstack))
FEED ?= sim
SPEED ?= 1
SECONDS ?= 60
FUZZ_FRAMES ?= 1000000
FUZZ_REQUESTS ?= 10000
FUZZ_FACTOR ?= 10
PYTHON313 ?= python3.13
WORKERS ?= auto

VENV := .venv/bin
MINISTACK := .build/ministack-venv
LOCALSTACK := .build/localstack-venv
CDK := node_modules/.bin/cdk
TARGET = $(if $(filter local,$(ENV)),local,aws)
TYPED := app.py clients cdk layers local operations ingest_ecs lambdas benchmarks examples
HISTORY = $(if $(SYMBOL),--symbols "$(SYMBOL)") $(if $(FROM),--from "$(FROM)") $(if $(TO),--to "$(TO)") \
	$(if $(DAYS),--days "$(DAYS)") $(if $(REPAIR),--repair) $(if $(DRY),--dry) $(if $(AWS),--aws "$(AWS)")
OPTIONS = --feed "$(FEED)" --speed "$(SPEED)" $(if $(SYMBOLS),--symbols "$(SYMBOLS)") \
	$(if $(REPLAY),--replay $(REPLAY)) $(if $(TRAIN),--train $(TRAIN)) \
	$(if $(REFERENCE),--reference $(REFERENCE)) $(if $(SIGNALS),--signals "$(SIGNALS)") \
	$(if $(DESTINATIONS),--destinations "$(DESTINATIONS)")

# Files of tests go to workers as tests/conftest.py groups them.
PARALLEL = --numprocesses $(WORKERS) --maxprocesses 8 --dist loadgroup --no-loadscope-reorder

# SECONDS is a special variable of bash: not exported.
unexport SECONDS
export EMULATOR
export JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION := 1
export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20

.PHONY: help run smoke drills symbols notify-test gaps explain export backfill retrain models screenshots import-model promote rollback hold lift gate-check evaluate bench test test-fast \
	test-localstack fuzz check style types templates rehearse setup layers synth deploy destroy diff doctor cost client images images-lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile
	@sed -n '/^#   [A-Z]/s/^# //p' Makefile

run: setup  ## run the whole system on this machine until Ctrl-C
	@exec $(VENV)/python -m local run $(OPTIONS)

smoke: setup  ## measure a temporary system for SECONDS; the last line is JSON
	@exec $(VENV)/python -m local smoke --seconds $(SECONDS) $(OPTIONS) \
	  $(if $(ADD),--add "$(ADD)") $(if $(REMOVE),--remove "$(REMOVE)")

drills: setup  ## inject faults into a temporary system, reconcile every trade; the last line is JSON
	@exec $(VENV)/python -m local drills $(if $(ONLY),--only $(ONLY))

symbols: setup  ## list the symbols served, or ADD and REMOVE some while the system runs; the last line is JSON
	@exec $(VENV)/python -m local symbols $(if $(ADD),--add "$(ADD)") $(if $(REMOVE),--remove "$(REMOVE)") \
	  $(if $(DRY),--dry) $(if $(AWS),--aws "$(AWS)")

notify-test: setup  ## send a test message to each destination of signals (DESTINATIONS: put them first); the last line is JSON
	@exec $(VENV)/python -m local notify-test $(if $(DESTINATIONS),--destinations "$(DESTINATIONS)") \
	  $(if $(AWS),--aws "$(AWS)")

gaps: setup  ## list missing trades, their causes and the condition of each day, of the running system or the API at URL
	@exec $(VENV)/python -m local gaps $(if $(URL),--url "$(URL)") $(if $(DAYS),--days "$(DAYS)")

explain: setup  ## print a prediction (ID) in words, recompute it from the ticks in S3; the last line is JSON
	@exec $(VENV)/python -m local explain "$(ID)" $(if $(URL),--url "$(URL)")

export: setup  ## write FROM to TO as Parquet: ticks, bars, feature rows, receipts, outcomes; the last line is JSON
	@exec $(VENV)/python -m local export $(if $(FROM),--from "$(FROM)") $(if $(TO),--to "$(TO)") \
	  $(if $(SYMBOLS),--symbols "$(SYMBOLS)") $(if $(BETWEEN),--between) $(if $(OUT),--out "$(OUT)") $(if $(AWS),--aws "$(AWS)")

screenshots: setup  ## take the pictures of the dashboard, in all its conditions, into out/dashboard; README's as well
	@echo "screenshots: of $(or $(URL),a temporary system); needs Chromium"
	@CHROMIUM=required PICTURE=docs/dashboard.png $(VENV)/python -m pytest -q tests/dashboard/test_conditions.py

evaluate: setup  ## evaluate a model on held-out recordings (SESSION); the last line is JSON
	@$(if $(SESSION),,echo 'evaluate: SESSION="a.gz b.gz" names the recordings to evaluate on' >&2; exit 2)
	@exec $(VENV)/python -m local evaluate --session $(SESSION) $(if $(TRAIN),--train $(TRAIN)) \
	  $(if $(REFERENCE),--reference $(REFERENCE)) $(if $(LATENCY),--latency-ms $(LATENCY)) \
	  $(if $(FEE),--fee-bp="$(FEE)")

backfill: setup  ## fetch history into the running system or a temporary one; the last line is JSON
	@exec $(VENV)/python -m local backfill --feed $(FEED) $(HISTORY)

retrain: setup  ## fetch history, train a new model (a challenger), evaluate it; the last line is JSON
	@exec $(VENV)/python -m local retrain --feed $(FEED) $(if $(SYMBOL),--symbols "$(SYMBOL)") \
	  $(if $(DAYS),--days "$(DAYS)") $(if $(AWS),--aws "$(AWS)")

models: setup  ## list the models, the active one (the champion), and why others were refused (the gate's decisions)
	@exec $(VENV)/python -m local models $(if $(AWS),--aws "$(AWS)")

import-model: setup  ## check a model of your own (FILE, CARD), run it in the champion's shadow; the last line is JSON
	@$(if $(and $(FILE),$(CARD)),,echo 'import-model: FILE="model.onnx" CARD=card.json: a model and its description' >&2; exit 2)
	@exec $(VENV)/python -m local import-model --file $(FILE) --card "$(CARD)" $(if $(AWS),--aws "$(AWS)")

promote: setup  ## make the model ID the active one by hand
	@exec $(VENV)/python -m local promote "$(ID)" $(if $(AWS),--aws "$(AWS)")

rollback: setup  ## make the previous model the active one again, and hold it
	@exec $(VENV)/python -m local rollback $(if $(AWS),--aws "$(AWS)")

hold: setup  ## let no training replace the active model, UNTIL then
	@exec $(VENV)/python -m local hold $(if $(UNTIL),--until "$(UNTIL)") $(if $(AWS),--aws "$(AWS)")

lift: setup  ## let the gate decide again
	@exec $(VENV)/python -m local lift $(if $(AWS),--aws "$(AWS)")

gate-check: setup  ## how often the gate errs, by simulation; the last line is JSON
	@exec $(VENV)/python -m local gate-check

bench: setup  ## compare speed with the usual libraries, as ratios; the last line is JSON
	@exec $(VENV)/python -m benchmarks

test: setup  ## run all tests: unit, parity, infra, integration, end to end
	@echo "test: those on the running system, one by one; meanwhile all others"
	@exec $(VENV)/python -m tests $(PARALLEL)

test-fast: setup  ## run the tests without servers and synthesis, in under two minutes
	@echo "test-fast: unit and property tests; no servers, no synthesis"
	@$(VENV)/python -m pytest -q $(PARALLEL) -m "not (fuzz or server or synthesis or slow)"

test-localstack: EMULATOR := $(or $(EMULATOR),localstack)
test-localstack: setup $(if $(AWS_ENDPOINT_URL)$(filter ministack,$(EMULATOR)),,$(LOCALSTACK)/.stamp)
test-localstack:  ## run the tests of S3 and of the running system on LocalStack
	@echo "test-localstack: $(or $(AWS_ENDPOINT_URL:%=S3 of the emulator at %),S3 and the running system on $(EMULATOR))"
	@$(VENV)/python -m pytest -q -m "$(if $(AWS_ENDPOINT_URL),aws,(aws or emulated)) and not fuzz" --emulator \
	  --ignore tests/dashboard  # the page is the same on any emulator

fuzz: setup  ## run random inputs: frames, requests, all property tests with new examples
	@echo "fuzz: $(FUZZ_FRAMES) frames, $(FUZZ_REQUESTS) requests, $(FUZZ_FACTOR)x the examples of property tests"
	@HYPOTHESIS_PROFILE=fuzz FUZZ_FRAMES=$(FUZZ_FRAMES) FUZZ_REQUESTS=$(FUZZ_REQUESTS) \
	  FUZZ_FACTOR=$(FUZZ_FACTOR) FUZZ_SEED=$(FUZZ_SEED) \
	  $(VENV)/python -m pytest -m "fuzz or hypothesis" --timeout 7200 -v

check: style types templates  ## check style, types and template rules
	@echo "check: rehearsal of $(ENVS)"
	@$(VENV)/python -m operations rehearse $(ENVS)

style: setup  ## the part of check that ruff does
	@echo "check: ruff"
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .

types: setup  ## the part of check that mypy does
	@echo "check: types"
	@$(VENV)/mypy $(TYPED) tests

templates: layers
	@echo "check: templates"
	@$(VENV)/python -m pytest -q tests/infra

rehearse: setup  ## find what an account would refuse of ENV; the last line is JSON
	@echo "rehearse: $(ENV)"
	@$(VENV)/python -m operations rehearse $(ENV)

setup: .venv/.stamp $(MINISTACK)/.stamp node_modules/.stamp $(if $(filter localstack,$(EMULATOR)),$(LOCALSTACK)/.stamp)  ## install virtual environments and the CDK CLI

layers: setup  ## build the functions' layers: ENV=local for the emulator, otherwise for Lambda
	@$(VENV)/python -m layers.build --target $(TARGET)

synth: layers  ## synthesise the CloudFormation templates of ENV into cdk.out
	@echo "synth: $(ENV)"
	@$(CDK) synth --quiet --context env=$(ENV)

deploy: setup  ## deploy ENV into the AWS account of your credentials; repeated, it continues where it broke off
	@exec $(VENV)/python -m operations deploy $(ENV) $(if $(DETACH),--detach)

destroy: setup  ## delete ENV from the account, and all it leaves that costs
	@exec $(VENV)/python -m operations destroy $(ENV) $(if $(CONFIRM),--confirm "$(CONFIRM)")

diff: setup  ## show what a deployment of ENV would change
	@exec $(VENV)/python -m operations diff $(ENV)

doctor: setup  ## report the state of ENV in the account, and what to do
	@exec $(VENV)/python -m operations doctor $(ENV)

client: setup  ## build the wheel of the Python client into out/client
	@mkdir -p out/client
	@$(VENV)/python -m flit_core.wheel clients/python --outdir out/client >/dev/null
	@echo "client: $$(ls -t out/client/*.whl | head -1); its README is clients/python/README.md"

cost: setup  ## what ENV (dev, prod) costs a month, by line and if …; the last line is JSON
	@exec $(VENV)/python -m operations cost --env $(ENV) $(if $(RATE),--rate "$(RATE)") \
	  $(if $(SYMBOLS),--symbols "$(SYMBOLS)") $(if $(REQUESTS),--requests "$(REQUESTS)")

images: setup  ## build the images of ingest and migrations with docker, podman or buildah
	@exec $(VENV)/python -m operations images $(if $(BUILDER),--builder "$(BUILDER)") $(if $(BASE),--base "$(BASE)") \
	  $(if $(PLATFORM),--platform "$(PLATFORM)") $(if $(BUILD_OPTIONS),--options="$(BUILD_OPTIONS)")

images-lock: setup  ## write the hashes of the packages in the images, after a change of their requirements
	@exec $(VENV)/python -m operations images-lock

clean:  ## delete build output and local state, models included; keep installed packages
	rm -rf .local .build/layers cdk.out .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/.stamp: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "setup: needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); set PYTHON= to another one" >&2; \
	  exit 1; }
	@echo "setup: installing Python packages into .venv (a minute or two)"
	@$(PYTHON) -m venv .venv
	@$(VENV)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	@touch $@

$(MINISTACK)/.stamp: local/requirements-ministack.txt .venv/.stamp
	@echo "setup: installing the AWS emulator into $(MINISTACK)"
	@mkdir -p .build
	@$(VENV)/python -m venv $(MINISTACK)
	@$(MINISTACK)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Its server of Kinesis comes from npm, so that nothing is fetched when it starts.
$(LOCALSTACK)/.stamp: local/requirements-localstack.txt | node_modules/.stamp
	@$(PYTHON313) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null || { \
	  echo "setup: LocalStack needs Python 3.13, and $(PYTHON313) is none: install one (apt install python3.13-venv" \
	    "on Debian 13 and Ubuntu 25, or pyenv install 3.13, or uv python install 3.13) and set" \
	    "PYTHON313=/path/to/python3.13; without one use EMULATOR=ministack" >&2; \
	  exit 1; }
	@echo "setup: installing LocalStack into $(LOCALSTACK) (a minute or two)"
	@mkdir -p .build
	@$(PYTHON313) -m venv --clear $(LOCALSTACK)
	@$(LOCALSTACK)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@OVERRIDE_IN_DOCKER=0 DISABLE_EVENTS=1 FILESYSTEM_ROOT=$(LOCALSTACK)/files \
	  XDG_CACHE_HOME=$(CURDIR)/$(LOCALSTACK)/files/cache \
	  $(LOCALSTACK)/bin/python -m localstack.cli.lpm install kinesis-mock >/dev/null
	@touch $@

node_modules/.stamp: package.json package-lock.json
	@node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' 2>/dev/null || { \
	  echo "setup: needs Node.js 20 or newer, found: $$(node --version 2>&1)" >&2; exit 1; }
	@echo "setup: installing the CDK CLI into node_modules"
	@npm ci --silent --no-audit --no-fund
	@touch $@
