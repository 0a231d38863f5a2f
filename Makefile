# Everything happens in .venv. Outside this folder only the cache of Horovod's wheel is written. As root, `make test`
# also makes two network namespaces, knet-h1 and knet-h2, and removes them (benchmarks/slow_hosts.sh).
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test test-slow lint format clean
export PATH := $(CURDIR)/.venv/bin:$(PATH)
CPP := $(wildcard $(addprefix cuda_ext/,*.h *.cpp */*.h */*.cuh */*.cpp */*.cu))
LINTERS := mypy imports ruff-check ruff-format clang-format shellcheck check-cuda
# The longest first. Each prints when it has ended; GNU make of macOS cannot do that.
SIDE_BY_SIDE := $(if $(filter output-sync,$(.FEATURES)),--jobs 2 --output-sync=target)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install everything into .venv (about 5 minutes, then seconds)
	@tools/setup.sh

setup-dev:
	@tools/setup.sh --dev

demo: setup ## Train a small network on several ranks and show what it saves
	@.venv/bin/python jobs/demo.py

test: setup-dev ## Run all tests, on one process and on 1 to 4 ranks
	@tools/test.sh

test-slow: setup-dev ## Run the tests that make test leaves out (they measure, or take long)
	@tools/test.sh -m slow

lint: setup-dev ## Run all linters, each to its end
	@$(MAKE) --keep-going --no-print-directory $(SIDE_BY_SIDE) $(addprefix lint-,$(LINTERS))

lint-ruff-check: ; ruff check
lint-ruff-format: ; ruff format --check
lint-mypy: ; mypy
lint-imports: ; lint-imports
lint-clang-format: ; $(if $(CPP),clang-format --dry-run -Werror $(CPP))
lint-shellcheck: ; shellcheck -x tools/*.sh benchmarks/*.sh slurm/*.sh slurm/*.sbatch .ci/run
lint-check-cuda: ; @tools/check_cuda.sh

format: setup-dev ## Fix what can be fixed automatically
	ruff check --fix
	ruff format
	$(if $(CPP),clang-format -i $(CPP))

clean: ## Remove what was built; .venv stays
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f knet_hvd/ops/*.so .venv/stamps/package .venv/stamps/check
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +
