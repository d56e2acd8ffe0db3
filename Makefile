# make demo   the whole path on the built-in collection, report included
# make test   the tests
# make check  style, types, import directions, and that the site of docs/ builds without a warning
# make docs   that site, in build/site
# make bench  start-up, checkpoints, the demo's collection and speed, in benchmarks/speed/ and benchmarks/tables/
# make honesty    three checks that a leak or a faked figure would not pass, on the demo (about 20 minutes)
# make campaign   kills, faults and bad files by the thousand; goes on where it stopped (MINUTES=60)
# make tables     the paper's tables on the benchmark world; hours, goes on where it stopped
# make gpu-check  what only a CUDA device can show
# make bench-gpu  training speed on a CUDA device
# make release-check  wheel and sdist, installed outside this tree, first without extras, then with all (minutes)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MINUTES ?= 60
TABLES ?= tables

.PHONY: install demo test check docs bench bench-gpu honesty campaign tables gpu-check release-check clean
.DELETE_ON_ERROR:

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mgc needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/mgc demo --output demo

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(BIN)/python -m pip install --quiet --no-deps --target build/package .
	MYPYPATH=build/package $(BIN)/mypy -p mgc
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs: check
	@echo "open build/site/index.html"

bench: $(STAMP)
	$(BIN)/python -m benchmarks.speed.startup | tee benchmarks/speed/startup.md
	$(BIN)/python -m benchmarks.speed.checkpoint | tee benchmarks/speed/checkpoint.md
	$(BIN)/python -m benchmarks.tables.demo | tee benchmarks/tables/demo.md
	$(BIN)/python -m benchmarks.speed.run | tee benchmarks/speed/speed.md

honesty: demo
	$(BIN)/python -m benchmarks.tables.honesty --folder demo | tee benchmarks/tables/honesty.md

campaign: $(STAMP)
	$(BIN)/python -m benchmarks.campaigns.reliability run --minutes $(MINUTES)
	$(BIN)/python -m benchmarks.campaigns.reliability report | tee benchmarks/campaigns/reliability.md
	$(BIN)/python -m benchmarks.campaigns.fsync_order | tee benchmarks/campaigns/fsync_order.md

tables: $(STAMP)
	$(BIN)/python -m benchmarks.tables.paper run --folder $(TABLES)
	$(BIN)/python -m benchmarks.tables.paper report --folder $(TABLES) > benchmarks/tables/paper.md

gpu-check: $(STAMP)
	$(BIN)/python -m benchmarks.gpu.check

bench-gpu: $(STAMP)
	$(BIN)/python -m benchmarks.gpu.speed | tee benchmarks/gpu/speed.md

release-check: $(STAMP)
	$(BIN)/python -m benchmarks.release_check

clean:
	rm -rf build dist demo .mypy_cache .ruff_cache .pytest_cache *.egg-info
