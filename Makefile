# Every task of the checkout is one target; all write inside the checkout only.

.DEFAULT_GOAL := help
.PHONY: help demo test test-all bench lint types verilog docs tables lock clean run-set test-set

RUN := . setup/env.sh &&
PYTEST := $(RUN) pytest
DEMO := runs/demo

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run-set:
	@setup/install.sh run

test-set:
	@setup/install.sh test sample
	@setup/simulator.sh
	@setup/cells.sh

demo: run-set ## Llama-2-7B on npu-hbm2: one decode step, one prefill, and the array's Verilog
	@$(RUN) archsim run --model mapping/models/llama-2-7b.json --machine npu-hbm2 \
		--phase decode --batch 16 --kv 512 --formats W8A8KV8 -o $(DEMO)/decode
	@$(RUN) archsim run --model mapping/models/llama-2-7b.json --machine npu-hbm2 \
		--phase prefill --tokens 512 --formats W8A8KV8 -o $(DEMO)/prefill
	@$(RUN) archsim rtl --machine npu-hbm2 --block systolic -o $(DEMO)/verilog

test: lint types ## lint, types and every test but the slow ones
	@$(PYTEST) -n 2

test-all: lint types ## as test, the slow ones included, random examples anew
	@$(RUN) HYPOTHESIS_PROFILE=random pytest -n 2 -m "slow or not slow"

bench: test-set ## speed and memory, as ratios to a baseline measured in the same run
	@$(RUN) python tests/bench.py

lint: test-set ## ruff
	@$(RUN) ruff check

types: test-set ## mypy
	@$(RUN) mypy

verilog: test-set ## the tests of the emitted Verilog
	@$(PYTEST) -m cocotb

docs: test-set ## the commands and examples of the documents
	@$(PYTEST) tests/test_docs.py

tables: test-set ## synthesise the rows of machine/tables/area.csv that are not current
	@$(RUN) python -m hw.synth_table

lock: ## resolve the pins of requirements/ anew (needs uv)
	@setup/lock.sh

clean: ## remove what was built, installed and cached; runs/ stays
	rm -rf .venv .tools .cache build dist *.egg-info .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
