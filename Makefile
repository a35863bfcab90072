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

.venv-low/ready: setup.cfg pyproject.toml constraints-low.txt
	python3.11 -m venv .venv-low
	.venv-low/bin/pip install --quiet -c constraints-low.txt torch
	.venv-low/bin/pip install --quiet -c constraints-low.txt -e '.[test]'
	@touch $@

test: .venv/ready lint  ## lint and tests; in CI the slow ones and those of the oldest dependencies too
	$(BIN)/pytest -n 2 --dist loadfile $(if $(CI),-m "slow or not slow")
	$(if $(CI),$(MAKE) low)

low: .venv-low/ready  ## tests with the oldest dependencies that setup.cfg allows
	.venv-low/bin/pytest -n 2 --dist loadfile tests/modeling tests/hub tests/test_training.py tests/test_options.py tests/test_adapters.py \
		tests/test_features.py tests/test_streaming.py

RESULTS := lira-results
results: .venv/ready  ## the results of README and their page anew (about 90 minutes); the studies go on where they were killed
	$(BIN)/lira-hf quickstart --seeds 3 --output $(RESULTS)/quickstart
	for study in ablation few-shot noise backbones; do $(BIN)/lira-hf study $$study configs/study.yaml --output $(RESULTS)/study || exit 1; done
	$(BIN)/lira-hf export $(RESULTS)/quickstart/model --int8 --data $(RESULTS)/quickstart/data
	$(BIN)/lira-hf certify $(RESULTS)/quickstart/model --data $(RESULTS)/quickstart/data --output $(RESULTS)/certificate
	$(BIN)/python benchmarks/critics.py --study $(RESULTS)/study
	cp $(RESULTS)/quickstart/results.json docs/results/quickstart.json
	cp $(RESULTS)/quickstart/results.png docs/results/quickstart.png
	cp $(RESULTS)/quickstart/model/results/onnx.json $(RESULTS)/certificate/certificate.* docs/results
	cd $(RESULTS)/study && cp ablation.json few_shot.json noise.json backbones.json $(CURDIR)/docs/results
	for seed in 0 1 2; do mkdir -p docs/results/training/seed-$$seed && cp $(RESULTS)/study/runs/$$seed/lira/training_log.json docs/results/training/seed-$$seed; done
	$(BIN)/lira-hf report docs/results --output docs/results/report
	$(BIN)/python -m lira_hf.reporting README.md docs/comparisons.md docs/results

lint: .venv/ready  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/ready  ## speed of the parts, as ratios measured side by side
	$(BIN)/python benchmarks/speed.py

build: .venv/ready  ## wheel and source distribution under dist/
	$(BIN)/python -m build --no-isolation

.PHONY: help quickstart test low results lint bench build
