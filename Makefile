# Headless. `make` alone lists the targets.
SHELL := /bin/sh
.DEFAULT_GOAL := help
BIN := .venv/bin
DEMO := runs/demo
OUT ?= benchmarks
PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)
export PYTHONPATH := $(CURDIR)
export TOKENIZERS_PARALLELISM := true

.PHONY: help setup setup-dev demo demo-full demo-data test check docs format bench bench-gpu \
	bench-gpu-training bench-gpu-objectives test-gpu sweep clean-demo

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: setup ## prepare Shakespeare and Milton, train both objectives, open the comparison
	@$(BIN)/python scripts/demo.py --runs $(DEMO)

demo-full: setup ## the same with twice the steps, a fine-tuned head and all of the laboratory
	@$(BIN)/python scripts/demo.py --runs $(DEMO)-full --full

test: setup-dev ## run the tests
	$(BIN)/python -m pytest -q -n auto --dist loadfile

check: setup-dev docs ## format, lint, types, layers and documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/contracts/test_layers.py

docs: setup-dev ## build the documentation into build/docs; warnings are errors
	$(BIN)/python -m sphinx -b html -W --keep-going -q -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

format: setup-dev ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup-dev ## measure preparation, loop, losses and training on this CPU; writes benchmarks/*.json
	$(BIN)/python scripts/demo_corpus.py data/demo-text
	$(BIN)/python scripts/bench_prepare.py
	$(BIN)/python scripts/bench_loop.py
	$(BIN)/python scripts/bench_laboratory.py
	$(BIN)/python scripts/bench_objectives.py --preset cpu
	$(BIN)/python scripts/bench_training.py --preset cpu
	$(BIN)/python scripts/bench_decode.py --preset cpu

# Needs torch, lightning and transformers, no .venv: any Python that has them will do. Each of the
# three takes less than nine minutes.
bench-gpu: bench-gpu-training bench-gpu-objectives test-gpu ## measure on a GPU and test there; OUT=FOLDER: where JSON goes

bench-gpu-training:
	$(PYTHON) scripts/bench_training.py --preset gpu --minutes 7 --output $(OUT)/training_gpu.json

bench-gpu-objectives:
	$(PYTHON) scripts/bench_objectives.py --preset gpu --minutes 7 --output $(OUT)/objectives_gpu.json

test-gpu:
	$(PYTHON) -m pytest -q -m gpu $$(grep -rl mark.gpu tests/objectives) tests/training/test_on_a_gpu.py

demo-data: setup data/demo/manifest.json ## prepare the demo's text and nothing else

sweep: demo-data ## tune three objectives, three seeds each, and compare them (minutes)
	$(BIN)/headless sweep --config configs/sweep/quick.yaml

data/demo/manifest.json:
	$(BIN)/python scripts/demo_corpus.py data/demo-text
	$(BIN)/headless prepare --config configs/demo/data.yaml

setup: ## make .venv with the pinned dependencies (once)
	@sh scripts/setup.sh

setup-dev: ## the same with what the tests need
	@sh scripts/setup.sh dev

clean-demo: ## remove what the demo made, not your own runs beside it
	rm -rf $(DEMO)/vanilla $(DEMO)/headless $(DEMO)/headless-lm-head-* $(DEMO)/exported $(DEMO)/report
	rm -rf data/demo data/demo-text data/demo-text.sha256 data/demo-evaluation
