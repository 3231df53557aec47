# `make PYTHON=...` runs a target with the interpreter it is given and installs nothing.
PYTHON := .venv/bin/python
BASE_PYTHON ?= python3
WORKERS ?= 2
ARGS ?=

ENVIRONMENT := $(if $(filter .venv/bin/python,$(PYTHON)),.venv/.installed)
PYTEST := $(PYTHON) -m pytest
PARALLEL := -n $(WORKERS) --dist loadgroup
# A leg that ran no test (exit status 5) has failed, unless ARGS chose tests of the other leg.
NONE_CHOSEN := $(if $(ARGS),|| test $$? -eq 5)

GPU_WORKERS ?= 4
# Together under 8 minutes: tests interrupted at their limit report what they ran; benchmarks
# start no point after theirs, and going on is the same command again.
GPU_TEST_SECONDS ?= 200
GPU_BENCHMARK_SECONDS ?= 200

# A benchmark slower than this against the last saved run is a failure.
REGRESSION ?= median:25%
COMPARE = $(if $(wildcard .benchmarks/*/*.json),--benchmark-compare --benchmark-compare-fail=$(REGRESSION))

.DELETE_ON_ERROR:
.PHONY: help scaling test test-interpreter test-main gpu aot mutations lint format bench-regressions clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

scaling: $(ENVIRONMENT) ## measure and plot how attention scales on this machine (ARGS="--help")
	$(PYTHON) -m benchmarks scaling $(ARGS)

test: test-interpreter test-main ## run the tests: Triton interpreted, then everything else

test-interpreter: $(ENVIRONMENT) ## run the Triton kernels on the CPU
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) -m interpreter $(ARGS) $(NONE_CHOSEN)

test-main: $(ENVIRONMENT) ## run every test that needs no interpreter
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) $(ARGS) $(NONE_CHOSEN)

gpu: ## run the GPU tests, then the CUDA benchmarks (PYTHON=python3 where torch is installed)
	@$(PYTHON) -c "import sys, torch; torch.cuda.is_available() or sys.exit('make gpu: no CUDA device')"
	status=0; \
	timeout --foreground --signal=INT $(GPU_TEST_SECONDS) \
		$(PYTEST) -n $(GPU_WORKERS) --dist loadgroup -m gpu $(ARGS) || status=$$?; \
	$(PYTHON) -m benchmarks gpu --budget $(GPU_BENCHMARK_SECONDS) || status=$$?; \
	exit $$status

aot: $(ENVIRONMENT) ## compile every kernel for GPUs that need not be here, and print the table
	$(PYTHON) -m tests.aot $(ARGS)

mutations: $(ENVIRONMENT) ## break the code in one place at a time: a named test must notice
	$(PYTHON) -m tests.mutations $(ARGS)

lint: $(ENVIRONMENT) ## check style and formatting
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format: $(ENVIRONMENT) ## fix what lint can fix
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

bench-regressions: $(ENVIRONMENT) ## micro-benchmarks, saved and compared with the last saved run
	$(PYTEST) benchmarks/regressions --benchmark-only --benchmark-autosave $(COMPARE) $(ARGS)

clean: ## remove what was built, never what was measured
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/.installed: requirements.lock setup.py
	@$(BASE_PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('requirements.lock needs Python 3.11 or newer: set BASE_PYTHON')"
	$(BASE_PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.lock
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
