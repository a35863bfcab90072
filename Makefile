BIN := .venv/bin

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.venv/ready: setup.cfg pyproject.toml constraints.txt
	python3.11 -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip setuptools wheel -c constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[eval,llm,dev]'
	@touch $@

quickstart: .venv/ready  ## the main job, from nothing to a trained model, on the CPU (about 5 minutes)
	$(BIN)/lira-hf quickstart --output lira-quickstart

test: .venv/ready lint  ## lint and tests; in CI the slow ones too
	$(BIN)/pytest -n 2 --dist loadfile $(if $(CI),-m "slow or not slow")

lint: .venv/ready  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/ready  ## speed of the parts, as ratios measured side by side
	$(BIN)/python benchmarks/speed.py

build: .venv/ready  ## wheel and source distribution under dist/
	$(BIN)/python -m build --no-isolation

.PHONY: help quickstart test lint bench build
