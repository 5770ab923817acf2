# `make help` lists the targets. Everything lives in .venv/; nothing is installed outside it,
# except Slurm's own packages by `make test-slurm` where that is allowed.

PYTHON      ?= python3
CONSTRAINTS ?= constraints.txt
PIP_ARGS    ?=
PYTEST_ARGS ?=
COMPARE_ARGS ?=
TEST_WORKERS ?= 2
# Real jobs rest most of the time, waiting for Slurm's timers. Each worker starts a cluster of its own.
SLURM_WORKERS ?= 4
STORAGE_WORKERS ?= 2

VENV  := .venv
READY := $(VENV)/.ready
COMPARE := .venv-compare
# Activating is no more than this; `mpiexec` may come from the environment or from the system.
RUN   := . tools/environment.sh &&

.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-slurm test-slurm-full test-storage test-storage-full lint types bench compare wheel-test clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(READY): pyproject.toml $(CONSTRAINTS) tools/make_environment.sh
	@PYTHON="$(PYTHON)" CONSTRAINTS="$(CONSTRAINTS)" PIP_ARGS="$(PIP_ARGS)" tools/make_environment.sh $(VENV)
	@touch $@

demo: $(READY) ## a real training: warned, killed, damaged, resumed, compared with an uninterrupted one
	@$(RUN) hpcresume demo

test: $(READY) ## the tests (no Slurm needed)
	$(RUN) pytest -n $(TEST_WORKERS) --dist worksteal -m "not slurm and not storage and not full and not alone" $(PYTEST_ARGS)
	$(RUN) pytest -n 0 -rP -m alone $(PYTEST_ARGS) $(if $(PYTEST_ARGS),|| [ $$? -eq 5 ])

test-full: $(READY) ## the tests with every cell of every matrix (an hour; no Slurm needed)
	$(RUN) pytest -m "not slurm and not storage" $(PYTEST_ARGS)

test-slurm: $(READY) ## the tests against a real Slurm that they start themselves
	@tools/install_slurm.sh
	$(RUN) pytest -n $(SLURM_WORKERS) --dist worksteal -m "slurm and not full" $(PYTEST_ARGS)

test-slurm-full: $(READY) ## every test against a real Slurm (half an hour)
	@tools/install_slurm.sh
	$(RUN) pytest -n $(SLURM_WORKERS) --dist worksteal -m slurm $(PYTEST_ARGS)
	$(RUN) HPCRESUME_TEST_SLURM=24.11 pytest -n $(SLURM_WORKERS) --dist worksteal -m slurm tests/slurm/matrix $(PYTEST_ARGS)

test-storage: $(READY) ## the tests on filesystems that they mount themselves: GlusterFS, and a disk that is full (root)
	@tools/install_slurm.sh && tools/install_storage.sh
	$(RUN) pytest -n $(STORAGE_WORKERS) --dist worksteal -m "storage and not full" $(PYTEST_ARGS)

test-storage-full: $(READY) ## every test on such filesystems, and their bandwidth
	@tools/install_slurm.sh && tools/install_storage.sh
	$(RUN) pytest -n 0 -rP -m storage $(PYTEST_ARGS)

lint: $(READY) ## ruff and shellcheck
	$(RUN) ruff check . && ruff format --check . && shellcheck tools/*.sh .ci/run sbatch_templates/*.sbatch

types: $(READY) ## mypy --strict on the package, and on what its users see
	$(RUN) mypy && mypy tests/typing/public_api.py

bench: $(READY) ## save and verified load of 1 GiB against raw I/O and torch.save
	@$(RUN) python benchmarks/save_load.py

$(COMPARE)/.ready: $(READY) tools/make_compare_environment.sh
	@CONSTRAINTS="$(CONSTRAINTS)" PIP_ARGS="$(PIP_ARGS)" tools/make_compare_environment.sh $(COMPARE)
	@touch $@

compare: $(COMPARE)/.ready ## hpcresume and its peers through the same preemptions, for docs/COMPARISON.md (half an hour)
	@tools/install_slurm.sh
	$(RUN) $(COMPARE)/bin/python -m benchmarks.peers $(COMPARE_ARGS)

wheel-test: $(READY) ## build the wheel and run the tests against it in an environment of its own
	$(RUN) tools/wheel_test.sh $(PYTEST_ARGS)

clean: ## remove what the other targets made
	rm -rf $(VENV) $(COMPARE) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find hpcresume tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
