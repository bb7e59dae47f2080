# make demo | test | test-all | test-plain | test-runners | lint | bench: each sets up .venv as far as it needs it, once.
# make demo-oldest | test-oldest | test-newest: the same with other versions, see "Versions" in docs/contributing.md.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt

RESOLUTION = $(if $(findstring oldest,$@),lowest-direct,highest)
UV_INSTALL = $(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --resolution $(RESOLUTION)

# As on a processor with SSE alone, for torch, oneDNN and numba; and the tests of what these compute.
PLAIN := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 NUMBA_CPU_NAME=generic
PLAIN_TESTS := tests/test_units.py tests/models/test_devices.py tests/models/vqgan tests/models/winograd tests/models/clip \
	$(addprefix tests/models/bart/test_,$(addsuffix .py,compiled_decoder panels network decoder sampling generator)) \
	tests/transforms/inference/test_images.py

# Two processes with half of the tests each; the first to end takes over tests of the other. Idle threads do not spin.
PARALLEL := -n 2 --dist worksteal
test test-all test-plain test-oldest test-newest: export OMP_WAIT_POLICY ?= PASSIVE

# uv does not compile what it installs; unless Python may store bytecode, every process compiles torch and Beam again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-oldest test test-all test-plain test-runners test-oldest test-newest lint docs flex-template bench clean

.venv/.runs: setup.py constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing vqbeam into .venv (some minutes, once) ..."
	@$(PIP) -e .
	@touch $@

.venv/.tests: .venv/.runs
	@$(PIP) -e ".[numba,dask,test,test-datasets,bench,dev]"
	@touch $@

# Versions by setup.py alone; constraints.txt only says which uv looks for them.
.venv-oldest/.runs .venv-newest/.runs: setup.py
	@echo "Making $(@D) (some minutes, once) ..."
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet -c constraints.txt uv
	@$(UV_INSTALL) -e .
	@touch $@

.venv-oldest/.tests: .venv-oldest/.runs
	@$(UV_INSTALL) -e ".[numba,test]"
	@touch $@

.venv-newest/.tests: .venv-newest/.runs FORCE  # what is newest changes
	@$(UV_INSTALL) --upgrade -e ".[numba,test,test-datasets]"
	@touch $@

FORCE:

demo: .venv/.runs
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh demo

demo-oldest: .venv-oldest/.runs
	@PATH="$(CURDIR)/.venv-oldest/bin:$$PATH" bash examples/demo.sh .venv-oldest/demo
	@for part in tokens images drawn; do .venv-oldest/bin/vqbeam verify .venv-oldest/demo/$$part || exit; done

test: .venv/.tests
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not runners"

test-all: .venv/.tests
	$(BIN)/python -m pytest $(PARALLEL) -m "slow and not runners"

test-plain: .venv/.tests
	$(PLAIN) $(BIN)/python -m pytest $(PARALLEL) -m "not slow and not runners" $(PLAIN_TESTS)

test-oldest: .venv-oldest/.tests
	.venv-oldest/bin/python -m pytest $(PARALLEL) -m "not slow and not runners"

test-newest: .venv-newest/.tests
	.venv-newest/bin/python -m pytest $(PARALLEL) -m "not slow and not runners"

# Dask comes with the other packages. Prism is built from its Go module, in the version of the Beam that is installed: some minutes, once.
PRISM_SECONDS ?= 300
PRISM_MODULE = github.com/apache/beam/sdks/v2/go/cmd/prism@v$(shell $(BIN)/python -c \
	"import importlib.metadata as m; print(m.version('apache-beam'))")

test-runners: .venv/.tests
	@if ! command -v go >/dev/null; then echo "SKIPPED: the tests on Prism, which Go builds, and there is no go"; \
	elif ! { test -x $(BIN)/prism || GOBIN="$(CURDIR)/$(BIN)" timeout $(PRISM_SECONDS) go install $(PRISM_MODULE); }; then \
	echo "SKIPPED: the tests on Prism, which could not be built in $(PRISM_SECONDS) s; go's reason may be above"; fi
	$(BIN)/python -m pytest -m runners -rs tests/pipelines

lint: .venv/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.tests  # build/docs, without a network; anything that mkdocs warns of is an error
	PYTHONPATH="$(CURDIR)" NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

flex-template: .venv/.runs  # the parameters of deploy/flex_template.json follow the flags
	$(BIN)/python -m deploy.flex_template

bench: .venv/.tests
	$(BIN)/python -m benchmarks.encode
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.generate
	$(BIN)/python -m benchmarks.products
	$(BIN)/python -m benchmarks.generate_pipeline
	$(BIN)/python -m benchmarks.same_images
	$(BIN)/python -m benchmarks.sampling_distance
	$(BIN)/python -m benchmarks.image_path
	$(BIN)/python -m benchmarks.colour_profiles
	$(BIN)/python -m benchmarks.variations
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.planning
	$(BIN)/python -m benchmarks.starting

clean:
	rm -rf demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
