# Everything runs in .venv, which every target sets up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= true

.PHONY: help setup demo test test-slow test-cluster lint types bench clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: $(READY)  ## make .venv with everything, at the versions of constraints.txt

$(READY): pyproject.toml constraints.txt
	@command -v c++ >/dev/null || { echo "a C++ compiler is needed (Debian: apt-get install g++)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## the whole road on text that every machine has: demo/run/report.html
	python -m preprocessing.documentation demo/documentation.jsonl --megabytes 10
	lexmill run configs/quickstart.yaml

test: setup lint types  ## lint, types, import rules, unit, parity and two-rank tests
	lint-imports
	python -m pytest tests -n 2 --dist loadfile

test-slow: setup  ## many kills, learning runs, large corpora, the wheel
	python -m pytest tests -m slow

test-cluster: setup  ## two hosts and Slurm; needs root
	python -m pytest tests -m cluster || test $$? -eq 5

lint: setup
	ruff check .
	ruff format --check .

types: setup
	mypy

bench: setup  ## benchmarks beside their peers, in short
	@for file in benchmarks/*.py; do echo "== $$file"; python $$file --quick || exit 1; done

clean:  ## remove what the demo made
	rm -rf demo
