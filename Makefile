# Everything a developer or CI does. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Who sets up: PYTHON where one is asked for, else the interpreter of a .venv that works, else python3.
SETUP = $(or $(if $(filter file,$(origin PYTHON)),$(shell $(BIN)/python -c 'import sys; print(sys.executable)' 2>/dev/null)),$(PYTHON))
TESTS := $(BIN)/pytest

# What tests need that is no wheel: $(call wants,a command that finds it,its package in Debian), which root installs.
wants = @{ $(1); } >/dev/null 2>&1 || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	&& apt-get update -qq && apt-get install -y -qq --no-install-recommends $(2); } \
	|| { echo "this wants $(2), on Debian: sudo apt-get install $(2)"; exit 1; }

# An interpreter that is too old to read the program is told here.
set-up = command -v $(SETUP) >/dev/null || { echo "there is no $(SETUP); say which Python by make PYTHON=..."; exit 1; }; \
	$(SETUP) -c 'import sys; sys.exit(sys.version_info < (3, 9))' || { echo "khesht needs Python 3.11 to 3.14; say which by make PYTHON=..."; exit 1; }; \
	$(SETUP) scripts/setup.py $(VENV) $(1)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev run test check fmt lint types imports gen gen-check baseline lock \
	test-unit test-contract test-integration test-mesh test-crash test-root test-live test-browser test-redis check-clients check-containers bench dist clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

run: setup ## Start the whole mesh, in the foreground, until Ctrl-C
	@exec $(BIN)/khesht up

setup: ## Install what the mesh runs on, into .venv
	@$(call set-up,runtime)
setup-dev: ## Install what tests and checks need besides
	@$(call set-up,dev)

test: check test-mesh test-crash ## Run all that needs nothing but Python; CI runs test-redis, test-browser, check-clients and check-containers too

check: gen-check lint types imports test-unit test-contract test-integration ## All but the whole mesh

test-unit: setup-dev ## Rules alone, without any I/O
	$(TESTS) tests/unit
test-contract: setup-dev ## What contracts, settings, routes and documents promise each other
	$(TESTS) tests/contract
test-integration: setup-dev ## Services in one process, with a real PostgreSQL and a scripted provider
	$(TESTS) tests/integration
test-mesh: setup-dev ## The whole mesh as `make run` starts it, over REST, SSE and gRPC
	$(TESTS) tests/mesh
test-crash: setup-dev ## Processes that die at every place that matters, and the books after it
	$(TESTS) tests/crash
test-root: setup-dev ## What is otherwise for root, who may not run PostgreSQL: homes, processes, `khesht up`
	$(TESTS) tests/integration/local tests/mesh/test_up.py
test-live: setup-dev ## Real providers, by the keys you have set; it costs a fraction of a cent
	$(TESTS) tests/live
test-browser: setup-dev ## The pages of the documents, and OpenAI's package, in a real Chromium
	$(call wants,command -v chromium || command -v google-chrome,chromium)
	$(TESTS) tests/browser
test-redis: setup-dev ## Limits that replicas share, with a real Redis, also one that fails
	$(call wants,command -v redis-server,redis-server)
	$(TESTS) tests/redis
check-clients: setup-dev ## Unmodified clients, each installed as its users do, and the examples for them
	$(TESTS) tests/clients
check-containers: setup-dev ## The Dockerfile's steps and the compose file, as far as it goes without an engine
	$(call wants,docker compose version || command -v docker-compose,docker-compose)
	$(call wants,command -v redis-server,redis-server)
	$(TESTS) tests/containers

fmt: setup-dev ## Format the code and the contracts
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format -w --path protos

lint: setup-dev ## Check form: Python by ruff, contracts by buf
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/buf format --diff --exit-code --path protos
	$(BIN)/buf lint gen/khesht.binpb --config buf.yaml
	$(BIN)/buf breaking gen/khesht.binpb --against gen/released.binpb --config buf.yaml

types: setup-dev ## Check types, strictly
	$(BIN)/mypy

imports: setup-dev ## Check who imports whom
	$(BIN)/lint-imports

gen: setup-dev ## Make gen/ from the contracts
	$(BIN)/python scripts/gen.py
	$(BIN)/python -m scripts.openapi

gen-check: gen ## Fail when gen/ is not what the contracts say
	@test -z "$$(git status --porcelain gen)" || { git status --short gen; echo "run make gen and commit gen/"; exit 1; }

baseline: gen ## At a release: what clients may rely on from now
	cp gen/khesht.binpb gen/released.binpb

lock: setup-dev ## Write the locks anew from requirements*.in
	$(BIN)/python scripts/lock.py

bench: setup-dev ## Measure CPU per request and token, beside a FastAPI program
	$(BIN)/python -m bench

dist: setup-dev ## Build the client's wheel: typed stubs, and nothing of the mesh
	$(BIN)/python scripts/dist.py

clean: ## Remove what was built; KHESHT_HOME stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
