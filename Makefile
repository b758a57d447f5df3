# make demo    a context-extension experiment from nothing, about ten minutes on two cores
# make test    the tests that a person runs by habit
# make help    everything else
# Every target sets up .venv by itself; nothing but Python >= 3.11 (with venv) and make has to be there.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)
EXTRAS ?= dev
BIN := .venv/bin
JOBS ?= 2
WORKDIR ?= runs/demo

.PHONY: help setup demo test test-devices test-processes test-slurm test-slow lint format clean

help:
	@echo 'make demo          train, extend, evaluate and report: runs/demo/figures/'
	@echo 'make test          fast tests, under ten minutes on two cores'
	@echo 'make test-devices  tests on eight devices, which the CPU plays: three minutes'
	@echo 'make test-processes  tests of several processes that are one run: two minutes'
	@echo 'make test-slurm    the same as a job of a real Slurm, if slurm-wlm and munge are installed: two minutes'
	@echo 'make test-slow     tests that take minutes or kill processes'
	@echo 'make lint          ruff and the import contracts'
	@echo 'make format        ruff format'
	@echo 'make clean         remove .venv and caches in this directory (runs/ stays)'

setup: .venv/ready

.venv/ready: setup.cfg pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed; none was found. Try: make PYTHON=/path/to/python3'; exit 2; }
	@echo 'Setting up .venv (about a minute)'
	@rm -rf .venv
	@'$(PYTHON)' -m venv .venv || { rm -rf .venv; echo 'The venv module is missing; on Debian: apt install python3-venv'; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch .venv/ready

demo: .venv/ready
	@$(BIN)/python -m lcx sweep --sweep=experiments/001_extend_small/sweep.py:demo --workdir='$(WORKDIR)'
	@$(BIN)/python -m lcx report '$(WORKDIR)'

test: .venv/ready
	@$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadscope -m 'not slow and not faults and not devices and not processes and not slurm'

test-devices: .venv/ready
	@$(BIN)/python -m pytest --numprocesses=$(JOBS) -m devices

test-processes: .venv/ready
	@$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadscope -m 'processes and not slow and not faults'

test-slurm: .venv/ready
	@$(BIN)/python -m pytest -m slurm

test-slow: .venv/ready
	@$(BIN)/python -m pytest -m 'slow or faults'

lint: .venv/ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --config setup.cfg

format: .venv/ready
	@$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
