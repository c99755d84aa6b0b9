# Every target works as the first command on a bare machine: it makes .venv if that is missing.
PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed
JOBS ?= 2

# For torch, numba and OpenBLAS a processor of the year 2009: other kernels, two doubles a register
# and no fused multiply-add. No test may depend on the processor.
GENERIC := ATEN_CPU_CAPABILITY=default NUMBA_CPU_NAME=x86-64-v2 \
	NUMBA_CPU_FEATURES=+sse4.2,+popcnt OPENBLAS_CORETYPE=Nehalem

.PHONY: train test test-generic test-bounds test-slow coverage lint docs bench reproduce reproduce-fast clean

train: $(INSTALLED)
	$(BIN)/dln-train $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"

test-generic: $(INSTALLED)
	$(GENERIC) $(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"

# the kernels with numba's check of every index; what it compiles is kept apart
test-bounds: $(INSTALLED)
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(CURDIR)/build/bounds \
		$(BIN)/python -m pytest -q -m "not slow" tests/test_kernels.py

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -q -n $(JOBS) -m slow

# every test, and the lines and branches of the package that none of them ran
coverage: $(INSTALLED)
	$(BIN)/python -m pytest -q -n $(JOBS) --cov --cov-report=term --cov-report=html:build/coverage

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# the site, under build/site; a warning, as of a link that leads nowhere, is an error
docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	rm -rf build/docs build/site
	$(BIN)/python docs/site/pages.py build/docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html build/docs build/site

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m benchmarks.engine --quick
	$(BIN)/python -m benchmarks.lightning_overhead
	$(BIN)/python -m benchmarks.cores
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.flows
	$(BIN)/python -m benchmarks.readout --sizes 20x30 40x100
	$(BIN)/python -m benchmarks.latency

reproduce: $(INSTALLED)
	$(BIN)/python -m experiments --scale full $(ARGS)

reproduce-fast: $(INSTALLED)
	$(BIN)/python -m experiments --scale fast $(ARGS)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test,lint]"
	touch $@

clean:
	rm -rf .venv build dist
