# Needs make and Python 3.11 or newer; everything else is fetched into .venv and ~/.cache/spanstream.
# PYTHON=...  the interpreter for .venv      ARGS=...  more arguments, e.g. make up ARGS="--stack-workers 2"
# TEST_PROCESSES=3  how many run make test's files side by side, each with servers of its own

PYTHON ?=
ARGS ?=
TEST_PROCESSES ?= 3
PY := .venv/bin/python
CODE := topics pipeline agents infra spanstream tests
LOCK_VENV := build/lock-venv
LOCK := $(LOCK_VENV)/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --no-header --quiet pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help venv venv-dev ui demo up minio test test-browser screenshots test-long check lint fmt bench bench-long lock clean

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

venv: ## .venv with the packages of requirements.lock; every target makes it
	@PYTHON="$(PYTHON)" sh infra/make_venv.sh requirements.lock

venv-dev: # .venv with what tests, checks and the build of MinIO need as well
	@PYTHON="$(PYTHON)" sh infra/make_venv.sh requirements-dev.lock

ui: venv ## bundle the page, once; again when its sources change
	@sh infra/make_ui.sh

demo: ui ## the whole way of a span on this machine; ONCE=1: go through it once and end
	@$(PY) -m agents.cli demo $(if $(ONCE),--once) $(ARGS)

up: ui ## run everything on this machine until Ctrl-C
	@$(PY) -m agents.cli up $(ARGS)

minio: venv-dev ## build MinIO, once, 2-4 minutes
	@$(PY) -m infra.minio

test: venv-dev minio lint ## all checks and all tests, on real Kafka and real MinIO
	@$(PY) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

test-browser: venv-dev ui minio ## the page in a real Chromium, over the real stack
	@sh infra/find_chromium.sh
	@$(PY) -m pytest -m browser $(ARGS)

screenshots: venv-dev ui minio ## the pictures of docs/pictures, of the real page
	@sh infra/find_chromium.sh
	@mkdir -p docs/pictures
	@$(PY) -m pytest -q -m browser tests/browser/screenshots.py

test-long: venv-dev minio ## the long tests under faults, and thousands of seeds; writes build/test-long.json; SEEDS=5000
	@$(PY) -m tests.protocol.edits_model
	@$(PY) -m tests.long --seeds $(or $(SEEDS),5000) --processes $$(nproc) $(ARGS)

check: venv-dev lint ## lint, types and the tests that need no servers; under a minute
	@$(PY) -m pytest -q -m "not integration" $(ARGS)

lint: venv-dev ## ruff, mypy and the page's types
	@$(PY) -m ruff check $(CODE)
	@$(PY) -m ruff format --check --quiet $(CODE)
	@$(PY) -m mypy
	@sh infra/make_ui.sh --check

fmt: venv-dev ## format the code, repair what ruff can
	@$(PY) -m ruff check --fix $(CODE)
	@$(PY) -m ruff format $(CODE)

bench: venv-dev ui minio ## measure; prints a table, writes build/bench.json
	@sh infra/find_chromium.sh || true # without it the page's rows are not measured
	@$(PY) -m tests.bench $(ARGS)

bench-long: venv-dev minio ## what the same questions cost with 20 M spans stored in the place of 5 M; half an hour
	@$(PY) -m tests.bench.growth $(ARGS)

# A lock that exists keeps its versions: make lock ARGS=--upgrade for newer ones. The second is a part of the first.
lock: ## resolve pyproject.toml into requirements-dev.lock and requirements.lock: names, versions, hashes, no URLs
	@test -x $(LOCK_VENV)/bin/uv || { python3 -m venv $(LOCK_VENV) && $(LOCK_VENV)/bin/pip install --quiet uv; }
	@$(LOCK) --all-extras -o requirements-dev.lock $(ARGS)
	@cp requirements-dev.lock requirements.lock
	@$(LOCK) --extra demo --extra ui --extra dask -o requirements.lock

clean: ## remove .venv and what was built; the data in .spanstream stays
	@rm -rf .venv build dist pipeline/serve/ui/dist pipeline/serve/ui/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
