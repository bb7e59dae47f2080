# make demo | test | test-all | lint | bench: each sets up .venv as far as it needs it, once.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: demo test test-all lint bench clean

.venv/.runs: setup.py constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing vqbeam into .venv (some minutes, once) ..."
	@$(PIP) -e .
	@touch $@

.venv/.tests: .venv/.runs
	@$(PIP) -e ".[cpu,test,bench]"
	@touch $@

demo: .venv/.runs
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh demo

test: .venv/.tests
	$(BIN)/python -m pytest -m "not slow"

test-all: .venv/.tests
	$(BIN)/python -m pytest -m slow

lint: .venv/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.tests
	$(BIN)/python -m benchmarks.encode
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.generate
	$(BIN)/python -m benchmarks.products
	$(BIN)/python -m benchmarks.generate_pipeline
	$(BIN)/python -m benchmarks.same_images
	$(BIN)/python -m benchmarks.sampling_distance
	$(BIN)/python -m benchmarks.variations
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.memory_generate

clean:
	rm -rf demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
